//! Many executions at once, which share their commits.

use std::time::Instant;

use serde_json::json;

use super::{Bench, Row, stats::median};
use crate::floor::{self, Log};

const EXECUTIONS: usize = 500;
const STEPS: u32 = 10;
const OF_FLOOR_MIN: f64 = 0.5;
/// Wanted where the floor is at [`FLOOR_FOR_STEPS`] or above.
const STEPS_PER_S_MIN: f64 = 30_000.0;
const FLOOR_FOR_STEPS: f64 = 70_000.0;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("concurrent").await?;
    let (mut steps, mut rows, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=bench.rounds {
        let floor = floor::rows_per_second(bench.scratch.path(), 200, 100, Log::Grows)?;
        let begin = Instant::now();
        let all = (0..EXECUTIONS).map(|number| {
            let client = client.clone();
            tokio::spawn(async move {
                let id = format!("concurrent-{round}-{number}");
                client.start(&id, "bench", &json!({ "steps": STEPS })).await?;
                client.result(&id).await.map(|_| ())
            })
        });
        for one in all.collect::<Vec<_>>() {
            one.await??;
        }
        let rate = EXECUTIONS as f64 * f64::from(STEPS) / begin.elapsed().as_secs_f64();
        // The first round warms up.
        if round > 0 {
            steps.push(rate);
            rows.push(floor);
            ratios.push(rate / floor);
        }
    }
    let (steps, rows, ratio) = (median(&mut steps), median(&mut rows), median(&mut ratios));
    let mut target = format!("at least {OF_FLOOR_MIN} of them");
    let mut met = ratio >= OF_FLOOR_MIN;
    if rows >= FLOOR_FOR_STEPS {
        target.push_str(&format!(" and {STEPS_PER_S_MIN} steps/s"));
        met &= steps >= STEPS_PER_S_MIN;
    }
    let row = Row::new("500 executions of 10 steps", steps, "steps/s")
        .beside(format!("{ratio:.2} of {rows:.0} rows/s in raw 100-row FULL commits"))
        .target(target, met);
    Ok(vec![row])
}
