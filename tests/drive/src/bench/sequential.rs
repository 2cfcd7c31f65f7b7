//! One execution whose steps come one after the other.
//!
//! Steps that nothing is seen of share their commits; one that prints waits until what came before it
//! is on disk, so each of those has a commit of its own.

use std::time::Instant;

use serde_json::json;

use super::{Bench, Row, stats::median};
use crate::{
    floor::{self, Log},
    host::Client,
};

const STEPS: u32 = 1_000;
const OF_FLOOR_MIN: f64 = 0.8;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("sequential").await?;
    let (mut commits, mut with_room) = (Vec::new(), Vec::new());
    let (mut silent, mut printing) = (Taken::default(), Taken::default());
    for round in 0..=bench.rounds {
        let floor = floor::rows_per_second(bench.scratch.path(), STEPS, 1, Log::Grows)?;
        let roomy = floor::rows_per_second(bench.scratch.path(), STEPS, 1, Log::HasRoom)?;
        let quick = rate(&client, &format!("silent-{round}"), false).await?;
        let slow = rate(&client, &format!("printing-{round}"), true).await?;
        // The first round warms up.
        if round > 0 {
            commits.push(floor);
            with_room.push(roomy);
            silent.push(quick, floor, roomy);
            printing.push(slow, floor, roomy);
        }
    }
    let floors = (median(&mut commits), median(&mut with_room));
    Ok(vec![
        silent.row("1 execution of 1,000 steps", floors),
        printing.row("… each of which prints a line", floors),
    ])
}

/// Steps each second.
async fn rate(client: &Client, id: &str, tell: bool) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client.run(id, "bench", &json!({ "steps": STEPS, "tell": tell })).await?;
    Ok(f64::from(STEPS) / begin.elapsed().as_secs_f64())
}

/// What was taken in each round, and its part of the floors.
#[derive(Default)]
struct Taken {
    rates: Vec<f64>,
    of_floor: Vec<f64>,
    of_roomy: Vec<f64>,
}

impl Taken {
    fn push(&mut self, rate: f64, floor: f64, roomy: f64) {
        self.rates.push(rate);
        self.of_floor.push(rate / floor);
        self.of_roomy.push(rate / roomy);
    }

    fn row(mut self, what: &str, (floor, roomy): (f64, f64)) -> Row {
        let (ratio, of_roomy) = (median(&mut self.of_floor), median(&mut self.of_roomy));
        Row::new(what, median(&mut self.rates), "steps/s")
            .beside(format!(
                "{ratio:.2} of {floor:.0} raw one-row FULL commits/s, {of_roomy:.2} of {roomy:.0} into a log \
                 with room"
            ))
            .target(format!("at least {OF_FLOOR_MIN} of them"), ratio >= OF_FLOOR_MIN)
    }
}
