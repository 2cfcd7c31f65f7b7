//! What is answered when something cannot be done. The only place where an outcome gets a status.
//!
//! The body of every error is `{"error": "<what is wrong and what to do>", "code": "<stable
//! word>"}`; some have more fields after these.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::Serialize;
use serde_json::{Map, Value, json};

use stepbox_domain::{limits::LimitError, repair::RepairError};

use super::wire;
use crate::{engine::EngineError, sandbox::Rejected, store::StoreError, vault::VaultError};

/// An answer that says no: which, why, and what to do about it.
#[derive(Debug)]
pub struct ApiError {
    pub status: StatusCode,
    /// A stable word for programs.
    pub code: &'static str,
    /// For people.
    pub message: String,
    more: Map<String, Value>,
}

/// What `Retry-After` says, in seconds: what is in the way is mostly over by then.
const RETRY_AFTER_S: &str = "1";

impl ApiError {
    pub fn new(status: StatusCode, code: &'static str, message: impl ToString) -> Self {
        ApiError { status, code, message: message.to_string(), more: Map::new() }
    }

    pub fn bad_request(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::BAD_REQUEST, code, message)
    }

    pub fn not_found(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::NOT_FOUND, code, message)
    }

    pub fn conflict(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::CONFLICT, code, message)
    }

    pub fn too_large(message: impl ToString) -> Self {
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", message)
    }

    pub fn unprocessable(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, code, message)
    }

    /// Answered with `Retry-After`.
    pub fn unavailable(code: &'static str, message: impl ToString) -> Self {
        Self::new(StatusCode::SERVICE_UNAVAILABLE, code, message)
    }

    /// For what is broken here. The caller gets no details; the log has them.
    pub fn internal(what: impl std::fmt::Display) -> Self {
        tracing::error!(error = %what, "a request could not be answered");
        let message = "something is broken on this host; its log says what";
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "internal", message)
    }

    /// Adds a field to the body.
    pub fn with(mut self, field: &str, value: impl Into<Value>) -> Self {
        self.more.insert(field.to_owned(), value.into());
        self
    }

    /// The body of the answer.
    pub fn body(&self) -> impl Serialize + '_ {
        ErrorBody { error: &self.message, code: self.code, more: &self.more }
    }
}

#[derive(Serialize)]
struct ErrorBody<'a> {
    error: &'a str,
    code: &'a str,
    #[serde(flatten)]
    more: &'a Map<String, Value>,
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = wire::json(self.status, &self.body());
        if self.status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static(RETRY_AFTER_S));
        }
        response
    }
}

impl From<EngineError> for ApiError {
    fn from(error: EngineError) -> Self {
        let text = error.to_string();
        match error {
            EngineError::UnknownTask(_) => Self::unprocessable("unknown_task", text),
            EngineError::PayloadRefused { pointer, .. } => {
                Self::unprocessable("payload_refused", text).with("pointer", pointer)
            }
            EngineError::ValueTooLarge { max_bytes, .. } => Self::too_large(text).with("maxBytes", max_bytes),
            EngineError::IdTaken { .. } => Self::conflict("id_taken", text),
            EngineError::UnknownExecution(_) => Self::not_found("unknown_execution", text),
            EngineError::AlreadyOver { status, .. } => {
                Self::conflict("already_over", text).with("status", status.as_str())
            }
            EngineError::TaskWaits { version, .. } => {
                Self::unprocessable("waits_for_grants", text).with("version", version)
            }
            EngineError::NotGranted { version, missing, .. } => Self::conflict("not_granted", text)
                .with("version", version)
                .with("missing", json!(wire::Wants::from(*missing))),
            EngineError::BadGrants(error) => {
                Self::unprocessable("out_of_range", text).with("field", error.field)
            }
            EngineError::BadLimit(
                LimitError::TooLittle { limit, .. } | LimitError::AboveCeiling { limit, .. },
            ) => Self::unprocessable("out_of_range", text).with("field", limit.as_str()),
            EngineError::UnknownModule(_) => Self::not_found("unknown_module", text),
            EngineError::UnknownVersion { .. } => Self::not_found("unknown_version", text),
            EngineError::VersionRemoved { .. } => Self::conflict("version_removed", text),
            EngineError::ModuleInUse { executions, .. } => {
                Self::conflict("module_in_use", text).with("unfinishedExecutions", executions)
            }
            EngineError::Repair(RepairError::NoSuchStep { .. }) => Self::not_found("unknown_step", text),
            EngineError::Repair(RepairError::UnknownSteps { steps, .. }) => {
                let steps: Vec<String> = steps.into_iter().map(Into::into).collect();
                Self::unprocessable("unknown_steps", text).with("steps", steps)
            }
            EngineError::Repair(RepairError::NotDead { status, .. }) => {
                Self::conflict("step_not_dead", text).with("status", status.as_str())
            }
            EngineError::Repair(RepairError::Cancelled) => Self::conflict("run_cancelled", text),
            EngineError::EmptyScope => Self::unprocessable("empty_scope", text),
            EngineError::ExpiresInThePast => Self::unprocessable("expires_in_the_past", text),
            EngineError::UnknownPauseRule(_) => Self::not_found("unknown_pause_rule", text),
            EngineError::BadBulk { .. } => Self::unprocessable("bad_bulk", text),
            EngineError::NothingSelected => Self::unprocessable("nothing_selected", text),
            EngineError::UnknownBulk(_) => Self::not_found("unknown_bulk", text),
            EngineError::BulkOver { state, .. } => {
                Self::conflict("bulk_over", text).with("state", state.as_str())
            }
            EngineError::Rejected(rejected) => refused(rejected, text),
            EngineError::Store(error) => error.into(),
        }
    }
}

impl From<VaultError> for ApiError {
    fn from(error: VaultError) -> Self {
        match error {
            VaultError::NoKey => Self::conflict("no_secrets_key", error),
            VaultError::Unknown(_) => Self::not_found("unknown_secret", error),
            VaultError::Unsealable => Self::internal(error),
            VaultError::Store(error) => error.into(),
        }
    }
}

/// The answer to an upload that is refused. `text` is the sentence.
fn refused(rejected: Rejected, text: String) -> ApiError {
    let unprocessable = ApiError::unprocessable;
    match rejected {
        Rejected::TooLarge { .. } => ApiError::too_large(text),
        Rejected::NotAComponent { .. } => unprocessable("not_a_component", text),
        Rejected::DoesNotCompile { .. } => unprocessable("does_not_compile", text),
        Rejected::CompileLimit { .. } => unprocessable("compile_limit", text),
        Rejected::ForbiddenImport { name, .. } => {
            unprocessable("forbidden_import", text).with("import", name)
        }
        Rejected::MissingExport { name } => unprocessable("missing_export", text).with("export", name),
        Rejected::WrongType { .. } => unprocessable("wrong_type", text),
        Rejected::DescribeFailed { backtrace, .. } => {
            unprocessable("describe_failed", text).with("backtrace", backtrace)
        }
        Rejected::BadManifest(_) => unprocessable("bad_manifest", text),
        Rejected::BadSchema { .. } => unprocessable("bad_schema", text),
        Rejected::Unavailable { .. } => ApiError::unavailable("inspection_unavailable", rejected),
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::unavailable("store_unavailable", error),
            // Neither is the caller's: a claim is lost between workers only.
            StoreError::Corrupt(_) | StoreError::ClaimLost => Self::internal(error),
        }
    }
}
