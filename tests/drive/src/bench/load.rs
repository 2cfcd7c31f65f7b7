//! Starting much, and waiting for the end of it.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::stats::ms_since;
use crate::host::Client;

/// So many requests are under way at a time.
const AT_ONCE: usize = 100;

/// Starts `runs` executions `<name>-<number>`; `load` makes the payload of each.
pub async fn start_many(
    client: &Client,
    name: &str,
    runs: usize,
    load: impl Fn(usize) -> Value,
) -> anyhow::Result<()> {
    let mut starts = tokio::task::JoinSet::new();
    for number in 0..runs {
        if starts.len() == AT_ONCE
            && let Some(start) = starts.join_next().await
        {
            start??;
        }
        let (client, id, load) = (client.clone(), format!("{name}-{number}"), load(number));
        starts.spawn(async move { client.start(&id, "bench", &load).await });
    }
    while let Some(start) = starts.join_next().await {
        start??;
    }
    Ok(())
}

/// Comes back when no run holds an instance.
pub async fn until_at_rest(client: &Client) -> anyhow::Result<()> {
    while client.metric("stepbox_runs_live").await? + client.metric("stepbox_runs_ready").await? > 0.0 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// The same, where the client asks for the result whatever the answer of the start says.
pub async fn start_to_wait_ms(client: &Client, id: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client.start(id, "bench", &json!({ "steps": 1 })).await?;
    client.result(id).await?;
    Ok(ms_since(begin))
}

/// From the start of a one-step execution to its result.
pub async fn start_to_result_ms(client: &Client, id: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client.run(id, "bench", &json!({ "steps": 1 })).await?;
    Ok(ms_since(begin))
}
