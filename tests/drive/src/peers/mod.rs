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

use anyhow::{Context as _, anyhow, ensure};
use tokio::{process::Command, task::JoinSet};

use self::process::{Process, run};
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
    /// What it promises to be on disk, in the words of its own settings.
    pub durability: String,
    /// Ended in this order.
    _processes: Vec<Process>,
}

/// How executions are put on a server.
pub trait Adapter: Send + Sync + 'static {
    /// Starts an execution of so many steps that do nothing, and comes back when it is done.
    fn execute<'a>(&'a self, id: &'a str, steps: u32) -> Answer<'a, ()>;

    /// Starts `executions` at once, and comes back when all are done: a client for each.
    fn execute_all(self: Arc<Self>, executions: usize, steps: u32) -> Answer<'static, ()> {
        Box::pin(async move {
            let mut all = JoinSet::new();
            for number in 0..executions {
                let adapter = self.clone();
                all.spawn(async move { adapter.execute(&format!("many-{number}"), steps).await });
            }
            while let Some(one) = all.join_next().await {
                one??;
            }
            Ok(())
        })
    }
}

/// What a server is given in each round.
#[derive(Clone, Copy)]
pub struct Loads {
    /// Executions one after the other, of `sequential_steps` each. Not one of a thousand: Zart reads
    /// the steps before at each step, one by one, and would not come to an end.
    pub sequential: usize,
    pub sequential_steps: u32,
    /// Executions at once, of `steps_each`.
    pub executions: usize,
    pub steps_each: u32,
    /// Executions of one step, one after the other, each timed from its start to its result.
    pub samples: usize,
}

impl Default for Loads {
    fn default() -> Self {
        Loads { sequential: 10, sequential_steps: 100, executions: 500, steps_each: 10, samples: 200 }
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
const LOAD_TIME_MAX: Duration = Duration::from_secs(600);

/// A server, and what it has come to so far.
struct Contender<'a> {
    peer: &'a dyn Peer,
    taken: Vec<Taken>,
    durability: String,
    /// Why it takes no further turn.
    failed: Option<String>,
}

/// Measures `peers` in turns, `rounds` times, with their data in `dir`; prints medians, and the
/// ratios to the first one. Whether all of them could be measured.
pub async fn compare(peers: &[Box<dyn Peer>], dir: &Path, rounds: usize) -> anyhow::Result<bool> {
    let file_system = file_system(dir).await?;
    let mut contenders = Vec::new();
    for peer in peers {
        println!("setting up {}", peer.name());
        let failed = peer.set_up().await.err().map(|error| format!("it could not be set up: {error:#}"));
        contenders.push(Contender { peer: &**peer, taken: Vec::new(), durability: String::new(), failed });
    }
    for round in 0..rounds.max(1) {
        println!("round {}", round + 1);
        for contender in contenders.iter_mut().filter(|contender| contender.failed.is_none()) {
            if let Err(error) = contender.take_turn(dir).await {
                println!("  {}: {error:#}", contender.peer.name());
                contender.failed = Some(format!("{error:#}"));
            }
        }
    }
    print_table(&contenders);
    println!("\nwhat is on disk when it is answered ({file_system}, the same disk for all)");
    for Contender { peer, durability, .. } in contenders.iter().filter(|one| !one.taken.is_empty()) {
        println!("{:<44} {durability}", peer.name());
    }
    Ok(contenders.iter().all(|contender| contender.failed.is_none()))
}

impl Contender<'_> {
    /// One round: a new server, warmed up, all three loads.
    async fn take_turn(&mut self, dir: &Path) -> anyhow::Result<()> {
        let data = tempfile::tempdir_in(dir).with_context(|| format!("a folder in {}", dir.display()))?;
        let turn = async {
            let running = self.peer.start(data.path()).await.context("it does not start")?;
            self.durability.clone_from(&running.durability);
            measure(&running, self.peer.loads()).await
        };
        // Its folder goes, and its log with it.
        let taken = turn.await.map_err(|why| {
            let ends = ends_of_logs(data.path());
            if ends.is_empty() { why } else { anyhow!("{why:#}; its logs end: {ends}") }
        })?;
        println!(
            "  {:<44} {} steps/s one after the other, {} steps/s at once, p50 {:.2} ms, p99 {:.2} ms",
            self.peer.name(),
            shown(taken.sequential_per_s),
            shown(taken.concurrent_per_s),
            taken.p50_ms,
            taken.p99_ms
        );
        self.taken.push(taken);
        Ok(())
    }

    fn medians(&self) -> Option<Taken> {
        let of = |pick: fn(&Taken) -> f64| median(&mut self.taken.iter().map(pick).collect::<Vec<_>>());
        (!self.taken.is_empty()).then(|| Taken {
            sequential_per_s: of(|taken| taken.sequential_per_s),
            concurrent_per_s: of(|taken| taken.concurrent_per_s),
            p50_ms: of(|taken| taken.p50_ms),
            p99_ms: of(|taken| taken.p99_ms),
        })
    }
}

fn print_table(contenders: &[Contender<'_>]) {
    let line = |name: &str, cells: [String; 4]| {
        let [sequential, at_once, p50, p99] = cells;
        println!("{name:<44} {sequential:>16} {at_once:>16} {p50:>12} {p99:>12}");
    };
    println!();
    line(
        "medians (in brackets: the first one's advantage)",
        ["sequential", "at once", "p50", "p99"].map(String::from),
    );
    let first = contenders.iter().find_map(Contender::medians);
    for contender in contenders {
        let (name, loads) = (contender.peer.name(), contender.peer.loads());
        let (Some(best), Some(figures)) = (first, contender.medians()) else {
            println!("{name:<44} not measured: {}", contender.failed.as_deref().unwrap_or("no round"));
            continue;
        };
        let cells = [
            format!("{} steps/s", shown(figures.sequential_per_s)),
            format!("{} steps/s", shown(figures.concurrent_per_s)),
            format!("{:.2} ms", figures.p50_ms),
            format!("{:.2} ms", figures.p99_ms),
        ];
        line(&name, cells);
        let Loads { sequential, sequential_steps, executions, steps_each, samples } = loads;
        let ratios = [
            best.sequential_per_s / figures.sequential_per_s,
            best.concurrent_per_s / figures.concurrent_per_s,
            figures.p50_ms / best.p50_ms,
            figures.p99_ms / best.p99_ms,
        ];
        line(
            &format!("  {sequential} x {sequential_steps}, {executions} x {steps_each}, {samples} x 1"),
            ratios.map(times),
        );
        if let Some(why) = &contender.failed {
            println!("  of {} rounds only, then: {why}", contender.taken.len());
        }
    }
}

fn shown(value: f64) -> String {
    let digits = match value {
        ..1.0 => 2,
        ..100.0 => 1,
        _ => 0,
    };
    format!("{value:.digits$}")
}

fn times(ratio: f64) -> String {
    format!("({} x)", shown(ratio))
}

/// What `dir` lies on; an error where nothing is ever on disk.
async fn file_system(dir: &Path) -> anyhow::Result<String> {
    let answer = run(Command::new("df").args(["--output=fstype"]).arg(dir)).await?;
    let kind = answer.lines().last().unwrap_or_default().to_owned();
    ensure!(!["tmpfs", "ramfs"].contains(&&*kind), "{} is a {kind}: nothing would be durable", dir.display());
    Ok(kind)
}

/// The last lines of each log in `data`.
fn ends_of_logs(data: &Path) -> String {
    let files = std::fs::read_dir(data).into_iter().flatten().flatten().map(|file| file.path());
    let ends = files.filter(|file| file.extension().is_some_and(|kind| kind == "log")).map(|file| {
        let text = std::fs::read(&file).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(3)..].join(" / ")
    });
    ends.filter(|end| !end.is_empty()).collect::<Vec<_>>().join(" // ")
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
    in_time(async {
        for number in 0..loads.sequential {
            adapter.execute(&format!("sequential-{number}"), loads.sequential_steps).await?;
        }
        Ok(())
    })
    .await
    .context("sequential steps")?;
    let steps = loads.sequential as f64 * f64::from(loads.sequential_steps);
    let sequential_per_s = steps / begin.elapsed().as_secs_f64();

    let begin = Instant::now();
    in_time(adapter.clone().execute_all(loads.executions, loads.steps_each))
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

/// Where peers are built and installed: a folder that is kept, so that it is done once.
fn kept(dir: &Path, name: &str) -> PathBuf {
    dir.join("peers").join(name)
}

fn http() -> anyhow::Result<reqwest::Client> {
    Ok(reqwest::Client::builder().tcp_nodelay(true).pool_max_idle_per_host(1_000).build()?)
}
