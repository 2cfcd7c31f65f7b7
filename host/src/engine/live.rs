//! Which runs are being driven by this process, and how to reach them.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use tokio::sync::Notify;

use super::ready::Ready;
use crate::store::RunKey;

/// The outside end of a run that is being driven here.
#[derive(Default)]
pub(crate) struct LiveHandle {
    /// Events may have come since the run last looked. True at first: some may have come before
    /// the handle could be found.
    news: AtomicBool,
    knock: Notify,
    cancelled: AtomicBool,
    cancel: Notify,
}

impl LiveHandle {
    fn new() -> Arc<Self> {
        Arc::new(LiveHandle { news: AtomicBool::new(true), ..LiveHandle::default() })
    }

    /// Whether there may be news since the last call; asking takes note.
    pub fn take_news(&self) -> bool {
        self.news.swap(false, Ordering::AcqRel)
    }

    /// Comes back when there may be news.
    pub async fn knocked(&self) {
        self.knock.notified().await;
    }

    pub async fn cancelled(&self) {
        while !self.is_cancelled() {
            self.cancel.notified().await;
        }
    }

    pub fn is_cancelled(&self) -> bool {
        self.cancelled.load(Ordering::Acquire)
    }
}

#[derive(Default)]
pub(crate) struct LiveRuns {
    runs: Mutex<HashMap<RunKey, Arc<LiveHandle>>>,
    left: Notify,
}

impl LiveRuns {
    /// None when the run is being driven already.
    pub fn enter(&self, run: RunKey) -> Option<Arc<LiveHandle>> {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if runs.contains_key(&run) {
            return None;
        }
        let handle = LiveHandle::new();
        runs.insert(run, handle.clone());
        Some(handle)
    }

    /// The run is no longer driven here. One that stands at an event and has news that it has not
    /// looked at goes straight back to `ready`: between the two nobody could have told it.
    pub fn leave(&self, run: RunKey, stands_at_event: bool, ready: &Ready) {
        let mut runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = runs.remove(&run)
            && stands_at_event
            && handle.take_news()
        {
            ready.push(run);
        }
        drop(runs);
        self.left.notify_waiters();
    }

    /// Tells the run that an event has come. False: it is not driven here.
    pub fn knock(&self, run: RunKey) -> bool {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(handle) = runs.get(&run) else { return false };
        handle.news.store(true, Ordering::Release);
        handle.knock.notify_one();
        true
    }

    /// Interrupts the run, whatever it is doing.
    pub fn cancel(&self, run: RunKey) {
        let runs = self.runs.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(handle) = runs.get(&run) {
            handle.cancelled.store(true, Ordering::Release);
            handle.cancel.notify_one();
        }
    }

    pub fn len(&self) -> usize {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner).len()
    }

    /// Comes back when no run is driven here.
    pub async fn empty(&self) {
        loop {
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if self.len() == 0 {
                return;
            }
            left.await;
        }
    }
}
