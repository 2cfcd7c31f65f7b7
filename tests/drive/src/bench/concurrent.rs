//! Many executions at once, which share their commits.

use std::time::Instant;

use serde_json::json;

use super::{Bench, Row, stats::median};
use crate::{
    floor::{self, Log},
    host::Client,
};

const EXECUTIONS: usize = 500;
const STEPS: u32 = 10;
const OF_FLOOR_MIN: f64 = 0.5;
/// Wanted where the floor is at [`FLOOR_FOR_STEPS`] or above.
const STEPS_PER_S_MIN: f64 = 30_000.0;
const FLOOR_FOR_STEPS: f64 = 70_000.0;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("concurrent").await?;
    let (mut silent, mut rows, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..=bench.rounds {
        let floor = floor::rows_per_second(bench.scratch.path(), 200, 100, Log::Grows)?;
        let rate = rate(&client, &format!("silent-{round}"), false).await?;
        // The first round warms up.
        if round > 0 {
            silent.push(rate);
            rows.push(floor);
            ratios.push(rate / floor);
        }
    }
    // Afterwards: the lines of one round are still being written in the next.
    let mut printing = Vec::new();
    for round in 0..bench.rounds {
        printing.push(rate(&client, &format!("printing-{round}"), true).await?);
    }
    let (steps, rows, ratio) = (median(&mut silent), median(&mut rows), median(&mut ratios));
    let mut target = format!("at least {OF_FLOOR_MIN} of them");
    let mut met = ratio >= OF_FLOOR_MIN;
    if rows >= FLOOR_FOR_STEPS {
        target.push_str(&format!(" and {STEPS_PER_S_MIN} steps/s"));
        met &= steps >= STEPS_PER_S_MIN;
    }
    let row = Row::new("500 executions of 10 steps", steps, "steps/s")
        .beside(format!("{ratio:.2} of {rows:.0} rows/s in raw 100-row FULL commits"))
        .target(target, met);
    let seen = Row::new("… each of which prints a line", median(&mut printing), "steps/s");
    Ok(vec![row, seen])
}

/// Steps each second, over all executions.
async fn rate(client: &Client, ids: &str, tell: bool) -> anyhow::Result<f64> {
    let begin = Instant::now();
    let all = (0..EXECUTIONS).map(|number| {
        let (client, id) = (client.clone(), format!("{ids}-{number}"));
        tokio::spawn(async move { client.run(&id, "bench", &json!({ "steps": STEPS, "tell": tell })).await })
    });
    for one in all.collect::<Vec<_>>() {
        one.await??;
    }
    Ok(EXECUTIONS as f64 * f64::from(STEPS) / begin.elapsed().as_secs_f64())
}
