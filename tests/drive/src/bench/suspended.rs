//! What runs cost that wait for something far away.

use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use super::{
    Bench, Row,
    load::{start_many, until_at_rest},
    stats::{median, mib},
};
use crate::host::Client;

const RUNS: usize = 100_000;
/// Their starts are timed in parts of this size.
const PART: usize = 10_000;
const ADDED_MAX_MIB: f64 = 100.0;
/// Of what a start costs otherwise. More than one for what it has to do more: a commit that says
/// what it stands at, instead of one that says that it is over.
const COST_OF_USUAL_MAX: f64 = 1.25;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (host, client) = bench.host("suspended").await?;
    let in_a_day = SystemTime::now() + Duration::from_secs(86_400);
    let in_a_day_ms = in_a_day.duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
    let usual = |_: usize| json!({ "steps": 1 });
    let waiting = |number: usize| match number % 2 {
        0 => json!({ "steps": 1, "wait": true }),
        _ => json!({ "steps": 1, "sleep_until_ms": in_a_day_ms }),
    };

    // The high-water mark of 1,000 live runs is the host's own, whoever waits.
    part_ms(&client, "warm", PART, usual).await?;
    let mut usual_ms = Vec::new();
    for round in 0..3 {
        usual_ms.push(part_ms(&client, &format!("usual-{round}"), PART, usual).await?);
    }
    let idle = host.resident_bytes()?;
    let mut waiting_ms = Vec::new();
    for part in 0..RUNS / PART {
        waiting_ms.push(part_ms(&client, &format!("suspended-{part}"), PART, waiting).await?);
    }
    let added = mib(host.resident_bytes()?.saturating_sub(idle));
    let last = waiting_ms.last().copied().unwrap_or(f64::NAN);
    let (usual_ms, each) = (median(&mut usual_ms), median(&mut waiting_ms));
    Ok(vec![
        Row::new("memory that 100,000 suspended runs add", added, "MiB")
            .beside(format!(
                "{:.0} bytes each; {:.0} MiB idle",
                added * f64::from(1 << 20) / RUNS as f64,
                mib(idle)
            ))
            .target(format!("less than {ADDED_MAX_MIB} MiB"), added < ADDED_MAX_MIB),
        Row::new("each, from its start until it is suspended", each * 1_000.0 / PART as f64, "µs")
            .beside(format!(
                "{:.2} times the {:.0} µs of one that does its step at once; {:.2} times for the last 10,000",
                each / usual_ms,
                usual_ms * 1_000.0 / PART as f64,
                last / usual_ms
            ))
            .target("no more than usual", each <= usual_ms * COST_OF_USUAL_MAX),
    ])
}

/// From the first start of so many executions until none of them moves.
async fn part_ms(
    client: &Client,
    name: &str,
    runs: usize,
    load: impl Fn(usize) -> Value,
) -> anyhow::Result<f64> {
    let begin = Instant::now();
    start_many(client, name, runs, load).await?;
    until_at_rest(client).await?;
    Ok(super::stats::ms_since(begin))
}
