//! How far the host has got with stopping.

use tokio::sync::watch;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Phase {
    Running,
    /// Nothing new begins; what stands still is suspended; steps under way may finish.
    Draining,
    /// Steps under way are interrupted.
    Expired,
}

pub(crate) struct Stopping(watch::Sender<Phase>);

impl Stopping {
    pub fn new() -> Self {
        Stopping(watch::Sender::new(Phase::Running))
    }

    pub fn advance(&self, to: Phase) {
        self.0.send_if_modified(|phase| {
            let further = to > *phase;
            *phase = to.max(*phase);
            further
        });
    }

    pub fn has_begun(&self) -> bool {
        *self.0.borrow() >= Phase::Draining
    }

    /// Comes back once `phase` is reached; at once if it has been.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.0.subscribe();
        // An error means that the sender is gone, which it cannot be while we hold it.
        let _ = changes.wait_for(|now| *now >= phase).await;
    }
}
