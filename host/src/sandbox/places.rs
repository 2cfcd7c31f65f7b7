//! Who may have an instance now. The pool has as many places as are given out here, so making an
//! instance waits and does not fail.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{instance::StepInstance, limits::MemoryBudget};

/// A place in the pool; free again when dropped.
pub(super) type Place = OwnedSemaphorePermit;

/// Places for handler instances.
pub(super) struct HandlerPlaces {
    free: Arc<Semaphore>,
    pub memory: Arc<MemoryBudget>,
}

impl HandlerPlaces {
    pub(super) fn new(places: u32, memory: Arc<MemoryBudget>) -> Self {
        HandlerPlaces { free: Arc::new(Semaphore::new(places as usize)), memory }
    }

    pub(super) async fn take(&self) -> Place {
        take(&self.free).await
    }
}

/// Places for step instances. One that has nothing to do stays with its run, since the next step
/// will want it, but only until another run waits for a place.
pub(super) struct StepPlaces {
    free: Arc<Semaphore>,
    pub memory: Arc<MemoryBudget>,
    waiting: AtomicUsize,
    idle: Mutex<IdleList>,
}

/// A run's step instance while it has nothing to do; empty while it works, or when it was taken.
#[derive(Default)]
pub(super) struct IdleInstance {
    instance: Mutex<Option<Box<StepInstance>>>,
    listed: AtomicBool,
}

impl IdleInstance {
    pub(super) fn take(&self) -> Option<Box<StepInstance>> {
        self.instance.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn put(&self, instance: Box<StepInstance>) {
        *self.instance.lock().unwrap_or_else(PoisonError::into_inner) = Some(instance);
    }
}

/// Those that may have an idle instance, each once.
#[derive(Default)]
struct IdleList {
    slots: VecDeque<Weak<IdleInstance>>,
    /// At this length, those whose run is over are swept out.
    sweep_at: usize,
}

impl IdleList {
    fn push(&mut self, slot: &Arc<IdleInstance>) {
        if slot.listed.swap(true, SeqCst) {
            return;
        }
        self.slots.push_back(Arc::downgrade(slot));
        if self.slots.len() > self.sweep_at {
            self.slots.retain(|slot| slot.strong_count() > 0);
            self.sweep_at = (2 * self.slots.len()).max(64);
        }
    }

    fn pop(&mut self) -> Option<Weak<IdleInstance>> {
        let slot = self.slots.pop_front()?;
        if let Some(slot) = slot.upgrade() {
            slot.listed.store(false, SeqCst);
        }
        Some(slot)
    }
}

impl StepPlaces {
    pub(super) fn new(places: u32, memory: Arc<MemoryBudget>) -> Self {
        StepPlaces {
            free: Arc::new(Semaphore::new(places as usize)),
            memory,
            waiting: AtomicUsize::new(0),
            idle: Mutex::default(),
        }
    }

    pub(super) async fn take(&self) -> Place {
        if let Ok(place) = self.free.clone().try_acquire_owned() {
            return place;
        }
        // Announced before the look around: an instance that becomes idle from now on sees it.
        let _waiting = Waiting::announce(&self.waiting);
        self.drop_one_idle();
        take(&self.free).await
    }

    /// Keeps `instance` with its run for the next step, unless somebody waits for the place.
    pub(super) fn rest(&self, slot: &Arc<IdleInstance>, instance: Box<StepInstance>) {
        slot.put(instance);
        self.idle().push(slot);
        if self.waiting.load(SeqCst) > 0 {
            self.drop_one_idle();
        }
    }

    fn drop_one_idle(&self) {
        loop {
            let Some(slot) = self.idle().pop() else { return };
            if let Some(instance) = slot.upgrade().and_then(|slot| slot.take()) {
                drop(instance);
                return;
            }
        }
    }

    fn idle(&self) -> MutexGuard<'_, IdleList> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Waiting<'a>(&'a AtomicUsize);

impl<'a> Waiting<'a> {
    fn announce(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, SeqCst);
        Waiting(count)
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, SeqCst);
    }
}

async fn take(free: &Arc<Semaphore>) -> Place {
    free.clone().acquire_owned().await.expect("the semaphore is never closed")
}
