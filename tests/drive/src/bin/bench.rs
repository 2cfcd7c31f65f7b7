//! The benchmark: a real stepbox over HTTP, each figure beside its floor from the same run on the
//! same disk. Prints medians; judges nothing.

use std::{
    collections::HashSet,
    path::PathBuf,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Parser;
use serde_json::{Value, json};

use stepbox_drive::{
    egress, floor,
    host::{Client, Host},
    limits,
};

#[derive(Parser)]
struct Args {
    /// The stepbox to measure.
    #[arg(long)]
    stepbox: PathBuf,
    /// The component of `bench-guest`.
    #[arg(long)]
    guest: PathBuf,
    /// Where databases go: the disk that is measured.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// How often each figure is taken; the median is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only figures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
}

/// Guests tell when their steps begin; the host only what is wrong.
const LOG: &str = "warn,guest=info";

struct Bench {
    args: Args,
    component: Vec<u8>,
    scratch: tempfile::TempDir,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let component =
        std::fs::read(&args.guest).with_context(|| format!("reading {}", args.guest.display()))?;
    let scratch = tempfile::tempdir_in(&args.dir)?;
    let bench = Bench { args, component, scratch };
    if cfg!(debug_assertions) {
        println!("note: this is no release build; the ratios still tell, the figures do not");
    }
    print("figure (median)", "value", "beside");
    if bench.wants("sequential") {
        bench.sequential().await?;
    }
    if bench.wants("concurrent") {
        bench.concurrent().await?;
    }
    if bench.wants("latency") {
        bench.latency().await?;
    }
    if bench.wants("event") {
        bench.event_latency().await?;
    }
    if bench.wants("suspended") {
        bench.suspended().await?;
    }
    if bench.wants("recovery") {
        bench.recovery().await?;
    }
    if bench.wants("bulk") {
        bench.bulk().await?;
    }
    if bench.wants("egress") {
        let (_host, client) = bench.host("egress").await?;
        egress::report(&client, bench.args.rounds).await?;
    }
    if bench.wants("detail") {
        bench.detail().await?;
    }
    for figure in ["limits", "instantiations", "fairness"].into_iter().filter(|figure| bench.wants(figure)) {
        let Args { stepbox, rounds, .. } = &bench.args;
        let place = limits::Place { stepbox, component: &bench.component, scratch: bench.scratch.path() };
        limits::measure(figure, &place, *rounds, print).await?;
    }
    Ok(())
}

impl Bench {
    fn wants(&self, figure: &str) -> bool {
        figure.contains(&self.args.only)
    }

    async fn host(&self, name: &str) -> anyhow::Result<(Host, Client)> {
        let host = Host::start(&self.args.stepbox, &self.scratch.path().join(name), LOG).await?;
        let client = Client::new(&host)?;
        client.upload("bench", self.component.clone()).await?;
        Ok((host, client))
    }

    /// One execution of 1,000 steps that do nothing, next to as many durable commits of one row.
    async fn sequential(&self) -> anyhow::Result<()> {
        const STEPS: u32 = 1_000;
        let (_host, client) = self.host("sequential").await?;
        let (mut steps, mut commits) = (Vec::new(), Vec::new());
        for round in 0..=self.args.rounds {
            let floor = floor::rows_per_second(self.scratch.path(), STEPS, 1)?;
            let id = format!("sequential-{round}");
            let begin = Instant::now();
            client.start(&id, "bench", &json!({ "steps": STEPS })).await?;
            client.result(&id).await?;
            let rate = f64::from(STEPS) / begin.elapsed().as_secs_f64();
            // The first round warms up.
            if round > 0 {
                steps.push(rate);
                commits.push(floor);
            }
        }
        let (steps, commits) = (median(&mut steps), median(&mut commits));
        print(
            "sequential: 1 execution of 1,000 steps",
            &format!("{steps:.0} steps/s"),
            &format!("{:.2} of {commits:.0} raw one-row FULL commits/s", steps / commits),
        );
        Ok(())
    }

    /// 500 executions of 10 steps, started and awaited over HTTP.
    async fn concurrent(&self) -> anyhow::Result<()> {
        const EXECUTIONS: usize = 500;
        const STEPS: u32 = 10;
        let (_host, client) = self.host("concurrent").await?;
        let (mut steps, mut rows) = (Vec::new(), Vec::new());
        for round in 0..=self.args.rounds {
            let floor = floor::rows_per_second(self.scratch.path(), 200, 100)?;
            let begin = Instant::now();
            let all = (0..EXECUTIONS).map(|number| {
                let client = client.clone();
                tokio::spawn(async move {
                    let id = format!("concurrent-{round}-{number}");
                    client.start(&id, "bench", &json!({ "steps": STEPS })).await?;
                    client.result(&id).await.map(|_| ())
                })
            });
            for one in all.collect::<Vec<_>>() {
                one.await??;
            }
            let rate = EXECUTIONS as f64 * f64::from(STEPS) / begin.elapsed().as_secs_f64();
            if round > 0 {
                steps.push(rate);
                rows.push(floor);
            }
        }
        let (steps, rows) = (median(&mut steps), median(&mut rows));
        print(
            "concurrent: 500 executions of 10 steps",
            &format!("{steps:.0} steps/s"),
            &format!("{:.2} of {rows:.0} rows/s in raw 100-row FULL commits", steps / rows),
        );
        Ok(())
    }

    /// From the start of a one-step execution to its result, on an idle host.
    async fn latency(&self) -> anyhow::Result<()> {
        const SAMPLES: usize = 500;
        let (_host, client) = self.host("latency").await?;
        let commit_ms = 1_000.0 / floor::rows_per_second(self.scratch.path(), 1_000, 1)?;
        let mut ms = Vec::new();
        for number in 0..SAMPLES + 50 {
            let took = start_to_result_ms(&client, &format!("latency-{number}")).await?;
            if number >= 50 {
                ms.push(took);
            }
        }
        ms.sort_by(f64::total_cmp);
        print(
            "latency: start to result, 1 step, idle host",
            &format!("p50 {:.2} ms", ms[SAMPLES / 2]),
            &format!("p99 {:.2} ms; a raw commit {commit_ms:.2} ms", ms[SAMPLES * 99 / 100]),
        );
        Ok(())
    }

    /// From an event to the result of the handler that waited for it and then does one step.
    async fn event_latency(&self) -> anyhow::Result<()> {
        const SAMPLES: usize = 200;
        let (_host, client) = self.host("event").await?;
        for (what, rest) in
            [("parked", Duration::from_millis(20)), ("suspended", Duration::from_millis(1_500))]
        {
            for number in 0..SAMPLES {
                client
                    .start(&format!("{what}-{number}"), "bench", &json!({ "steps": 1, "wait": true }))
                    .await?;
            }
            tokio::time::sleep(rest).await;
            let mut ms = Vec::new();
            for number in 0..SAMPLES {
                let id = format!("{what}-{number}");
                let begin = Instant::now();
                client.event(&id, "go", &json!(null)).await?;
                client.result(&id).await?;
                ms.push(begin.elapsed().as_secs_f64() * 1_000.0);
            }
            ms.sort_by(f64::total_cmp);
            print(
                &format!("event to result of a {what} run, 1 step"),
                &format!("p50 {:.2} ms", ms[SAMPLES / 2]),
                &format!("p99 {:.2} ms", ms[SAMPLES * 99 / 100]),
            );
        }
        Ok(())
    }

    /// What 10,000 runs that wait for an event cost in memory.
    async fn suspended(&self) -> anyhow::Result<()> {
        const RUNS: usize = 10_000;
        let (host, client) = self.host("suspended").await?;
        // The high-water mark of 1,000 live runs is the host's own, whoever waits.
        self.start_waiting(&client, "warm", 1_000).await?;
        let idle = host.resident_bytes()?;
        self.start_waiting(&client, "suspended", RUNS).await?;
        let added = host.resident_bytes()?.saturating_sub(idle);
        print("suspended: memory, idle", &format!("{:.0} MiB", idle as f64 / (1 << 20) as f64), "");
        print(
            "suspended: memory that 10,000 runs add",
            &format!("{:.1} MiB", added as f64 / (1 << 20) as f64),
            &format!("{:.0} bytes each", added as f64 / RUNS as f64),
        );
        Ok(())
    }

    async fn start_waiting(&self, client: &Client, name: &str, runs: usize) -> anyhow::Result<()> {
        start_many(client, name, runs, &json!({ "steps": 1, "wait": true })).await?;
        while client.metric("stepbox_runs_live").await? > 0.0 {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(())
    }

    /// kill -9 with 200 runs in the middle of a step; from the restart until each has gone on, and
    /// until all are finished.
    async fn recovery(&self) -> anyhow::Result<()> {
        const RUNS: usize = 200;
        let (mut ready, mut moving, mut finished) = (Vec::new(), Vec::new(), Vec::new());
        for round in 0..self.args.rounds {
            let (host, client) = self.host(&format!("recovery-{round}")).await?;
            for number in 0..RUNS {
                let load = json!({ "steps": 4, "step_ms": 400, "tell": true });
                client.start(&format!("r-{number}"), "bench", &load).await?;
            }
            tokio::time::sleep(Duration::from_millis(600)).await;
            let (binary, data) = host.kill_9().await?;

            let begin = Instant::now();
            let host = Host::start(&binary, &data, LOG).await?;
            ready.push(begin.elapsed().as_secs_f64() * 1_000.0);
            loop {
                let begun = host.log(|line| {
                    line["fields"]["message"].as_str()?.strip_prefix("begins ").map(str::to_owned)
                });
                let distinct = begun.into_iter().collect::<HashSet<_>>().len();
                if distinct == RUNS {
                    break;
                }
                anyhow::ensure!(
                    begin.elapsed() < Duration::from_secs(60),
                    "only {distinct} of {RUNS} runs went on"
                );
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            moving.push(begin.elapsed().as_secs_f64() * 1_000.0);
            let client = Client::new(&host)?;
            for number in 0..RUNS {
                client.result(&format!("r-{number}")).await?;
            }
            finished.push(begin.elapsed().as_secs_f64() * 1_000.0);
        }
        print(
            "recovery: kill -9 with 200 runs in a step",
            &format!("{:.0} ms", median(&mut moving)),
            &format!(
                "until each had gone on; {:.0} ms until the port was open, {:.0} ms until all were finished \
             (up to 4 steps of 400 ms each)",
                median(&mut ready),
                median(&mut finished)
            ),
        );
        Ok(())
    }

    /// 10,000 executions that failed alike are retried at 500 a second, while others start.
    async fn bulk(&self) -> anyhow::Result<()> {
        const FAILED: usize = 10_000;
        const RATE_PER_S: u32 = 500;
        const CANARY: usize = 10;
        const SAMPLES: usize = 1_000;
        let (_host, client) = self.host("bulk").await?;
        start_many(&client, "failed", FAILED, &json!({ "steps": 1, "fail_first": true })).await?;
        while client.get_json("/api/v1/stats").await?["failed"] != FAILED {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let groups = client.get_json("/admin/v1/failures?taskName=bench").await?;
        anyhow::ensure!(groups[0]["count"] == FAILED, "they did not all fail alike: {groups}");

        let mut before = Vec::new();
        for number in 0..SAMPLES + 50 {
            let took = start_to_result_ms(&client, &format!("before-{number}")).await?;
            if number >= 50 {
                before.push(took);
            }
        }
        let plan = json!({
            "action": "retry-step",
            "fingerprint": groups[0]["fingerprint"],
            "ratePerSecond": RATE_PER_S,
            "canary": CANARY,
            "triggeredBy": "the benchmark",
        });
        let begin = Instant::now();
        let bulk = client.post("/admin/v1/bulk", &plan).await?;
        let path = format!("/admin/v1/bulk/{}", bulk["bulkId"].as_str().context("its id")?);
        let watch = tokio::spawn(watch_bulk(client.clone(), path, begin));
        let mut during = Vec::new();
        while !watch.is_finished() {
            during.push(start_to_result_ms(&client, &format!("during-{}", during.len())).await?);
        }
        let (canaries_s, repaired_s, over_s) = watch.await??;
        before.sort_by(f64::total_cmp);
        during.sort_by(f64::total_cmp);

        let rate = (FAILED - CANARY) as f64 / (repaired_s - canaries_s);
        print(
            "bulk: 10,000 dead executions, retried at 500/s",
            &format!("{rate:.0}/s"),
            &format!(
                "{:.2} of what was asked for; {:.0} ms for {CANARY} canaries, {over_s:.1} s until all had completed",
                rate / f64::from(RATE_PER_S),
                canaries_s * 1_000.0
            ),
        );
        for percent in [50, 99] {
            let (before, during) = (percentile(&before, percent), percentile(&during, percent));
            print(
                &format!("bulk: start to result of others meanwhile, p{percent}"),
                &format!("{during:.2} ms"),
                &format!("{:.2} times the {before:.2} ms before", during / before),
            );
        }
        Ok(())
    }

    /// The detail of a run of 10,000 steps.
    async fn detail(&self) -> anyhow::Result<()> {
        const STEPS: u32 = 10_000;
        let (_host, client) = self.host("detail").await?;
        client.start("long", "bench", &json!({ "steps": STEPS })).await?;
        client.result("long").await?;
        let floor_ms = floor::read_ms(self.scratch.path(), STEPS)?;
        let (mut ms, mut bytes) = (Vec::new(), 0);
        for _ in 0..31 {
            let begin = Instant::now();
            bytes = client.get("/admin/v1/executions/long/detail").await?.len();
            ms.push(begin.elapsed().as_secs_f64() * 1_000.0);
        }
        let ms = median(&mut ms);
        print(
            "detail: of a run of 10,000 steps",
            &format!("p50 {ms:.1} ms"),
            &format!(
                "{:.1} MB; {:.1} times the {floor_ms:.1} ms of reading and parsing as many raw rows",
                bytes as f64 / 1e6,
                ms / floor_ms
            ),
        );
        Ok(())
    }
}

/// Seconds from `begin` until the canaries were through, until nothing was left to repair, and
/// until all had come to an end, which has to be a good one.
async fn watch_bulk(client: Client, path: String, begin: Instant) -> anyhow::Result<(f64, f64, f64)> {
    let (mut canaries, mut repaired) = (None, None);
    loop {
        let bulk = client.get_json(&path).await?;
        let (now, progress) = (begin.elapsed().as_secs_f64(), &bulk["progress"]);
        let left = progress["pending"].as_u64().context("a number")?;
        let total = progress["total"].as_u64().context("a number")?;
        if canaries.is_none() && total - left > bulk["canary"].as_u64().context("a number")? {
            canaries = Some(now);
        }
        if repaired.is_none() && left == 0 {
            repaired = Some(now);
        }
        if bulk["state"] != "running" {
            anyhow::ensure!(
                bulk["state"] == "completed" && progress["completed"] == total,
                "it ended as {bulk}"
            );
            return Ok((canaries.unwrap_or(now), repaired.unwrap_or(now), now));
        }
        // Seldom, since each look counts ten thousand items.
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Starts `runs` executions, a hundred at a time.
async fn start_many(client: &Client, name: &str, runs: usize, load: &Value) -> anyhow::Result<()> {
    const AT_ONCE: usize = 100;
    for chunk in 0..runs / AT_ONCE {
        let starts = (0..AT_ONCE).map(|number| {
            let (client, id, load) = (client.clone(), format!("{name}-{chunk}-{number}"), load.clone());
            tokio::spawn(async move { client.start(&id, "bench", &load).await })
        });
        for start in starts.collect::<Vec<_>>() {
            start.await??;
        }
    }
    Ok(())
}

/// From the start of a one-step execution to its result.
async fn start_to_result_ms(client: &Client, id: &str) -> anyhow::Result<f64> {
    let begin = Instant::now();
    client.start(id, "bench", &json!({ "steps": 1 })).await?;
    client.result(id).await?;
    Ok(begin.elapsed().as_secs_f64() * 1_000.0)
}

fn median(figures: &mut [f64]) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}

/// The given share of `figures`, which are sorted, is not larger.
fn percentile(figures: &[f64], percent: usize) -> f64 {
    figures[(figures.len() * percent / 100).min(figures.len() - 1)]
}

fn print(figure: &str, value: &str, beside: &str) {
    println!("{figure:<52} {value:>14}   {beside}");
}
