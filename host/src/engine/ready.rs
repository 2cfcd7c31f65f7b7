//! Runs that could go now: a queue in memory, in rounds.
//!
//! What waits when a round begins goes before all that comes during it. Within a round the order is
//! that of the keys: runs that were started one after the other lie side by side in the store, so what
//! is written of them together is few pages. A hundred thousand timers that are due at once would else
//! dirty some six pages each.
//!
//! Losing it loses nothing, since recovery fills it from the store. Nobody polls: a push wakes
//! the dispatcher.

use std::{
    collections::BTreeSet,
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
    /// A run stands in one of the two at most, however many reasons it has to go.
    this_round: BTreeSet<RunKey>,
    next_round: BTreeSet<RunKey>,
}

impl Queue {
    fn push(&mut self, run: RunKey) {
        if !self.this_round.contains(&run) {
            self.next_round.insert(run);
        }
    }

    fn pop(&mut self) -> Option<RunKey> {
        if self.this_round.is_empty() {
            std::mem::swap(&mut self.this_round, &mut self.next_round);
        }
        self.this_round.pop_first()
    }
}

impl Ready {
    pub fn push(&self, run: RunKey) {
        self.push_all([run]);
    }

    pub fn push_all(&self, runs: impl IntoIterator<Item = RunKey>) {
        let mut queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        for run in runs {
            queue.push(run);
        }
        drop(queue);
        self.pushed.notify_one();
    }

    /// The next run of this round; waits until there is one.
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
        self.queue.lock().unwrap_or_else(PoisonError::into_inner).pop()
    }

    pub fn len(&self) -> usize {
        let queue = self.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.this_round.len() + queue.next_round.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn popped(ready: &Ready, count: usize) -> Vec<i64> {
        (0..count).map_while(|_| ready.try_pop()).map(|run| run.0).collect()
    }

    #[test]
    fn a_round_goes_by_the_keys_and_before_all_that_comes_meanwhile() {
        let ready = Ready::default();
        ready.push_all([5, 3, 9].map(RunKey));
        assert_eq!(popped(&ready, 1), [3]);
        ready.push_all([4, 9, 3].map(RunKey));
        assert_eq!(ready.len(), 4, "9 is there already, 3 is not any more");
        assert_eq!(popped(&ready, 9), [5, 9, 3, 4]);
        assert_eq!((popped(&ready, 1), ready.len()), (vec![], 0));
    }
}
