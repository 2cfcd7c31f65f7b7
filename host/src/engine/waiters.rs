//! Who waits for an execution to be over, and what they need not ask the store.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use stepbox_domain::{
    ExecutionId, ExecutionStatus, RunId,
    run::{RunEnd, RunOutcome},
};
use tokio::sync::Notify;

use crate::store::ExecutionView;

#[derive(Default)]
pub(crate) struct Waiters {
    /// Entries exist only while somebody waits.
    waiting: Mutex<HashMap<ExecutionId, Entry>>,
    /// What was started here and has gone on since without coming to rest: whoever waits for it, which
    /// most do at once, need not look.
    fresh: Mutex<HashMap<ExecutionId, ExecutionView>>,
}

struct Entry {
    watched: Arc<Watched>,
    waiters: usize,
}

#[derive(Default)]
struct Watched {
    changed: Notify,
    /// What the last one who told of a change knew of the end.
    ended: Mutex<Option<Ended>>,
}

/// How a run ended that was the current one of its execution, as it is on disk.
#[derive(Clone, Debug)]
pub(crate) struct Ended {
    pub run: RunId,
    pub end: RunEnd,
}

/// A place in the queue of those who wait for one execution; given up when dropped.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    execution: ExecutionId,
    watched: Arc<Watched>,
}

impl Waiters {
    /// From here on [`Waiter::changed`] hears of the end. Look at the execution after this, not
    /// before: what ends between the two would be missed.
    pub fn enter(&self, execution: &ExecutionId) -> Waiter<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry =
            waiting.entry(execution.clone()).or_insert_with(|| Entry { watched: Arc::default(), waiters: 0 });
        entry.waiters += 1;
        Waiter { waiters: self, execution: execution.clone(), watched: entry.watched.clone() }
    }

    /// It has just been created, like this, and its run is about to be driven.
    pub fn started(&self, view: &ExecutionView) {
        let mut fresh = self.fresh.lock().unwrap_or_else(PoisonError::into_inner);
        fresh.insert(view.id.clone(), view.clone());
    }

    /// How an execution was created that is not over and has been nothing but driven since.
    pub fn fresh(&self, execution: &ExecutionId) -> Option<ExecutionView> {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).get(execution).cloned()
    }

    /// Whether there is such a one.
    pub fn is_fresh(&self, execution: &ExecutionId) -> bool {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).contains_key(execution)
    }

    /// From here on the store has to be asked. Comes before those are woken who wait.
    pub fn rests(&self, execution: &ExecutionId) {
        self.fresh.lock().unwrap_or_else(PoisonError::into_inner).remove(execution);
    }

    /// Tells all who wait that `execution` may be over, and how it ended if that is known: then they
    /// need not look.
    pub fn wake(&self, execution: &ExecutionId, ended: Option<Ended>) {
        self.rests(execution);
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = waiting.get(execution) {
            *entry.watched.ended.lock().unwrap_or_else(PoisonError::into_inner) = ended;
            entry.watched.changed.notify_waiters();
        }
    }
}

impl Waiter<'_> {
    /// Armed from the moment of this call, before it is awaited.
    pub fn changed(&self) -> impl Future<Output = ()> + '_ {
        let mut changed = Box::pin(self.watched.changed.notified());
        changed.as_mut().enable();
        changed
    }

    /// How the execution stands that was `fresh`, if whoever told of the change knew that.
    pub fn after(&self, fresh: ExecutionView) -> Option<ExecutionView> {
        let ended = self.watched.ended.lock().unwrap_or_else(PoisonError::into_inner).clone()?;
        // Another run: what else has changed is not known.
        if ended.run != fresh.run {
            return None;
        }
        let (status, result, error) = match ended.end.outcome {
            RunOutcome::Completed(result) => (ExecutionStatus::Completed, Some(result), None),
            RunOutcome::Failed(failure) => (ExecutionStatus::Failed, None, Some(failure)),
            RunOutcome::Cancelled { .. } => return None,
        };
        Some(ExecutionView { status, completed_at: Some(ended.end.at), result, error, ..fresh })
    }
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let mut waiting = self.waiters.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = waiting.get_mut(&self.execution) {
            entry.waiters -= 1;
            if entry.waiters == 0 {
                waiting.remove(&self.execution);
            }
        }
    }
}
