//! A bulk repair, and what others notice of it.

use std::time::{Duration, Instant};

use anyhow::Context as _;
use serde_json::json;

use super::{
    Bench, Row,
    load::{start_many, start_to_result_ms},
    stats::percentile,
};
use crate::host::Client;

const FAILED: usize = 10_000;
const RATE_PER_S: u32 = 500;
const CANARY: usize = 10;
const SAMPLES: usize = 1_000;
const WARM_UP: usize = 50;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("bulk").await?;
    start_many(&client, "failed", FAILED, |_| json!({ "steps": 1, "fail_first": true })).await?;
    while client.get_json("/api/v1/stats").await?["failed"] != FAILED {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let groups = client.get_json("/admin/v1/failures?taskName=bench").await?;
    anyhow::ensure!(groups[0]["count"] == FAILED, "they did not all fail alike: {groups}");

    let mut before = Vec::new();
    for number in 0..SAMPLES + WARM_UP {
        let took = start_to_result_ms(&client, &format!("before-{number}")).await?;
        if number >= WARM_UP {
            before.push(took);
        }
    }
    let plan = json!({
        "action": "retry-step",
        "fingerprint": groups[0]["fingerprint"],
        "ratePerSecond": RATE_PER_S,
        "canary": CANARY,
        "triggeredBy": "the benchmark",
    });
    let begin = Instant::now();
    let bulk = client.post("/admin/v1/bulk", &plan).await?;
    let path = format!("/admin/v1/bulk/{}", bulk["bulkId"].as_str().context("its id")?);
    let watch = tokio::spawn(watch_bulk(client.clone(), path, begin));
    let mut during = Vec::new();
    while !watch.is_finished() {
        during.push(start_to_result_ms(&client, &format!("during-{}", during.len())).await?);
    }
    let (canaries_s, repaired_s, over_s) = watch.await??;
    before.sort_by(f64::total_cmp);
    during.sort_by(f64::total_cmp);

    let rate = (FAILED - CANARY) as f64 / (repaired_s - canaries_s);
    let mut rows = vec![Row::new("10,000 dead executions, retried at 500/s", rate, "/s").beside(format!(
        "{:.2} of what was asked for; {:.0} ms for {CANARY} canaries, {over_s:.1} s until all had completed",
        rate / f64::from(RATE_PER_S),
        canaries_s * 1_000.0
    ))];
    for percent in [50, 99] {
        let (before, during) = (percentile(&before, percent), percentile(&during, percent));
        rows.push(
            Row::new(format!("start to result of others meanwhile, p{percent}"), during, "ms")
                .beside(format!("{:.2} times the {before:.2} ms before", during / before)),
        );
    }
    Ok(rows)
}

/// Seconds from `begin` until the canaries were through, until nothing was left to repair, and
/// until all had come to an end, which has to be a good one.
async fn watch_bulk(client: Client, path: String, begin: Instant) -> anyhow::Result<(f64, f64, f64)> {
    let (mut canaries, mut repaired) = (None, None);
    loop {
        let bulk = client.get_json(&path).await?;
        let (now, progress) = (begin.elapsed().as_secs_f64(), &bulk["progress"]);
        let left = progress["pending"].as_u64().context("a number")?;
        let total = progress["total"].as_u64().context("a number")?;
        if canaries.is_none() && total - left > bulk["canary"].as_u64().context("a number")? {
            canaries = Some(now);
        }
        if repaired.is_none() && left == 0 {
            repaired = Some(now);
        }
        if bulk["state"] != "running" {
            anyhow::ensure!(
                bulk["state"] == "completed" && progress["completed"] == total,
                "it ended as {bulk}"
            );
            return Ok((canaries.unwrap_or(now), repaired.unwrap_or(now), now));
        }
        // Seldom, since each look counts ten thousand items.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}
