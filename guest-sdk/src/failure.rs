//! What befell a step, a wait or a whole run.

use std::fmt;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What befell a step, a wait or a whole run, as the host recorded it.
///
/// A handler that passes it on with `?` fails with the same kind, step and attempt; see
/// [`TaskError`](crate::TaskError).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    pub kind: FailureKind,
    /// What happened, to what, and what to do about it. For people.
    pub message: String,
    /// What the guest attached to its own error; see [`Failure::details_as`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Value>,
    /// The key of the step that failed (`charge`, `charge#2`), where a step did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// The last attempt of that step, from 1.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub attempt: Option<u32>,
}

/// The kinds of [`Failure`]. A match needs an arm for the kinds to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum FailureKind {
    /// The guest said so itself: a business error, not retryable or with no retries asked for.
    Error,
    /// Every attempt failed and the retry policy allows no more.
    Exhausted,
    /// A deadline passed: a step's, a wait's or the execution's.
    TimedOut,
    /// The guest trapped: a panic, unreachable code, stack overflow, exit.
    Trapped,
    /// A limit of the host was exceeded: memory, CPU time, sizes.
    OverLimit,
    /// Somebody cancelled.
    Cancelled,
    /// The handler made another call than the one that the journal has at this place, or a
    /// recorded value no longer fits its type: the code changed while a run was under way.
    Diverged,
    /// The call is part of the contract, but this host does not offer it.
    Unsupported,
    /// The call makes no sense as made: an empty name, a step called inside of a step.
    Misuse,
}

impl Failure {
    /// A failure without details that names no step.
    pub fn new(kind: FailureKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into(), details: None, step: None, attempt: None }
    }

    /// The step's own error, if it was carried in `details` and fits `E`.
    ///
    /// `None` where the host ended the step (a trap, a timeout), or where the details were
    /// written by other code and do not fit.
    pub fn details_as<E: DeserializeOwned>(&self) -> Option<E> {
        E::deserialize(self.details.as_ref()?).ok()
    }

    /// Whether a deadline passed: a step's, a wait's or the execution's.
    pub fn is_timeout(&self) -> bool {
        self.kind == FailureKind::TimedOut
    }

    pub(crate) fn misuse(message: impl Into<String>) -> Failure {
        Failure::new(FailureKind::Misuse, message)
    }

    /// A recorded value that does not fit the type that the code of today has for it.
    pub(crate) fn no_longer_fits<T>(what: &str, error: &serde_json::Error) -> Failure {
        let wanted = std::any::type_name::<T>();
        Failure::new(
            FailureKind::Diverged,
            format!(
                "{what} does not fit `{wanted}` ({error}): it was recorded by other code, \
                 or the type does not read what it writes"
            ),
        )
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.step, self.attempt) {
            (Some(step), Some(attempt)) => write!(f, "step `{step}`, attempt {attempt}: {}", self.message),
            (Some(step), None) => write!(f, "step `{step}`: {}", self.message),
            _ => f.write_str(&self.message),
        }
    }
}

impl std::error::Error for Failure {}
