//! Standing still: for some time, until some time, until something is sent.
//!
//! However long a wait is, it costs the host next to nothing: the instance is dropped, and when
//! the wait is over the handler is called again from the top and reaches the same place.

use std::time::{Duration, SystemTime};

use serde::de::DeserializeOwned;

use crate::time::{millis, since_1970_ms};
use crate::{Failure, FailureKind, host};

/// Stands still for `duration`. `name` is what the journal calls this wait.
pub fn sleep(name: &str, duration: Duration) {
    host::sleep(name, millis(duration));
}

/// Stands still until `moment`; not at all if it is past.
pub fn sleep_until(name: &str, moment: SystemTime) {
    host::sleep_until(name, since_1970_ms(moment));
}

/// The payload of the next event called `event` that nobody has consumed yet.
///
/// An event that was sent before the wait began is not lost. Fails with
/// [`FailureKind::TimedOut`] when none has come within `timeout`, and with
/// [`FailureKind::Error`] when the payload does not fit `T`; that event is then consumed.
///
/// ```no_run
/// # use stepbox_guest::{TaskError, hours, wait_event};
/// # #[derive(serde::Deserialize)] struct Approval { approved: bool }
/// # fn handler() -> Result<(), TaskError> {
/// let approval: Option<Approval> = match wait_event("approval", hours(24)) {
///     Ok(approval) => Some(approval),
///     Err(failure) if failure.is_timeout() => None,
///     Err(failure) => return Err(failure.into()),
/// };
/// # Ok(()) }
/// ```
pub fn wait_event<T: DeserializeOwned>(event: &str, timeout: Duration) -> Result<T, Failure> {
    payload(event, host::wait_event(event, Some(millis(timeout)))?)
}

/// Like [`wait_event`], but without a timeout of its own: only the execution's deadline ends it.
pub fn wait_event_forever<T: DeserializeOwned>(event: &str) -> Result<T, Failure> {
    payload(event, host::wait_event(event, None)?)
}

fn payload<T: DeserializeOwned>(event: &str, json: String) -> Result<T, Failure> {
    serde_json::from_str(&json).map_err(|error| {
        let wanted = std::any::type_name::<T>();
        Failure {
            details: serde_json::from_str(&json).ok(),
            ..Failure::new(
                FailureKind::Error,
                format!("the payload of the event `{event}` does not fit `{wanted}`: {error}"),
            )
        }
    })
}
