//! The imports of `wit/task.wit`, in our own types.

use std::time::SystemTime;

use crate::bindings::stepbox::task::{durable, types};
use crate::context::TaskContext;
use crate::step::StepDef;
use crate::time::at_ms;
use crate::{Failure, FailureKind, Retry, StepError, StepOptions, TimeoutScope};

pub(crate) fn step(name: &str, step: &StepDef, input: &str, options: StepOptions) -> Result<String, Failure> {
    Ok(durable::step(name, step.function, input, options.into())?)
}

pub(crate) fn schedule(
    name: &str,
    step: &StepDef,
    input: &str,
    options: StepOptions,
) -> Result<String, Failure> {
    Ok(durable::schedule(name, step.function, input, options.into())?)
}

pub(crate) fn wait_all(keys: &[String]) -> Result<Vec<Result<String, Failure>>, Failure> {
    let outcomes = durable::wait_all(keys)?;
    Ok(outcomes.into_iter().map(|outcome| outcome.map_err(Failure::from)).collect())
}

pub(crate) fn wait_any(keys: &[String]) -> Result<(usize, Result<String, Failure>), Failure> {
    let (position, outcome) = durable::wait_any(keys)?;
    Ok((position as usize, outcome.map_err(Failure::from)))
}

pub(crate) fn sleep(name: &str, duration_ms: u64) {
    durable::sleep(name, duration_ms);
}

pub(crate) fn sleep_until(name: &str, at_ms: u64) {
    durable::sleep_until(name, at_ms);
}

pub(crate) fn wait_event(event: &str, timeout_ms: Option<u64>) -> Result<String, Failure> {
    Ok(durable::wait_event(event, timeout_ms)?)
}

pub(crate) fn capture(name: &str, value: &str) -> Result<String, Failure> {
    Ok(durable::capture(name, value)?)
}

pub(crate) fn context() -> TaskContext {
    let context = durable::context();
    TaskContext {
        execution_id: context.execution_id,
        run_id: context.run_id,
        run_index: context.run_index,
        task_name: context.task_name,
        module_version: context.module_version,
        started_at: at_ms(context.started_at_ms),
    }
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}

impl From<StepOptions> for types::StepOptions {
    fn from(options: StepOptions) -> Self {
        types::StepOptions {
            retry: options.retry.map(Into::into),
            timeout_ms: options.timeout_ms,
            timeout_scope: match options.timeout_scope {
                TimeoutScope::AllAttempts => types::TimeoutScope::AllAttempts,
                TimeoutScope::PerAttempt => types::TimeoutScope::PerAttempt,
            },
        }
    }
}

impl From<Retry> for types::RetryPolicy {
    fn from(retry: Retry) -> Self {
        types::RetryPolicy {
            attempts_max: retry.attempts_max,
            delay_first_ms: retry.delay_first_ms,
            growth_percent: retry.growth_percent,
            delay_max_ms: retry.delay_max_ms,
            jitter: retry.jitter,
        }
    }
}

impl From<types::Failure> for Failure {
    fn from(failure: types::Failure) -> Self {
        Failure {
            kind: failure.kind.into(),
            message: failure.message,
            // Text that is no JSON would be a fault of the host; it is kept rather than lost.
            details: failure.details.map(|json| serde_json::from_str(&json).unwrap_or(json.into())),
            step: failure.step,
            attempt: failure.attempt,
        }
    }
}

impl From<Failure> for types::Failure {
    fn from(failure: Failure) -> Self {
        types::Failure {
            kind: failure.kind.into(),
            message: failure.message,
            details: failure.details.map(|details| details.to_string()),
            step: failure.step,
            attempt: failure.attempt,
        }
    }
}

impl From<StepError> for types::StepError {
    fn from(error: StepError) -> Self {
        types::StepError {
            message: error.message,
            details: error.details.map(|details| details.to_string()),
            retryable: error.retryable,
            retry_after_ms: error.retry_after_ms,
        }
    }
}

/// The same names on both sides.
macro_rules! failure_kinds {
    ($($Kind:ident),*) => {
        impl From<types::FailureKind> for FailureKind {
            fn from(kind: types::FailureKind) -> Self {
                match kind { $(types::FailureKind::$Kind => FailureKind::$Kind),* }
            }
        }

        impl From<FailureKind> for types::FailureKind {
            fn from(kind: FailureKind) -> Self {
                match kind { $(FailureKind::$Kind => types::FailureKind::$Kind),* }
            }
        }
    };
}

failure_kinds!(Error, Exhausted, TimedOut, Trapped, OverLimit, Cancelled, Diverged, Unsupported, Misuse);
