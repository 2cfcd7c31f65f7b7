//! What is there when the dust has settled: told by the host, and read from its database.

use std::path::Path;

use sqlx::{Connection as _, Row as _, SqliteConnection, sqlite::SqliteConnectOptions};

use crate::harness::{client::encoded, client::execution_path, *};

/// An execution as the host tells of it.
pub struct Told {
    pub execution: Value,
    /// Oldest first.
    pub runs: Vec<Value>,
    /// The steps of each run.
    pub steps: Vec<Value>,
}

pub async fn told(client: &Client, id: &str) -> Told {
    let path = format!("/admin/v1/executions/{}", encoded(id));
    let runs = client.get(&format!("{path}/runs")).await.expect(200);
    let runs = runs.as_array().expect("an array of runs").clone();
    let mut steps = Vec::new();
    for run in &runs {
        let run = encoded(run["runId"].as_str().expect("an id"));
        let detail = client.get(&format!("{path}/detail?runId={run}")).await.expect(200);
        steps.push(detail["steps"].clone());
    }
    Told { execution: client.get(&execution_path(id)).await.expect(200), runs, steps }
}

/// The whole audit trail, oldest entry first.
pub async fn audit(client: &Client) -> Vec<Value> {
    const PAGE: usize = 100;
    let mut all = Vec::new();
    loop {
        let path = format!("/admin/v1/audit?limit={PAGE}&offset={}", all.len());
        let page = client.get(&path).await.expect(200);
        let page = page.as_array().expect("an array of entries").clone();
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            all.reverse();
            return all;
        }
    }
}

/// The tables that tell of executions.
pub struct Tables {
    pub executions: Vec<ExecutionRow>,
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
    pub numbers: Vec<i64>,
    pub bodies: Vec<String>,
}

pub struct EventRow {
    pub number: i64,
    pub consumed_by: Option<i64>,
}

/// Reads the database of a host that is not running.
pub async fn tables(data: &Path) -> Result<Tables, sqlx::Error> {
    let options = SqliteConnectOptions::new().filename(data.join("stepbox.db"));
    let mut db = SqliteConnection::connect_with(&options).await?;
    let mut executions = Vec::new();
    let rows = sqlx::query("select execution_key, execution_id, status, run_key from executions order by 1");
    for row in rows.fetch_all(&mut db).await? {
        let runs = sqlx::query(
            "select run_key, run_index, status from runs where execution_key = $1 order by run_index",
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
            let (index, status) = (run.try_get("run_index")?, run.try_get("status")?);
            read.push(RunRow { key, index, status, numbers, bodies });
        }
        executions.push(ExecutionRow {
            id: row.try_get("execution_id")?,
            status: row.try_get("status")?,
            run_key: row.try_get("run_key")?,
            runs: read,
        });
    }
    let mut events = Vec::new();
    for row in sqlx::query("select seq, consumed_by from events").fetch_all(&mut db).await? {
        events.push(EventRow { number: row.try_get("seq")?, consumed_by: row.try_get("consumed_by")? });
    }
    db.close().await?;
    Ok(Tables { executions, events })
}
