//! What the limits cost, and what they are good for: the same guest with and without them; a short
//! task beside a hundred endless loops.

use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::{
    Bench, Row,
    stats::{median, ms_since, percentile},
};
use crate::host::Client;

/// What the neighbours' latency may come to beside a hundred endless loops.
const TIMES_QUIET_MAX: f64 = 2.0;

/// From the start of one execution to its result, in milliseconds.
async fn took_ms(client: &Client, id: &str, load: &Value) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client.run(id, "bench", load).await?;
    Ok(ms_since(begin))
}

/// Guests that compute and guests that call the host, with limits and without, in turns.
pub async fn cost(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let many = ["--limit", "hostCallsPerSecondMax=5000000,attemptCpuMaxMs=600000"];
    let without = ["--without-limits-for-bench"];
    let (_bounded, bounded) = bench.host_with("with-limits", &many).await?;
    let (_free, free) = bench.host_with("without-limits", &without).await?;
    let mut rows = Vec::new();
    for (what, load) in [
        ("computing, 500 million rounds in a step", json!({ "steps": 0, "compute": 500_000_000_u64 })),
        ("calling, 1,000,000 host calls in a step", json!({ "steps": 0, "calls": 1_000_000 })),
    ] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..=bench.rounds {
            let id = format!("{}-{round}", what.split(',').next().unwrap_or_default());
            let (bounded, free) = (took_ms(&bounded, &id, &load).await?, took_ms(&free, &id, &load).await?);
            // The first round warms up.
            if round > 0 {
                with.push(bounded);
                without.push(free);
            }
        }
        let (with, without) = (median(&mut with), median(&mut without));
        let beside = format!("{:.3} times the {without:.0} ms without limits", with / without);
        rows.push(Row::new(what, with, "ms").beside(beside));
    }
    Ok(rows)
}

/// Executions of no steps: an instance each, and the commits of a start and an end.
pub async fn instantiations(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    const EXECUTIONS: usize = 2_000;
    let (_host, client) = bench.host_with("instantiations", &[]).await?;
    let mut rates = Vec::new();
    for round in 0..=bench.rounds {
        let begin = Instant::now();
        let lanes = (0..50).map(|lane| {
            let client = client.clone();
            tokio::spawn(async move {
                for number in 0..EXECUTIONS / 50 {
                    took_ms(&client, &format!("i-{round}-{lane}-{number}"), &json!({ "steps": 0 })).await?;
                }
                anyhow::Ok(())
            })
        });
        for lane in lanes.collect::<Vec<_>>() {
            lane.await??;
        }
        if round > 0 {
            rates.push(EXECUTIONS as f64 / begin.elapsed().as_secs_f64());
        }
    }
    let row = Row::new("executions of no steps, 50 at once", median(&mut rates), "/s")
        .beside("an instance each, started and awaited over HTTP");
    Ok(vec![row])
}

/// A short execution on a quiet host, and beside a hundred that compute without end.
pub async fn fairness(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    const SAMPLES: usize = 300;
    let (_host, client) = bench.host_with("fairness", &["--limit", "attemptCpuMaxMs=3600000"]).await?;
    let quiet = latencies(&client, "quiet", SAMPLES).await?;
    for number in 0..100 {
        client.start(&format!("endless-{number}"), "bench", &json!({ "steps": 0, "endless": true })).await?;
    }
    // Until each has had the tick that it has for nothing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let beside = latencies(&client, "beside", SAMPLES).await?;
    let rows = [50, 99].map(|percent| {
        let (quiet, beside) = (percentile(&quiet, percent), percentile(&beside, percent));
        let times = beside / quiet;
        Row::new(format!("1 step beside 100 endless loops, p{percent}"), beside, "ms")
            .beside(format!("{times:.2} times the {quiet:.2} ms on a quiet host"))
            .target(format!("at most {TIMES_QUIET_MAX} times"), times <= TIMES_QUIET_MAX)
    });
    Ok(rows.into())
}

/// From start to result of executions of one step, one after the other, sorted.
async fn latencies(client: &Client, name: &str, samples: usize) -> anyhow::Result<Vec<f64>> {
    let mut ms = Vec::new();
    for number in 0..samples + 30 {
        let took = took_ms(client, &format!("{name}-{number}"), &json!({ "steps": 1 })).await?;
        if number >= 30 {
            ms.push(took);
        }
    }
    ms.sort_by(f64::total_cmp);
    Ok(ms)
}
