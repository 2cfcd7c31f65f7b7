//! How a step ended, for a handler that goes on in each case.

use serde::de::DeserializeOwned;

use crate::{Failure, FailureKind};

/// How a step ended: what `charge::outcome(..)` answers.
///
/// ```
/// # use stepbox_guest::{Failure, Outcome, TaskError};
/// # #[derive(Debug)] enum ChargeError { Declined, NoConnection }
/// # fn handle(outcome: Outcome<u64, ChargeError>) -> Result<u64, TaskError> {
/// match outcome {
///     Outcome::Value(receipt) => Ok(receipt),
///     Outcome::Error(ChargeError::Declined, _) => Err(TaskError::new("the card was declined")),
///     Outcome::Error(_, failure) | Outcome::Failure(failure) => Err(failure.into()),
/// }
/// # }
/// ```
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome<T, E> {
    /// The step completed.
    Value(T),
    /// The step's own error, of its last attempt, and what the host made of it: the kind says
    /// whether there were retries to use up.
    Error(E, Failure),
    /// Something befell the step that is not its own error: a trap, a timeout, a limit, a
    /// cancellation; or its error does not fit `E`.
    Failure(Failure),
}

impl<T, E: DeserializeOwned> From<Result<T, Failure>> for Outcome<T, E> {
    fn from(result: Result<T, Failure>) -> Self {
        let failure = match result {
            Ok(value) => return Outcome::Value(value),
            Err(failure) => failure,
        };
        let own = matches!(failure.kind, FailureKind::Error | FailureKind::Exhausted);
        match failure.details_as().filter(|_| own) {
            Some(error) => Outcome::Error(error, failure),
            None => Outcome::Failure(failure),
        }
    }
}
