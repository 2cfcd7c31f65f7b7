//! Values that are recorded once.

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::{Failure, host};

/// Records what `value` gives, once, and answers with what was recorded, the first time and
/// ever after.
///
/// For what may differ between two versions of the code while a run is under way: a rate, a
/// limit, which way to go. `value` is called on every replay, its result counts only the first
/// time. Whatever touches the world belongs in a step instead.
///
/// Fails with [`Diverged`](crate::FailureKind::Diverged) when what was recorded does not fit `T`.
///
/// ```no_run
/// # use stepbox_guest::{TaskError, capture};
/// # fn handler() -> Result<(), TaskError> {
/// let discount_percent: u32 = capture("discount", || 5)?;
/// # Ok(()) }
/// ```
pub fn capture<T: Serialize + DeserializeOwned>(name: &str, value: impl FnOnce() -> T) -> Result<T, Failure> {
    let json = serde_json::to_string(&value()).map_err(|error| {
        Failure::misuse(format!("the value of capture `{name}` cannot be written as JSON: {error}"))
    })?;
    let recorded = host::capture(name, &json)?;
    serde_json::from_str(&recorded).map_err(|error| {
        Failure::no_longer_fits::<T>(&format!("the recorded value of capture `{name}`"), &error)
    })
}
