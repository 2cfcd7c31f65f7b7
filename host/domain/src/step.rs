//! A step, its attempts and its options.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    Failure, FailureKind, Json, Receipt, StepKey, Timestamp,
    ids::{hex, sha256},
    lineage::{self, PartHash},
    retry::{RetryPolicy, RetryPolicyError},
};

/// What a line of a run's story is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    Step,
    Sleep,
    WaitForEvent,
    Capture,
}

impl StepKind {
    /// The word in the API and in errors.
    pub fn as_str(self) -> &'static str {
        match self {
            StepKind::Step => "step",
            StepKind::Sleep => "sleep",
            StepKind::WaitForEvent => "wait_for_event",
            StepKind::Capture => "capture",
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Whether a step's timeout spans all its attempts or each one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum TimeoutScope {
    /// From the first attempt's start over all attempts and the delays between them.
    #[default]
    AllAttempts,
    PerAttempt,
}

/// What an admin wants otherwise when a dead step is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Overrides {
    /// Attempts, the first of the new ones counted, in place of the retry policy's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempts_max: Option<u32>,
    /// In place of the step's timeout, whatever its scope.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_ms: Option<u64>,
}

impl Overrides {
    pub fn is_empty(&self) -> bool {
        *self == Overrides::default()
    }

    /// Whether a step could be tried that way at all.
    pub fn check(&self) -> Result<(), StepOptionsError> {
        StepOptions::default().overridden(self).check()
    }
}

/// How a step is tried.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepOptions {
    pub retry: RetryPolicy,
    /// None: [`crate::run::Policy::attempt_wall_max_ms`] for each attempt, which no timeout exceeds.
    pub timeout_ms: Option<u64>,
    pub timeout_scope: TimeoutScope,
}

impl Default for StepOptions {
    fn default() -> Self {
        StepOptions { retry: RetryPolicy::NONE, timeout_ms: None, timeout_scope: TimeoutScope::AllAttempts }
    }
}

/// What is wrong with a step's options.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StepOptionsError {
    #[error(transparent)]
    Retry(#[from] RetryPolicyError),
    #[error("a timeout of 0 ms would end every attempt before it starts")]
    ZeroTimeout,
}

impl StepOptions {
    pub fn check(&self) -> Result<(), StepOptionsError> {
        if self.timeout_ms == Some(0) {
            return Err(StepOptionsError::ZeroTimeout);
        }
        Ok(self.retry.check()?)
    }

    /// These options as far as `overrides` leaves them.
    pub fn overridden(&self, overrides: &Overrides) -> StepOptions {
        let mut options = self.clone();
        if let Some(attempts_max) = overrides.attempts_max {
            options.retry.attempts_max = attempts_max;
        }
        options.timeout_ms = overrides.timeout_ms.or(options.timeout_ms);
        options
    }
}

/// 16 bytes of SHA-256 over a step's input, to notice that a replay brings another one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct InputHash(String);

impl InputHash {
    pub fn of(input: &Json) -> Self {
        InputHash(hex(&sha256(input.as_str().as_bytes())[..16]))
    }
}

/// A step's input, as far as decisions look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepInput {
    pub hash: InputHash,
    text: Json,
}

impl StepInput {
    pub fn of(input: &Json) -> Self {
        StepInput { hash: InputHash::of(input), text: input.clone() }
    }

    /// What it is made of. Only a step's first start wants to know: a replay need not pay for it.
    pub fn parts(&self) -> Vec<PartHash> {
        lineage::parts_of_input(&self.text)
    }
}

/// How one attempt ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AttemptOutcome {
    Completed(Json),
    Failed(AttemptFailure),
    /// The host stopped, or gave up its claim, before there was an outcome. Not the step's
    /// fault: such an attempt is counted and shown, but uses up none of the policy's attempts.
    Interrupted,
}

/// Why an attempt failed, and what the guest says about trying again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttemptFailure {
    pub kind: FailureKind,
    pub message: String,
    pub details: Option<Json>,
    pub backtrace: Option<String>,
    /// The last lines that the guest printed in the attempt.
    pub logs: Vec<String>,
    pub retryable: bool,
    /// The guest's own wish for the delay, in place of the policy's.
    pub retry_after_ms: Option<u64>,
}

impl AttemptFailure {
    /// A failure that the host found, to be retried like any other.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Self {
        AttemptFailure {
            kind,
            message: message.into(),
            details: None,
            backtrace: None,
            logs: Vec::new(),
            retryable: true,
            retry_after_ms: None,
        }
    }

    pub fn not_retryable(mut self) -> Self {
        self.retryable = false;
        self
    }

    pub(crate) fn into_failure(self, step: StepKey, attempt: u32) -> Failure {
        Failure::new(self.kind, self.message)
            .with_details(self.details)
            .with_backtrace(self.backtrace)
            .with_logs(self.logs)
            .of_step(step, attempt)
    }
}

/// One try of a step, as the run remembers it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attempt {
    /// From 1.
    pub number: u32,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    pub state: AttemptState,
    /// What it took; none while it is under way, and where the host died under it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub receipt: Option<Box<Receipt>>,
}

impl Attempt {
    /// About what it takes in memory beside itself, in bytes.
    pub fn heap_bytes(&self) -> usize {
        let failure = match &self.state {
            AttemptState::Failed(failure) => failure.heap_bytes(),
            AttemptState::Running | AttemptState::Completed | AttemptState::Interrupted(_) => 0,
        };
        failure + self.receipt.as_ref().map_or(0, |_| size_of::<Receipt>())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AttemptState {
    Running,
    Completed,
    Failed(Failure),
    /// See [`AttemptOutcome::Interrupted`].
    Interrupted(Interruption),
}

/// Why the host cut an attempt off.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Interruption {
    /// The host stopped in good order.
    Stopped,
    /// The host died, or lost its claim.
    Crashed,
    /// An earlier step was mended, so the handler is called again from there.
    Mended,
}

/// How a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StepStatus {
    /// Between two attempts.
    Scheduled,
    Running,
    Completed,
    /// Retries used up; an admin can mend it.
    Dead,
}

impl StepStatus {
    pub fn as_str(self) -> &'static str {
        match self {
            StepStatus::Scheduled => "scheduled",
            StepStatus::Running => "running",
            StepStatus::Completed => "completed",
            StepStatus::Dead => "dead",
        }
    }
}
