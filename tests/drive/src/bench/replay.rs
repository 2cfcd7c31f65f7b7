//! What it costs that a handler is called again from the top.

use std::time::Instant;

use serde_json::json;

use super::{Bench, Row, stats::median};
use crate::host::Client;

/// Steps between two suspensions.
const EVERY: u32 = 100;
const SHORT: u32 = 1_000;
const LONG: u32 = 10_000;
/// A cost that grows with the square would make it ten.
const GROWTH_MAX: f64 = 2.0;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    // With no patience for parking each sleep ends the instance.
    let (_host, client) = bench.host_with("replay", &["--park-max-ms", "0"]).await?;
    let rounds = bench.rounds.min(3);
    let short = run_s(&client, SHORT, Some(EVERY), rounds).await?;
    let long = run_s(&client, LONG, Some(EVERY), rounds).await?;
    let straight = run_s(&client, LONG, None, rounds).await?;

    let growth = (long / f64::from(LONG)) / (short / f64::from(SHORT));
    // Leg number n answers n × EVERY steps from the journal.
    let legs = f64::from(LONG / EVERY);
    let replayed = legs * (legs + 1.0) / 2.0 * f64::from(EVERY);
    let replay_us = (long - straight).max(0.0) * 1e6 / replayed;
    let step_us = straight * 1e6 / f64::from(LONG);
    // n steps replay n²/(2 × EVERY) records in all: as much as the steps themselves from here on.
    let limit = 2.0 * f64::from(EVERY) * step_us / replay_us.max(0.001);
    Ok(vec![
        Row::new("10,000 steps that suspend 100 times", long, "s")
            .beside(format!(
                "{growth:.2} times as much a step as the {short:.2} s of 1,000 that suspend 10 times"
            ))
            .target(format!("grows with the steps: at most {GROWTH_MAX} times"), growth <= GROWTH_MAX),
        Row::new("suspending included, a replayed record costs", replay_us, "µs").beside(format!(
            "{:.2} times the {straight:.2} s of the same steps without a sleep; suspended every {EVERY} steps, \
             replays cost as much as the steps themselves from some {limit:.0} steps on",
            long / straight
        )),
    ])
}

async fn run_s(client: &Client, steps: u32, every: Option<u32>, rounds: usize) -> anyhow::Result<f64> {
    let mut seconds = Vec::new();
    for round in 0..rounds {
        let id = format!("replay-{steps}-{}-{round}", every.unwrap_or_default());
        let before = client.metric("stepbox_runs_suspended_total").await?;
        let begin = Instant::now();
        client.run(&id, "bench", &json!({ "steps": steps, "sleep_every": every })).await?;
        seconds.push(begin.elapsed().as_secs_f64());
        // A sleep that is over when the run gets to stand there suspends nothing.
        let suspended = client.metric("stepbox_runs_suspended_total").await? - before;
        let wanted = every.map_or(0, |every| steps / every);
        anyhow::ensure!(
            suspended >= 0.9 * f64::from(wanted),
            "of {wanted} times only {suspended} were suspended"
        );
    }
    Ok(median(&mut seconds))
}
