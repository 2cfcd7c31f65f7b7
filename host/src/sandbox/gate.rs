//! What holds back whatever of a step could be seen outside of it.
//!
//! A step may begin before what it follows from is on disk, as long as nothing comes of it: what it
//! computes dies with the host, and nobody has known of it. Its ways out (a line that it prints, a
//! request that it sends) lead through here and wait.

use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use tokio::sync::Notify;

/// Open unless somebody shuts it.
#[derive(Debug, Default)]
pub struct Gate {
    shut: AtomicBool,
    /// Somebody has come to it.
    used: AtomicBool,
    opened: Notify,
}

impl Gate {
    pub fn shut(&self) {
        self.shut.store(true, SeqCst);
    }

    pub fn open(&self) {
        self.shut.store(false, SeqCst);
        self.opened.notify_waiters();
    }

    pub fn is_open(&self) -> bool {
        !self.shut.load(SeqCst)
    }

    /// Whether anybody has come to it since the last call.
    pub fn take_used(&self) -> bool {
        self.used.swap(false, SeqCst)
    }

    /// Comes back as soon as it is open.
    pub async fn passed(&self) {
        self.used.store(true, SeqCst);
        loop {
            // Before the look: an opening that comes between the two is heard.
            let opened = self.opened.notified();
            if self.is_open() {
                return;
            }
            opened.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    #[test]
    fn who_comes_while_it_is_shut_waits_until_it_opens() {
        let gate = Gate::default();
        assert_eq!(gate.passed().now_or_never(), Some(()));
        gate.shut();
        let mut waiting = [Box::pin(gate.passed()), Box::pin(gate.passed())];
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        // Opened for a moment only: who looks then finds it shut again.
        gate.open();
        gate.shut();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_none()));
        gate.open();
        assert!(waiting.iter_mut().all(|one| one.now_or_never().is_some()));
        assert!(gate.take_used() && !gate.take_used());
    }
}
