//! How long one short execution takes when nothing else is to be done.

use std::time::Duration;

use super::{
    Bench, Row,
    load::{start_to_result_ms, start_to_wait_ms},
    stats::{median, percentile},
};
use crate::floor::{self, Log};

const SAMPLES: usize = 500;
const WARM_UP: usize = 50;
/// About as long as the host does something else between two commits.
const REST: Duration = Duration::from_micros(500);
const OVER_COMMIT_MAX_MS: f64 = 0.5;
const P99_OF_P50_MAX: f64 = 4.0;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("latency").await?;
    let (mut p50s, mut p99s, mut tails) = (Vec::new(), Vec::new(), Vec::new());
    let (mut commits, mut rested, mut waited) = (Vec::new(), Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        commits.push(1_000.0 / floor::rows_per_second(bench.scratch.path(), 1_000, 1, Log::Grows)?);
        rested.push(floor::commit_ms_after(bench.scratch.path(), REST)?);
        let mut ms = Vec::new();
        for number in 0..SAMPLES + WARM_UP {
            let took = start_to_result_ms(&client, &format!("latency-{round}-{number}")).await?;
            if number >= WARM_UP {
                ms.push(took);
            }
        }
        for number in 0..SAMPLES {
            waited.push(start_to_wait_ms(&client, &format!("wait-{round}-{number}")).await?);
        }
        ms.sort_by(f64::total_cmp);
        let (p50, p99) = (percentile(&ms, 50), percentile(&ms, 99));
        p50s.push(p50);
        p99s.push(p99);
        tails.push(p99 / p50);
    }
    let (p50, commit, tail) = (median(&mut p50s), median(&mut commits), median(&mut tails));
    let rested = median(&mut rested);
    Ok(vec![
        Row::new("start to result, 1 step, p50", p50, "ms")
            .beside(format!(
                "{:.2} ms over the {commit:.2} ms of a raw commit; one after 0.5 ms of rest and into a log with room takes {rested:.2}",
                p50 - commit
            ))
            .target(format!("raw commit + {OVER_COMMIT_MAX_MS} ms"), p50 <= commit + OVER_COMMIT_MAX_MS),
        Row::new("start to result, 1 step, p99", median(&mut p99s), "ms")
            .beside(format!("{tail:.1} times p50"))
            .target(format!("at most {P99_OF_P50_MAX} times p50"), tail <= P99_OF_P50_MAX),
        Row::new("… by two requests, the second of which waits, p50", median(&mut waited), "ms"),
    ])
}
