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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn plan(canary: u32, failed_max_percent: u32) -> BulkPlan {
        BulkPlan {
            action: BulkAction::Restart,
            rate_per_s: 500,
            canary,
            failed_max_percent,
            overrides: Overrides::default(),
            version: None,
            by: None,
            reason: None,
        }
    }

    fn progress(pending: u64, under_way: u64, completed: u64, failed: u64) -> BulkProgress {
        BulkProgress { pending, under_way, completed, failed, skipped: 0 }
    }

    #[test]
    fn what_comes_next() {
        for (canary, percent, progress, next) in [
            (10, 20, progress(100, 0, 0, 0), BulkNext::Repair(10)),
            (10, 20, progress(95, 5, 0, 0), BulkNext::Repair(5)),
            (10, 20, progress(90, 9, 1, 0), BulkNext::Wait),
            (10, 20, progress(90, 0, 10, 0), BulkNext::Repair(50)),
            (10, 20, progress(90, 0, 8, 2), BulkNext::Repair(50)),
            (10, 20, progress(90, 0, 7, 3), BulkNext::Stop),
            // The rest of the canaries cannot make it good.
            (10, 20, progress(90, 7, 0, 3), BulkNext::Stop),
            (10, 0, progress(90, 9, 0, 1), BulkNext::Stop),
            (1, 50, progress(3, 0, 0, 1), BulkNext::Stop),
            (10, 100, progress(90, 0, 0, 10), BulkNext::Repair(50)),
            // Without canaries the first failures say little.
            (0, 20, progress(90, 9, 0, 1), BulkNext::Repair(50)),
            (0, 20, progress(90, 7, 0, 3), BulkNext::Stop),
            (0, 20, progress(2, 0, 0, 1), BulkNext::Stop),
            (0, 20, progress(20, 0, 0, 0), BulkNext::Repair(20)),
            (10, 20, progress(0, 3, 0, 0), BulkNext::Wait),
            // Nothing is left to stop.
            (10, 20, progress(0, 1, 0, 9), BulkNext::Wait),
            (10, 20, progress(0, 0, 0, 10), BulkNext::Done),
            (10, 20, progress(0, 0, 0, 0), BulkNext::Done),
        ] {
            assert_eq!(plan(canary, percent).next(&progress, 50), next, "{canary} {percent} {progress:?}");
        }
        assert_eq!(plan(0, 20).next(&progress(5, 0, 0, 0), 0), BulkNext::Wait);
    }

    proptest! {
        /// A bulk repair that is played to its end: it comes to one, never has more under way
        /// before its canaries are through than there are canaries, and stops for a reason.
        #[test]
        fn it_ends_and_its_canaries_go_first(
            total in 0..60u64, canary in 0..12u32, percent in 0..=100u32,
            dice in proptest::collection::vec((0..20u64, 0..20u64, 0..20u64, 0..4u64), 0..100),
        ) {
            let plan = plan(canary, percent);
            let mut now = progress(total, 0, 0, 0);
            let mut dice = dice.into_iter();
            let mut ended = None;
            for _ in 0..1_000 {
                // The kindest in the end: all that is under way completes.
                let (budget, completed, failed, skipped) = dice.next().unwrap_or((20, 20, 0, 0));
                match plan.next(&now, budget) {
                    BulkNext::Repair(more) => {
                        prop_assert!(0 < more && more <= now.pending);
                        let through = now.completed + now.failed >= u64::from(canary);
                        let allowed = if through { budget } else { u64::from(canary) - now.repaired() };
                        prop_assert!(more <= allowed, "{} of {} at {:?}", more, allowed, now);
                        let skipped = skipped.min(more);
                        now.pending -= more;
                        now.skipped += skipped;
                        now.under_way += more - skipped;
                    }
                    BulkNext::Wait => {}
                    end => {
                        ended = Some(end);
                        break;
                    }
                }
                let failed = failed.min(now.under_way);
                let completed = completed.min(now.under_way - failed);
                now.under_way -= failed + completed;
                now.failed += failed;
                now.completed += completed;
                prop_assert_eq!(now.total(), total);
            }
            match ended {
                Some(BulkNext::Done) => prop_assert_eq!((now.pending, now.under_way), (0, 0)),
                Some(BulkNext::Stop) => {
                    prop_assert!(now.pending > 0);
                    prop_assert!(now.failed * 100 > (now.failed + now.completed) * u64::from(percent));
                }
                other => prop_assert!(false, "{:?} at {:?}", other, now),
            }
        }
    }

    #[test]
    fn every_state_has_its_word() {
        assert!(BulkState::ALL.iter().all(|state| BulkState::parse(state.as_str()) == Some(*state)));
    }
}
