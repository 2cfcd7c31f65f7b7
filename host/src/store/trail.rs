//! What the store itself puts into entries of the audit trail: what only the change can know.

use stepbox_domain::{ExecutionStatus, Json, TaskName, audit::AuditEntry};

use super::{AuditFilter, StoreError};

/// The entry of a cancel, where it leaves open what it was about.
pub(super) fn of_cancel(mut entry: AuditEntry, task: TaskName, before: ExecutionStatus) -> AuditEntry {
    entry.task.get_or_insert(task);
    fill(&mut entry.before, before);
    fill(&mut entry.after, ExecutionStatus::Cancelled);
    entry
}

fn fill(state: &mut Json, status: ExecutionStatus) {
    if *state == Json::null()
        && let Ok(text) = Json::parse(format!(r#"{{"status":"{}"}}"#, status.as_str()))
    {
        *state = text;
    }
}

/// The entry of an upload, which is about the version that it became.
pub(super) fn of_version(mut entry: AuditEntry, version: u32) -> AuditEntry {
    entry.target = Some(version.to_string());
    entry
}

/// A verb over several things has an entry for each.
pub(super) fn one_for_each(things: usize, entries: usize) -> Result<(), StoreError> {
    match things == entries {
        true => Ok(()),
        false => Err(StoreError::Corrupt(format!("{entries} audit entries for {things} changes"))),
    }
}

impl AuditFilter {
    pub(super) fn matches(&self, entry: &AuditEntry) -> bool {
        self.action.is_none_or(|action| entry.action == action)
            && self.actor.as_ref().is_none_or(|actor| entry.actor.as_ref() == Some(actor))
            && self.execution.as_ref().is_none_or(|execution| entry.execution.as_ref() == Some(execution))
            && self.task.as_ref().is_none_or(|task| entry.task.as_ref() == Some(task))
            && self.from.is_none_or(|from| entry.at >= from)
            && self.to.is_none_or(|to| entry.at <= to)
    }
}
