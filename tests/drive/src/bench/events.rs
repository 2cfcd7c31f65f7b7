//! From an event to the next instruction of the handler that waited for it.
//!
//! That is a step that looks at the clock, so the making of its instance is counted in. A line that the
//! handler prints would not do: it is shown when the event's consumption is on disk.

use std::time::{Duration, SystemTime};

use anyhow::Context as _;

use serde_json::json;

use super::{
    Bench, Row,
    load::{start_many, until_at_rest},
    stats::percentile,
};
use crate::floor::{self, Log};

const SAMPLES: usize = 300;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let commit_ms = 1_000.0 / floor::rows_per_second(bench.scratch.path(), 1_000, 1, Log::Grows)?;
    let mut rows = Vec::new();
    for (what, park_max_ms, target_ms) in [("suspended", "0", 2.0), ("parked", "600000", 1.0)] {
        // The choice between the two is the host's; so it is made for it.
        let (_host, client) =
            bench.host_with(&format!("event-{what}"), &["--park-max-ms", park_max_ms]).await?;
        start_many(&client, what, SAMPLES, |_| json!({ "steps": 0, "wait": true, "clock": true })).await?;
        if what == "suspended" {
            until_at_rest(&client).await?;
        } else {
            while client.metric("stepbox_runs_parked").await? < SAMPLES as f64 {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        }
        let mut ms = Vec::new();
        for number in 0..SAMPLES {
            let id = format!("{what}-{number}");
            let begin = SystemTime::now();
            client.event(&id, "go", &json!(null)).await?;
            let began_us = client.result(&id).await?.as_u64().context("the time of the step")?;
            let went_on = SystemTime::UNIX_EPOCH + Duration::from_micros(began_us);
            let took = went_on.duration_since(begin).context("the clock was set back meanwhile")?;
            ms.push(took.as_secs_f64() * 1_000.0);
        }
        ms.sort_by(f64::total_cmp);
        let p50 = percentile(&ms, 50);
        rows.push(
            Row::new(format!("event to the next instruction, {what}, p50"), p50, "ms")
                .beside(format!("p99 {:.2} ms; a raw commit takes {commit_ms:.2} ms", percentile(&ms, 99)))
                .target(format!("below {target_ms} ms"), p50 < target_ms),
        );
    }
    Ok(rows)
}
