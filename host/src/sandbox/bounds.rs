//! What holds for one instance.

use std::sync::Arc;

use stepbox_domain::{Limit, Limits};

use super::GuestLimits;

/// The limits of the task that the instance belongs to, and those that are the same for all.
#[derive(Clone, Debug)]
pub(super) struct Bounds {
    pub task: Arc<Limits>,
    pub host: Arc<GuestLimits>,
}

impl Bounds {
    pub(super) fn get(&self, limit: Limit) -> u64 {
        self.task.get(limit)
    }

    /// A limit on what lies in memory here.
    pub(super) fn size(&self, limit: Limit) -> usize {
        usize::try_from(self.get(limit)).unwrap_or(usize::MAX)
    }

    pub(super) fn value_max_bytes(&self) -> usize {
        self.size(Limit::ValueMaxBytes)
    }
}
