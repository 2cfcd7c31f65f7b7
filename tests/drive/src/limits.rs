//! What the limits cost, and what they are good for: the same guest with and without them; a short
//! task beside a hundred endless loops.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::host::{Client, Host};

/// What is measured, and where.
pub struct Place<'a> {
    pub stepbox: &'a Path,
    /// The component of `bench-guest`.
    pub component: &'a [u8],
    pub scratch: &'a Path,
}

/// Figure, value, what stands beside it.
type Print = fn(&str, &str, &str);

/// Takes one of the figures `limits`, `instantiations` and `fairness`.
pub async fn measure(figure: &str, place: &Place<'_>, rounds: usize, print: Print) -> anyhow::Result<()> {
    match figure {
        "limits" => cost(place, rounds, print).await,
        "instantiations" => instantiations(place, rounds, print).await,
        _ => fairness(place, print).await,
    }
}

impl Place<'_> {
    async fn host(&self, name: &str, arguments: &[&str]) -> anyhow::Result<(Host, Client)> {
        let host = Host::start_with(self.stepbox, &self.scratch.join(name), "warn", arguments).await?;
        let client = Client::new(&host)?;
        client.upload("bench", self.component.to_vec()).await?;
        Ok((host, client))
    }
}

/// From the start of one execution to its result, in milliseconds.
async fn took_ms(client: &Client, id: &str, load: &Value) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client.start(id, "bench", load).await?;
    client.result(id).await?;
    Ok(begin.elapsed().as_secs_f64() * 1_000.0)
}

/// Guests that compute and guests that call the host, with limits and without, in turns.
async fn cost(place: &Place<'_>, rounds: usize, print: Print) -> anyhow::Result<()> {
    let many = ["--limit", "hostCallsPerSecondMax=5000000,attemptCpuMaxMs=600000"];
    let without = ["--without-limits-for-bench"];
    let (_bounded, bounded) = place.host("with-limits", &many).await?;
    let (_free, free) = place.host("without-limits", &without).await?;
    for (what, load) in [
        ("computing, 500 million rounds in a step", json!({ "steps": 0, "compute": 500_000_000_u64 })),
        ("calling, 1,000,000 host calls in a step", json!({ "steps": 0, "calls": 1_000_000 })),
    ] {
        let (mut with, mut without) = (Vec::new(), Vec::new());
        for round in 0..=rounds {
            let id = format!("{}-{round}", what.split(',').next().unwrap_or_default());
            let (bounded, free) = (took_ms(&bounded, &id, &load).await?, took_ms(&free, &id, &load).await?);
            // The first round warms up.
            if round > 0 {
                with.push(bounded);
                without.push(free);
            }
        }
        let (with, without) = (median(&mut with), median(&mut without));
        print(
            &format!("limits: {what}"),
            &format!("{with:.0} ms"),
            &format!("{:.3} times the {without:.0} ms without limits", with / without),
        );
    }
    Ok(())
}

/// Executions of no steps: an instance each, and the commits of a start and an end.
async fn instantiations(place: &Place<'_>, rounds: usize, print: Print) -> anyhow::Result<()> {
    const EXECUTIONS: usize = 2_000;
    let (_host, client) = place.host("instantiations", &[]).await?;
    let mut rates = Vec::new();
    for round in 0..=rounds {
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
    print(
        "instantiations: executions of no steps, 50 at once",
        &format!("{:.0}/s", median(&mut rates)),
        "an instance each, started and awaited over HTTP",
    );
    Ok(())
}

/// A short execution on a quiet host, and beside a hundred that compute without end.
async fn fairness(place: &Place<'_>, print: Print) -> anyhow::Result<()> {
    const SAMPLES: usize = 300;
    let (_host, client) = place.host("fairness", &["--limit", "attemptCpuMaxMs=3600000"]).await?;
    let quiet = latencies(&client, "quiet", SAMPLES).await?;
    for number in 0..100 {
        client.start(&format!("endless-{number}"), "bench", &json!({ "steps": 0, "endless": true })).await?;
    }
    // Until each has had the tick that it has for nothing.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let beside = latencies(&client, "beside", SAMPLES).await?;
    for percent in [50, 99] {
        let (quiet, beside) = (percentile(&quiet, percent), percentile(&beside, percent));
        print(
            &format!("fairness: 1 step beside 100 endless loops, p{percent}"),
            &format!("{beside:.2} ms"),
            &format!("{:.2} times the {quiet:.2} ms on a quiet host", beside / quiet),
        );
    }
    Ok(())
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

fn percentile(sorted: &[f64], percent: usize) -> f64 {
    sorted[(sorted.len() * percent / 100).min(sorted.len() - 1)]
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
