//! The tables that tell of executions, as rows and nothing more.

use std::path::Path;

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

pub struct Tables {
    pub executions: Vec<ExecutionRow>,
    /// In the order of arrival.
    pub events: Vec<EventRow>,
}

pub struct ExecutionRow {
    pub id: String,
    pub status: String,
    pub run_key: i64,
    /// By index.
    pub runs: Vec<RunRow>,
}

pub struct RunRow {
    pub key: i64,
    pub index: i64,
    pub status: String,
    pub claim_state: String,
    pub due_ms: Option<i64>,
    /// What it stands at, as JSON.
    pub waiting: Option<String>,
    pub numbers: Vec<i64>,
    pub bodies: Vec<String>,
}

impl RunRow {
    pub fn is_over(&self) -> bool {
        matches!(self.status.as_str(), "completed" | "failed" | "cancelled")
    }
}

pub struct EventRow {
    pub number: i64,
    pub execution: String,
    pub name: String,
    pub payload: String,
    /// The run that has it.
    pub consumed_by: Option<i64>,
}

/// Reads the database of a host that is not running.
pub async fn read(data: &Path) -> Result<Tables, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(data.join("stepbox.db"));
    let mut db = SqliteConnection::connect_with(&options).await?;
    let mut executions = Vec::new();
    let rows = sqlx::query("select execution_key, execution_id, status, run_key from executions order by 1");
    for row in rows.fetch_all(&mut db).await? {
        let runs = sqlx::query(
            "select run_key, run_index, status, claim_state, due_ms, waiting from runs
              where execution_key = $1 order by run_index",
        );
        let mut read = Vec::new();
        for run in runs.bind(row.try_get::<i64, _>("execution_key")?).fetch_all(&mut db).await? {
            let key = run.try_get("run_key")?;
            let records = sqlx::query("select number, body from records where run_key = $1 order by number");
            let (mut numbers, mut bodies) = (Vec::new(), Vec::new());
            for record in records.bind(key).fetch_all(&mut db).await? {
                numbers.push(record.try_get("number")?);
                bodies.push(record.try_get("body")?);
            }
            read.push(RunRow {
                key,
                index: run.try_get("run_index")?,
                status: run.try_get("status")?,
                claim_state: run.try_get("claim_state")?,
                due_ms: run.try_get("due_ms")?,
                waiting: run.try_get("waiting")?,
                numbers,
                bodies,
            });
        }
        executions.push(ExecutionRow {
            id: row.try_get("execution_id")?,
            status: row.try_get("status")?,
            run_key: row.try_get("run_key")?,
            runs: read,
        });
    }
    let mut events = Vec::new();
    let rows = sqlx::query(
        "select seq, execution_id, name, events.payload, consumed_by from events
           join executions using (execution_key) order by seq",
    );
    for row in rows.fetch_all(&mut db).await? {
        events.push(EventRow {
            number: row.try_get("seq")?,
            execution: row.try_get("execution_id")?,
            name: row.try_get("name")?,
            payload: row.try_get("payload")?,
            consumed_by: row.try_get("consumed_by")?,
        });
    }
    db.close().await?;
    Ok(Tables { executions, events })
}
