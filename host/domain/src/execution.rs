//! What a client asked for, and whether two starts are the same.

use serde::{Deserialize, Serialize};

use crate::{Json, TaskName, ids::sha256};

/// How an execution stands. One that sleeps or waits is `Running`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ExecutionStatus {
    /// Accepted; no worker has taken it up yet.
    Scheduled,
    Running,
    Completed,
    Failed,
    Cancelled,
}

impl ExecutionStatus {
    pub const ALL: [ExecutionStatus; 5] =
        [Self::Scheduled, Self::Running, Self::Completed, Self::Failed, Self::Cancelled];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Scheduled => "scheduled",
            Self::Running => "running",
            Self::Completed => "completed",
            Self::Failed => "failed",
            Self::Cancelled => "cancelled",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }

    pub fn is_terminal(self) -> bool {
        matches!(self, Self::Completed | Self::Failed | Self::Cancelled)
    }
}

/// What makes two starts the same: the task and the payload, compared as JSON values. Key order
/// and white space do not count, `1` and `1.0` are two things.
///
/// 16 bytes of SHA-256, so that an old start can be compared without its payload at hand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fingerprint(String);

impl Fingerprint {
    pub fn of(task: &TaskName, payload: &Json) -> Self {
        // serde_json keeps object keys sorted in its tree, so its text is canonical. What has no
        // tree is compared by the letter.
        let canonical = match payload.to_value() {
            Some(value) => format!("{task}\n{value}"),
            None => format!("{task}\n{payload}"),
        };
        Fingerprint(crate::ids::hex(&sha256(canonical.as_bytes())[..16]))
    }

    /// As the store keeps it.
    pub fn from_stored(text: String) -> Self {
        Fingerprint(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn same(a: &str, b: &str) -> bool {
        let task = TaskName::parse("order").unwrap();
        Fingerprint::of(&task, &Json::parse(a).unwrap()) == Fingerprint::of(&task, &Json::parse(b).unwrap())
    }

    #[test]
    fn two_starts_are_the_same_when_task_and_payload_are() {
        assert!(same(r#"{"a":1,"b":[2]}"#, r#" { "b" : [2], "a" : 1 } "#));
        assert!(!same(r#"{"a":1}"#, r#"{"a":1.0}"#));
        assert!(!same("null", "{}"));
        assert!(!same("1e999", "2e999"));
        let (order, refund) = (TaskName::parse("order").unwrap(), TaskName::parse("refund").unwrap());
        assert_ne!(Fingerprint::of(&order, &Json::null()), Fingerprint::of(&refund, &Json::null()));
    }
}
