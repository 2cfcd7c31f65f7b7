//! Runs that go later: one entry each, in memory, ordered by when.
//!
//! A suspended run costs some 100 bytes here. The store has the due times too, so nothing is
//! lost with the process.

use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use stepbox_domain::Timestamp;
use tokio::sync::Notify;

use super::{clock::Clock, ready::Ready};
use crate::store::RunKey;

/// How long the timer task sleeps at most: the wall clock may jump, and a sleep of the process
/// does not notice.
const NAP_MAX: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Timers {
    entries: Mutex<Entries>,
    sooner: Notify,
}

#[derive(Default)]
struct Entries {
    by_due: BTreeSet<(Timestamp, RunKey)>,
    due_of: HashMap<RunKey, Timestamp>,
}

impl Entries {
    fn remove(&mut self, run: RunKey) {
        if let Some(due) = self.due_of.remove(&run) {
            self.by_due.remove(&(due, run));
        }
    }
}

impl Timers {
    /// Wakes `run` at `due`, and not at whatever time was set before.
    pub fn set(&self, run: RunKey, due: Timestamp) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        entries.remove(run);
        entries.due_of.insert(run, due);
        entries.by_due.insert((due, run));
        let is_first = entries.by_due.first() == Some(&(due, run));
        drop(entries);
        if is_first {
            self.sooner.notify_one();
        }
    }

    pub fn forget(&self, run: RunKey) {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).remove(run);
    }

    pub fn len(&self) -> usize {
        self.entries.lock().unwrap_or_else(PoisonError::into_inner).due_of.len()
    }

    /// What is due at `now`, taken out; and when the next will be.
    fn take_due(&self, now: Timestamp) -> (Vec<RunKey>, Option<Timestamp>) {
        let mut entries = self.entries.lock().unwrap_or_else(PoisonError::into_inner);
        let mut due = Vec::new();
        while let Some((at, run)) = entries.by_due.first().copied().filter(|(at, _)| *at <= now) {
            entries.by_due.remove(&(at, run));
            entries.due_of.remove(&run);
            due.push(run);
        }
        (due, entries.by_due.first().map(|(at, _)| *at))
    }

    /// Moves what becomes due to `ready`, for ever.
    pub async fn run(&self, clock: &Clock, ready: &Ready) {
        loop {
            let now = clock.now();
            let (due, next) = self.take_due(now);
            if !due.is_empty() {
                ready.push_all(due);
            }
            let nap = next.map_or(NAP_MAX, |next| Duration::from_millis(next.ms_since(now)).min(NAP_MAX));
            tokio::select! {
                biased;
                () = tokio::time::sleep(nap) => {}
                () = self.sooner.notified() => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_run_is_due_once_and_at_its_latest_time() {
        let timers = Timers::default();
        let at = Timestamp::from_ms;
        timers.set(RunKey(1), at(100));
        timers.set(RunKey(2), at(50));
        timers.set(RunKey(1), at(70));
        timers.set(RunKey(3), at(60));
        timers.forget(RunKey(3));
        assert_eq!(timers.take_due(at(49)), (vec![], Some(at(50))));
        assert_eq!(timers.take_due(at(100)), (vec![RunKey(2), RunKey(1)], None));
        assert_eq!(timers.len(), 0);
    }
}
