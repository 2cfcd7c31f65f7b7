//! Executions: start, look, wait, cancel; and the events that are sent to them.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use stepbox_domain::{ExecutionId, ExecutionStatus, TaskName, Timestamp, run::Wait};
use uuid::{NoContext, Uuid};

use super::{
    Api, ApiError,
    extract::{AnyJson, JsonObject, PathIds, out_of_range},
    query::Query,
    wire,
};
use crate::{
    engine::{EngineError, Started, Who},
    store::{ExecutionFilter, ExecutionView, Page, Sort},
};

const LIMIT_DEFAULT: u32 = 20;
const LIMIT_MAX: u32 = 1_000;
const WAIT_MAX_S: f64 = 30.0;

/// `POST /executions`
pub async fn start(State(api): State<Api>, body: JsonObject) -> Result<Response, ApiError> {
    let fields = body.fields()?;
    let task = TaskName::parse(&fields.required_text("taskName")?)
        .map_err(|error| out_of_range("taskName", error))?;
    let id = match fields.text("executionId")? {
        Some(id) if id == "." || id == ".." => {
            return Err(out_of_range(
                "executionId",
                "\".\" and \"..\" cannot be asked for: URLs use them up",
            ));
        }
        Some(id) => ExecutionId::parse(&id).map_err(|error| out_of_range("executionId", error))?,
        None => new_id(api.engine().clock().now())?,
    };
    let payload = fields.json("payload")?;
    let (status, view) = match api.engine().start(id, task, payload).await? {
        Started::New(view) => (StatusCode::CREATED, view),
        Started::Replay(view) => (StatusCode::OK, view),
    };
    let location = location(&view.id);
    let mut response = wire::json(status, &wire::StartedExecution::from(view));
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// An id for who brings none. UUIDs of version 7 ascend, which keeps the store's indexes small.
fn new_id(now: Timestamp) -> Result<ExecutionId, ApiError> {
    let ms = u64::try_from(now.as_ms()).unwrap_or(0);
    let nanos = u32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
    let uuid = Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, ms / 1_000, nanos));
    ExecutionId::parse(&uuid.to_string()).map_err(ApiError::internal)
}

/// What may stand in a path as it is (RFC 3986, "unreserved").
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

fn location(id: &ExecutionId) -> HeaderValue {
    let path = format!("/api/v1/executions/{}", utf8_percent_encode(id.as_str(), SEGMENT));
    // What is percent-encoded is ASCII, so there is nothing to be refused.
    HeaderValue::try_from(path).unwrap_or(HeaderValue::from_static("/api/v1/executions"))
}

/// `GET /executions`
pub async fn list(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    let (filter, page) = selection(query)?;
    let (views, total) = api.views().executions(&filter, page).await?;
    let executions: Vec<wire::Execution> = views.into_iter().map(Into::into).collect();
    let mut response = wire::json(StatusCode::OK, &executions);
    response.headers_mut().insert("x-total-count", HeaderValue::from(total));
    Ok(response)
}

/// Which executions, and in which order.
fn selection(query: Query) -> Result<(ExecutionFilter, Page), ApiError> {
    let query = query.only(&[
        "status",
        "taskName",
        "from",
        "to",
        "search",
        "sortBy",
        "sortOrder",
        "limit",
        "offset",
    ])?;
    const TIME: &str = "a time like 2026-01-31T12:00:00.000Z (RFC 3339; write + as %2B)";
    let filter = ExecutionFilter {
        status: query.value(
            "status",
            &format!("one of {}", ExecutionStatus::ALL.map(ExecutionStatus::as_str).join(", ")),
            ExecutionStatus::parse,
        )?,
        task: query.text("taskName").map(str::to_owned),
        from: query.value("from", TIME, wire::parse_time)?,
        to: query.value("to", TIME, wire::parse_time)?,
        search: query.text("search").map(str::to_owned),
    };
    let sort = query.value("sortBy", "one of scheduledAt, status, taskName", |text| match text {
        "scheduledAt" => Some(Sort::ScheduledAt),
        "status" => Some(Sort::Status),
        "taskName" => Some(Sort::TaskName),
        _ => None,
    })?;
    let descending = query.value("sortOrder", "asc or desc", |text| match text {
        "asc" => Some(false),
        "desc" => Some(true),
        _ => None,
    })?;
    let limit = query.value("limit", &format!("a whole number from 0 to {LIMIT_MAX}"), |text| {
        text.parse().ok().filter(|limit| *limit <= LIMIT_MAX)
    })?;
    let offset = query.value("offset", "a whole number from 0 to 2^63-1", |text| {
        text.parse().ok().filter(|offset| i64::try_from(*offset).is_ok())
    })?;
    let page = Page {
        sort: sort.unwrap_or(Sort::ScheduledAt),
        descending: descending.unwrap_or(true),
        limit: limit.unwrap_or(LIMIT_DEFAULT),
        offset: offset.unwrap_or(0),
    };
    Ok((filter, page))
}

/// `GET /executions/{id}`
pub async fn one(State(api): State<Api>, path: PathIds) -> Result<Response, ApiError> {
    let id = path.execution()?;
    match api.views().execution(&id).await? {
        Some(view) => Ok(wire::json(StatusCode::OK, &wire::Execution::from(view))),
        None => Err(EngineError::UnknownExecution(id).into()),
    }
}

/// `POST /executions/{id}/cancel`
pub async fn cancel(State(api): State<Api>, path: PathIds) -> Result<StatusCode, ApiError> {
    api.engine().cancel(&path.execution()?, Who::default()).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `GET /executions/{id}/wait`
pub async fn wait(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    let (id, patience) = (path.execution()?, patience(query)?);
    let view = tokio::select! {
        biased;
        view = api.engine().wait(&id, patience) => view?,
        () = api.stopping() => {
            return Err(ApiError::unavailable("stopping", "the host is stopping; ask again in a while"));
        }
    };
    match view.status.is_terminal() {
        true => Ok(wire::json(StatusCode::OK, &wire::Execution::from(view))),
        false => Err(not_over_yet(view, patience)),
    }
}

fn patience(query: Query) -> Result<Duration, ApiError> {
    let names = ["timeoutSecs", "timeout_secs"];
    let query = query.only(&names)?;
    let read = |name| {
        query.value(name, "a number of seconds, not negative", |text| {
            let seconds: f64 = text.parse().ok()?;
            (seconds.is_finite() && seconds >= 0.0).then_some(seconds.min(WAIT_MAX_S))
        })
    };
    let seconds = match (read(names[0])?, read(names[1])?) {
        (Some(_), Some(_)) => {
            let message = "timeoutSecs and timeout_secs are two names of one thing; give one of them";
            return Err(ApiError::bad_request("bad_query", message));
        }
        (one, other) => one.or(other).unwrap_or(WAIT_MAX_S),
    };
    Ok(Duration::from_secs_f64(seconds))
}

/// The time is up: says how the execution stands.
fn not_over_yet(view: ExecutionView, patience: Duration) -> ApiError {
    let stands = match &view.waiting {
        None => String::new(),
        Some(Wait::Sleep { step, .. }) => format!(" and sleeps at \"{step}\""),
        Some(Wait::Event { event, .. }) => format!(" and waits for the event \"{event}\""),
        Some(Wait::Pause { rule, .. }) => format!(" and is held by the pause rule {}", rule.as_str()),
        Some(Wait::Retry { step, attempt, .. }) => format!(" and waits for attempt {attempt} of \"{step}\""),
    };
    let message = format!(
        "the execution \"{}\" is not over after {} s: it is {}{stands}; ask again",
        view.id,
        patience.as_secs_f64(),
        view.status.as_str()
    );
    let waiting_for = view.waiting.map(wire::WaitingFor::from);
    ApiError::new(StatusCode::GATEWAY_TIMEOUT, "not_over_yet", message)
        .with("status", view.status.as_str())
        .with("waitingFor", serde_json::to_value(waiting_for).unwrap_or_default())
}

/// `POST /events/{id}/{event}`
pub async fn send_event(
    State(api): State<Api>,
    path: PathIds,
    AnyJson(payload): AnyJson,
) -> Result<Response, ApiError> {
    let delivery = api.engine().send_event(&path.execution()?, &path.event()?, &payload).await?;
    Ok(wire::json(StatusCode::ACCEPTED, &wire::EventAnswer::from(delivery)))
}

/// `GET /stats`
pub async fn stats(State(api): State<Api>, query: Query) -> Result<impl IntoResponse, ApiError> {
    query.only(&[])?;
    Ok(wire::json(StatusCode::OK, &wire::Stats::from(api.views().counts().await?)))
}
