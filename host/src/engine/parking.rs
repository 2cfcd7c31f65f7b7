//! Who may stand still with its instance kept, and who has to make room.
//!
//! A parked run goes on within microseconds, but holds an instance and a place among the live;
//! a suspended one has to be replayed, but holds nothing.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

pub(crate) struct Parking {
    parked: AtomicUsize,
    parked_max: usize,
    make_room: Notify,
}

/// A parked run's place; given back when dropped.
pub(crate) struct Parked<'a>(&'a Parking);

impl Parking {
    pub fn new(parked_max: usize) -> Self {
        Parking { parked: AtomicUsize::new(0), parked_max, make_room: Notify::new() }
    }

    /// None: no place is free, suspend.
    pub fn enter(&self) -> Option<Parked<'_>> {
        let mut parked = self.parked.load(Ordering::Relaxed);
        loop {
            if parked >= self.parked_max {
                return None;
            }
            match self.parked.compare_exchange_weak(parked, parked + 1, Ordering::AcqRel, Ordering::Relaxed) {
                Ok(_) => return Some(Parked(self)),
                Err(now) => parked = now,
            }
        }
    }

    /// Asks the run that has been parked longest to suspend; does nothing when none is parked.
    pub fn make_room(&self) {
        if self.len() > 0 {
            self.make_room.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.parked.load(Ordering::Acquire)
    }
}

impl Parked<'_> {
    /// Somebody else needs the place.
    pub async fn asked_to_leave(&self) {
        self.0.make_room.notified().await;
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        self.0.parked.fetch_sub(1, Ordering::AcqRel);
    }
}
