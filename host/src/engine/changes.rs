//! Telling many that something has changed, in the order in which they began to wait.
//!
//! tokio's `watch` does the same, but wakes them in an order for which it draws lots, and then a seed
//! of the simulation would not be a history.

use std::sync::atomic::{AtomicU64, Ordering::SeqCst};

use tokio::sync::Notify;

#[derive(Default)]
pub(crate) struct Changes {
    count: AtomicU64,
    notify: Notify,
}

/// Up to where somebody knows of the changes.
pub(crate) struct Seen<'a> {
    changes: &'a Changes,
    count: u64,
}

impl Changes {
    pub fn tell(&self) {
        self.count.fetch_add(1, SeqCst);
        self.notify.notify_waiters();
    }

    /// Knows of all that was told before.
    pub fn seen(&self) -> Seen<'_> {
        Seen { changes: self, count: self.count.load(SeqCst) }
    }
}

impl Seen<'_> {
    /// Comes back when there is a change that it does not know of, and knows of it then.
    pub async fn changed(&mut self) {
        // Made before the look, it hears of what is told after it.
        let notified = self.changes.notify.notified();
        if self.changes.count.load(SeqCst) == self.count {
            notified.await;
        }
        self.catch_up();
    }

    /// Knows of all that has been told.
    pub fn catch_up(&mut self) {
        self.count = self.changes.count.load(SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn a_change_is_news_once_and_from_the_look_on() {
        let changes = Changes::default();
        changes.tell();
        let mut seen = changes.seen();
        assert!(seen.changed().now_or_never().is_none());
        changes.tell();
        changes.tell();
        assert!(seen.changed().now_or_never().is_some());
        assert!(seen.changed().now_or_never().is_none());
        changes.tell();
        seen.catch_up();
        assert!(seen.changed().now_or_never().is_none());
    }

    #[tokio::test]
    async fn who_waits_first_is_woken_first() {
        let (changes, order) = (Arc::new(Changes::default()), Arc::new(Mutex::new(Vec::new())));
        let mut waiting = tokio::task::JoinSet::new();
        for number in 0..50 {
            let (changes, order) = (changes.clone(), order.clone());
            waiting.spawn(async move {
                changes.seen().changed().await;
                order.lock().unwrap().push(number);
            });
        }
        tokio::task::yield_now().await;
        changes.tell();
        waiting.join_all().await;
        assert_eq!(*order.lock().unwrap(), (0..50).collect::<Vec<_>>());
    }
}
