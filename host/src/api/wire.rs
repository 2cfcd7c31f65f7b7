//! Every JSON shape that goes out: the contract, top to bottom.
//!
//! Field names are Zart's where Zart has the field. Times are RFC 3339 in UTC with milliseconds,
//! and a field without a value is `null`, never left out. Payloads, results and manifests are
//! passed through as the text that they are. (What comes in is read field by field, so that each
//! refusal can name the field: [`super::extract::Fields`].)

use axum::{
    body::Body,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse as _, Response},
};
use chrono::{DateTime, SecondsFormat};
use serde::{Serialize, Serializer};
use stepbox_domain::{
    Digest, EventName, ExecutionId, Failure, Json, RunId, StepKey, TaskName, Timestamp, pause::PauseRuleId,
    run::Wait,
};

use super::ApiError;
use crate::{
    engine::Delivery,
    sandbox::{Inspected, InterfaceItem},
    store::{Counts, ExecutionView, ModuleView, VersionView},
};

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

/// An execution, in lists and alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    name: TaskName,
    durable_execution_id: ExecutionId,
    payload: Json,
    /// `scheduled`, `running`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    scheduled_at: Time,
    completed_at: Option<Time>,
    /// The module version that the current run is pinned to.
    version: u32,
    result: Option<Json>,
    error: Option<ExecutionError>,
    waiting_for: Option<WaitingFor>,
    /// The current run.
    run_id: RunId,
}

impl From<ExecutionView> for Execution {
    fn from(view: ExecutionView) -> Self {
        Execution {
            name: view.task,
            durable_execution_id: view.id,
            payload: view.payload,
            status: view.status.as_str(),
            scheduled_at: Time(view.scheduled_at),
            completed_at: view.completed_at.map(Time),
            version: view.version,
            result: view.result,
            error: view.error.map(Into::into),
            waiting_for: view.waiting.map(Into::into),
            run_id: view.run,
        }
    }
}

/// Why an execution failed.
#[derive(Serialize)]
struct ExecutionError {
    kind: &'static str,
    message: String,
    step: Option<StepKey>,
    attempt: Option<u32>,
    details: Option<Json>,
    backtrace: Option<String>,
    /// The last lines that the guest printed before.
    logs: Vec<String>,
}

impl From<Failure> for ExecutionError {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message, details, step, attempt, backtrace, logs } = failure;
        ExecutionError { kind: kind.as_str(), message, step, attempt, details, backtrace, logs }
    }
}

/// What an execution stands at.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum WaitingFor {
    Sleep {
        step: StepKey,
        until: Time,
    },
    Event {
        step: StepKey,
        event: EventName,
        deadline: Option<Time>,
    },
    Retry {
        step: StepKey,
        attempt: u32,
        at: Time,
    },
    #[serde(rename_all = "camelCase")]
    Pause {
        rule_id: PauseRuleId,
        step: Option<StepKey>,
        until: Option<Time>,
    },
}

impl From<Wait> for WaitingFor {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Sleep { step, until } => WaitingFor::Sleep { step, until: Time(until) },
            Wait::Event { step, event, deadline } => {
                WaitingFor::Event { step, event, deadline: deadline.map(Time) }
            }
            Wait::Retry { step, attempt, at } => WaitingFor::Retry { step, attempt, at: Time(at) },
            Wait::Pause { rule, step, until } => {
                WaitingFor::Pause { rule_id: rule, step, until: until.map(Time) }
            }
        }
    }
}

/// The answer to a start: the execution, under Zart's names for its ids too.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartedExecution {
    execution_id: ExecutionId,
    /// The first run.
    task_id: RunId,
    #[serde(flatten)]
    execution: Execution,
}

impl From<ExecutionView> for StartedExecution {
    fn from(view: ExecutionView) -> Self {
        StartedExecution {
            execution_id: view.id.clone(),
            task_id: RunId::new(&view.id, 0),
            execution: view.into(),
        }
    }
}

/// What became of an event.
#[derive(Serialize)]
pub struct EventAnswer {
    delivered: bool,
    /// `delivered` or `buffered`.
    status: &'static str,
}

impl From<Delivery> for EventAnswer {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Delivered => EventAnswer { delivered: true, status: "delivered" },
            Delivery::Buffered => EventAnswer { delivered: false, status: "buffered" },
        }
    }
}

/// How many executions there are of each status.
#[derive(Serialize)]
pub struct Stats {
    scheduled: u64,
    running: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

impl From<Counts> for Stats {
    fn from(counts: Counts) -> Self {
        let Counts { scheduled, running, completed, failed, cancelled } = counts;
        Stats { scheduled, running, completed, failed, cancelled }
    }
}

/// A version of a module.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleVersion {
    task_name: TaskName,
    version: u32,
    digest: Digest,
    size_bytes: u64,
    compiled_in_ms: u64,
    created_at: Time,
    manifest: Json,
    /// Whether new runs get it.
    active: bool,
    /// Executions that are not over and run on it.
    unfinished_executions: u64,
}

impl From<VersionView> for ModuleVersion {
    fn from(view: VersionView) -> Self {
        ModuleVersion {
            task_name: view.task,
            version: view.version,
            digest: view.digest,
            size_bytes: view.size_bytes,
            compiled_in_ms: view.compiled_in_ms,
            created_at: Time(view.created_at),
            manifest: view.manifest,
            active: view.active,
            unfinished_executions: view.unfinished,
        }
    }
}

/// A module: its active version, and what is said of all of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Module {
    #[serde(flatten)]
    active_version: ModuleVersion,
    /// How many versions it has.
    versions: u32,
    /// Executions that are not over, on whatever version.
    unfinished_executions_of_all_versions: u64,
}

impl From<ModuleView> for Module {
    fn from(view: ModuleView) -> Self {
        Module {
            active_version: view.active.into(),
            versions: view.versions,
            unfinished_executions_of_all_versions: view.unfinished,
        }
    }
}

/// The verdict of `stepbox inspect --json` on a component that is a task module.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    accepted: bool,
    digest: Digest,
    size_bytes: usize,
    compiled_in_ms: u64,
    imports: Vec<Interface>,
    exports: Vec<Interface>,
    manifest: Json,
}

/// What a component imports or exports under one name.
#[derive(Serialize)]
struct Interface {
    name: String,
    functions: Vec<String>,
}

impl From<InterfaceItem> for Interface {
    fn from(item: InterfaceItem) -> Self {
        Interface { name: item.name, functions: item.functions }
    }
}

impl From<Inspected> for Inspection {
    fn from(inspected: Inspected) -> Self {
        Inspection {
            accepted: true,
            digest: inspected.digest,
            size_bytes: inspected.size_bytes,
            compiled_in_ms: inspected.compiled_in_ms,
            imports: inspected.imports.into_iter().map(Into::into).collect(),
            exports: inspected.exports.into_iter().map(Into::into).collect(),
            manifest: inspected.manifest_text,
        }
    }
}

/// The verdict of `stepbox inspect --json` on one that is none.
#[derive(Serialize)]
pub struct Refusal<'a> {
    accepted: bool,
    error: &'a str,
    code: &'a str,
}

impl<'a> From<&'a ApiError> for Refusal<'a> {
    fn from(error: &'a ApiError) -> Self {
        Refusal { accepted: false, error: &error.message, code: error.code }
    }
}
