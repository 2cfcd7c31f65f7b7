//! What the expansions of `#[task]` and `#[step]` call. Not for authors.

use std::fmt::Display;

use serde::Serialize;
use serde_json::Value;

use crate::{Failure, FailureKind, StepError, TaskError};

pub use crate::step::StepDef;
pub use crate::task::{NoPayload, TaskDef};
pub use crate::wants::{HttpWant, WantsDef};
pub use inventory;
pub use serde;

/// What a function that returns `Result`, by whatever name, says of its types.
pub trait IsResult {
    type Value;
    type Error;
}

impl<T, E> IsResult for Result<T, E> {
    type Value = T;
    type Error = E;
}

/// Picks the conversion that says most about an error. The levels are told apart by how many
/// references the method call looks through: the first that applies wins ("autoref
/// specialisation"), so all that a type needs for the last one is `Display`.
pub struct Told<'a, E>(pub &'a E);

pub trait AsItIs {
    type As;
    fn told(&self) -> Self::As;
}

impl AsItIs for &&&Told<'_, StepError> {
    type As = StepError;
    fn told(&self) -> StepError {
        self.0.clone()
    }
}

impl AsItIs for &&&Told<'_, TaskError> {
    type As = Failure;
    fn told(&self) -> Failure {
        self.0.failure().clone()
    }
}

impl AsItIs for &&&Told<'_, Failure> {
    type As = Failure;
    fn told(&self) -> Failure {
        self.0.clone()
    }
}

pub trait WithDetails {
    fn told(&self) -> OwnError;
}

impl<E: Display + Serialize> WithDetails for &&Told<'_, E> {
    fn told(&self) -> OwnError {
        OwnError { message: format!("{:#}", self.0), details: serde_json::to_value(self.0).ok() }
    }
}

pub trait MessageOnly {
    fn told(&self) -> OwnError;
}

impl<E: Display> MessageOnly for &Told<'_, E> {
    fn told(&self) -> OwnError {
        // The alternate form is the one in which `anyhow` tells the causes.
        OwnError { message: format!("{:#}", self.0), details: None }
    }
}

/// For a type that is refused by [`assert_error`]: nothing more needs to be said about it.
pub trait Unspeakable {
    fn told(&self) -> OwnError;
}

impl<E> Unspeakable for Told<'_, E> {
    fn told(&self) -> OwnError {
        OwnError { message: String::new(), details: None }
    }
}

/// An error of the author's own type.
pub struct OwnError {
    message: String,
    details: Option<Value>,
}

impl From<OwnError> for StepError {
    fn from(error: OwnError) -> StepError {
        StepError { details: error.details, ..StepError::new(error.message) }
    }
}

impl From<OwnError> for Failure {
    fn from(error: OwnError) -> Failure {
        Failure { details: error.details, ..Failure::new(FailureKind::Error, error.message) }
    }
}

/// A task that returns what is meant for steps: whether to retry has no meaning there.
impl From<StepError> for Failure {
    fn from(error: StepError) -> Failure {
        Failure { details: error.details, ..Failure::new(FailureKind::Error, error.message) }
    }
}

/// What a step or a task may fail with.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the error of a step or a task",
    label = "needs `Display`",
    note = "implement `std::fmt::Display` for it, or return `stepbox_guest::StepError` (from a step) or `stepbox_guest::TaskError` (from a task)",
    note = "derive `serde::Serialize` as well and the whole error is kept in the failure's details"
)]
pub trait AnError {}

#[diagnostic::do_not_recommend]
impl<E: Display> AnError for E {}

pub const fn assert_error<E: AnError>() {}

/// The levels of [`Told`], with as many references as they have.
#[macro_export]
#[doc(hidden)]
macro_rules! __tell {
    ($error:expr) => {{
        #[allow(unused_imports)]
        use $crate::__macro::{AsItIs as _, MessageOnly as _, Told, Unspeakable as _, WithDetails as _};
        (&&&&Told($error)).told().into()
    }};
}
