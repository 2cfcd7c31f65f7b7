//! The migrations, and the tables that come of them.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use sqlx::{ConnectOptions, Row, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::given::{config, open, with_order};
use crate::store::{
    ExecutionFilter, Page, Sort, Store,
    queries::{search::Found, views},
    schema,
    sqlite::{OpenError, Sqlite},
};
use stepbox_domain::ExecutionStatus;

fn migrations() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../migrations")
}

fn files(folder: &str) -> BTreeSet<String> {
    std::fs::read_dir(migrations().join(folder))
        .unwrap()
        .map(|file| file.unwrap().file_name().into_string().unwrap())
        .collect()
}

#[test]
fn every_migration_is_in_the_list() {
    for (list, folder) in [(schema::SQLITE, "sqlite"), (schema::SQLITE_LOGS, "sqlite_logs")] {
        let listed: BTreeSet<String> =
            list.iter().map(|(number, name, _)| format!("{number:04}_{name}.sql")).collect();
        assert_eq!(listed, files(folder));
        let numbers: Vec<i64> = list.iter().map(|(number, ..)| *number).collect();
        assert_eq!(numbers, (1..=numbers.len() as i64).collect::<Vec<_>>());
    }
}

#[test]
fn migrations_come_in_pairs() {
    if migrations().join("postgres").exists() {
        assert_eq!(files("sqlite"), files("postgres"));
    }
}

#[test]
fn lines_end_in_lf() {
    assert!(schema::SQLITE.iter().chain(schema::SQLITE_LOGS).all(|(_, _, sql)| !sql.contains('\r')));
}

#[tokio::test]
async fn a_database_is_made_once_and_found_again() {
    let directory = TempDir::new().unwrap();
    open(&directory).await.close().await;
    open(&directory).await.close().await;
    let mut connection =
        SqliteConnectOptions::new().filename(directory.path().join("stepbox.db")).connect().await.unwrap();
    let rows = sqlx::query(
        "select m.name as name, group_concat(c.name, ' ') as columns
           from sqlite_schema m join pragma_table_info(m.name) c
          where m.type = 'table' and m.name not like '\\_sqlx%' escape '\\'
          group by m.name order by m.name",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    let tables: Vec<String> = rows
        .iter()
        .map(|row| format!("{}: {}", row.get::<&str, _>("name"), row.get::<&str, _>("columns")))
        .collect();
    insta::assert_snapshot!(tables.join("\n"), @"
    audit: number at_ms actor action execution_id task_name target before after reason hash
    bulk_items: bulk_key number execution_key state why
    bulks: bulk_key bulk_id plan selection state why created_ms ended_ms
    components: digest bytes
    events: seq execution_key name received_ms consumed_by payload
    execution_counts: task_name version status executions
    executions: execution_key execution_id task_name fingerprint status scheduled_ms completed_ms run_key run_index version result error trouble trouble_shape payload
    module_versions: task_name version digest size_bytes compiled_in_ms created_ms waiting manifest
    modules: task_name active_version versions_given
    pause_rules: rule_key rule_id execution_id task_name step_pattern created_ms created_by reason expires_ms deleted_ms deleted_by
    pulse: id beats
    records: seq run_key number body
    runs: run_key execution_key run_index version trigger status created_ms started_ms completed_ms deadline_ms claim_epoch claim_state claim_records crashes due_ms waiting awaited_event triggered_by result error payload
    secrets: name ciphertext created_ms updated_ms
    task_settings: task_name grants limits
    ");
}

#[tokio::test]
async fn a_database_of_a_newer_program_is_refused() {
    let directory = TempDir::new().unwrap();
    let store = open(&directory).await;
    store
        .run_on_writer(
            "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
             values (99, 'later', true, x'00', 0)",
        )
        .await;
    store.close().await;
    let error = Sqlite::open(&config(&directory)).await.err().expect("a refusal");
    assert!(matches!(error, OpenError::Schema { .. }), "{error}");
    assert!(error.to_string().contains("99"), "{error}");
}

#[tokio::test]
async fn the_audit_trail_is_only_ever_added_to() {
    let directory = TempDir::new().unwrap();
    let store: Arc<dyn Store> = Arc::new(open(&directory).await);
    with_order(&store).await;
    store.close().await;
    let mut connection =
        SqliteConnectOptions::new().filename(directory.path().join("stepbox.db")).connect().await.unwrap();
    for sql in ["update audit set actor = 'bob'", "delete from audit"] {
        let refused = sqlx::query(sql).execute(&mut connection).await.unwrap_err().to_string();
        assert!(refused.contains("only ever added to"), "{sql}: {refused}");
    }
    let left: i64 = sqlx::query_scalar("select count(*) from audit where actor = 'ann'")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(left, 1);
}

/// What SQLite looks at for the newest failed executions of a task.
#[tokio::test]
async fn what_went_wrong_of_one_task_is_found_by_its_own_index() {
    let directory = TempDir::new().unwrap();
    open(&directory).await.close().await;
    let database = SqliteConnectOptions::new().filename(directory.path().join("stepbox.db"));
    let mut connection = database.connect().await.unwrap();
    let page = Page { sort: Sort::ScheduledAt, descending: true, limit: 20, offset: 0 };
    for (status, is_wrong) in [
        (ExecutionStatus::Failed, true),
        (ExecutionStatus::Cancelled, true),
        (ExecutionStatus::Completed, false),
    ] {
        let filter = ExecutionFilter {
            status: Some(status),
            task: Some("order".to_owned()),
            ..ExecutionFilter::default()
        };
        let query = views::executions_query(&filter, &Found::All, page);
        let explained = sqlx::AssertSqlSafe(format!("explain query plan {}", query.sql().as_str()));
        let rows = sqlx::query(explained).fetch_all(&mut connection).await.unwrap();
        let plan: Vec<String> = rows.iter().map(|row| row.get("detail")).collect();
        let has = plan.iter().any(|line| line.contains("executions_gone_wrong (task_name=? AND status=?)"));
        assert_eq!(has, is_wrong, "{status:?}: {plan:#?}");
    }
}
