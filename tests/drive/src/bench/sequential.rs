//! One execution whose steps come one after the other.

use std::time::Instant;

use serde_json::json;

use super::{Bench, Row, stats::median};
use crate::floor::{self, Log};

const STEPS: u32 = 1_000;
const OF_FLOOR_MIN: f64 = 0.8;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("sequential").await?;
    let (mut steps, mut commits, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
    let (mut with_room, mut of_those) = (Vec::new(), Vec::new());
    for round in 0..=bench.rounds {
        let floor = floor::rows_per_second(bench.scratch.path(), STEPS, 1, Log::Grows)?;
        let roomy = floor::rows_per_second(bench.scratch.path(), STEPS, 1, Log::HasRoom)?;
        let id = format!("sequential-{round}");
        let begin = Instant::now();
        client.start(&id, "bench", &json!({ "steps": STEPS })).await?;
        client.result(&id).await?;
        let rate = f64::from(STEPS) / begin.elapsed().as_secs_f64();
        // The first round warms up.
        if round > 0 {
            steps.push(rate);
            commits.push(floor);
            ratios.push(rate / floor);
            with_room.push(roomy);
            of_those.push(rate / roomy);
        }
    }
    let ratio = median(&mut ratios);
    let row = Row::new("1 execution of 1,000 steps", median(&mut steps), "steps/s")
        .beside(format!(
            "{ratio:.2} of {:.0} raw one-row FULL commits/s, {:.2} of {:.0} into a log with room",
            median(&mut commits),
            median(&mut of_those),
            median(&mut with_room)
        ))
        .target(format!("at least {OF_FLOOR_MIN} of them"), ratio >= OF_FLOOR_MIN);
    Ok(vec![row])
}
