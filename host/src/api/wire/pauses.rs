//! Pause rules.

use serde::Serialize;
use stepbox_domain::{
    ExecutionId, TaskName, Timestamp,
    pause::{self, PauseRuleId},
};

use super::Time;

/// An admin's standing order.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct PauseRule {
    rule_id: PauseRuleId,
    execution_id: Option<ExecutionId>,
    task_name: Option<TaskName>,
    step_pattern: Option<String>,
    created_at: Time,
    expires_at: Option<Time>,
    created_by: Option<String>,
    deleted_at: Option<Time>,
    deleted_by: Option<String>,
    reason: Option<String>,
    /// Whether it holds what it matches: neither deleted nor expired.
    active: bool,
}

impl PauseRule {
    pub fn new(rule: pause::PauseRule, now: Timestamp) -> Self {
        PauseRule {
            active: rule.in_force(now),
            rule_id: rule.id,
            execution_id: rule.scope.execution,
            task_name: rule.scope.task,
            step_pattern: rule.scope.step.map(|pattern| pattern.as_str().to_owned()),
            created_at: Time(rule.created_at),
            expires_at: rule.expires_at.map(Time),
            created_by: rule.created_by,
            deleted_at: rule.deleted_at.map(Time),
            deleted_by: rule.deleted_by,
            reason: rule.reason,
        }
    }
}

/// The answer to a resume.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RulesDeleted {
    pub rules_deleted: u64,
}
