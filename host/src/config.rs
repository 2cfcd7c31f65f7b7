//! Every address and limit that an operator may set: unit, default, reason.
//!
//! The doc comments are what `stepbox serve --help` shows. What a task may take is in
//! [`stepbox_domain::limits`], what no task differs in is in [`crate::sandbox::SandboxConfig`];
//! docs/limits.md shows it all.

use std::{net::SocketAddr, path::PathBuf, time::Duration};

use clap::{Args, ValueEnum};
use stepbox_domain::{Limit, Limits, limits::LimitSettings, run::Policy};

use crate::{
    engine::EngineConfig,
    sandbox::{CompileLimits, Compiler, SandboxConfig},
    store::{logs::LogBounds, sqlite::StoreConfig},
};

/// Lists and details that are read at the same time; others queue. A reader is a thread and 16 MB
/// of cache at most.
const READERS: u32 = 4;

/// What is written within some seconds, until the log starts over.
const LOG_BYTES: u64 = 16 << 20;

/// What 32 bits can address.
const WASM_MEMORY_MAX_BYTES: u64 = 4 << 30;

/// How a host is set up.
#[derive(Args, Clone, Debug)]
pub struct Config {
    /// Where to listen for HTTP: host and port. Port 0 takes a free one. There is no
    /// authentication yet, so the default is for this machine only
    #[arg(long, env = "STEPBOX_LISTEN", value_name = "HOST:PORT", default_value = "127.0.0.1:8080")]
    pub listen: String,

    /// The folder for all that is kept; made if it is not there. One host at a time can use it
    #[arg(
        long,
        visible_alias = "data-dir",
        env = "STEPBOX_DATA",
        value_name = "FOLDER",
        default_value = "./stepbox-data"
    )]
    pub data: PathBuf,

    #[command(flatten)]
    pub log: LogConfig,

    #[command(flatten)]
    pub bodies: BodyLimits,

    #[command(flatten)]
    pub compiling: CompileOptions,

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

    /// So long after a host that did not stop in good order, a run begins only when its start is on
    /// disk, in seconds, which takes a commit more: if it is the run that takes the host down, it is
    /// counted, and ended after five times
    #[arg(long, env = "STEPBOX_CAUTION_S", value_name = "SECONDS", default_value_t = 600)]
    pub caution_s: u64,

    /// What guests may take where nothing is set for their task, as NAME=NUMBER; may be given many
    /// times. The names are in docs/limits.md
    #[arg(long = "limit", env = "STEPBOX_LIMITS", value_name = "NAME=NUMBER", value_delimiter = ',',
        value_parser = limit)]
    pub limits: Vec<(Limit, u64)>,

    /// What no task may be set above, as NAME=NUMBER; may be given many times
    #[arg(long = "ceiling", env = "STEPBOX_CEILINGS", value_name = "NAME=NUMBER", value_delimiter = ',',
        value_parser = limit)]
    pub ceilings: Vec<(Limit, u64)>,

    /// The file with the key for secrets, 32 bytes in base64 as `stepbox secret keygen` prints them. Or
    /// have the key itself in STEPBOX_SECRETS_KEY. Without one no secret can be set or used
    #[arg(long, env = "STEPBOX_SECRETS_KEY_FILE", value_name = "FILE")]
    pub secrets_key_file: Option<PathBuf>,

    /// How much of what guests print is kept, in bytes. When it is more, the logs of those runs go
    /// first that have printed nothing for longest
    #[arg(long, env = "STEPBOX_LOGS_MAX_BYTES", value_name = "BYTES", default_value_t = 256 << 20,
        value_parser = clap::value_parser!(u64).range(1 << 20..=1 << 40))]
    pub logs_max_bytes: u64,

    /// Certificates (PEM) of authorities that requests of tasks are to believe, beside the public
    /// ones: those of a company's own servers, or of its proxy
    #[arg(long, env = "STEPBOX_EGRESS_CA_FILE", value_name = "FILE")]
    pub egress_ca_file: Option<PathBuf>,

    /// How long a stop lets steps and requests under way finish, in milliseconds. Less than what
    /// service managers allow before they kill (systemd 90 s, Kubernetes 30 s, Docker 10 s)
    #[arg(long, env = "STEPBOX_STOP_PATIENCE_MS", value_name = "MS", default_value_t = 8_000)]
    pub stop_patience_ms: u64,

    /// Guests are neither counted nor bounded, to measure what that costs
    #[arg(long, hide = true)]
    pub without_limits_for_bench: bool,
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

    /// Uploads that are taken in at the same time, those that wait for the compiler among them;
    /// others are sent away with 503. Each is kept in memory as a whole
    #[arg(long, env = "STEPBOX_UPLOADS_MAX", value_name = "UPLOADS", default_value_t = 4,
        value_parser = clap::value_parser!(u32).range(1..=1_000))]
    pub uploads_max: u32,
}

/// What compiling an upload may take. It happens in a process of its own.
#[derive(Args, Clone, Copy, Debug)]
pub struct CompileOptions {
    /// CPU time for compiling an upload, of all threads together, in seconds
    #[arg(long, env = "STEPBOX_COMPILE_CPU_MAX_S", value_name = "SECONDS", default_value_t = 120,
        value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub compile_cpu_max_s: u64,

    /// Time by the clock for compiling an upload, in milliseconds. Python guests take 12 s on two
    /// cores, more beside others
    #[arg(long, env = "STEPBOX_COMPILE_WALL_MAX_MS", value_name = "MS", default_value_t = 120_000,
        value_parser = clap::value_parser!(u64).range(100..=86_400_000))]
    pub compile_wall_max_ms: u64,

    /// Address space for compiling an upload, in bytes. The largest honest guests seen stay below
    /// 1 GiB
    #[arg(long, env = "STEPBOX_COMPILE_MEMORY_MAX_BYTES", value_name = "BYTES", default_value_t = 2 << 30,
        value_parser = clap::value_parser!(u64).range(64 << 20..))]
    pub compile_memory_max_bytes: u64,

    /// Uploads that are compiled at the same time; others queue. Each uses all processors
    #[arg(long, env = "STEPBOX_COMPILE_AT_ONCE_MAX", value_name = "UPLOADS", default_value_t = 1,
        value_parser = clap::value_parser!(u32).range(1..=64))]
    pub compile_at_once_max: u32,
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
        settings(&self.limits).check(&self.ceilings())?;
        let memory_max_bytes = self.ceilings().get(Limit::MemoryMaxBytes);
        anyhow::ensure!(
            memory_max_bytes <= WASM_MEMORY_MAX_BYTES,
            "the ceiling of memoryMaxBytes is {memory_max_bytes}, but a guest's memory has 4 GiB \
             ({WASM_MEMORY_MAX_BYTES} bytes) at most"
        );
        anyhow::ensure!(
            !self.without_limits_for_bench || self.listens_for_this_machine_only(),
            "--without-limits-for-bench lets every guest hurt this host, so it is refused with --listen {}: \
             it needs an address of this machine only, such as 127.0.0.1:0",
            self.listen
        );
        Ok(())
    }

    fn listens_for_this_machine_only(&self) -> bool {
        self.listen.parse::<SocketAddr>().is_ok_and(|address| address.ip().is_loopback())
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
            caution: Duration::from_secs(self.caution_s),
        }
    }

    /// What guests may take where nothing is set for their task.
    fn limits(&self) -> Limits {
        self.fit(Limits::default()).with(&settings(&self.limits)).capped(&self.ceilings())
    }

    /// What no task may be set above.
    fn ceilings(&self) -> Limits {
        self.fit(Limits::ceilings()).with(&settings(&self.ceilings))
    }

    /// Who lets larger bodies in means guests to pass them on, unless he says otherwise himself.
    fn fit(&self, limits: Limits) -> Limits {
        let body_max_bytes = self.bodies.body_max_bytes as u64;
        let value_max_bytes = limits.get(Limit::ValueMaxBytes).max(body_max_bytes);
        limits.with(&settings(&[(Limit::ValueMaxBytes, value_max_bytes)]))
    }

    pub fn store(&self) -> StoreConfig {
        StoreConfig { data_dir: self.data.clone(), readers: READERS, log_bytes: LOG_BYTES }
    }

    pub fn log_bounds(&self) -> LogBounds {
        LogBounds::new(self.logs_max_bytes)
    }

    /// The sandbox's own defaults, made wide enough for what is let in here.
    pub fn sandbox(&self, compiler: Compiler) -> SandboxConfig {
        let mut sandbox = SandboxConfig::new(self.data.join("machine-code"), compiler);
        sandbox.compile = CompileLimits {
            upload_max_bytes: self.bodies.upload_max_bytes,
            cpu_max_s: self.compiling.compile_cpu_max_s,
            wall_max_ms: self.compiling.compile_wall_max_ms,
            memory_max_bytes: self.compiling.compile_memory_max_bytes,
            at_once_max: self.compiling.compile_at_once_max as usize,
            ..sandbox.compile
        };
        sandbox.limits = self.limits();
        sandbox.ceilings = self.ceilings();
        sandbox.without_limits_for_bench = self.without_limits_for_bench;
        sandbox.egress.ca_file = self.egress_ca_file.clone();
        let pool = &mut sandbox.pool;
        // Uploads take a place for a moment too, to describe themselves.
        pool.handlers_max = pool.handlers_max.max(self.live_max.saturating_add(16));
        pool.steps_max = pool.steps_max.max(self.live_max);
        sandbox
    }
}
