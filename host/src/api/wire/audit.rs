//! The audit trail.

use serde::Serialize;
use stepbox_domain::{ExecutionId, Json, TaskName, audit::AuditHash};

use super::Time;
use crate::store::AuditView;

/// What somebody did, when and why.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct AuditEntry {
    /// From 1, without gaps.
    number: u64,
    at: Time,
    actor: Option<String>,
    action: &'static str,
    execution_id: Option<ExecutionId>,
    task_name: Option<TaskName>,
    /// What within the execution or the task.
    target: Option<String>,
    before: Json,
    after: Json,
    reason: Option<String>,
    /// Of this entry and all before it.
    hash: AuditHash,
}

impl From<AuditView> for AuditEntry {
    fn from(view: AuditView) -> Self {
        let AuditView { number, entry, hash } = view;
        AuditEntry {
            number,
            at: Time(entry.at),
            actor: entry.actor,
            action: entry.action.as_str(),
            execution_id: entry.execution,
            task_name: entry.task,
            target: entry.target,
            before: entry.before,
            after: entry.after,
            reason: entry.reason,
            hash,
        }
    }
}
