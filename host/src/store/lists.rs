//! What lists and details show, and how they are asked for.

use stepbox_domain::{
    Digest, ExecutionId, ExecutionStatus, Failure, Fingerprint, Json, RunId, TaskName, Timestamp,
    capability::Grants, limits::LimitSettings, run::Wait,
};

use super::{RunKey, Standing};

/// An execution as lists and details show it.
#[derive(Clone, Debug, PartialEq)]
pub struct ExecutionView {
    pub id: ExecutionId,
    pub task: TaskName,
    /// Of the current run.
    pub payload: Json,
    /// Of the first start, whatever payload later runs were given.
    pub fingerprint: Fingerprint,
    pub status: ExecutionStatus,
    pub scheduled_at: Timestamp,
    pub completed_at: Option<Timestamp>,
    /// Of the current run.
    pub version: u32,
    pub run: RunId,
    pub run_key: RunKey,
    pub result: Option<Json>,
    pub error: Option<Failure>,
    pub waiting: Option<Wait>,
}

impl ExecutionView {
    /// Its current run, which is driven, stands like this from now on.
    pub(super) fn stand(&mut self, standing: Standing) {
        self.waiting = None;
        match standing {
            Standing::Open { waiting, .. } => self.waiting = waiting,
            Standing::Completed { result, at } => {
                self.status = ExecutionStatus::Completed;
                self.completed_at = Some(at);
                self.result = Some(result);
            }
            Standing::Failed { failure, at, .. } => {
                self.status = ExecutionStatus::Failed;
                self.completed_at = Some(at);
                self.error = Some(failure);
            }
        }
    }
}

#[derive(Clone, Debug, Default)]
pub struct ExecutionFilter {
    pub status: Option<ExecutionStatus>,
    pub task: Option<String>,
    /// Bounds of `scheduled_at`, both included.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// A substring of the id or the task name, whatever the case of its ASCII letters.
    pub search: Option<String>,
}

#[derive(Clone, Copy, Debug)]
pub struct Page {
    pub sort: Sort,
    pub descending: bool,
    pub limit: u32,
    pub offset: u64,
}

/// What a list is ordered by; then by `scheduled_at`, then by the order of the starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    ScheduledAt,
    Status,
    TaskName,
}

/// How many executions there are of each status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub scheduled: u64,
    pub running: u64,
    pub completed: u64,
    pub failed: u64,
    pub cancelled: u64,
}

impl Counts {
    pub(super) fn of(&mut self, status: ExecutionStatus) -> &mut u64 {
        match status {
            ExecutionStatus::Scheduled => &mut self.scheduled,
            ExecutionStatus::Running => &mut self.running,
            ExecutionStatus::Completed => &mut self.completed,
            ExecutionStatus::Failed => &mut self.failed,
            ExecutionStatus::Cancelled => &mut self.cancelled,
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub struct ModuleView {
    pub task: TaskName,
    /// The active version; the newest, where none is active because all of them wait for grants.
    pub shown: VersionView,
    /// The newest that waits for grants.
    pub waiting: Option<VersionView>,
    pub versions: u32,
    /// Executions that are not over, over all versions.
    pub unfinished: u64,
}

#[derive(Clone, Debug, PartialEq)]
pub struct VersionView {
    pub task: TaskName,
    pub version: u32,
    pub active: bool,
    /// Whether it becomes active by itself when it is granted what it wants. No longer, once a
    /// newer one has been active.
    pub waiting: bool,
    pub digest: Digest,
    pub size_bytes: u64,
    pub compiled_in_ms: u64,
    pub created_at: Timestamp,
    pub manifest: Json,
    /// Executions that are not over and whose current run is pinned to it.
    pub unfinished: u64,
}

/// What an admin has set for a task.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct SettingsView {
    pub grants: Grants,
    pub limits: LimitSettings,
}
