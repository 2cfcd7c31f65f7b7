//! Every address and limit that an operator may set: unit, default, reason.
//!
//! The doc comments are what `stepbox serve --help` shows. What a guest may take is set in
//! [`crate::sandbox::SandboxConfig`].

use std::{path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use stepbox_domain::{Limit, Limits, limits::LimitSettings, run::Policy};

use crate::{
    engine::EngineConfig,
    sandbox::{Compiler, SandboxConfig},
    store::sqlite::StoreConfig,
};

/// Lists and details that are read at the same time; others queue. A reader is a thread and 16 MB
/// of cache at most.
const READERS: u32 = 4;

/// How a host is set up.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Where to listen for HTTP: host and port. Port 0 takes a free one. There is no
    /// authentication yet, so the default is for this machine only
    #[arg(long, env = "STEPBOX_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// The folder for all that is kept; made if it is not there. One host at a time can use it
    #[arg(long, env = "STEPBOX_DATA", value_name = "FOLDER", default_value = "./stepbox-data")]
    pub data: PathBuf,

    #[command(flatten)]
    pub log: LogConfig,

    #[command(flatten)]
    pub bodies: BodyLimits,

    /// Runs that hold an instance at the same time, parked ones counted; others queue. A Rust
    /// guest takes some 100 KiB for it
    #[arg(long, env = "STEPBOX_LIVE_MAX", value_name = "RUNS", default_value_t = 1_000,
        value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub live_max: u32,

    /// How many of these may stand still at a short wait, which must leave room for runs that move
    /// [default: six of ten]
    #[arg(long, env = "STEPBOX_PARKED_MAX", value_name = "RUNS")]
    pub parked_max: Option<u32>,

    /// A wait that is over sooner keeps its instance, in milliseconds; a longer one gives it up
    /// and is replayed, which takes a millisecond or so
    #[arg(long, env = "STEPBOX_PARK_MAX_MS", value_name = "MS", default_value_t = 1_000)]
    pub park_max_ms: u64,

    /// What guests may take where nothing is set for their task, as NAME=NUMBER; may be given many
    /// times. The names are in docs/limits.md
    #[arg(long = "limit", env = "STEPBOX_LIMITS", value_name = "NAME=NUMBER", value_delimiter = ',',
        value_parser = limit)]
    pub limits: Vec<(Limit, u64)>,

    /// What no task may be set above, as NAME=NUMBER; may be given many times
    #[arg(long = "ceiling", env = "STEPBOX_CEILINGS", value_name = "NAME=NUMBER", value_delimiter = ',',
        value_parser = limit)]
    pub ceilings: Vec<(Limit, u64)>,

    /// Certificates (PEM) of authorities that requests of tasks are to believe, beside the public
    /// ones: those of a company's own servers, or of its proxy
    #[arg(long, env = "STEPBOX_EGRESS_CA_FILE", value_name = "FILE")]
    pub egress_ca_file: Option<PathBuf>,

    /// How long a stop lets steps and requests under way finish, in milliseconds. Less than what
    /// service managers allow before they kill (systemd 90 s, Kubernetes 30 s, Docker 10 s)
    #[arg(long, env = "STEPBOX_STOP_PATIENCE_MS", value_name = "MS", default_value_t = 8_000)]
    pub stop_patience_ms: u64,
}

fn settings(given: &[(Limit, u64)]) -> LimitSettings {
    given.iter().copied().collect()
}

/// `stepsMax=1000`
fn limit(text: &str) -> Result<(Limit, u64), String> {
    let (name, value) = text.split_once('=').ok_or("it is NAME=NUMBER, as in stepsMax=1000")?;
    let limit = Limit::parse(name).ok_or_else(|| {
        format!("there is no limit {name:?}; there are {}", Limit::ALL.map(Limit::as_str).join(", "))
    })?;
    let value: u64 = value.parse().map_err(|_| format!("{value:?} is no number"))?;
    if value < limit.least() {
        return Err(format!("{limit} must be at least {}", limit.least()));
    }
    Ok((limit, value))
}

/// How large the body of a request may be.
#[derive(Args, Clone, Copy, Debug)]
pub struct BodyLimits {
    /// A start or an event, in bytes. Payloads are kept for ever and shown in lists: what is
    /// larger belongs into a store of its own, with its address in the payload
    #[arg(long, env = "STEPBOX_BODY_MAX_BYTES", value_name = "BYTES", default_value_t = 1 << 20)]
    pub body_max_bytes: usize,

    /// A module, in bytes. Python guests have 19 MB, Rust guests some hundred kB
    #[arg(long, env = "STEPBOX_UPLOAD_MAX_BYTES", value_name = "BYTES", default_value_t = 32 << 20)]
    pub upload_max_bytes: usize,
}

/// What is logged, on stderr.
#[derive(Args, Clone, Debug)]
pub struct LogConfig {
    /// What is logged: error, warn, info, debug or trace; for parts of it as in
    /// `info,guest=debug`. What guests write has the target `guest`
    #[arg(long = "log", env = "STEPBOX_LOG", value_name = "FILTER", default_value = "info")]
    pub filter: String,

    /// How a line looks
    #[arg(long = "log-format", env = "STEPBOX_LOG_FORMAT", value_name = "FORMAT", default_value = "text")]
    pub format: LogFormat,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
pub enum LogFormat {
    /// For people.
    Text,
    /// An object a line, for programs.
    Json,
}

impl Config {
    /// Finds what each value by itself does not show.
    pub fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(
            self.parked_max() < self.live_max,
            "parked-max ({}) must be less than live-max ({}): runs that stand still would keep all others out",
            self.parked_max(),
            self.live_max
        );
        Ok(())
    }

    fn parked_max(&self) -> u32 {
        self.parked_max.unwrap_or(self.live_max / 10 * 6 + self.live_max % 10 * 6 / 10)
    }

    pub fn stop_patience(&self) -> Duration {
        Duration::from_millis(self.stop_patience_ms)
    }

    pub fn engine(&self) -> EngineConfig {
        EngineConfig {
            policy: Policy::default(),
            limits: self.limits(),
            ceilings: self.ceilings(),
            live_max: self.live_max as usize,
            parked_max: self.parked_max() as usize,
            park_max: Duration::from_millis(self.park_max_ms),
        }
    }

    /// What guests may take where nothing is set for their task.
    fn limits(&self) -> Limits {
        Limits::default().with(&settings(&self.limits)).capped(&self.ceilings())
    }

    /// What no task may be set above.
    fn ceilings(&self) -> Limits {
        Limits::ceilings().with(&settings(&self.ceilings))
    }

    pub fn store(&self) -> StoreConfig {
        StoreConfig { data_dir: self.data.clone(), readers: READERS }
    }

    /// The sandbox's own defaults, made wide enough for what is let in here.
    pub fn sandbox(&self, compiler: Compiler) -> SandboxConfig {
        let mut sandbox = SandboxConfig::new(self.data.join("machine-code"), compiler);
        sandbox.compile.upload_max_bytes = self.bodies.upload_max_bytes;
        let guest = &mut sandbox.guest;
        guest.value_max_bytes = guest.value_max_bytes.max(self.bodies.body_max_bytes);
        sandbox.egress.ca_file = self.egress_ca_file.clone();
        let pool = &mut sandbox.pool;
        // Uploads take a place for a moment too, to describe themselves.
        pool.handlers_max = pool.handlers_max.max(self.live_max.saturating_add(16));
        pool.steps_max = pool.steps_max.max(self.live_max);
        sandbox
    }
}
