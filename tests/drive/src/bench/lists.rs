//! Lists and searches among a million executions.
//!
//! The rows are copies of four real executions, written into the database while no host has it.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context as _;
use rusqlite::{Connection, params};
use serde_json::json;

use super::{
    Bench, LOG, Row,
    stats::{ms_since, percentile},
};
use crate::host::{Client, Host, database};

const EXECUTIONS: i64 = 1_000_000;
const TASKS: usize = 10;
const SAMPLES: usize = 300;
/// Enough samples, if fewer.
const SAMPLES_TIME: Duration = Duration::from_secs(5);
/// Less than it can take to look at each of a million.
const LOOKED_AT_EACH: Duration = Duration::from_millis(60);
const INDEXED_MAX: Duration = Duration::from_secs(600);
const WRITERS: usize = 200;
const QUIET_MAX_MS: f64 = 10.0;
const LOADED_MAX_MS: f64 = 25.0;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (host, client) = bench.host("lists").await?;
    for number in 0..TASKS {
        client.upload(&format!("task-{number}"), bench.component.clone()).await?;
    }
    templates(&client).await?;
    let (binary, data) = host.kill_9().await?;
    let begin = Instant::now();
    fill(&database(&data))?;
    println!("  (a million rows written in {:.0} s)", begin.elapsed().as_secs_f64());
    let host = Host::start(&binary, &data, LOG).await?;
    let client = Client::new(&host)?;
    let stats = client.get_json("/api/v1/stats").await?;
    let all: i64 = stats.as_object().context("counts")?.values().filter_map(|count| count.as_i64()).sum();
    anyhow::ensure!(all == EXECUTIONS + TEMPLATES.len() as i64, "the host does not see them all: {stats}");

    let begin = Instant::now();
    until_searched_by_index(&client).await?;
    println!("  (searches have their index after {:.0} s)", begin.elapsed().as_secs_f64());

    let some = client.get_json("/api/v1/executions?status=completed&limit=1&offset=1000").await?;
    let id = some[0]["durableExecutionId"].as_str().context("an id")?.to_owned();
    let lists = [
        ("all", String::new()),
        ("by status (4 in 100)", "status=failed&".to_owned()),
        ("by status (94 in 100)", "status=completed&".to_owned()),
        ("by task (1 in 10)", "taskName=task-3&".to_owned()),
        // The rows are laid so that no execution is both: the worst case.
        ("by task and status, none", "taskName=task-3&status=failed&".to_owned()),
        ("search: a whole id", format!("search={id}&")),
        ("search: part of an id", format!("search={}&", &id[9..23])),
        ("search: in no id", "search=no-such-id&".to_owned()),
    ];
    let mut quiet = Vec::new();
    for (_, list) in &lists {
        quiet.push(p99_ms(&client, list).await?);
    }
    let mut load = WriteLoad::begin(&client);
    load.until_steady().await?;
    let mut loaded = Vec::new();
    for (_, list) in &lists {
        loaded.push(p99_ms(&client, list).await?);
    }
    let steps_per_s = load.end().await?;
    let rows = lists.iter().zip(quiet).zip(loaded).map(|(((what, _), quiet), loaded)| {
        Row::new(format!("newest 20 of 1,000,000, {what}, p99"), quiet, "ms")
            .beside(format!("{loaded:.1} ms while others write {steps_per_s:.0} steps/s"))
            .target(
                format!("below {QUIET_MAX_MS} ms, and {LOADED_MAX_MS} ms while others write"),
                quiet < QUIET_MAX_MS && loaded < LOADED_MAX_MS,
            )
    });
    Ok(rows.collect())
}

/// The index of ids is filled after the executions are there, at leisure: until a search does not
/// look at each of them any more.
async fn until_searched_by_index(client: &Client) -> anyhow::Result<()> {
    let end = Instant::now() + INDEXED_MAX;
    while Instant::now() < end {
        let begin = Instant::now();
        client.get("/api/v1/executions?search=no-such-id").await?;
        if begin.elapsed() < LOOKED_AT_EACH {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    anyhow::bail!("searches have no index after {INDEXED_MAX:?}")
}

async fn p99_ms(client: &Client, list: &str) -> anyhow::Result<f64> {
    let path = format!("/api/v1/executions?{list}limit=20&sortBy=scheduledAt&sortOrder=desc");
    let mut ms = Vec::new();
    let begin = Instant::now();
    while ms.len() < SAMPLES && begin.elapsed() < SAMPLES_TIME {
        let begin = Instant::now();
        client.get(&path).await?;
        ms.push(ms_since(begin));
    }
    ms.sort_by(f64::total_cmp);
    Ok(percentile(&ms, 99))
}

/// What all others are copies of, and how many in a hundred are.
const TEMPLATES: [(&str, u32); 4] = [("completed", 94), ("failed", 4), ("cancelled", 1), ("waiting", 1)];

async fn templates(client: &Client) -> anyhow::Result<()> {
    client.start("completed", "task-0", &json!({ "steps": 2 })).await?;
    client.start("failed", "task-0", &json!({ "steps": 1, "fail_first": true })).await?;
    for id in ["cancelled", "waiting"] {
        client.start(id, "task-0", &json!({ "steps": 1, "wait": true })).await?;
    }
    while client.execution("failed").await?["status"] != "failed" {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    client.result("completed").await?;
    // Suspended, not parked: that is how it lies on the disk for long.
    super::load::until_at_rest(client).await?;
    client.cancel("cancelled").await
}

fn fill(database: &Path) -> anyhow::Result<()> {
    let mut db = Connection::open(database)?;
    db.execute_batch("pragma synchronous = off; pragma cache_size = -262144; pragma temp_store = memory;")?;
    let first_execution = key(&db, "select max(execution_key) + 1 from executions")?;
    let first_run = key(&db, "select max(run_key) + 1 from runs")?;
    let now_ms = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as i64;
    // One a second: some eleven days.
    let begin_ms = now_ms - EXECUTIONS * 1_000;
    let which = {
        let mut up_to = 0;
        let cases = TEMPLATES.map(|(id, of_100)| {
            up_to += of_100;
            format!("when n.i * 37 % 100 < {up_to} then '{id}'")
        });
        format!("case {} end", cases.join(" "))
    };
    let numbers = format!(
        "with recursive n (i) as (select 0 union all select i + 1 from n where i < {EXECUTIONS} - 1)"
    );
    // Scattered as those are that clients make, and the same in each run.
    let id = "printf('%08x-%04x-4%03x-%04x-%012x', n.i * 2654435761 & 0xffffffff, n.i * 40503 & 0xffff,
        n.i & 0xfff, 0x8000 | (n.i * 7919 & 0x3fff), n.i * 25214903917 & 0xffffffffffff)";
    let executions = copies(
        &db,
        "executions",
        &[
            ("execution_key", "?1 + n.i"),
            ("execution_id", id),
            ("task_name", &format!("'task-' || (n.i % {TASKS})")),
            ("scheduled_ms", "?3 + n.i * 1000"),
            ("completed_ms", "case when t.completed_ms is null then null else ?3 + n.i * 1000 + 40 end"),
            ("run_key", "?2 + n.i"),
        ],
    )?;
    let runs = copies(
        &db,
        "runs",
        &[
            ("run_key", "?2 + n.i"),
            ("execution_key", "?1 + n.i"),
            ("created_ms", "?3 + n.i * 1000"),
            ("started_ms", "?3 + n.i * 1000 + 1"),
            ("completed_ms", "case when t.completed_ms is null then null else ?3 + n.i * 1000 + 40 end"),
            ("deadline_ms", "null"),
        ],
    )?;
    let tx = db.transaction()?;
    tx.execute(
        &format!("{numbers} {executions} from n join executions t on t.execution_id = {which}"),
        params![first_execution, first_run, begin_ms],
    )?;
    tx.execute(
        &format!(
            "{numbers} {runs} from n join executions e on e.execution_id = {which}
                                     join runs t on t.run_key = e.run_key"
        ),
        params![first_execution, first_run, begin_ms],
    )?;
    tx.commit()?;
    db.execute_batch("pragma wal_checkpoint(truncate)")?;
    Ok(())
}

fn key(db: &Connection, sql: &str) -> anyhow::Result<i64> {
    Ok(db.query_row(sql, [], |row| row.get(0))?)
}

/// `insert into … select …`: all columns as in the template `t`, but for some.
fn copies(db: &Connection, table: &str, but: &[(&str, &str)]) -> anyhow::Result<String> {
    let mut columns = db.prepare("select name from pragma_table_info(?1)")?;
    let columns =
        columns.query_map([table], |row| row.get::<_, String>(0))?.collect::<Result<Vec<_>, _>>()?;
    let values = columns.iter().map(|column| {
        let but = but.iter().find(|(name, _)| name == column);
        but.map_or_else(|| format!("t.{column}"), |(_, value)| (*value).to_owned())
    });
    let values = values.collect::<Vec<_>>().join(", ");
    Ok(format!("insert into {table} ({}) select {values}", columns.join(", ")))
}

/// Executions of ten steps, as many as the host takes.
struct WriteLoad {
    over: Arc<AtomicBool>,
    done: Arc<AtomicU64>,
    begin: Instant,
    writers: tokio::task::JoinSet<anyhow::Result<()>>,
}

impl WriteLoad {
    fn begin(client: &Client) -> Self {
        let (over, done) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let mut writers = tokio::task::JoinSet::new();
        for writer in 0..WRITERS {
            let (client, over, done) = (client.clone(), over.clone(), done.clone());
            writers.spawn(async move {
                let mut number = 0;
                while !over.load(Ordering::Relaxed) {
                    let id = format!("load-{writer}-{number}");
                    client.run(&id, "bench", &json!({ "steps": 10 })).await?;
                    number += 1;
                    done.fetch_add(10, Ordering::Relaxed);
                }
                Ok(())
            });
        }
        WriteLoad { over, done, begin: Instant::now(), writers }
    }

    /// Waits until its writers have come out of step, and the host has all the instances that it
    /// needs: all of them begin at the same moment.
    async fn until_steady(&mut self) -> anyhow::Result<()> {
        while self.done.load(Ordering::Relaxed) < 10 * WRITERS as u64 * 10 {
            if let Some(writer) = self.writers.try_join_next() {
                writer??;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        Ok(())
    }

    /// Steps per second.
    async fn end(mut self) -> anyhow::Result<f64> {
        let rate = self.done.load(Ordering::Relaxed) as f64 / self.begin.elapsed().as_secs_f64();
        self.over.store(true, Ordering::Relaxed);
        while let Some(writer) = self.writers.join_next().await {
            writer??;
        }
        Ok(rate)
    }
}
