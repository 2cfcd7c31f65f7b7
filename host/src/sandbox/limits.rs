//! Memory, tables, CPU time and time by the clock of one instance, each with an error that names the
//! limit.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};
use stepbox_domain::Limit;
use wasmtime::ResourceLimiter;

use super::{Meter, bounds::Bounds, runtime::TICK, turns::TurnSlot};

/// A limit that was hit. Ends the guest there and then.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum LimitHit {
    #[error(
        "it asked for {asked_bytes} bytes of memory; an instance may have {max_bytes} bytes \
         ({} MiB) in all its memories", max_bytes >> 20
    )]
    Memory { asked_bytes: usize, max_bytes: usize },
    #[error("it asked for {asked} table elements; an instance may have {max} in all its tables")]
    Tables { asked: usize, max: usize },
    #[error("it computed for more than {max_ms} ms of CPU time")]
    Cpu { max_ms: u64 },
    #[error("it took more than {max_ms} ms by the clock, without what it waited for in calls of the host")]
    Wall { max_ms: u64 },
    #[error("it called the host more than {per_second_max} times in a second")]
    HostCalls { per_second_max: u64 },
    /// Not the guest's fault: all guests together have what there is.
    #[error("all guests together have used up the {max_bytes} bytes of memory that this host gives them")]
    HostMemory { max_bytes: usize },
}

/// Linear memory that many instances share out among them.
#[derive(Debug)]
pub(super) struct MemoryBudget {
    used_bytes: AtomicUsize,
    max_bytes: usize,
}

impl MemoryBudget {
    pub(super) fn new(max_bytes: usize) -> Arc<Self> {
        Arc::new(MemoryBudget { used_bytes: AtomicUsize::new(0), max_bytes })
    }

    fn take(&self, bytes: usize) -> Result<(), LimitHit> {
        let room = |used: usize| used.checked_add(bytes).filter(|sum| *sum <= self.max_bytes);
        match self.used_bytes.fetch_update(Relaxed, Relaxed, room) {
            Ok(_) => Ok(()),
            Err(_) => Err(LimitHit::HostMemory { max_bytes: self.max_bytes }),
        }
    }

    fn give_back(&self, bytes: usize) {
        self.used_bytes.fetch_sub(bytes, Relaxed);
    }
}

/// Of a memory with addresses of 32 bits; others are switched off.
const ADDRESSABLE_BYTES: usize = 1 << 32;

/// Adds up all memories and tables of one instance. Growth that is refused is an error and not
/// the -1 of `memory.grow`: that would look like a panic later, and a guest could see by it how
/// this host is set up.
#[derive(Debug)]
pub(super) struct MemoryLimiter {
    budget: Arc<MemoryBudget>,
    meter: Arc<Meter>,
    memory_bytes: usize,
    memory_max_bytes: usize,
    table_elements: usize,
    table_max_elements: usize,
    core_instances_max: u32,
    /// What the last permitted growth added: taken back when it fails after all.
    last_growth: usize,
}

impl MemoryLimiter {
    pub(super) fn new(bounds: &Bounds, budget: Arc<MemoryBudget>, meter: Arc<Meter>) -> Self {
        MemoryLimiter {
            budget,
            meter,
            memory_bytes: 0,
            memory_max_bytes: bounds.size(Limit::MemoryMaxBytes),
            table_elements: 0,
            table_max_elements: bounds.size(Limit::TableMaxElements),
            core_instances_max: bounds.host.core_instances_max,
            last_growth: 0,
        }
    }

    /// Notes what the instance has, for an attempt that begins with it.
    pub(super) fn note(&self) {
        self.meter.memory_is(self.memory_bytes as u64);
    }
}

impl Drop for MemoryLimiter {
    fn drop(&mut self) {
        self.budget.give_back(self.memory_bytes);
    }
}

impl ResourceLimiter for MemoryLimiter {
    fn memory_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        // More than 32 bits can address no host can give, so the -1 says nothing of this one.
        if desired > ADDRESSABLE_BYTES {
            return Ok(false);
        }
        let growth = desired.saturating_sub(current);
        let sum = self.memory_bytes.saturating_add(growth);
        // What is more than all together may have is not a matter of coming back later.
        let max_bytes = self.memory_max_bytes.min(self.budget.max_bytes);
        if sum > max_bytes {
            return Err(wasmtime::Error::new(LimitHit::Memory { asked_bytes: sum, max_bytes }));
        }
        self.budget.take(growth).map_err(wasmtime::Error::new)?;
        self.memory_bytes = sum;
        self.last_growth = growth;
        self.note();
        Ok(true)
    }

    fn memory_grow_failed(&mut self, _: wasmtime::Error) -> wasmtime::Result<()> {
        self.memory_bytes -= self.last_growth;
        self.budget.give_back(std::mem::take(&mut self.last_growth));
        Ok(())
    }

    fn table_growing(&mut self, current: usize, desired: usize, _: Option<usize>) -> wasmtime::Result<bool> {
        let sum = self.table_elements.saturating_add(desired.saturating_sub(current));
        if sum > self.table_max_elements {
            let hit = LimitHit::Tables { asked: sum, max: self.table_max_elements };
            return Err(wasmtime::Error::new(hit));
        }
        self.table_elements = sum;
        Ok(true)
    }

    fn instances(&self) -> usize {
        self.core_instances_max as usize
    }

    fn memories(&self) -> usize {
        self.core_instances_max as usize
    }

    fn tables(&self) -> usize {
        self.core_instances_max as usize
    }
}

/// So soon after a wait a tick belongs to the wait.
const JUST_NOW_NS: u64 = TICK.as_nanos() as u64 / 4;

/// CPU time of a guest: while its future is polled, without what the host does for it. A guest
/// that waits, or that stands in line behind others, uses none.
///
/// Asking the system for a thread's CPU time costs as much as a whole host call, so a stretch that
/// is over before the first tick of the engine's epoch is counted by the clock, as a tick at most:
/// what took longer was the thread standing in line. From its first tick on it is counted in CPU
/// time.
#[derive(Debug)]
pub(super) struct CpuMeter {
    used_ns: AtomicU64,
    /// When the stretch under way began, in nanoseconds since the meter was made, plus one; 0
    /// while the guest stands. Always written and read within one poll, so on one thread.
    since_ns: AtomicU64,
    /// The thread's CPU time at the first tick of the stretch under way; 0 before it.
    ticked_ns: AtomicU64,
    made: Instant,
    max_ms: u64,
    /// The host has kept it waiting since the last tick that found it computing.
    has_waited: AtomicBool,
    /// What it waited for up to now, which is not its own time.
    waited_ns: AtomicU64,
    /// When the wait under way began, counted as above; 0 while there is none.
    waiting_since_ns: AtomicU64,
    wall_max: Option<Duration>,
    /// Where what is computed is noted.
    meter: Arc<Meter>,
    pub(super) turn: TurnSlot,
}

impl CpuMeter {
    pub(super) fn new(max_ms: u64, wall_max_ms: Option<u64>, meter: Arc<Meter>) -> Arc<Self> {
        Arc::new(CpuMeter {
            used_ns: AtomicU64::new(0),
            since_ns: AtomicU64::new(0),
            ticked_ns: AtomicU64::new(0),
            has_waited: AtomicBool::new(false),
            made: Instant::now(),
            max_ms,
            waited_ns: AtomicU64::new(0),
            waiting_since_ns: AtomicU64::new(0),
            wall_max: wall_max_ms.map(Duration::from_millis),
            meter,
            turn: TurnSlot::new(),
        })
    }

    /// CPU time up to the last time that it stood, or ticked.
    pub(super) fn used(&self) -> Duration {
        Duration::from_nanos(self.used_ns.load(Relaxed))
    }

    /// What is left of its time by the clock; none where that has no bound.
    fn wall_left(&self) -> Option<Duration> {
        let now = self.clock_ns();
        let waiting = match self.waiting_since_ns.load(Relaxed) {
            0 => 0,
            since => now.saturating_sub(since),
        };
        let waited = Duration::from_nanos(self.waited_ns.load(Relaxed).saturating_add(waiting));
        Some(self.wall_max?.saturating_sub(self.made.elapsed().saturating_sub(waited)))
    }

    fn wall_hit(&self) -> LimitHit {
        let max_ms = self.wall_max.map_or(0, |max| u64::try_from(max.as_millis()).unwrap_or(u64::MAX));
        LimitHit::Wall { max_ms }
    }

    /// Comes back when its time by the clock is up; never where that has no bound.
    pub(super) async fn out_of_wall_time(&self) -> LimitHit {
        loop {
            match self.wall_left() {
                None => std::future::pending().await,
                Some(Duration::ZERO) => return self.wall_hit(),
                Some(left) => tokio::time::sleep(left).await,
            }
        }
    }

    /// Waits for what is not the guest's own time.
    pub(super) async fn waiting<T>(&self, wait: impl Future<Output = T>) -> T {
        self.waiting_since_ns.store(self.clock_ns(), Relaxed);
        let done = wait.await;
        let since = self.waiting_since_ns.swap(0, Relaxed);
        self.waited_ns.fetch_add(self.clock_ns().saturating_sub(since), Relaxed);
        done
    }

    /// From nothing again, for the next attempt.
    pub(super) fn reset(&self) {
        self.used_ns.store(0, Relaxed);
    }

    /// Called at each tick that finds the guest computing.
    pub(super) fn check(&self) -> Result<(), LimitHit> {
        let computing = match (self.since_ns.load(Relaxed), self.ticked_ns.load(Relaxed)) {
            (0, _) => 0,
            (since, 0) => {
                // At most a tick so far, and the rest of the stretch is counted exactly.
                self.used_ns.fetch_add(self.short_stretch_ns(since), Relaxed);
                self.ticked_ns.store(thread_cpu_ns(), Relaxed);
                0
            }
            (_, ticked) => thread_cpu_ns().saturating_sub(ticked),
        };
        if self.used_ns.load(Relaxed) + computing > self.max_ms.saturating_mul(1_000_000) {
            return Err(LimitHit::Cpu { max_ms: self.max_ms });
        }
        match self.wall_left() {
            Some(Duration::ZERO) => Err(self.wall_hit()),
            _ => Ok(()),
        }
    }

    /// Whether the guest has only just gone on from a wait for the host: the tick that finds it computing
    /// is one that passed meanwhile, and it has given way already.
    pub(super) fn has_just_waited(&self) -> bool {
        let since = self.since_ns.load(Relaxed);
        self.has_waited.swap(false, Relaxed) && self.short_stretch_ns(since) < JUST_NOW_NS
    }

    fn clock_ns(&self) -> u64 {
        u64::try_from(self.made.elapsed().as_nanos()).unwrap_or(u64::MAX).saturating_add(1)
    }

    fn short_stretch_ns(&self, since_ns: u64) -> u64 {
        let tick_ns = u64::try_from(TICK.as_nanos()).unwrap_or(u64::MAX);
        self.clock_ns().saturating_sub(since_ns).min(tick_ns)
    }

    fn go(&self) {
        self.since_ns.store(self.clock_ns(), Relaxed);
    }

    fn stand(&self) {
        let since = self.since_ns.swap(0, Relaxed);
        let computed = match (since, self.ticked_ns.swap(0, Relaxed)) {
            (0, _) => return,
            (since, 0) => self.short_stretch_ns(since),
            (_, ticked) => thread_cpu_ns().saturating_sub(ticked),
        };
        let before = self.used_ns.fetch_add(computed, Relaxed);
        self.meter.set_cpu_us(before.saturating_add(computed) / 1_000);
    }

    /// Runs the guest: what `guest` computes is counted.
    pub(super) async fn counted<T>(&self, guest: impl Future<Output = T>) -> T {
        let mut guest = pin!(guest);
        poll_fn(|context| {
            self.go();
            let polled = guest.as_mut().poll(context);
            self.stand();
            // It waits for something, or is done. (A guest that only gives way has it with it.)
            self.turn.give_back();
            polled
        })
        .await
    }

    /// Within [`CpuMeter::counted`], runs what the host does for the guest: not counted.
    pub(super) async fn not_counted<T>(&self, host: impl Future<Output = T>) -> T {
        let mut host = pin!(host);
        self.waiting(poll_fn(|context| {
            self.stand();
            let polled = host.as_mut().poll(context);
            if polled.is_pending() {
                self.has_waited.store(true, Relaxed);
            }
            self.go();
            polled
        }))
        .await
    }

    #[cfg(test)]
    pub(super) fn for_test() -> Arc<Self> {
        CpuMeter::new(u64::MAX, None, Arc::default())
    }

    #[cfg(test)]
    pub(super) fn has_used(&self, time: Duration) {
        self.used_ns.fetch_add(u64::try_from(time.as_nanos()).unwrap(), Relaxed);
    }
}

fn thread_cpu_ns() -> u64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    // A thread's CPU time is never negative. At least 1: 0 stands for "not running".
    (time.tv_sec as u64 * 1_000_000_000 + time.tv_nsec as u64).max(1)
}
