//! Who may go on computing, when many want to.
//!
//! A guest gives way at every tick, but that alone is not enough: a hundred that compute without
//! end are a hundred ticks for whoever stands in line behind them. So a guest that computes for
//! longer than a tick or two needs a turn, of which there are fewer than processors; without one it
//! waits in line and occupies no thread. What is short (almost every leg, almost every step, the
//! API, the writer) needs none, and always finds a processor.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{limits::CpuMeter, runtime::TICK};

/// So many ticks a turn lasts: long enough that going from one guest to the next costs nothing,
/// short enough that a line of a hundred goes round in two seconds.
const TICKS_OF_A_TURN: u32 = 4;

/// What a guest may compute without a turn, at once.
const QUICK: Duration = TICK;

/// And for good, as a part of the time that passes: who computes a little between two waits is not
/// to stand in line for it.
const QUICK_PART: u32 = 20;

/// The turns of all guests: one less than there are processors, so that one is always free for what
/// is short.
#[derive(Debug)]
pub(super) struct Turns(Arc<Semaphore>);

/// Given back when dropped.
#[derive(Debug)]
pub(super) struct Turn {
    _place: OwnedSemaphorePermit,
    ticks_left: u32,
}

impl Turns {
    pub(super) fn new() -> Arc<Self> {
        let processors = std::thread::available_parallelism().map_or(1, usize::from);
        Turns::of(processors.saturating_sub(1).max(1))
    }

    fn of(places: usize) -> Arc<Self> {
        Arc::new(Turns(Arc::new(Semaphore::new(places))))
    }

    /// A tick has found the guest of `cpu` computing. Comes back when it may go on.
    pub(super) async fn give_way(self: Arc<Self>, cpu: Arc<CpuMeter>) {
        // Out of its slot while the guest stands here: what is left there is given back at once.
        match cpu.turn.take() {
            Some(turn) if turn.ticks_left > 0 => {
                tokio::task::yield_now().await;
                cpu.turn.put(Turn { ticks_left: turn.ticks_left - 1, ..turn });
            }
            None if cpu.turn.is_quick(cpu.used(), Instant::now()) => tokio::task::yield_now().await,
            used_up => {
                drop(used_up);
                tokio::task::yield_now().await;
                let place = cpu.waiting(self.0.clone().acquire_owned()).await;
                let _place = place.expect("the semaphore is never closed");
                cpu.turn.put(Turn { _place, ticks_left: TICKS_OF_A_TURN - 1 });
            }
        }
    }
}

/// Where a guest has its turn while it computes, and what it may compute without one.
#[derive(Debug)]
pub(super) struct TurnSlot {
    turn: Mutex<Option<Turn>>,
    quick: Mutex<Quick>,
}

#[derive(Debug)]
struct Quick {
    left: Duration,
    /// What had been used, and when, at the last look.
    used: Duration,
    looked: Instant,
}

impl TurnSlot {
    pub(super) fn new() -> Self {
        let quick = Quick { left: QUICK, used: Duration::ZERO, looked: Instant::now() };
        TurnSlot { turn: Mutex::default(), quick: Mutex::new(quick) }
    }

    fn take(&self) -> Option<Turn> {
        lock(&self.turn).take()
    }

    fn put(&self, turn: Turn) {
        *lock(&self.turn) = Some(turn);
    }

    /// The guest has stopped computing: others may.
    pub(super) fn give_back(&self) {
        drop(self.take());
    }

    /// Whether a guest that has `used` so much CPU time may go on without a turn.
    fn is_quick(&self, used: Duration, now: Instant) -> bool {
        let mut quick = lock(&self.quick);
        let earned = now.saturating_duration_since(quick.looked) / QUICK_PART;
        let spent = used.saturating_sub(quick.used);
        let had = (quick.left + earned).min(QUICK);
        *quick = Quick { left: had.saturating_sub(spent), used, looked: now };
        spent < had
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::pin::Pin;

    use futures_util::FutureExt as _;

    use super::*;

    type Way = Pin<Box<dyn Future<Output = ()> + Send>>;

    /// A guest that computes without end.
    struct Endless {
        cpu: Arc<CpuMeter>,
        way: Option<Way>,
        ticks: u32,
    }

    impl Endless {
        fn new() -> Self {
            Endless { cpu: CpuMeter::for_test(), way: None, ticks: 0 }
        }

        /// Has its chance to compute for a tick.
        fn poll(&mut self, turns: &Arc<Turns>) {
            if let Some(way) = &mut self.way
                && way.as_mut().now_or_never().is_none()
            {
                return;
            }
            self.ticks += 1;
            self.cpu.has_used(TICK);
            self.way = Some(Box::pin(turns.clone().give_way(self.cpu.clone())));
        }
    }

    #[test]
    fn of_many_that_compute_without_end_few_have_a_turn_and_all_get_theirs() {
        let turns = Turns::of(2);
        let mut guests: Vec<Endless> = (0..20).map(|_| Endless::new()).collect();
        // Each has a tick and perhaps another for free.
        for _ in 0..4 {
            guests.iter_mut().for_each(|guest| guest.poll(&turns));
        }
        for _ in 0..200 {
            let before: u32 = guests.iter().map(|guest| guest.ticks).sum();
            guests.iter_mut().for_each(|guest| guest.poll(&turns));
            let computed = guests.iter().map(|guest| guest.ticks).sum::<u32>() - before;
            assert!(computed <= 4, "{computed} ticks while there are two turns");
        }
        let ticks: Vec<u32> = guests.iter().map(|guest| guest.ticks).collect();
        let (least, most) = (ticks.iter().min().unwrap(), ticks.iter().max().unwrap());
        assert!(*least >= 8 && most - least <= 2 * TICKS_OF_A_TURN, "{ticks:?}");
    }

    #[test]
    fn a_guest_that_is_gone_or_waits_gives_its_turn_back() {
        let turns = Turns::of(1);
        let [mut one, mut other] = [Endless::new(), Endless::new()];
        while turns.0.available_permits() > 0 {
            one.poll(&turns);
        }
        for _ in 0..3 {
            other.poll(&turns);
        }
        let stood = other.ticks;
        // It calls the host, and that takes time.
        one.way = None;
        one.cpu.turn.give_back();
        other.poll(&turns);
        assert_eq!(other.ticks, stood + 1);
        assert_eq!(turns.0.available_permits(), 0);
        drop(other);
        assert_eq!(turns.0.available_permits(), 1);
    }

    #[test]
    fn who_computes_a_little_now_and_then_needs_no_turn() {
        let slot = TurnSlot::new();
        let begun = Instant::now();
        for n in 1..1_000 {
            let used = Duration::from_micros(200) * n;
            assert!(slot.is_quick(used, begun + TICK * n), "after {n} ticks");
        }
        let much = Duration::from_secs(1);
        assert!(!slot.is_quick(much, begun + TICK * 1_000));
        assert!(!slot.is_quick(much + TICK, begun + TICK * 1_001));
        assert!(slot.is_quick(much + TICK, begun + TICK * 1_200), "after a rest");
    }
}
