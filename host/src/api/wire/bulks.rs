//! Failures in groups, and the repair of a whole group.

use serde::Serialize;
use stepbox_domain::{
    ExecutionId, TaskName,
    bulk::{BulkAction, BulkId, BulkProgress},
};

use super::Time;
use crate::store::{BulkView, FailedSelection, TroubleView};

/// Failed executions that have the same trouble.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FailureGroup {
    fingerprint: String,
    task_name: TaskName,
    module_version: u32,
    /// The step's name without its count; null when it was the handler.
    step: Option<String>,
    kind: &'static str,
    /// The message without what differs from one execution to the next.
    shape: String,
    count: u64,
    first_at: Time,
    last_at: Time,
    /// Ids, the newest failures first.
    examples: Vec<ExecutionId>,
}

impl From<TroubleView> for FailureGroup {
    fn from(view: TroubleView) -> Self {
        FailureGroup {
            fingerprint: view.fingerprint,
            task_name: view.trouble.task,
            module_version: view.trouble.version,
            step: view.trouble.step,
            kind: view.trouble.kind.as_str(),
            shape: view.trouble.shape,
            count: view.count,
            first_at: Time(view.first_at),
            last_at: Time(view.last_at),
            examples: view.examples,
        }
    }
}

/// The word for an action, in requests and answers.
pub fn bulk_action(action: BulkAction) -> &'static str {
    match action {
        BulkAction::RetryStep => "retry-step",
        BulkAction::Restart => "restart",
    }
}

/// The answer to a bulk repair's dry run.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct BulkCount {
    pub dry_run: bool,
    pub would_repair: u64,
}

/// A bulk repair and how far it is.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Bulk {
    bulk_id: BulkId,
    action: &'static str,
    /// `running`, `completed`, `stopped` (by the host: too many failed again) or `cancelled`.
    state: &'static str,
    why: Option<String>,
    selection: Selection,
    rate_per_second: u32,
    canary: u32,
    failed_share_max_percent: u32,
    attempts_max: Option<u32>,
    timeout_ms: Option<u64>,
    module_version: Option<u32>,
    triggered_by: Option<String>,
    reason: Option<String>,
    progress: Progress,
    created_at: Time,
    ended_at: Option<Time>,
    /// Some that were skipped or failed again, with why.
    examples: Vec<Example>,
}

impl From<BulkView> for Bulk {
    fn from(view: BulkView) -> Self {
        let BulkView { id, plan, selection, state, why, created_at, ended_at, progress, examples } = view;
        let example = |(execution_id, why)| Example { execution_id, why };
        Bulk {
            bulk_id: id,
            action: bulk_action(plan.action),
            state: state.as_str(),
            why,
            selection: selection.into(),
            rate_per_second: plan.rate_per_s,
            canary: plan.canary,
            failed_share_max_percent: plan.failed_max_percent,
            attempts_max: plan.overrides.attempts_max,
            timeout_ms: plan.overrides.timeout_ms,
            module_version: plan.version,
            triggered_by: plan.by,
            reason: plan.reason,
            progress: progress.into(),
            created_at: Time(created_at),
            ended_at: ended_at.map(Time),
            examples: examples.into_iter().map(example).collect(),
        }
    }
}

/// Which failed executions a bulk repair is for.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Selection {
    fingerprint: Option<String>,
    task_name: Option<TaskName>,
    module_version: Option<u32>,
    from: Option<Time>,
    to: Option<Time>,
    search: Option<String>,
}

impl From<FailedSelection> for Selection {
    fn from(selection: FailedSelection) -> Self {
        let FailedSelection { fingerprint, task, version, from, to, search } = selection;
        Selection {
            fingerprint,
            task_name: task,
            module_version: version,
            from: from.map(Time),
            to: to.map(Time),
            search,
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Progress {
    total: u64,
    /// Not touched yet.
    pending: u64,
    /// Repaired, and not over yet.
    under_way: u64,
    completed: u64,
    /// Failed again, or cancelled.
    failed: u64,
    /// Not repaired.
    skipped: u64,
}

impl From<BulkProgress> for Progress {
    fn from(progress: BulkProgress) -> Self {
        let BulkProgress { pending, under_way, completed, failed, skipped } = progress;
        Progress { total: progress.total(), pending, under_way, completed, failed, skipped }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Example {
    execution_id: ExecutionId,
    why: String,
}
