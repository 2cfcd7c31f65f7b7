//! The same repair for many executions: how fast, and when to stop.

use serde::{Deserialize, Serialize};

use crate::step::Overrides;

/// The name of a bulk repair, given by the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct BulkId(String);

impl BulkId {
    /// Any text: an unknown one is found out by looking for it.
    pub fn new(text: impl Into<String>) -> Self {
        BulkId(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// What is done to each execution.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BulkAction {
    /// Its dead step that made it fail is tried again.
    RetryStep,
    Restart,
}

impl BulkAction {
    pub fn as_str(self) -> &'static str {
        match self {
            BulkAction::RetryStep => "retry_step",
            BulkAction::Restart => "restart",
        }
    }
}

/// How it is done. Written down at its start, and never changed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BulkPlan {
    pub action: BulkAction,
    /// Executions a second, once the canaries have come through. At least 1.
    pub rate_per_s: u32,
    /// So many go first, and their outcomes are waited for. 0: none.
    pub canary: u32,
    /// Stop when more than this share of those that have come to an end failed again, in percent.
    pub failed_max_percent: u32,
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub overrides: Overrides,
    /// The module version to go on with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}

/// How far it is: the executions, by what has become of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BulkProgress {
    /// Not touched yet.
    pub pending: u64,
    /// Repaired, and not over yet.
    pub under_way: u64,
    pub completed: u64,
    /// Failed again, or cancelled.
    pub failed: u64,
    /// Not repaired: they had changed since, or could not be.
    pub skipped: u64,
}

impl BulkProgress {
    pub fn total(&self) -> u64 {
        self.pending + self.under_way + self.completed + self.failed + self.skipped
    }

    fn repaired(&self) -> u64 {
        self.under_way + self.completed + self.failed
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkState {
    Running,
    /// All were repaired and have come to an end.
    Completed,
    /// By the host: too many failed again.
    Stopped,
    Cancelled,
}

impl BulkState {
    pub const ALL: [BulkState; 4] = [Self::Running, Self::Completed, Self::Stopped, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Stopped => "stopped",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// What to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BulkNext {
    /// Repair so many more; never 0.
    Repair(u64),
    /// Look again later: the canaries are under way, or the rate allows no more.
    Wait,
    /// Too many failed again.
    Stop,
    /// There is nothing left to do or to wait for.
    Done,
}

impl BulkPlan {
    /// What follows from `progress`, given that the rate allows `budget` more right now.
    pub fn next(&self, progress: &BulkProgress, budget: u64) -> BulkNext {
        let canary = u64::from(self.canary);
        let ended = progress.completed + progress.failed;
        if progress.pending > 0 && self.too_many_failed(progress) {
            return BulkNext::Stop;
        }
        if progress.pending == 0 {
            return if progress.under_way == 0 { BulkNext::Done } else { BulkNext::Wait };
        }
        let allowed = match progress.repaired() {
            repaired if repaired < canary => canary - repaired,
            _ if ended < canary => 0,
            _ => budget,
        };
        match allowed.min(progress.pending) {
            0 => BulkNext::Wait,
            more => BulkNext::Repair(more),
        }
    }

    /// One failure among few says little. So the share is that of all canaries while not all of
    /// them have come to an end (more may fail, not less), and of [`TELLING_MIN`] without any.
    fn too_many_failed(&self, progress: &BulkProgress) -> bool {
        let few = match u64::from(self.canary) {
            0 => TELLING_MIN,
            canary => canary,
        };
        let of = (progress.completed + progress.failed).max(few.min(progress.total()));
        progress.failed * 100 > of * u64::from(self.failed_max_percent)
    }
}

/// Without canaries: so many outcomes tell something.
const TELLING_MIN: u64 = 10;
