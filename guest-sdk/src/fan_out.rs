//! Steps that run while the handler goes on.
//!
//! Part of the contract; a host that does not offer it answers with a failure of the kind
//! [`Unsupported`](crate::FailureKind::Unsupported), which comes out where the handler waits.

use std::marker::PhantomData;

use crate::data::Data;
use crate::step::recorded;
use crate::{Failure, host};

/// A step that was scheduled: `charge::schedule(order)`. To be given to [`wait_all`],
/// [`wait_all_settled`] or [`wait_any`].
#[derive(Debug, Clone)]
#[must_use = "the outcome of a scheduled step is had by `wait_all` or `wait_any`"]
pub struct Scheduled<T> {
    key: Result<String, Failure>,
    value: PhantomData<fn() -> T>,
}

impl<T> Scheduled<T> {
    pub(crate) fn new(key: Result<String, Failure>) -> Scheduled<T> {
        Scheduled { key, value: PhantomData }
    }
}

/// The values of scheduled steps, in the order given, once all of them have an outcome; or the
/// failure of the first in that order that failed.
///
/// ```
/// # use stepbox_guest::{Failure, step, wait_all};
/// #[step]
/// fn quote(carrier: String) -> Result<u64, String> {
///     Ok(carrier.len() as u64)
/// }
///
/// # fn handler(carriers: Vec<String>) -> Result<(), Failure> {
/// let quotes = wait_all(carriers.into_iter().map(quote::schedule))?;
/// # Ok(()) }
/// ```
pub fn wait_all<T: Data>(scheduled: impl IntoIterator<Item = Scheduled<T>>) -> Result<Vec<T>, Failure> {
    wait_all_settled(scheduled)?.into_iter().collect()
}

/// What became of each scheduled step, in the order given, once all of them have an outcome.
///
/// The outer failure is that of the wait itself, or of a step that could not be scheduled.
pub fn wait_all_settled<T: Data>(
    scheduled: impl IntoIterator<Item = Scheduled<T>>,
) -> Result<Vec<Result<T, Failure>>, Failure> {
    let keys = scheduled.into_iter().map(|step| step.key).collect::<Result<Vec<_>, _>>()?;
    if keys.is_empty() {
        return Ok(Vec::new());
    }
    let outcomes = host::wait_all(&keys)?;
    Ok(keys.iter().zip(outcomes).map(|(key, outcome)| recorded(key, &outcome?)).collect())
}

/// The position and the outcome of the first scheduled step that has one.
///
/// The outer failure is that of the wait itself, or of a step that could not be scheduled.
pub fn wait_any<T: Data>(scheduled: &[Scheduled<T>]) -> Result<(usize, Result<T, Failure>), Failure> {
    let keys = scheduled.iter().map(|step| step.key.clone()).collect::<Result<Vec<_>, _>>()?;
    let (position, outcome) = host::wait_any(&keys)?;
    let key = keys.get(position).map_or("", String::as_str);
    Ok((position, outcome.and_then(|json| recorded(key, &json))))
}
