//! Our types and those of the state machine.

use stepbox_domain::step::{AttemptFailure, StepOptions, TimeoutScope};
use stepbox_domain::{Failure, FailureKind, Json, StepKey, retry::RetryPolicy};

use crate::StepError;

impl From<crate::StepOptions> for StepOptions {
    fn from(options: crate::StepOptions) -> Self {
        StepOptions {
            retry: options.retry.map_or(RetryPolicy::NONE, Into::into),
            timeout_ms: options.timeout_ms,
            timeout_scope: match options.timeout_scope {
                crate::TimeoutScope::AllAttempts => TimeoutScope::AllAttempts,
                crate::TimeoutScope::PerAttempt => TimeoutScope::PerAttempt,
            },
        }
    }
}

impl From<crate::Retry> for RetryPolicy {
    fn from(retry: crate::Retry) -> Self {
        RetryPolicy {
            attempts_max: retry.attempts_max,
            delay_first_ms: retry.delay_first_ms,
            growth_percent: retry.growth_percent,
            delay_max_ms: retry.delay_max_ms,
            jitter: retry.jitter,
        }
    }
}

impl From<StepError> for AttemptFailure {
    fn from(error: StepError) -> Self {
        AttemptFailure {
            details: error.details.map(Json::from),
            retryable: error.retryable,
            retry_after_ms: error.retry_after_ms,
            ..AttemptFailure::new(FailureKind::Error, error.message)
        }
    }
}

impl From<Failure> for crate::Failure {
    fn from(failure: Failure) -> Self {
        crate::Failure {
            kind: kind_to_guest(failure.kind),
            message: failure.message,
            details: failure.details.and_then(|details| details.to_value()),
            step: failure.step.map(|step| step.to_string()),
            attempt: failure.attempt,
        }
    }
}

impl From<crate::Failure> for Failure {
    fn from(failure: crate::Failure) -> Self {
        Failure {
            details: failure.details.map(Json::from),
            step: failure.step.and_then(|step| StepKey::parse(&step).ok()),
            attempt: failure.attempt,
            ..Failure::new(kind_to_host(failure.kind), failure.message)
        }
    }
}

/// The same names on both sides.
macro_rules! failure_kinds {
    ($($Kind:ident),*) => {
        fn kind_to_host(kind: crate::FailureKind) -> FailureKind {
            match kind { $(crate::FailureKind::$Kind => FailureKind::$Kind),* }
        }

        fn kind_to_guest(kind: FailureKind) -> crate::FailureKind {
            match kind {
                $(FailureKind::$Kind => crate::FailureKind::$Kind,)*
                // Not in the contract: to a guest the step came to an end that is not its own.
                FailureKind::HostCrashed => crate::FailureKind::Trapped,
            }
        }
    };
}

failure_kinds!(Error, Exhausted, TimedOut, Trapped, OverLimit, Cancelled, Diverged, Unsupported, Misuse);

/// What a handler hears, as a tree.
pub(super) fn value(outcome: Result<Json, Failure>) -> Result<serde_json::Value, crate::Failure> {
    // What has no tree (a number that no `f64` can hold) is shown as its text.
    Ok(outcome.map(|json| json.to_value().unwrap_or_else(|| json.as_str().into()))?)
}
