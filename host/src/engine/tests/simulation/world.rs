//! What is there besides the host: time, chance, and what everybody has seen. Outlives crashes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};
use stepbox_domain::{ExecutionId, RunId, StepKey, Timestamp};
use tokio::time::Instant;

use super::guest::{self, Program};
use crate::{engine::clock::Clock, store::memory::Memory};

#[derive(Clone)]
pub struct World(Arc<Mutex<Inner>>, pub Arc<Memory>);

struct Inner {
    dice: ChaCha8Rng,
    now_ms: i64,
    clock: Option<(Clock, Instant)>,
    peace: bool,
    programs: Vec<Program>,
    seen: Seen,
    counts: Counts,
    history: Vec<String>,
}

/// What somebody outside of the host knows.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Which program each acknowledged execution has.
    pub started: BTreeMap<ExecutionId, usize>,
    /// Bodies of steps, in the order in which they began.
    pub began: Vec<Body>,
    /// Instances of which something can have been seen, if they did anything.
    pub let_out: BTreeSet<u64>,
    /// Acknowledged cancels.
    pub cancelled: u64,
    /// The events that were sent to each execution, in order.
    pub sent: BTreeMap<ExecutionId, Vec<Sent>>,
}

/// An event.
#[derive(Clone, Debug)]
pub struct Sent {
    pub token: u64,
    /// False: no answer came, so it may or may not be there.
    pub acknowledged: bool,
}

/// An attempt that really ran.
#[derive(Clone, Debug)]
pub struct Body {
    pub run: RunId,
    pub key: StepKey,
    pub attempt: u32,
    pub nonce: u64,
    pub instance: u64,
}

/// How often what happened, to see that the dice leave nothing out.
#[derive(Clone, Copy, Debug, Default)]
pub struct Counts {
    pub executions: u64,
    pub bodies: u64,
    /// Of these, begun while something that they follow from was not on disk.
    pub ahead: u64,
    /// Of these, seen outside.
    pub spoken: u64,
    pub crashes: u64,
    pub faults: u64,
    pub clock_jumps: u64,
    pub events: u64,
    pub cancels: u64,
    pub completed: u64,
    pub failed: u64,
    pub retries: u64,
    pub resolves: u64,
    pub restarts: u64,
    pub reruns: u64,
    pub pauses: u64,
}

impl Counts {
    fn each(&mut self) -> [(&'static str, &mut u64); 16] {
        [
            ("executions", &mut self.executions),
            ("bodies", &mut self.bodies),
            ("ahead", &mut self.ahead),
            ("spoken", &mut self.spoken),
            ("crashes", &mut self.crashes),
            ("faults", &mut self.faults),
            ("clock jumps", &mut self.clock_jumps),
            ("events", &mut self.events),
            ("cancels", &mut self.cancels),
            ("completed", &mut self.completed),
            ("failed", &mut self.failed),
            ("retries", &mut self.retries),
            ("resolves", &mut self.resolves),
            ("restarts", &mut self.restarts),
            ("reruns", &mut self.reruns),
            ("pauses", &mut self.pauses),
        ]
    }

    pub fn add(&mut self, other: &Counts) {
        let mut other = *other;
        for ((_, sum), (_, more)) in self.each().into_iter().zip(other.each()) {
            *sum += *more;
        }
    }

    /// A world in which something never happens proves nothing about it.
    pub fn assert_everything_happened(mut self, seeds: u64) {
        for (what, count) in self.each() {
            assert!(*count > 0 || seeds < 200, "no {what} in {seeds} seeds");
        }
    }
}

impl World {
    pub fn new(seed: u64) -> Self {
        let inner = Inner {
            dice: ChaCha8Rng::seed_from_u64(seed),
            now_ms: 1_800_000_000_000,
            clock: None,
            peace: false,
            programs: Vec::new(),
            seen: Seen::default(),
            counts: Counts::default(),
            history: Vec::new(),
        };
        let world = World(Arc::new(Mutex::new(inner)), Arc::new(Memory::new()));
        let programs = (0..1 + world.roll(4)).map(|_| guest::drawn(&world)).collect();
        world.inner().programs = programs;
        world
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number from 0 up to but not including `sides`.
    pub fn roll(&self, sides: u64) -> u64 {
        self.inner().dice.next_u64() % sides.max(1)
    }

    /// Whether something happens that does so once in `times`; nothing bad does in peace.
    pub fn strikes(&self, times: u64) -> bool {
        !self.inner().peace && self.roll(times) == 0
    }

    pub fn at_peace(&self) {
        self.inner().peace = true;
    }

    pub fn programs(&self) -> Vec<Program> {
        self.inner().programs.clone()
    }

    pub fn seen(&self) -> Seen {
        self.inner().seen.clone()
    }

    pub fn see(&self, note: impl FnOnce(&mut Seen)) {
        note(&mut self.inner().seen);
    }

    pub fn count(&self, which: impl FnOnce(&mut Counts) -> &mut u64) {
        *which(&mut self.inner().counts) += 1;
    }

    pub fn counts(&self) -> Counts {
        self.inner().counts
    }

    /// Writes down what happened, for who compares two histories.
    pub fn tell(&self, what: String) {
        let now = self.now();
        if std::env::var_os("STEPBOX_SIM_TELL").is_some() {
            eprintln!("{:>9} {what}", now.as_ms() - 1_800_000_000_000);
        }
        self.inner().history.push(format!("{} {what}", now.as_ms()));
    }

    pub fn history(&self) -> Vec<String> {
        self.inner().history.clone()
    }

    pub fn crashed(&self) {
        self.count(|counts| &mut counts.crashes);
        self.tell("crash".to_owned());
    }

    /// The clock of a host that starts now; goes with the paused clock of its runtime.
    pub fn new_clock(&self) -> Clock {
        let clock = Clock::simulated(Timestamp::from_ms(self.inner().now_ms));
        self.inner().clock = Some((clock.clone(), Instant::now()));
        clock
    }

    /// The wall clock jumps by up to an hour, either way.
    pub fn jump(&self) {
        let by_ms = i64::try_from(self.roll(7_200_000)).unwrap_or(0) - 3_600_000;
        if let Some((clock, _)) = &self.inner().clock {
            clock.jump(by_ms);
        }
        self.count(|counts| &mut counts.clock_jumps);
        self.tell(format!("clock jumps by {by_ms} ms"));
    }

    /// Notes how late it is: the clock goes with its host.
    pub fn note_time(&self) {
        let now = self.now();
        let mut inner = self.inner();
        inner.now_ms = now.as_ms();
        inner.clock = None;
    }

    pub fn now(&self) -> Timestamp {
        let inner = self.inner();
        match &inner.clock {
            Some((clock, _)) => clock.now(),
            None => Timestamp::from_ms(inner.now_ms),
        }
    }
}
