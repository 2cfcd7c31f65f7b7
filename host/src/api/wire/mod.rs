//! Every JSON shape that goes out: the contract, noun by noun.
//!
//! Field names are Zart's where Zart has the field. Times are RFC 3339 in UTC with milliseconds,
//! and a field without a value is `null`, never left out. Payloads, results and manifests are
//! passed through as the text that they are. (What comes in is read field by field, so that each
//! refusal can name the field: [`super::fields::Fields`].)

mod audit;
mod bulks;
mod detail;
mod executions;
mod grants;
mod logs;
mod modules;
mod pauses;
mod receipt;
mod repairs;
mod secrets;

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, SecondsFormat};
use serde::{Serialize, Serializer};
use stepbox_domain::Timestamp;

pub use self::{
    audit::AuditEntry,
    bulks::{Bulk, BulkCount, FailureGroup, bulk_action},
    detail::{Detail, Run},
    executions::{EventAnswer, Execution, StartedExecution, Stats, WaitingFor},
    grants::{Grants, GrantsAnswer, WaitingVersion, Wants, limits},
    logs::LogLine,
    modules::{Inspection, Module, ModuleVersion, Refusal},
    pauses::{PauseRule, RulesDeleted},
    repairs::{RerunAnswer, ResolveAnswer, RestartAnswer, RetryAnswer},
    secrets::{Secret, SecretChanged},
};
use super::ApiError;

/// An answer with `body` as JSON.
pub fn json(status: StatusCode, body: &impl Serialize) -> Response {
    let text = match serde_json::to_vec(body) {
        Ok(text) => text,
        // Cannot be for the shapes below, and an error has nothing in it that could fail.
        Err(error) => return ApiError::internal(error).into_response(),
    };
    let mut response = Response::new(Body::from(text));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    response
}

/// A page of a list, with how many entries there are in all.
pub fn page(entries: &[impl Serialize], total: u64) -> Response {
    let mut response = json(StatusCode::OK, &entries);
    response.headers_mut().insert("x-total-count", HeaderValue::from(total));
    response
}

/// A moment, as everything in HTTP writes it.
pub struct Time(Timestamp);

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let time = DateTime::from_timestamp_millis(self.0.as_ms()).unwrap_or_default();
        serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Millis, true))
    }
}

/// The moment that a client wrote; none when it is not RFC 3339. A fraction of a millisecond is
/// cut off.
pub fn parse_time(text: &str) -> Option<Timestamp> {
    DateTime::parse_from_rfc3339(text).ok().map(|time| Timestamp::from_ms(time.timestamp_millis()))
}
