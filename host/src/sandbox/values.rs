//! Values that cross between guest and host, checked on the way in.

use std::fmt::Display;

use stepbox_domain::{
    Failure, FailureKind, Json, StepKey,
    retry::RetryPolicy,
    step::{AttemptFailure, StepOptions, TimeoutScope},
};

use super::{
    bindings::stepbox::task::types,
    bounds::Bounds,
    output::{cut, printable, printable_lines},
};

pub(super) fn misuse(message: impl Into<String>) -> Failure {
    Failure::new(FailureKind::Misuse, message)
}

/// A JSON text that a guest gave us. `what` begins the sentence where it is not one.
pub(super) fn json_from_guest(text: String, what: impl Display, max_bytes: usize) -> Result<Json, Failure> {
    if text.len() > max_bytes {
        let message = format!(
            "{what} has {} bytes; a value may have {max_bytes} bytes (valueMaxBytes): keep large data elsewhere and pass a \
             reference to it",
            text.len()
        );
        return Err(Failure::new(FailureKind::OverLimit, message));
    }
    Json::parse(text).map_err(|error| misuse(format!("{what} is not JSON: {error}")))
}

pub(super) fn domain_options(options: types::StepOptions) -> StepOptions {
    StepOptions {
        retry: options.retry.map_or(RetryPolicy::NONE, |retry| RetryPolicy {
            attempts_max: retry.attempts_max,
            delay_first_ms: retry.delay_first_ms,
            growth_percent: retry.growth_percent,
            delay_max_ms: retry.delay_max_ms,
            jitter: retry.jitter,
        }),
        timeout_ms: options.timeout_ms,
        timeout_scope: match options.timeout_scope {
            types::TimeoutScope::AllAttempts => TimeoutScope::AllAttempts,
            types::TimeoutScope::PerAttempt => TimeoutScope::PerAttempt,
        },
    }
}

pub(super) fn wit_failure(failure: Failure) -> types::Failure {
    types::Failure {
        kind: match failure.kind {
            FailureKind::Error => types::FailureKind::Error,
            FailureKind::Exhausted => types::FailureKind::Exhausted,
            FailureKind::TimedOut => types::FailureKind::TimedOut,
            // The contract has no word for it: to the guest the step died.
            FailureKind::Trapped | FailureKind::HostCrashed => types::FailureKind::Trapped,
            FailureKind::OverLimit => types::FailureKind::OverLimit,
            FailureKind::Cancelled => types::FailureKind::Cancelled,
            FailureKind::Diverged => types::FailureKind::Diverged,
            FailureKind::Unsupported => types::FailureKind::Unsupported,
            FailureKind::Misuse => types::FailureKind::Misuse,
        },
        message: failure.message,
        details: failure.details.map(|json| json.as_str().to_owned()),
        step: failure.step.map(|key| key.to_string()),
        attempt: failure.attempt,
    }
}

/// What the handler returned as its failure. What it says of a step is for the journal to check.
pub(super) fn failure_from_guest(failure: types::Failure, bounds: &Bounds) -> Failure {
    let kind = match failure.kind {
        types::FailureKind::Error => FailureKind::Error,
        types::FailureKind::Exhausted => FailureKind::Exhausted,
        types::FailureKind::TimedOut => FailureKind::TimedOut,
        types::FailureKind::Trapped => FailureKind::Trapped,
        types::FailureKind::OverLimit => FailureKind::OverLimit,
        types::FailureKind::Cancelled => FailureKind::Cancelled,
        types::FailureKind::Diverged => FailureKind::Diverged,
        types::FailureKind::Unsupported => FailureKind::Unsupported,
        types::FailureKind::Misuse => FailureKind::Misuse,
    };
    let (message, details) = said(failure.message, failure.details, bounds);
    Failure {
        step: failure.step.and_then(|key| StepKey::parse(&key).ok()),
        attempt: failure.attempt,
        ..Failure::new(kind, message).with_details(details)
    }
}

/// What a step returned as its error.
pub(super) fn attempt_failure_from_guest(
    message: String,
    details: Option<String>,
    retryable: bool,
    retry_after_ms: Option<u64>,
    bounds: &Bounds,
) -> AttemptFailure {
    let (message, details) = said(message, details, bounds);
    AttemptFailure { details, retryable, retry_after_ms, ..AttemptFailure::new(FailureKind::Error, message) }
}

/// A guest's own error is worth more than its form: what cannot be kept is left out, and that
/// is said.
///
/// The message goes into the journal as people will read it, in a terminal too, so nothing in it
/// speaks to one. Details are data, as results are, and are kept to the letter.
fn said(message: String, details: Option<String>, bounds: &Bounds) -> (String, Option<Json>) {
    let max_bytes = bounds.host.message_max_bytes;
    // Cut before, so that no more is looked at than is kept; and after, since what is escaped grows.
    let shown = printable_lines(cut(&message, max_bytes));
    let is_cut = message.len() > max_bytes || shown.len() > max_bytes;
    let mut message = match is_cut {
        true => format!("{}… (cut: it had {} bytes)", cut(&shown, max_bytes), message.len()),
        false => shown,
    };
    let details = details.and_then(|text| {
        json_from_guest(text, "its details", bounds.value_max_bytes())
            .map_err(|error| message.push_str(&format!(" [left out: {}]", printable(&error.message))))
            .ok()
    });
    (message, details)
}
