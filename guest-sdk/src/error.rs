//! The errors that an author returns: from a step, from a task.
//!
//! Any error type that implements `Display` will do for both. These two are for an author who
//! has none, or who wants to say more than "it failed".

use std::error::Error;
use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde_json::Value;

use crate::time::millis;
use crate::{Failure, FailureKind, http};

/// How an attempt of a step went wrong, and whether another may go better.
///
/// Retryable unless said otherwise. `?` makes one of any `std::error::Error`, of a `&str` and of
/// a `String`; of an [`http::Error`] one that is retryable where another attempt may go better.
///
/// ```
/// # use stepbox_guest::{StepError, seconds};
/// fn fetch(status: u16) -> Result<(), StepError> {
///     match status {
///         200 => Ok(()),
///         404 => Err(StepError::fatal("there is no such document")),
///         429 => Err(StepError::new("asked too often").retry_after(seconds(30))),
///         _ => Err("no answer".into()),
///     }
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct StepError {
    pub(crate) message: String,
    pub(crate) details: Option<Value>,
    pub(crate) retryable: bool,
    pub(crate) retry_after_ms: Option<u64>,
}

impl StepError {
    /// An error after which the step's retry policy decides.
    pub fn new(message: impl fmt::Display) -> StepError {
        StepError { message: message.to_string(), details: None, retryable: true, retry_after_ms: None }
    }

    /// An error that ends the step at once, whatever its retry policy allows.
    pub fn fatal(message: impl fmt::Display) -> StepError {
        StepError::new(message).no_retry()
    }

    /// Ends the step at once, whatever its retry policy allows.
    pub fn no_retry(mut self) -> StepError {
        self.retryable = false;
        self
    }

    /// Come back after `delay` instead of what the retry policy says. How many attempts there
    /// are remains the policy's to say.
    pub fn retry_after(mut self, delay: Duration) -> StepError {
        self.retry_after_ms = Some(millis(delay));
        self
    }

    /// Attaches `details`, which a handler finds in [`Failure::details`]. What cannot be written
    /// as JSON is left out.
    pub fn with_details(mut self, details: impl Serialize) -> StepError {
        self.details = serde_json::to_value(details).ok();
        self
    }

    pub fn message(&self) -> &str {
        &self.message
    }

    pub fn details(&self) -> Option<&Value> {
        self.details.as_ref()
    }

    /// False when the step ends at once, whatever its retry policy allows.
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

impl fmt::Display for StepError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

// For this `StepError` must not be a `std::error::Error` itself; the same holds for `TaskError`.
impl<E: Into<Box<dyn Error>>> From<E> for StepError {
    fn from(error: E) -> StepError {
        match error.into().downcast::<http::Error>() {
            Ok(error) => error.into_step_error(),
            Err(error) => StepError::new(with_causes(&*error)),
        }
    }
}

/// Why a task failed.
///
/// `?` makes one of a [`Failure`], which keeps its kind, step and attempt, and of any
/// `std::error::Error`, `&str` or `String`.
///
/// ```
/// # use stepbox_guest::TaskError;
/// # use serde_json::json;
/// fn check(total: u64) -> Result<(), TaskError> {
///     if total == 0 {
///         return Err("nothing was ordered".into());
///     }
///     Err(TaskError::new("the card was declined").with_details(json!({ "total": total })))
/// }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub struct TaskError {
    failure: Failure,
}

impl TaskError {
    /// A failure of the guest's own: kind [`FailureKind::Error`].
    pub fn new(message: impl fmt::Display) -> TaskError {
        TaskError { failure: Failure::new(FailureKind::Error, message.to_string()) }
    }

    /// Attaches `details`, which a client finds beside the message. What cannot be written as
    /// JSON is left out.
    pub fn with_details(mut self, details: impl Serialize) -> TaskError {
        self.failure.details = serde_json::to_value(details).ok();
        self
    }

    /// The failure that the run ends with.
    pub fn failure(&self) -> &Failure {
        &self.failure
    }
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl From<TaskError> for Failure {
    fn from(error: TaskError) -> Failure {
        error.failure
    }
}

impl<E: Into<Box<dyn Error>>> From<E> for TaskError {
    fn from(error: E) -> TaskError {
        match error.into().downcast::<Failure>() {
            Ok(failure) => TaskError { failure: *failure },
            Err(error) => TaskError::new(with_causes(&*error)),
        }
    }
}

/// The message of `error` and of what caused it, as far as it does not repeat that itself.
fn with_causes(error: &dyn Error) -> String {
    let mut message = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !message.contains(&next) {
            message = format!("{message}: {next}");
        }
        cause = error.source();
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_failure_keeps_its_kind_step_and_attempt() {
        let failure = Failure {
            kind: FailureKind::Exhausted,
            message: "declined".into(),
            details: Some(json!({ "code": 7 })),
            step: Some("charge#2".into()),
            attempt: Some(3),
        };
        let passed_on = || -> Result<(), TaskError> { Err(failure.clone())? };

        assert_eq!(Failure::from(passed_on().unwrap_err()), failure);
    }

    #[test]
    fn an_error_is_told_with_its_causes_once() {
        #[derive(Debug)]
        struct Outer(std::io::Error, bool);
        impl fmt::Display for Outer {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                if self.1 { write!(f, "no stock ({})", self.0) } else { f.write_str("no stock") }
            }
        }
        impl Error for Outer {
            fn source(&self) -> Option<&(dyn Error + 'static)> {
                Some(&self.0)
            }
        }
        let cause = || std::io::Error::other("line is dead");

        assert_eq!(StepError::from(Outer(cause(), false)).message(), "no stock: line is dead");
        assert_eq!(TaskError::from(Outer(cause(), true)).failure().message, "no stock (line is dead)");
    }

    #[test]
    fn text_is_an_error_too() {
        assert_eq!(StepError::from("no answer"), StepError::new("no answer"));
        assert_eq!(TaskError::from(String::from("no stock")), TaskError::new("no stock"));
    }
}
