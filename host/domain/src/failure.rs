//! What befell a step, a wait or a run, in kinds.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{Json, StepKey};

/// The kinds of `wit/task.wit`. Each stands for something that a reader would do differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// The guest said so itself.
    Error,
    /// Every attempt failed and the retry policy allows no more.
    Exhausted,
    /// A deadline passed: a step's, a wait's or the execution's.
    TimedOut,
    /// The guest trapped.
    Trapped,
    /// A limit of the host was exceeded.
    OverLimit,
    /// Somebody cancelled.
    Cancelled,
    /// The handler made another call than its journal has at this place.
    Diverged,
    /// Part of the contract, but not offered by this host.
    Unsupported,
    /// A call that makes no sense as made.
    Misuse,
    /// The host process died under this run again and again, without progress in between.
    HostCrashed,
}

impl FailureKind {
    /// The word in the API and in errors.
    pub fn as_str(self) -> &'static str {
        match self {
            FailureKind::Error => "error",
            FailureKind::Exhausted => "exhausted",
            FailureKind::TimedOut => "timed_out",
            FailureKind::Trapped => "trapped",
            FailureKind::OverLimit => "over_limit",
            FailureKind::Cancelled => "cancelled",
            FailureKind::Diverged => "diverged",
            FailureKind::Unsupported => "unsupported",
            FailureKind::Misuse => "misuse",
            FailureKind::HostCrashed => "host_crashed",
        }
    }
}

impl fmt::Display for FailureKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// What befell a step, a wait or a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    pub kind: FailureKind,
    /// What happened, to what, and what to do about it. For people.
    pub message: String,
    /// What the guest attached to its own error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Json>,
    /// The step that failed, where a step did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepKey>,
    /// The last attempt of that step, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
    /// The guest's own stack at the trap, one frame a line.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub backtrace: Option<String>,
    /// The last lines that the guest printed in the attempt, or in the leg, that failed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub logs: Vec<String>,
}

impl Failure {
    /// About what it takes in memory beside itself, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let texts = [Some(&self.message), self.backtrace.as_ref()].into_iter().flatten().chain(&self.logs);
        texts.map(|text| text.len() + size_of::<String>()).sum::<usize>()
            + self.details.as_ref().map_or(0, Json::len_bytes)
    }

    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        Failure {
            kind,
            message: message.into(),
            details: None,
            step: None,
            attempt: None,
            backtrace: None,
            logs: Vec::new(),
        }
    }

    pub fn with_details(mut self, details: Option<Json>) -> Self {
        self.details = details;
        self
    }

    pub fn with_backtrace(mut self, backtrace: Option<String>) -> Self {
        self.backtrace = backtrace;
        self
    }

    pub fn with_logs(mut self, logs: Vec<String>) -> Self {
        self.logs = logs;
        self
    }

    /// Says which step failed, and in which attempt.
    pub fn of_step(mut self, step: StepKey, attempt: u32) -> Self {
        self.step = Some(step);
        self.attempt = Some(attempt);
        self
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.message)
    }
}
