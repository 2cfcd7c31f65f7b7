//! The figures of the benchmark: what each measures, beside what, and what it should come to.
//!
//! One file a figure, one line for it in [`FIGURES`]. A figure answers [`Row`]s; how they look is
//! `report.rs`'s business.

mod bulk;
mod concurrent;
mod detail;
mod egress;
mod events;
mod latency;
mod limits;
mod lists;
mod load;
mod modules;
mod recovery;
mod replay;
mod report;
mod sequential;
pub(crate) mod stats;
mod suspended;
mod timers;

use std::{future::Future, path::PathBuf, pin::Pin};

use anyhow::Context as _;

pub use self::report::{Report, Row};
use crate::host::{Client, Host};

/// Something that is measured.
pub struct Figure {
    /// What `--only` looks for.
    pub name: &'static str,
    /// What is done, and where the clock starts and stops.
    pub how: &'static str,
    /// What stands beside it: measured in the same run, on the same disk.
    pub floor: &'static str,
    measure: Measure,
}

type Measure = for<'a> fn(&'a Bench) -> Pin<Box<dyn Future<Output = anyhow::Result<Vec<Row>>> + 'a>>;

/// All that `make bench` prints, in this order.
pub const FIGURES: &[Figure] = &[
    Figure {
        name: "sequential",
        how: "1 execution of 1,000 steps that do nothing, or print a line each, from its start to its result",
        floor: "SQLite alone: as many commits of one row",
        measure: |bench| Box::pin(sequential::measure(bench)),
    },
    Figure {
        name: "concurrent",
        how: "500 executions of 10 steps that do nothing, or print a line each, from the first start to the last result",
        floor: "SQLite alone: commits of 100 rows",
        measure: |bench| Box::pin(concurrent::measure(bench)),
    },
    Figure {
        name: "latency",
        how: "1 execution of 1 step on an idle host, from its start to its result",
        floor: "SQLite alone: a commit of one row",
        measure: |bench| Box::pin(latency::measure(bench)),
    },
    Figure {
        name: "suspended",
        how: "100,000 runs that wait, half of them for an event, half for tomorrow",
        floor: "the same host, idle, after it had 1,000 runs at once; runs that wait for nothing",
        measure: |bench| Box::pin(suspended::measure(bench)),
    },
    Figure {
        name: "timers",
        how: "100,000 runs asleep until moments within the same second; requests meanwhile",
        floor: "the moments that they asked for",
        measure: |bench| Box::pin(timers::measure(bench)),
    },
    Figure {
        name: "event",
        how: "from the sending of an event until the handler that waits for it has printed a line",
        floor: "SQLite alone: a commit of one row",
        measure: |bench| Box::pin(events::measure(bench)),
    },
    Figure {
        name: "recovery",
        how: "kill -9 with 10,000 runs in flight, from the next start of the process",
        floor: "the steps themselves",
        measure: |bench| Box::pin(recovery::measure(bench)),
    },
    Figure {
        name: "replay",
        how: "10,000 steps with 100 suspensions in one run, from its start to its result",
        floor: "1,000 steps with 10; 10,000 with none",
        measure: |bench| Box::pin(replay::measure(bench)),
    },
    Figure {
        name: "lists",
        how: "the newest 20 of 1,000,000 executions, filtered and searched, with the number of all matches",
        floor: "the same while 200 clients start and await executions",
        measure: |bench| Box::pin(lists::measure(bench)),
    },
    Figure {
        name: "upload",
        how: "a component that the host has not seen, from its upload to the result of its first run",
        floor: "the time that compiling took",
        measure: |bench| Box::pin(modules::upload(bench)),
    },
    Figure {
        name: "restart",
        how: "with 50 modules, from the start of the process until /readyz says yes",
        floor: "until each of them has run",
        measure: |bench| Box::pin(modules::restart(bench)),
    },
    Figure {
        name: "bulk",
        how: "10,000 executions that failed alike are retried at 500 a second, while others start",
        floor: "the rate that was asked for, and the same starts before",
        measure: |bench| Box::pin(bulk::measure(bench)),
    },
    Figure {
        name: "detail",
        how: "the detail page of a run of 10,000 steps",
        floor: "SQLite alone: reading and parsing as many rows",
        measure: |bench| Box::pin(detail::measure(bench)),
    },
    Figure {
        name: "limits",
        how: "one step that computes, one that calls the host, from start to result",
        floor: "the same guest on a host that counts and bounds nothing, in turns",
        measure: |bench| Box::pin(limits::cost(bench)),
    },
    Figure {
        name: "instantiations",
        how: "executions of no steps, each in an instance of its own",
        floor: "nothing",
        measure: |bench| Box::pin(limits::instantiations(bench)),
    },
    Figure {
        name: "fairness",
        how: "an execution of 1 step while a hundred guests compute without end",
        floor: "the same on the same host before them",
        measure: |bench| Box::pin(limits::fairness(bench)),
    },
    Figure {
        name: "egress",
        how: "requests of one step through the host to a local server, one after the other",
        floor: "a direct client to the same server",
        measure: |bench| Box::pin(egress::measure(bench)),
    },
];

/// What every figure is given.
pub struct Bench {
    /// The stepbox to measure.
    pub stepbox: PathBuf,
    /// The component of `bench-guest`.
    pub component: Vec<u8>,
    /// How often a figure is taken that varies from time to time; the median is told.
    pub rounds: usize,
    /// Where databases go: the disk that is measured.
    pub scratch: tempfile::TempDir,
}

/// Guests tell when their steps begin; the host only what is wrong.
pub const LOG: &str = "warn,guest=info";

impl Bench {
    /// Takes the figures whose name contains `only`, and tells each as soon as it is known. One
    /// that cannot be taken does not keep the others from it; whether all could.
    pub async fn run(&self, only: &str, report: &mut Report) -> anyhow::Result<bool> {
        let wanted = || FIGURES.iter().filter(|figure| figure.name.contains(only));
        anyhow::ensure!(
            wanted().next().is_some(),
            "no figure has {only:?} in its name; there are {}",
            FIGURES.iter().map(|figure| figure.name).collect::<Vec<_>>().join(", ")
        );
        let mut all = true;
        for figure in wanted() {
            report.begin(figure);
            match (figure.measure)(self).await {
                Ok(rows) => rows.into_iter().for_each(|row| report.row(figure, row)),
                Err(error) => {
                    all = false;
                    report.row(figure, Row::failed(format!("{error:#}")));
                }
            }
        }
        Ok(all)
    }

    /// A host with the task `bench` and a folder of its own.
    pub async fn host(&self, name: &str) -> anyhow::Result<(Host, Client)> {
        self.host_with(name, &[]).await
    }

    /// The same, with further arguments for `serve`.
    pub async fn host_with(&self, name: &str, args: &[&str]) -> anyhow::Result<(Host, Client)> {
        let data = self.scratch.path().join(name);
        let host = Host::start_with(&self.stepbox, &data, LOG, args).await?;
        let client = Client::new(&host)?;
        client.upload("bench", self.component.clone()).await?;
        Ok((host, client))
    }
}

/// A bench whose databases lie in a new folder in `dir`.
pub fn in_dir(
    dir: &std::path::Path,
    stepbox: PathBuf,
    guest: &std::path::Path,
    rounds: usize,
) -> anyhow::Result<Bench> {
    let component = std::fs::read(guest).with_context(|| format!("reading {}", guest.display()))?;
    let scratch = tempfile::tempdir_in(dir).with_context(|| format!("a folder in {}", dir.display()))?;
    Ok(Bench { stepbox, component, rounds: rounds.max(1), scratch })
}
