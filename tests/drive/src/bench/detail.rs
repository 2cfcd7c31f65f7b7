//! How long the detail page of a long run takes.

use std::time::Instant;

use serde_json::json;

use super::{
    Bench, Row,
    stats::{median, ms_since},
};
use crate::floor;

const STEPS: u32 = 10_000;
const SAMPLES: usize = 31;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("detail").await?;
    client.start("long", "bench", &json!({ "steps": STEPS })).await?;
    client.result("long").await?;
    let floor_ms = floor::read_ms(bench.scratch.path(), STEPS)?;
    let (mut ms, mut bytes) = (Vec::new(), 0);
    for _ in 0..SAMPLES {
        let begin = Instant::now();
        bytes = client.get("/admin/v1/executions/long/detail").await?.len();
        ms.push(ms_since(begin));
    }
    let ms = median(&mut ms);
    Ok(vec![Row::new("detail of a run of 10,000 steps, p50", ms, "ms").beside(format!(
        "{:.1} MB; {:.1} times the {floor_ms:.1} ms of reading and parsing as many raw rows",
        bytes as f64 / 1e6,
        ms / floor_ms
    ))])
}
