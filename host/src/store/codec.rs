//! How values of the domain stand in the tables, and back.
//!
//! What is read was written by us; if it makes no sense all the same (somebody edited the
//! database), that is [`StoreError::Corrupt`] and names what was found.

use std::fmt::Display;
use std::sync::Arc;

use serde::{Serialize, de::DeserializeOwned};
use stepbox_domain::{Digest, EventName, ExecutionId, ExecutionStatus, Json, TaskName, journal::Record};

use super::StoreError;

/// A record as it stands in `records.body`: JSON with the kind inside.
pub(super) fn encode_record(record: &Record) -> Result<Arc<str>, StoreError> {
    encode("a record", record)
}

pub(super) fn decode_record(body: &str) -> Result<Record, StoreError> {
    decode("a record", body)
}

/// Waits and failures stand in their columns as JSON.
pub(super) fn encode<T: Serialize>(what: &str, value: &T) -> Result<Arc<str>, StoreError> {
    serde_json::to_string(value).map(Arc::from).map_err(|error| corrupt(what, "to be written", error))
}

pub(super) fn decode<T: DeserializeOwned>(what: &str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|error| corrupt(what, text, error))
}

pub(super) fn json(text: String) -> Result<Json, StoreError> {
    Json::parse(text.as_str()).map_err(|error| corrupt("JSON", &text, error))
}

pub(super) fn status(text: &str) -> Result<ExecutionStatus, StoreError> {
    ExecutionStatus::parse(text).ok_or_else(|| corrupt("a status", text, "there is none of that name"))
}

pub(super) fn execution_id(text: &str) -> Result<ExecutionId, StoreError> {
    ExecutionId::parse(text).map_err(|error| corrupt("an execution id", text, error))
}

pub(super) fn task_name(text: &str) -> Result<TaskName, StoreError> {
    TaskName::parse(text).map_err(|error| corrupt("a task name", text, error))
}

pub(super) fn event_name(text: &str) -> Result<EventName, StoreError> {
    EventName::parse(text).map_err(|error| corrupt("an event name", text, error))
}

pub(super) fn digest(text: &str) -> Result<Digest, StoreError> {
    Digest::parse(text).map_err(|error| corrupt("a digest", text, error))
}

/// A number that cannot be negative, or not as large.
pub(super) fn number<T: TryFrom<i64>>(what: &str, value: i64) -> Result<T, StoreError> {
    T::try_from(value).map_err(|_| corrupt(what, &value.to_string(), "out of range"))
}

fn corrupt(what: &str, found: &str, why: impl Display) -> StoreError {
    const SHOWN_MAX: usize = 200;
    let shown: String = found.chars().take(SHOWN_MAX).collect();
    StoreError::Corrupt(format!("{what} that cannot be read ({why}): {shown}"))
}
