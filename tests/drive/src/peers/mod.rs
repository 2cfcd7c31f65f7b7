//! The same loads on other durable execution servers, over plain HTTP.
//!
//! A server is a [`Peer`]: how it is set up, started, and given an execution. What is measured,
//! and how the servers take turns, is here. One that cannot be set up does not keep the others
//! from it.

mod process;
mod restate;
mod stepbox;
mod zart;

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::Pin,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context as _;

use self::process::Process;
pub use self::{
    restate::Restate,
    stepbox::Stepbox,
    zart::{Polling, Zart},
};
use crate::bench::stats::{median, ms_since, percentile};

pub type Answer<'a, T> = Pin<Box<dyn Future<Output = anyhow::Result<T>> + Send + 'a>>;

/// A durable execution server that can be measured.
pub trait Peer {
    fn name(&self) -> String;

    /// How much it is given; less for one that would take hours.
    fn loads(&self) -> Loads {
        Loads::default()
    }

    /// Builds or installs what is not there yet.
    fn set_up(&self) -> Answer<'_, ()>;

    /// Starts it anew, with its data in the empty folder `data`.
    fn start<'a>(&'a self, data: &'a Path) -> Answer<'a, Running>;
}

/// A server that answers.
pub struct Running {
    pub adapter: Arc<dyn Adapter>,
    /// Stopped in this order.
    processes: Vec<Process>,
}

/// How executions are put on a server.
pub trait Adapter: Send + Sync {
    /// Starts an execution of so many steps that do nothing, and comes back when it is done.
    fn execute<'a>(&'a self, id: &'a str, steps: u32) -> Answer<'a, ()>;
}

/// What a server is given in each round.
#[derive(Clone, Copy)]
pub struct Loads {
    pub sequential_steps: u32,
    pub executions: usize,
    pub steps_each: u32,
    pub samples: usize,
}

impl Default for Loads {
    fn default() -> Self {
        Loads { sequential_steps: 1_000, executions: 500, steps_each: 10, samples: 200 }
    }
}

/// What one server came to in one round.
#[derive(Clone, Copy)]
struct Taken {
    sequential_per_s: f64,
    concurrent_per_s: f64,
    p50_ms: f64,
    p99_ms: f64,
}

/// For one load on one server; a server that takes longer has failed at it.
const LOAD_TIME_MAX: Duration = Duration::from_secs(240);

/// Measures `peers` in turns, `rounds` times, with their data in `dir`; prints medians, and the
/// ratios to the first one.
pub async fn compare(peers: &[Box<dyn Peer>], dir: &Path, rounds: usize) -> anyhow::Result<()> {
    let mut ready = Vec::new();
    for peer in peers {
        println!("setting up {}", peer.name());
        match peer.set_up().await {
            Ok(()) => ready.push((peer, Vec::new(), None)),
            Err(error) => println!("  left out, since it could not be set up: {error:#}"),
        }
    }
    for round in 0..rounds.max(1) {
        println!("round {}", round + 1);
        for (peer, taken, failed) in &mut ready {
            if failed.is_some() {
                continue;
            }
            match take(peer.as_ref(), dir).await {
                Ok(figures) => taken.push(figures),
                Err(error) => {
                    println!("  {}: {error:#}", peer.name());
                    *failed = Some(format!("{error:#}"));
                }
            }
        }
    }
    println!(
        "\n{:<44} {:>16} {:>16} {:>12} {:>12}",
        "medians (in brackets: the first one's advantage)", "sequential", "at once", "p50", "p99"
    );
    let mut first = None;
    for (peer, taken, failed) in &ready {
        let name = peer.name();
        if taken.is_empty() {
            println!("{name:<44} could not be measured: {}", failed.as_deref().unwrap_or("no round"));
            continue;
        }
        let of = |pick: fn(&Taken) -> f64| median(&mut taken.iter().map(pick).collect::<Vec<_>>());
        let figures = Taken {
            sequential_per_s: of(|taken| taken.sequential_per_s),
            concurrent_per_s: of(|taken| taken.concurrent_per_s),
            p50_ms: of(|taken| taken.p50_ms),
            p99_ms: of(|taken| taken.p99_ms),
        };
        let best = *first.get_or_insert(figures);
        let loads = peer.loads();
        println!(
            "{name:<44} {:>16} {:>16} {:>12} {:>12}",
            format!("{} steps/s", shown(figures.sequential_per_s)),
            format!("{} steps/s", shown(figures.concurrent_per_s)),
            format!("{:.2} ms", figures.p50_ms),
            format!("{:.2} ms", figures.p99_ms),
        );
        println!(
            "{:<44} {:>16} {:>16} {:>12} {:>12}",
            format!(
                "  1 x {}, {} x {}, {} x 1",
                loads.sequential_steps, loads.executions, loads.steps_each, loads.samples
            ),
            times(best.sequential_per_s / figures.sequential_per_s),
            times(best.concurrent_per_s / figures.concurrent_per_s),
            times(figures.p50_ms / best.p50_ms),
            times(figures.p99_ms / best.p99_ms),
        );
    }
    Ok(())
}

fn shown(value: f64) -> String {
    if value < 100.0 { format!("{value:.1}") } else { format!("{value:.0}") }
}

fn times(ratio: f64) -> String {
    format!("({} x)", if ratio < 100.0 { format!("{ratio:.1}") } else { format!("{ratio:.0}") })
}

/// One round: a new server, warmed up, all three loads.
async fn take(peer: &dyn Peer, dir: &Path) -> anyhow::Result<Taken> {
    let data = tempfile::tempdir_in(dir).with_context(|| format!("a folder in {}", dir.display()))?;
    let running = peer.start(data.path()).await.context("it does not start")?;
    let taken = measure(&running, peer.loads()).await;
    running.stop().await;
    let taken = taken?;
    println!(
        "  {:<42} {} steps/s one after the other, {} steps/s at once, p50 {:.2} ms, p99 {:.2} ms",
        peer.name(),
        shown(taken.sequential_per_s),
        shown(taken.concurrent_per_s),
        taken.p50_ms,
        taken.p99_ms
    );
    Ok(taken)
}

async fn measure(running: &Running, loads: Loads) -> anyhow::Result<Taken> {
    let adapter = &running.adapter;
    let warm_up = loads.samples.min(20);
    for number in 0..warm_up {
        in_time(adapter.execute(&format!("warm-{number}"), 1)).await.context("warming up")?;
    }
    let mut ms = Vec::new();
    for number in 0..loads.samples {
        let begin = Instant::now();
        in_time(adapter.execute(&format!("one-{number}"), 1)).await.context("one step")?;
        ms.push(ms_since(begin));
    }
    ms.sort_by(f64::total_cmp);

    let begin = Instant::now();
    in_time(adapter.execute("sequential", loads.sequential_steps)).await.context("sequential steps")?;
    let sequential_per_s = f64::from(loads.sequential_steps) / begin.elapsed().as_secs_f64();

    let begin = Instant::now();
    let mut all = tokio::task::JoinSet::new();
    for number in 0..loads.executions {
        let adapter = adapter.clone();
        all.spawn(async move { adapter.execute(&format!("many-{number}"), loads.steps_each).await });
    }
    in_time(async {
        while let Some(one) = all.join_next().await {
            one??;
        }
        Ok(())
    })
    .await
    .context("many executions at once")?;
    let steps = loads.executions as f64 * f64::from(loads.steps_each);
    let concurrent_per_s = steps / begin.elapsed().as_secs_f64();
    Ok(Taken { sequential_per_s, concurrent_per_s, p50_ms: percentile(&ms, 50), p99_ms: percentile(&ms, 99) })
}

async fn in_time<T>(load: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::time::timeout(LOAD_TIME_MAX, load)
        .await
        .with_context(|| format!("not done after {} s", LOAD_TIME_MAX.as_secs()))?
}

impl Running {
    async fn stop(self) {
        for process in self.processes {
            process.stop().await;
        }
    }
}

/// Where peers are built and installed: a folder that is kept, so that it is done once.
fn kept(dir: &Path, name: &str) -> PathBuf {
    dir.join("peers").join(name)
}

fn http() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().tcp_nodelay(true).pool_max_idle_per_host(1_000).build()?)
}
