//! 100,000 runs whose sleep ends within the same second, and what clients notice of it.

use std::time::{Duration, Instant, SystemTime};

use anyhow::Context as _;
use rusqlite::Connection;
use serde_json::{Value, json};

use super::{
    Bench, Row,
    load::{start_many, until_at_rest},
    stats::{ms_since, percentile},
};
use crate::host::{Client, database};

const RUNS: usize = 100_000;
const WITHIN_MS: u64 = 1_000;
const LATE_MAX_MS: f64 = 5_000.0;
const API_P99_MAX_MS: f64 = 50.0;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (host, client) = bench.host("timers").await?;
    // How long the starts will take, to say when all of them are due: some before, to see.
    const SOME: usize = 5_000;
    let begin = Instant::now();
    start_many(&client, "some", SOME, |_| json!({ "steps": 0, "sleep_until_ms": u64::MAX >> 20 })).await?;
    until_at_rest(&client).await?;
    let all_take = begin.elapsed() * (RUNS / SOME) as u32;
    let due = SystemTime::now() + all_take.mul_f64(1.5) + Duration::from_secs(5);
    let due_ms = due.duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;

    // In another order than they are started in.
    let moment = |number: usize| (number * 7_919 % RUNS) as u64 * WITHIN_MS / RUNS as u64;
    let load = |number: usize| json!({ "steps": 0, "sleep_until_ms": due_ms + moment(number) });
    start_many(&client, "due", RUNS, load).await?;
    until_at_rest(&client).await?;
    let early = due.duration_since(SystemTime::now());
    tokio::time::sleep(early.context("they were due before all of them slept")?).await;

    let watch = tokio::spawn(until_completed(client.clone(), RUNS));
    let mut took = [const { Vec::new() }; PROBES.len()];
    let mut number = 0;
    while !watch.is_finished() {
        for (probe, took) in PROBES.iter().zip(&mut took) {
            let begin = Instant::now();
            match *probe {
                "start" => client.start(&format!("probe-{number}"), "bench", &json!({ "steps": 1 })).await?,
                "read" => drop(client.execution(&format!("due-{}", number * 7 % RUNS)).await?),
                _ => drop(client.get("/api/v1/executions?status=running&limit=20").await?),
            }
            took.push(ms_since(begin));
        }
        number += 1;
    }
    let stats: Value = watch.await??;
    let (_, data) = host.kill_9().await?;
    let (median, last) = lateness_ms(&data)?;

    let mut all = took.concat();
    all.sort_by(f64::total_cmp);
    let p99 = percentile(&all, 99);
    let each = PROBES.iter().zip(&mut took).map(|(probe, took)| {
        took.sort_by(f64::total_cmp);
        format!("{probe} {:.1}", percentile(took, 99))
    });
    Ok(vec![
        Row::new("100,000 timers within 1 s: the last one is late by", last, "ms")
            .beside(format!(
                "until it is not only woken but completed; half of them {median:.0} ms; {} in all",
                stats["completed"]
            ))
            .target(format!("at most {LATE_MAX_MS} ms"), last <= LATE_MAX_MS),
        Row::new("the API meanwhile, p99", p99, "ms")
            .beside(format!("of {} requests; {}", all.len(), each.collect::<Vec<_>>().join(", ")))
            .target(format!("below {API_P99_MAX_MS} ms"), p99 < API_P99_MAX_MS),
    ])
}

/// What a client does meanwhile, in turns.
const PROBES: [&str; 3] = ["start", "read", "list"];

async fn until_completed(client: Client, runs: usize) -> anyhow::Result<Value> {
    let begin = Instant::now();
    loop {
        let stats = client.get_json("/api/v1/stats").await?;
        // Those of the probes are among them, and may be over sooner.
        if stats["completed"].as_u64().unwrap_or_default() >= runs as u64 {
            let open = client.get_json("/api/v1/executions?search=due-&status=running&limit=1").await?;
            if open.as_array().is_some_and(Vec::is_empty) {
                return Ok(stats);
            }
        }
        anyhow::ensure!(begin.elapsed() < Duration::from_secs(180), "not all were woken: {stats}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

/// From the moment that each asked for until it had completed: half of them, and the last.
fn lateness_ms(data: &std::path::Path) -> anyhow::Result<(f64, f64)> {
    let database = Connection::open(database(data))?;
    let mut late = database.prepare(
        "select completed_ms - json_extract(payload, '$.sleep_until_ms') from executions
          where execution_id like 'due-%'",
    )?;
    let mut late = late.query_map([], |row| row.get::<_, f64>(0))?.collect::<Result<Vec<_>, _>>()?;
    late.sort_by(f64::total_cmp);
    Ok((percentile(&late, 50), percentile(&late, 100)))
}
