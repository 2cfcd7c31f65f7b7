//! Executions: start, look, wait, cancel; and the events that are sent to them.

use std::time::Duration;

use axum::{
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use stepbox_domain::{ExecutionId, ExecutionStatus, TaskName, Timestamp, pause::Hold, run::Wait};
use uuid::{NoContext, Uuid};

use super::{
    Api, ApiError,
    extract::{AnyJson, JsonObject, OptionalObject, PathIds},
    fields::out_of_range,
    query::Query,
    wire,
};
use crate::{
    engine::{EngineError, Started},
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
    let mut response = wire::json(status, &started(&api, view));
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
    let executions: Vec<wire::Execution> = views.into_iter().map(|view| shown(&api, view)).collect();
    Ok(wire::page(&executions, total))
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
    let filter = ExecutionFilter {
        status: query.value(
            "status",
            &format!("one of {}", ExecutionStatus::ALL.map(ExecutionStatus::as_str).join(", ")),
            ExecutionStatus::parse,
        )?,
        task: query.text("taskName").map(str::to_owned),
        from: query.time("from")?,
        to: query.time("to")?,
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
    let page = Page {
        sort: sort.unwrap_or(Sort::ScheduledAt),
        descending: descending.unwrap_or(true),
        limit: query.number("limit", LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT),
        offset: query.offset("offset")?,
    };
    Ok((filter, page))
}

/// `GET /executions/{id}`
pub async fn one(State(api): State<Api>, path: PathIds) -> Result<Response, ApiError> {
    let id = path.execution()?;
    match api.views().execution(&id).await? {
        Some(view) => Ok(wire::json(StatusCode::OK, &shown(&api, view))),
        None => Err(EngineError::UnknownExecution(id).into()),
    }
}

/// An execution as it is answered: with the pause rule that holds it now.
pub fn shown(api: &Api, view: ExecutionView) -> wire::Execution {
    let hold = hold(api, &view);
    let in_line = in_line(api, &view);
    wire::Execution::new(view, hold).in_line(in_line)
}

fn started(api: &Api, view: ExecutionView) -> wire::StartedExecution {
    let hold = hold(api, &view);
    wire::StartedExecution::new(view, hold)
}

/// How many runs its task may have at the same time, where the execution stands in line for that.
fn in_line(api: &Api, view: &ExecutionView) -> Option<u64> {
    if view.status.is_terminal() { None } else { api.engine().in_line(&view.run) }
}

/// The rule that holds an execution now: as a whole, or at the step that it is held at.
fn hold(api: &Api, view: &ExecutionView) -> Option<Hold> {
    if view.status.is_terminal() {
        return None;
    }
    let step = match &view.waiting {
        Some(Wait::Pause { step, .. }) => step.as_ref(),
        _ => None,
    };
    api.engine().hold(&view.id, &view.task, step)
}

/// `POST /executions/{id}/cancel`. The body, if there is one, says who and why.
pub async fn cancel(
    State(api): State<Api>,
    path: PathIds,
    body: OptionalObject,
) -> Result<StatusCode, ApiError> {
    api.engine().cancel(&path.execution()?, body.fields()?.who()?).await?;
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
        true => Ok(wire::json(StatusCode::OK, &shown(&api, view))),
        false => Err(not_over_yet(&api, view, patience)),
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
fn not_over_yet(api: &Api, view: ExecutionView, patience: Duration) -> ApiError {
    let waiting_for = wire::WaitingFor::of(&view, hold(api, &view));
    let waiting_for = wire::WaitingFor::in_line(waiting_for, in_line(api, &view));
    let stands = match &waiting_for {
        None => String::new(),
        Some(wire::WaitingFor::Sleep { step, .. }) => format!(" and sleeps at \"{step}\""),
        Some(wire::WaitingFor::Event { event, .. }) => format!(" and waits for the event \"{event}\""),
        Some(wire::WaitingFor::Pause { rule_id, .. }) => {
            format!(" and is held by the pause rule {}", rule_id.as_str())
        }
        Some(wire::WaitingFor::Capacity { live_max }) => {
            format!(
                " and waits for its turn: no more than {live_max} runs of its task go on at the same time (liveMax)"
            )
        }
        Some(wire::WaitingFor::Retry { step, attempt, .. }) => {
            format!(" and waits for attempt {attempt} of \"{step}\"")
        }
    };
    let message = format!(
        "the execution \"{}\" is not over after {} s: it is {}{stands}; ask again",
        view.id,
        patience.as_secs_f64(),
        view.status.as_str()
    );
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
