//! The audit trail: one entry for each admin write, each chained to the one before by hash.
//!
//! Who changes, removes or inserts an entry breaks the chain at that place, and [`Chain`] finds it.
//! Who cuts off the end does not: that is seen by comparing with a head that was noted elsewhere.

use serde::{Deserialize, Serialize};

use crate::{
    ExecutionId, Json, TaskName, Timestamp,
    ids::{hex, sha256},
};

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    /// Who; none where they did not say.
    pub actor: Option<String>,
    pub action: AuditAction,
    pub execution: Option<ExecutionId>,
    pub task: Option<TaskName>,
    /// What within the execution or the task: a step, a pause rule, a version, a bulk repair.
    pub target: Option<String>,
    /// What it was like, as JSON; null where there was nothing.
    pub before: Json,
    pub after: Json,
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditAction {
    RetryStep,
    ResolveStep,
    Restart,
    Rerun,
    Cancel,
    Pause,
    Resume,
    UploadModule,
    ActivateVersion,
    RemoveModule,
    StartBulk,
    CancelBulk,
    /// By the host itself: too much failed again.
    StopBulk,
}

impl AuditAction {
    pub const ALL: [AuditAction; 13] = [
        Self::RetryStep,
        Self::ResolveStep,
        Self::Restart,
        Self::Rerun,
        Self::Cancel,
        Self::Pause,
        Self::Resume,
        Self::UploadModule,
        Self::ActivateVersion,
        Self::RemoveModule,
        Self::StartBulk,
        Self::CancelBulk,
        Self::StopBulk,
    ];

    /// The word in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RetryStep => "retry_step",
            Self::ResolveStep => "resolve_step",
            Self::Restart => "restart",
            Self::Rerun => "rerun",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::UploadModule => "upload_module",
            Self::ActivateVersion => "activate_version",
            Self::RemoveModule => "remove_module",
            Self::StartBulk => "start_bulk",
            Self::CancelBulk => "cancel_bulk",
            Self::StopBulk => "stop_bulk",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// The hash of an entry and of all before it, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditHash(String);

impl AuditHash {
    /// What the first entry is chained to.
    pub fn beginning() -> Self {
        AuditHash("0".repeat(64))
    }

    /// As the store keeps it; what is no hash equals none.
    pub fn from_stored(text: String) -> Self {
        AuditHash(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash of entry `number` (from 1) that follows the entry with this hash.
    pub fn next(&self, number: u64, entry: &AuditEntry) -> Self {
        // Through a list, whose elements JSON keeps apart whatever stands in them.
        let text = serde_json::json!([
            self.as_str(),
            number,
            entry.at.as_ms(),
            entry.actor,
            entry.action.as_str(),
            entry.execution.as_ref().map(ExecutionId::as_str),
            entry.task.as_ref().map(TaskName::as_str),
            entry.target,
            entry.before.as_str(),
            entry.after.as_str(),
            entry.reason,
        ]);
        AuditHash(hex(&sha256(text.to_string().as_bytes())))
    }
}

/// Walks along a trail, oldest entry first.
#[derive(Clone, Debug)]
pub struct Chain {
    pub count: u64,
    pub head: AuditHash,
}

impl Default for Chain {
    fn default() -> Self {
        Chain { count: 0, head: AuditHash::beginning() }
    }
}

/// The first place where a trail is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("entry {expected} is missing: entry {found} follows entry {}", .expected - 1)]
    Missing { expected: u64, found: u64 },
    #[error("entry {0} was altered, or an entry before it was replaced")]
    Altered(u64),
}

impl Chain {
    /// Takes the next entry, with the number and the hash that it is stored with.
    pub fn follow(&mut self, number: u64, entry: &AuditEntry, hash: &AuditHash) -> Result<(), Broken> {
        let expected = self.count + 1;
        if number != expected {
            return Err(Broken::Missing { expected, found: number });
        }
        if self.head.next(number, entry) != *hash {
            return Err(Broken::Altered(number));
        }
        *self = Chain { count: number, head: hash.clone() };
        Ok(())
    }
}
