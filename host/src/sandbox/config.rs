//! Every limit of the sandbox that is the host's alone: unit, default, reason. What differs from
//! task to task is in [`Limits`].

use std::path::PathBuf;

use stepbox_domain::Limits;

use super::EgressConfig;

/// How the sandbox is set up. Make one with [`SandboxConfig::new`] and change what must differ.
#[derive(Clone, Debug)]
pub struct SandboxConfig {
    /// Where machine code is kept. What lies there is run: the folder must be this host's own.
    pub cache_dir: PathBuf,
    pub compiler: Compiler,
    pub compile: CompileLimits,
    pub guest: GuestLimits,
    pub pool: PoolSizes,
    /// What holds where no task is known: for `describe`, unless it is told.
    pub limits: Limits,
    /// What no instance is ever given more than: the pool's places are as large.
    pub ceilings: Limits,
    /// Nothing is counted and nothing is bounded, to measure what that costs.
    pub without_limits_for_bench: bool,
    pub egress: EgressConfig,
}

/// Where uploads are compiled.
#[derive(Clone, Debug)]
pub enum Compiler {
    /// In a process of its own, started as `exe compile-module …`, which can be bounded and
    /// killed: 700 kB of valid Wasm can take a minute and gigabytes.
    Child { exe: PathBuf },
    /// In this process, without any bound. For tests.
    InProcess,
}

/// What compiling one upload may take.
#[derive(Clone, Debug)]
pub struct CompileLimits {
    /// Size of a component. Python guests have 19 MB, Rust guests some hundred kB.
    pub upload_max_bytes: usize,
    /// Size of the machine code. The largest honest guests seen have 40 MB.
    pub machine_code_max_bytes: u64,
    /// Time by the clock. Python guests take 12 s on two cores, more beside others.
    pub wall_max_ms: u64,
    /// CPU time of all its threads together.
    pub cpu_max_s: u64,
    /// Address space (RLIMIT_AS). The largest honest guests seen stay below 1 GiB.
    pub memory_max_bytes: u64,
    /// Uploads that are compiled at the same time; others queue. Each uses all cores.
    pub at_once_max: usize,
}

impl Default for CompileLimits {
    fn default() -> Self {
        CompileLimits {
            upload_max_bytes: 64 << 20,
            machine_code_max_bytes: 256 << 20,
            wall_max_ms: 120_000,
            cpu_max_s: 120,
            memory_max_bytes: 2 << 30,
            at_once_max: 1,
        }
    }
}

/// What one instance may take of which no task needs more than another.
#[derive(Clone, Debug)]
pub struct GuestLimits {
    /// Core instances in a component. Python has 14.
    pub core_instances_max: u32,
    /// Host resources (streams, pollables, …) that an instance may hold: each costs host memory
    /// that its own memory cap does not see.
    pub handles_max: usize,
    /// CPU time of `describe`. The largest honest guests seen take a millisecond or two.
    pub describe_cpu_max_ms: u64,
    /// Time by the clock that `describe` may take: wide, so that on a busy machine the limit that
    /// is named is the one on CPU time.
    pub describe_wall_max_ms: u64,
    /// A failure's message; longer ones are cut.
    pub message_max_bytes: usize,
    /// One line of output; longer ones are cut.
    pub line_max_bytes: usize,
    /// One call for random bytes.
    pub random_max_bytes: u64,
}

impl Default for GuestLimits {
    fn default() -> Self {
        GuestLimits {
            core_instances_max: 32,
            handles_max: 1_000,
            describe_cpu_max_ms: 2_000,
            describe_wall_max_ms: 30_000,
            message_max_bytes: 16 << 10,
            line_max_bytes: 8 << 10,
            random_max_bytes: 1 << 20,
        }
    }
}

/// How many instances there may be at once; who comes when all are taken waits.
///
/// The ceiling is the kernel's `vm.max_map_count` (65,530 by default): a live instance takes 6
/// mappings, and each place 2 for the guard pages of its stack.
#[derive(Clone, Debug)]
pub struct PoolSizes {
    /// Handler instances: under way or parked.
    pub handlers_max: u32,
    /// Step instances. Apart from the handlers, which hold their place while they wait for one.
    pub steps_max: u32,
    /// Linear memory of all handler instances together. Beyond it there are no more instances
    /// for now, and one that grows is ended and called again later. Half of what there is, and
    /// the same for steps: what guests have of it is more than what they touch.
    pub handlers_memory_max_bytes: usize,
    /// Linear memory of all step instances together. Beyond it attempts fail, to be retried.
    pub steps_memory_max_bytes: usize,
}

impl Default for PoolSizes {
    fn default() -> Self {
        let half_the_memory = memory_of_this_host() / 2;
        PoolSizes {
            handlers_max: 4_000,
            steps_max: 1_000,
            handlers_memory_max_bytes: half_the_memory,
            steps_memory_max_bytes: half_the_memory,
        }
    }
}

/// What the machine has, or the container if that has less; 4 GiB where neither says.
fn memory_of_this_host() -> usize {
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let total = text.lines().find_map(|line| line.strip_prefix("MemTotal:"))?;
        total.trim().strip_suffix(" kB")?.parse::<usize>().ok()?.checked_mul(1024)
    });
    let container = std::fs::read_to_string("/sys/fs/cgroup/memory.max")
        .ok()
        .and_then(|text| text.trim().parse::<usize>().ok());
    machine.into_iter().chain(container).min().unwrap_or(4 << 30)
}

impl SandboxConfig {
    pub fn new(cache_dir: impl Into<PathBuf>, compiler: Compiler) -> Self {
        SandboxConfig {
            cache_dir: cache_dir.into(),
            compiler,
            compile: CompileLimits::default(),
            guest: GuestLimits::default(),
            pool: PoolSizes::default(),
            limits: Limits::default(),
            ceilings: Limits::ceilings(),
            without_limits_for_bench: false,
            egress: EgressConfig::default(),
        }
    }
}
