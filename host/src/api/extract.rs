//! What comes in: paths and bodies. Every refusal has the contract's status, and says what is
//! expected instead.
//!
//! A body is read within its limit. What a JSON object has in it is read in [`super::fields`], what
//! stands behind the `?` in [`super::query`].

use std::time::Duration;

use axum::{
    body::Bytes,
    extract::{FromRequest, FromRequestParts, RawPathParams, Request},
    http::{HeaderMap, StatusCode, header, request::Parts},
};
use futures_util::StreamExt as _;
use serde_json::value::RawValue;
use stepbox_domain::{
    EventName, ExecutionId, Json, StepKey, TaskName, bulk::BulkId, capability::SecretName, pause::PauseRuleId,
};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Api, ApiError,
    fields::{Fields, name_of, out_of_range},
};

/// The parts of a path that stand for something, percent-decoded.
pub struct PathIds(RawPathParams);

impl FromRequestParts<Api> for PathIds {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, api: &Api) -> Result<Self, ApiError> {
        let bad =
            |what: &str| ApiError::bad_request("bad_path", format!("the path is not well encoded: {what}"));
        if !is_percent_encoded(parts.uri.path()) {
            return Err(bad("a % is followed by two hexadecimal digits; write % itself as %25"));
        }
        let params = RawPathParams::from_request_parts(parts, api).await;
        params.map(PathIds).map_err(|_| bad("what is percent-encoded must be UTF-8"))
    }
}

fn is_percent_encoded(path: &str) -> bool {
    let bytes = path.as_bytes();
    let is_hex = |at: usize| bytes.get(at).is_some_and(u8::is_ascii_hexdigit);
    (0..bytes.len()).all(|at| bytes[at] != b'%' || is_hex(at + 1) && is_hex(at + 2))
}

impl PathIds {
    fn text(&self, name: &str) -> &str {
        // Each route that asks for a name has it.
        self.0.iter().find(|(key, _)| *key == name).map_or("", |(_, text)| text)
    }

    /// `{id}`. What cannot be the id of an execution is not the id of one.
    pub fn execution(&self) -> Result<ExecutionId, ApiError> {
        ExecutionId::parse(self.text("id")).map_err(|error| {
            ApiError::not_found("unknown_execution", format!("there is no such execution: {error}"))
        })
    }

    /// `{task}`, of a module that should be there.
    pub fn task(&self) -> Result<TaskName, ApiError> {
        TaskName::parse(self.text("task")).map_err(|error| {
            ApiError::not_found("unknown_module", format!("there is no such module: {error}"))
        })
    }

    /// `{task}`, of a module that may be new.
    pub fn new_task(&self) -> Result<TaskName, ApiError> {
        TaskName::parse(self.text("task")).map_err(|error| out_of_range("taskName", error))
    }

    /// `{version}`, of `task`.
    pub fn version(&self, task: &TaskName) -> Result<u32, ApiError> {
        let text = self.text("version");
        text.parse().map_err(|_| {
            let message = format!(
                "task \"{task}\" has no version {text:?}: versions are whole numbers from 1; see GET \
                 /admin/v1/modules/{task}/versions"
            );
            ApiError::not_found("unknown_version", message)
        })
    }

    /// `{name}`, of a step that should be there.
    pub fn step(&self) -> Result<StepKey, ApiError> {
        StepKey::parse(self.text("name"))
            .map_err(|error| ApiError::not_found("unknown_step", format!("there is no such step: {error}")))
    }

    /// `{rule}`.
    pub fn pause_rule(&self) -> PauseRuleId {
        PauseRuleId::new(self.text("rule"))
    }

    /// `{bulk}`.
    pub fn bulk(&self) -> BulkId {
        BulkId::new(self.text("bulk"))
    }

    /// `{secret}`, that may be new.
    pub fn new_secret(&self) -> Result<SecretName, ApiError> {
        SecretName::parse(self.text("secret")).map_err(|error| out_of_range("name", error))
    }

    /// `{secret}`, that should be there.
    pub fn secret(&self) -> Result<SecretName, ApiError> {
        SecretName::parse(self.text("secret")).map_err(|error| {
            ApiError::not_found("unknown_secret", format!("there is no such secret: {error}"))
        })
    }

    /// `{event}`.
    pub fn event(&self) -> Result<EventName, ApiError> {
        EventName::parse(self.text("event")).map_err(|error| out_of_range("eventName", error))
    }
}

/// A body that is a JSON object.
pub struct JsonObject(String);

impl FromRequest<Api> for JsonObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        is_json(request.headers())?;
        json_text(read(request, api.body_max()).await?).map(JsonObject)
    }
}

/// A body that is a JSON object, or nothing at all: then it is one without fields.
pub struct OptionalObject(JsonObject);

impl FromRequest<Api> for OptionalObject {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let typed = is_json(request.headers());
        let body = read(request, api.body_max()).await?;
        if body.is_empty() {
            return Ok(OptionalObject(JsonObject("{}".to_owned())));
        }
        typed?;
        match json_text(body)? {
            // What some clients send when there is nothing to say.
            text if text.trim_ascii() == "null" => Ok(OptionalObject(JsonObject("{}".to_owned()))),
            text => Ok(OptionalObject(JsonObject(text))),
        }
    }
}

impl OptionalObject {
    pub fn fields(&self) -> Result<Fields<'_>, ApiError> {
        self.0.fields()
    }
}

impl JsonObject {
    pub fn fields(&self) -> Result<Fields<'_>, ApiError> {
        if !self.0.trim_ascii_start().starts_with('{') {
            let message = format!("the body must be a JSON object, this is {}", name_of(&self.0));
            return Err(ApiError::unprocessable("wrong_shape", message));
        }
        Fields::parse(&self.0).map_err(|error| ApiError::unprocessable("wrong_shape", error))
    }
}

/// A body that is any JSON; one that is empty is `null`.
pub struct AnyJson(pub Json);

impl FromRequest<Api> for AnyJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        let typed = is_json(request.headers());
        let body = read(request, api.body_max()).await?;
        if body.is_empty() {
            return Ok(AnyJson(Json::null()));
        }
        typed?;
        Json::parse(json_text(body)?).map(AnyJson).map_err(|error| {
            ApiError::unprocessable("out_of_range", format!("the body cannot be kept: {error}"))
        })
    }
}

/// A body that is a component, and its place among the uploads under way.
pub struct Component(pub Vec<u8>, pub OwnedSemaphorePermit);

impl FromRequest<Api> for Component {
    type Rejection = ApiError;

    async fn from_request(request: Request, api: &Api) -> Result<Self, ApiError> {
        has_type(request.headers(), "application/wasm", |essence| essence == "application/wasm")?;
        // Before anything of the body is here.
        let place = api.place_for_upload()?;
        Ok(Component(read(request, api.upload_max()).await?.into(), place))
    }
}

/// The text of a body that is JSON.
fn json_text(body: Bytes) -> Result<String, ApiError> {
    let not_json = |what: String| ApiError::bad_request("not_json", format!("the body is not JSON: {what}"));
    let text = String::from_utf8(body.into())
        .map_err(|error| not_json(format!("it is not UTF-8 at byte {}", error.utf8_error().valid_up_to())))?;
    match serde_json::from_str::<&RawValue>(&text) {
        Ok(_) => Ok(text),
        Err(error) => Err(not_json(error.to_string())),
    }
}

fn is_json(headers: &HeaderMap) -> Result<(), ApiError> {
    has_type(headers, "application/json", |essence| {
        essence == "application/json" || essence.starts_with("application/") && essence.ends_with("+json")
    })
}

pub(super) fn has_type(
    headers: &HeaderMap,
    expected: &str,
    fits: impl Fn(&str) -> bool,
) -> Result<(), ApiError> {
    let found = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
    let (essence, parameters) =
        found.as_deref().map_or(("", ""), |text| text.split_once(';').unwrap_or((text, "")));
    let other_charset = parameters.split(';').any(|parameter| {
        let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
        name.trim().eq_ignore_ascii_case("charset")
            && !value.trim().trim_matches('"').eq_ignore_ascii_case("utf-8")
    });
    if fits(&essence.trim().to_ascii_lowercase()) && !other_charset {
        return Ok(());
    }
    let found = found.map_or("there is none".to_owned(), |found| format!("this is {found:?}"));
    let message = format!("the Content-Type must be {expected}, {found}");
    Err(ApiError::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "wrong_content_type", message))
}

/// How large a body may be, and what allows larger ones.
#[derive(Clone, Copy)]
pub struct BodyMax {
    pub bytes: usize,
    pub how_to_raise: &'static str,
}

impl BodyMax {
    fn exceeded(self) -> ApiError {
        let BodyMax { bytes, how_to_raise } = self;
        let message =
            format!("the body has more than {bytes} bytes, which is the limit; raise it with {how_to_raise}");
        ApiError::too_large(message).with("maxBytes", bytes)
    }
}

/// Between two pieces of a body.
const SILENCE_MAX: Duration = Duration::from_secs(30);

pub(super) async fn read(request: Request, max: BodyMax) -> Result<Bytes, ApiError> {
    let (parts, body) = request.into_parts();
    let declared =
        parts.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let mut body = body.into_data_stream();
    if declared.is_some_and(|bytes| bytes > max.bytes as u64) {
        return Err(max.exceeded());
    }

    let mut whole = Vec::new();
    loop {
        let piece = tokio::time::timeout(SILENCE_MAX, body.next()).await.map_err(|_| {
            let message = format!("nothing came of the body for {} s", SILENCE_MAX.as_secs());
            ApiError::new(StatusCode::REQUEST_TIMEOUT, "body_timeout", message)
        })?;
        match piece {
            None => return Ok(whole.into()),
            Some(Err(error)) => {
                let message = format!("the body could not be read to its end: {error}");
                return Err(ApiError::bad_request("body_cut_off", message));
            }
            Some(Ok(piece)) if whole.len() + piece.len() > max.bytes => {
                return Err(max.exceeded());
            }
            // A body that comes in one piece is not copied.
            Some(Ok(piece)) if whole.is_empty() && declared == Some(piece.len() as u64) => return Ok(piece),
            Some(Ok(piece)) => whole.extend_from_slice(&piece),
        }
    }
}
