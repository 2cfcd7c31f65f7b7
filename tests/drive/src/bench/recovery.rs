//! kill -9 in the middle, and how it goes on.

use std::time::{Duration, Instant, SystemTime};

use serde_json::json;

use super::{
    Bench, LOG, Row,
    load::start_many,
    stats::{median, mib, ms_since},
};
use crate::host::{Client, Host};

const RUNS: usize = 10_000;
/// These are in a step when the host is killed; the others stand at a sleep that is over when it
/// is started again, so that all want to go on at the same moment.
const IN_A_STEP: usize = 500;
const FIRST_MOVES_MAX_MS: f64 = 1_000.0;
/// Steps that each of the 10,000 has before it, once it goes on.
const STEPS: u32 = 2;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (mut open, mut moving, mut finished) = (Vec::new(), Vec::new(), Vec::new());
    let (mut peak, mut idle) = (0, 0);
    for round in 0..bench.rounds.min(3) {
        let (host, client) = bench.host(&format!("recovery-{round}")).await?;
        idle = host.resident_bytes()?;
        let due = SystemTime::now() + Duration::from_secs(20);
        let due_ms = due.duration_since(SystemTime::UNIX_EPOCH)?.as_millis() as u64;
        let sleeps = json!({ "steps": STEPS, "sleep_until_ms": due_ms, "tell": true });
        start_many(&client, "sleeps", RUNS - IN_A_STEP, |_| sleeps.clone()).await?;
        let works = json!({ "steps": STEPS, "step_ms": 3_000, "tell": true });
        start_many(&client, "works", IN_A_STEP, |_| works.clone()).await?;
        let stats = client.get_json("/api/v1/stats").await?;
        anyhow::ensure!(stats["completed"] == 0, "some were over before the host was killed: {stats}");
        let (binary, data) = host.kill_9().await?;
        tokio::time::sleep(due.duration_since(SystemTime::now()).unwrap_or_default()).await;

        let begin = Instant::now();
        let host = Host::start(&binary, &data, LOG).await?;
        open.push(ms_since(begin));
        let first = host
            .line(|line| {
                let message = line["fields"]["message"].as_str().unwrap_or_default();
                message.starts_with("begins ") || message.starts_with("goes on ")
            })
            .await?;
        moving.push(first.duration_since(begin).as_secs_f64() * 1_000.0);
        let client = Client::new(&host)?;
        loop {
            let stats = client.get_json("/api/v1/stats").await?;
            if stats["completed"] == RUNS {
                break;
            }
            anyhow::ensure!(begin.elapsed() < Duration::from_secs(120), "not all are over: {stats}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        finished.push(ms_since(begin));
        peak = peak.max(host.peak_resident_bytes()?);
    }
    let moving = median(&mut moving);
    Ok(vec![
        Row::new("kill -9 with 10,000 in flight: first one moves after", moving, "ms")
            .beside(format!("{:.0} ms until the port is open", median(&mut open)))
            .target(format!("at most {FIRST_MOVES_MAX_MS} ms"), moving <= FIRST_MOVES_MAX_MS),
        Row::new("all 10,000 are finished after", median(&mut finished) / 1_000.0, "s")
            .beside(format!("{STEPS} steps each; of {IN_A_STEP}, steps of 3 s"))
            .target("all finish", true),
        Row::new("most memory meanwhile", mib(peak), "MiB")
            .beside(format!("{:.0} MiB idle; at most 1,000 runs hold an instance at once", mib(idle))),
    ])
}
