//! How soon an uploaded module runs, and how soon many of them do after a restart.

use std::time::{Duration, Instant};

use serde_json::json;

use super::{
    Bench, LOG, Row,
    stats::{median, ms_since},
};
use crate::host::{Client, Host};

const RUNNABLE_MAX_MS: f64 = 1_000.0;
const MODULES: u32 = 50;
const READY_MAX_MS: f64 = 1_000.0;

/// From the upload's first byte to the result of a first execution.
pub async fn upload(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("upload").await?;
    let (mut runnable, mut uploads, mut compiled) = (Vec::new(), Vec::new(), Vec::new());
    let size_kb = bench.component.len() as f64 / 1_000.0;
    for round in 0..bench.rounds as u32 {
        let begin = Instant::now();
        let answer = client.upload("uploaded", another(&bench.component, round)).await?;
        uploads.push(ms_since(begin));
        let id = format!("uploaded-{round}");
        client.run(&id, "uploaded", &json!({ "steps": 1 })).await?;
        runnable.push(ms_since(begin));
        compiled.push(answer["compiledInMs"].as_f64().unwrap_or(f64::NAN));
    }
    let ms = median(&mut runnable);
    Ok(vec![
        Row::new(format!("upload of {size_kb:.0} kB until its first run has a result"), ms, "ms")
            .beside(format!(
                "{:.0} ms until the answer, {:.0} ms of them compiling",
                median(&mut uploads),
                median(&mut compiled)
            ))
            .target(format!("below {RUNNABLE_MAX_MS} ms"), ms < RUNNABLE_MAX_MS),
    ])
}

/// From the start of the process until it says that it is ready, with 50 modules.
pub async fn restart(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (host, client) = bench.host("restart").await?;
    for number in 0..MODULES {
        client.upload(&format!("task-{number}"), another(&bench.component, number)).await?;
    }
    let (mut binary, mut data) = host.kill_9().await?;
    let (mut ready, mut all) = (Vec::new(), Vec::new());
    for round in 0..bench.rounds {
        let begin = Instant::now();
        let host = Host::start(&binary, &data, LOG).await?;
        let client = Client::new(&host)?;
        while client.get("/readyz").await.is_err() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
        ready.push(ms_since(begin));
        for number in 0..MODULES {
            let id = format!("restart-{round}-{number}");
            client.run(&id, &format!("task-{number}"), &json!({ "steps": 1 })).await?;
        }
        all.push(ms_since(begin));
        (binary, data) = host.kill_9().await?;
    }
    let ms = median(&mut ready);
    Ok(vec![
        Row::new("restart with 50 modules until it is ready", ms, "ms")
            .beside(format!("{:.0} ms until each of the 50 has run once", median(&mut all)))
            .target(format!("below {READY_MAX_MS} ms"), ms < READY_MAX_MS),
    ])
}

/// The same component with another digest: a custom section more.
fn another(component: &[u8], number: u32) -> Vec<u8> {
    const NAME: &[u8] = b"bench";
    let number = number.to_le_bytes();
    let mut bytes = component.to_vec();
    // Section 0, its length, the length of its name, its name, its content: all below 128.
    bytes.push(0);
    bytes.push((1 + NAME.len() + number.len()) as u8);
    bytes.push(NAME.len() as u8);
    bytes.extend_from_slice(NAME);
    bytes.extend_from_slice(&number);
    bytes
}
