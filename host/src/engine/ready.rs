//! Runs that could go now: a queue in memory, first come first served.
//!
//! Losing it loses nothing, since recovery fills it from the store. Nobody polls: a push wakes
//! the dispatcher.

use std::{
    collections::{HashSet, VecDeque},
    sync::{Mutex, PoisonError},
};

use tokio::sync::Notify;

use crate::store::RunKey;

#[derive(Default)]
pub(crate) struct Ready {
    queue: Mutex<Queue>,
    pushed: Notify,
}

#[derive(Default)]
struct Queue {
    order: VecDeque<RunKey>,
    /// A run stands in the queue at most once, however many reasons it has to go.
    members: HashSet<RunKey>,
}

impl Ready {
    pub fn push(&self, run: RunKey) {
        self.push_all([run]);
    }

    pub fn push_all(&self, runs: impl IntoIterator<Item = RunKey>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for run in runs {
            if queue.members.insert(run) {
                queue.order.push_back(run);
            }
        }
        drop(queue);
        self.pushed.notify_one();
    }

    /// The run that has waited longest; waits until there is one.
    pub async fn pop(&self) -> RunKey {
        loop {
            // The permit of `notify_one` is kept, so a push between the look and the wait wakes us.
            if let Some(run) = self.try_pop() {
                return run;
            }
            self.pushed.notified().await;
        }
    }

    fn try_pop(&self) -> Option<RunKey> {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let run = queue.order.pop_front()?;
        queue.members.remove(&run);
        Some(run)
    }

    pub fn len(&self) -> usize {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).order.len()
    }
}
