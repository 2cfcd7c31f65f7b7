//! Who waits for an execution to be over.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use stepbox_domain::ExecutionId;
use tokio::sync::Notify;

/// Entries exist only while somebody waits.
#[derive(Default)]
pub(crate) struct Waiters {
    waiting: Mutex<HashMap<ExecutionId, Entry>>,
}

struct Entry {
    over: Arc<Notify>,
    waiters: usize,
}

/// A place in the queue of those who wait for one execution; given up when dropped.
pub(crate) struct Waiter<'a> {
    waiters: &'a Waiters,
    execution: ExecutionId,
    over: Arc<Notify>,
}

impl Waiters {
    /// From here on [`Waiter::over`] hears of the end. Look at the execution after this, not
    /// before: what ends between the two would be missed.
    pub fn enter(&self, execution: &ExecutionId) -> Waiter<'_> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = waiting
            .entry(execution.clone())
            .or_insert_with(|| Entry { over: Arc::new(Notify::new()), waiters: 0 });
        entry.waiters += 1;
        Waiter { waiters: self, execution: execution.clone(), over: entry.over.clone() }
    }

    /// Tells all who wait that `execution` is over.
    pub fn wake(&self, execution: &ExecutionId) {
        let waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(entry) = waiting.get(execution) {
            entry.over.notify_waiters();
        }
    }
}

impl Waiter<'_> {
    /// Armed from the moment of this call, before it is awaited.
    pub fn over(&self) -> impl Future<Output = ()> + '_ {
        let mut over = Box::pin(self.over.notified());
        over.as_mut().enable();
        over
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
