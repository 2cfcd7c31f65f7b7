//! What admins do and see: repairs, runs, the audit trail, troubles, bulk repairs.

use serde::{Deserialize, Serialize};
use stepbox_domain::{
    ExecutionId, ExecutionStatus, Failure, Json, RunId, TaskName, Timestamp,
    audit::{AuditAction, AuditEntry, AuditHash},
    bulk::{BulkId, BulkPlan, BulkProgress, BulkState},
    journal::Record,
    run::RunFacts,
    trouble::Trouble,
};

use super::Claim;

/// A run that is held for a repair.
#[derive(Clone, Debug, PartialEq)]
pub struct Seized {
    pub claim: Claim,
    pub facts: RunFacts,
    pub status: ExecutionStatus,
    pub records: Vec<Record>,
}

/// A repair, as it is written.
#[derive(Clone, Debug)]
pub struct Repair {
    /// Of [`Store::seize`].
    pub claim: Claim,
    pub change: RepairChange,
    pub audit: AuditEntry,
    /// The bulk repair that this is an item of: its item is marked as repaired. It must be pending.
    pub bulk: Option<BulkId>,
}

#[derive(Clone, Debug)]
#[expect(clippy::large_enum_variant, reason = "there is one for each repair, and it is moved once")]
pub enum RepairChange {
    /// The run goes on: `records` are added to its journal (the first has number `first_number`),
    /// and run and execution are `running` again if they were over, with no result and no error.
    Amend {
        first_number: u64,
        records: Vec<Record>,
        /// The module version that run and execution are pinned to from now on, where it changes.
        version: Option<u32>,
    },
    /// The run is over for good (`end`, if it was still going, is added to its journal, and it is
    /// cancelled), and a new one begins, which is the execution's current run from now on:
    /// `scheduled`, with the next index and with `records` as its journal so far. The old one keeps
    /// what the execution had as result and error.
    Replace {
        end: Option<Record>,
        at: Timestamp,
        trigger: Trigger,
        triggered_by: Option<String>,
        version: u32,
        /// None: that of the run before.
        payload: Option<Json>,
        deadline: Option<Timestamp>,
        records: Vec<Record>,
    },
}

/// Why there is a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    Initial,
    Restart,
    SelectiveRerun,
}

impl Trigger {
    pub const ALL: [Trigger; 3] = [Self::Initial, Self::Restart, Self::SelectiveRerun];

    /// The word in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Initial => "initial",
            Self::Restart => "restart",
            Self::SelectiveRerun => "selective_rerun",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|trigger| trigger.as_str() == text)
    }
}

/// A run as lists show it.
#[derive(Clone, Debug, PartialEq)]
pub struct RunView {
    pub run: RunId,
    pub index: u32,
    pub version: u32,
    pub payload: Json,
    pub status: ExecutionStatus,
    pub result: Option<Json>,
    pub error: Option<Failure>,
    pub created_at: Timestamp,
    /// At the first claim.
    pub started_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub trigger: Trigger,
    pub triggered_by: Option<String>,
}

/// An entry of the audit trail, as it is stored.
#[derive(Clone, Debug, PartialEq)]
pub struct AuditView {
    /// From 1, without gaps.
    pub number: u64,
    pub entry: AuditEntry,
    pub hash: AuditHash,
}

/// An entry of the audit trail as it is found by [`super::audit_trail::AuditTrail`], whatever has been done to it.
#[derive(Clone, Debug, PartialEq)]
pub enum AuditRow {
    Read(AuditView),
    /// Nothing that this program writes: the entry was altered.
    Unreadable {
        number: u64,
        why: String,
    },
}

/// What is set must match.
#[derive(Clone, Debug, Default)]
pub struct AuditFilter {
    pub action: Option<AuditAction>,
    pub actor: Option<String>,
    pub execution: Option<ExecutionId>,
    pub task: Option<TaskName>,
    /// Bounds of the time, both included.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
}

/// Failed executions that have the same trouble.
#[derive(Clone, Debug, PartialEq)]
pub struct TroubleView {
    /// [`Trouble::fingerprint`].
    pub fingerprint: String,
    pub trouble: Trouble,
    pub count: u64,
    pub first_at: Timestamp,
    pub last_at: Timestamp,
    pub examples: Vec<ExecutionId>,
}

/// Failed executions that match all that is set.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct FailedSelection {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<TaskName>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Bounds of when they failed, both included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// As in [`ExecutionFilter`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub search: Option<String>,
}

#[derive(Clone, Debug)]
pub struct NewBulk {
    pub id: BulkId,
    pub plan: BulkPlan,
    pub selection: FailedSelection,
    pub now: Timestamp,
}

/// A bulk repair and how far it is.
#[derive(Clone, Debug, PartialEq)]
pub struct BulkView {
    pub id: BulkId,
    pub plan: BulkPlan,
    pub selection: FailedSelection,
    pub state: BulkState,
    /// Why it was stopped or cancelled.
    pub why: Option<String>,
    pub created_at: Timestamp,
    pub ended_at: Option<Timestamp>,
    pub progress: BulkProgress,
    /// Of the items that were skipped or failed again: a few ids, with why.
    pub examples: Vec<(ExecutionId, String)>,
}

/// So many examples a [`BulkView`] has at most.
pub(super) const BULK_EXAMPLES: usize = 10;

/// Why the item of an execution that somebody cancelled has failed.
pub(super) const BULK_CANCELLED: &str = "the execution was cancelled";
