//! How far the host has got with stopping.

use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use super::changes::Changes;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[repr(u8)]
pub(crate) enum Phase {
    Running,
    /// Nothing new begins; what stands still is suspended; steps under way may finish.
    Draining,
    /// Steps under way are interrupted.
    Expired,
}

pub(crate) struct Stopping {
    phase: AtomicU8,
    changes: Changes,
}

impl Stopping {
    pub fn new() -> Self {
        Stopping { phase: AtomicU8::new(Phase::Running as u8), changes: Changes::default() }
    }

    pub fn advance(&self, to: Phase) {
        if self.phase.fetch_max(to as u8, SeqCst) < to as u8 {
            self.changes.tell();
        }
    }

    pub fn has_begun(&self) -> bool {
        self.is_at(Phase::Draining)
    }

    fn is_at(&self, phase: Phase) -> bool {
        self.phase.load(SeqCst) >= phase as u8
    }

    /// Comes back once `phase` is reached; at once if it has been.
    pub async fn reached(&self, phase: Phase) {
        let mut changes = self.changes.seen();
        while !self.is_at(phase) {
            changes.changed().await;
        }
    }
}
