//! One repair of an execution after the other.
//!
//! The store keeps two repairs apart by itself, but the later one would take the run from the
//! earlier and both would begin again. Taking turns, the second sees what the first has done.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};

use stepbox_domain::ExecutionId;
use tokio::sync::OwnedMutexGuard;

/// Entries exist only while somebody repairs or waits for it.
#[derive(Default)]
pub(crate) struct Turns {
    queues: Mutex<HashMap<ExecutionId, Arc<tokio::sync::Mutex<()>>>>,
}

/// Given back when dropped.
pub(crate) struct Turn<'a> {
    turns: &'a Turns,
    execution: ExecutionId,
    held: Option<OwnedMutexGuard<()>>,
}

impl Turns {
    /// Comes back when nobody else repairs `execution`; first come first served.
    pub async fn take(&self, execution: &ExecutionId) -> Turn<'_> {
        let queue = {
            let mut queues = self.queues.lock().unwrap_or_else(PoisonError::into_inner);
            queues.entry(execution.clone()).or_default().clone()
        };
        // Made before the wait, so that whoever is dropped while it waits clears up too.
        let mut turn = Turn { turns: self, execution: execution.clone(), held: None };
        turn.held = Some(queue.lock_owned().await);
        turn
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        self.held = None;
        let mut queues = self.turns.queues.lock().unwrap_or_else(PoisonError::into_inner);
        // New ones come only out of this map: with no copy outside there is nobody.
        if queues.get(&self.execution).is_some_and(|queue| Arc::strong_count(queue) == 1) {
            queues.remove(&self.execution);
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn one_after_the_other_and_nothing_is_left_over() {
        let turns = Turns::default();
        let [a, b] = ["a", "b"].map(|id| ExecutionId::parse(id).unwrap());
        let first = turns.take(&a).now_or_never().unwrap();
        assert!(turns.take(&b).now_or_never().is_some(), "another execution is no matter");
        assert!(turns.take(&a).now_or_never().is_none());
        {
            let mut second = Box::pin(turns.take(&a));
            assert!(second.as_mut().now_or_never().is_none());
            drop(first);
            assert!(second.as_mut().now_or_never().is_some());
        }
        assert!(turns.queues.lock().unwrap().is_empty());
    }
}
