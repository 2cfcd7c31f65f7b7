//! What the guests of an execution printed: page by page, or as it comes.

use std::time::Duration;

use axum::{
    body::{Body, Bytes},
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use futures_util::stream;
use stepbox_domain::{ExecutionId, ExecutionStatus, RunId, StepKey};
use tokio::sync::mpsc;

use super::{Api, ApiError, detail, extract::PathIds, query::Query, wire};
use crate::{
    engine::EngineError,
    guest_logs::Following,
    sandbox::LogLevel,
    store::logs::{LogFilter, LogView},
};

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// For how long nothing may come before a follower is shown that the connection is alive.
const SILENCE_MAX: Duration = Duration::from_secs(15);

/// A follower that takes nothing for so long is given up, and its place with it.
const STANDSTILL_MAX: Duration = Duration::from_secs(30);

/// How long an end is waited for at a time; only to look again.
const LOOK_AGAIN: Duration = Duration::from_secs(3_600);

const PARAMETERS: [&str; 11] =
    ["runId", "step", "attempt", "level", "search", "from", "to", "after", "limit", "order", "follow"];

/// `GET /executions/{id}/logs`
pub async fn logs(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let query = query.only(&PARAMETERS)?;
    let follow = query.flag("follow")?;
    let mut filter = filter(&query, path.execution()?)?;
    if api.views().execution(&filter.execution).await?.is_none() {
        return Err(EngineError::UnknownExecution(filter.execution).into());
    }
    if let Some(run) = query.text("runId") {
        filter.run = Some(run_of(&api, &filter.execution, run).await?);
    }
    if follow {
        for name in ["limit", "order"] {
            if query.text(name).is_some() {
                let message = format!("{name} and follow do not go together; leave one of them out");
                return Err(ApiError::bad_request("bad_query", message).with("parameter", name));
            }
        }
        filter.limit = LIMIT_MAX;
        filter.after = resumed_after(&headers)?.or(filter.after);
        return stream_of(&api, filter);
    }
    let lines: Vec<wire::LogLine> = api.logs().lines(&filter).await?.into_iter().map(Into::into).collect();
    Ok(wire::json(StatusCode::OK, &lines))
}

fn filter(query: &Query, execution: ExecutionId) -> Result<LogFilter, ApiError> {
    let levels = LogLevel::ALL.map(LogLevel::as_str).join(", ");
    let limit = query.number("limit", LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let whole = "a whole number, the sequence of a line";
    Ok(LogFilter {
        step: query
            .value("step", "the key of a step, like charge or charge#2", |text| StepKey::parse(text).ok())?,
        attempt: query.value("attempt", "a whole number from 1", |text| {
            text.parse().ok().filter(|attempt| *attempt >= 1)
        })?,
        level: query.value("level", &format!("one of {levels}"), LogLevel::parse)?,
        search: query.text("search").filter(|text| !text.is_empty()).map(str::to_owned),
        from: query.time("from")?,
        to: query.time("to")?,
        after: query.value("after", whole, |text| text.parse().ok())?,
        descending: query.value("order", "asc or desc", |text| match text {
            "asc" => Some(false),
            "desc" => Some(true),
            _ => None,
        })? == Some(true),
        ..LogFilter::of(execution, limit)
    })
}

async fn run_of(api: &Api, execution: &ExecutionId, run: &str) -> Result<RunId, ApiError> {
    let runs = api.views().runs(execution).await?.unwrap_or_default();
    let found = runs.into_iter().map(|view| view.run).find(|id| id.as_str() == run);
    found.ok_or_else(|| detail::unknown_run(execution, run))
}

/// Where a follower was when its connection broke.
fn resumed_after(headers: &HeaderMap) -> Result<Option<u64>, ApiError> {
    let Some(value) = headers.get("last-event-id") else { return Ok(None) };
    let sequence = value.to_str().ok().and_then(|text| text.trim().parse().ok());
    sequence.map(Some).ok_or_else(|| {
        ApiError::bad_request("bad_header", "Last-Event-ID must be the id of an event of this stream")
    })
}

/// Server-sent events, as in the HTML standard, 9.2.
fn stream_of(api: &Api, filter: LogFilter) -> Result<Response, ApiError> {
    let following = api.logs().follow(&filter.execution);
    let following = following.map_err(|full| ApiError::unavailable("too_many_followers", full))?;
    let (events, stream) = mpsc::channel(4);
    let follower = Follower { api: api.clone(), filter, following, events };
    tokio::spawn(follower.follow());
    let stream = stream::unfold(stream, async |mut stream| {
        let event: Bytes = stream.recv().await?;
        Some((Ok::<_, std::convert::Infallible>(event), stream))
    });
    let mut response = Response::new(Body::from_stream(stream));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}

struct Follower {
    api: Api,
    filter: LogFilter,
    following: Following,
    events: mpsc::Sender<Bytes>,
}

/// Which lines are meant: all that have been printed, for which what is on its way has to be written,
/// or those that have been written. To ask for the first each time would write them one by one.
#[derive(Clone, Copy)]
enum When {
    Printed,
    Written,
}

/// The client is gone, or as good as gone.
struct Gone;

impl Follower {
    /// Until the execution is over, the host stops or the client is gone.
    async fn follow(mut self) {
        let api = self.api.clone();
        let ended = tokio::select! {
            biased;
            ended = self.until_over() => ended,
            // It comes back with its Last-Event-ID.
            () = api.stopping() => return,
        };
        let Ok(status) = ended else { return };
        // Who hears this does not come back, as an event source otherwise would.
        let end = format!("event: end\ndata: {{\"status\":\"{}\"}}\n\n", status.as_str());
        let _ = self.send(end).await;
    }

    async fn until_over(&mut self) -> Result<ExecutionStatus, Gone> {
        // At once, so that the client knows that it is heard.
        self.send(": the log follows\n\n".to_owned()).await?;
        self.send_what_there_is(When::Printed).await?;
        loop {
            let (engine, execution) = (self.api.engine(), &self.filter.execution);
            let over = tokio::select! {
                biased;
                () = self.events.closed() => return Err(Gone),
                () = self.following.news() => {
                    self.send_what_there_is(When::Written).await?;
                    None
                }
                view = engine.wait(execution, LOOK_AGAIN) => match view {
                    Ok(view) if view.status.is_terminal() => Some(view.status),
                    Ok(_) => None,
                    Err(error) => {
                        tracing::debug!(%error, "a log cannot be followed any more");
                        return Err(Gone);
                    }
                },
                () = tokio::time::sleep(SILENCE_MAX) => {
                    self.send(": alive\n\n".to_owned()).await?;
                    None
                }
            };
            if let Some(status) = over {
                // What was printed last may have come after the last look.
                self.send_what_there_is(When::Printed).await?;
                return Ok(status);
            }
        }
    }

    async fn send_what_there_is(&mut self, when: When) -> Result<(), Gone> {
        loop {
            let logs = self.api.logs();
            let lines = match when {
                When::Printed => logs.lines(&self.filter).await,
                When::Written => logs.stored(&self.filter).await,
            };
            let lines = lines.map_err(|error| {
                tracing::debug!(%error, "a log cannot be followed any more");
                Gone
            })?;
            let full = lines.len() >= self.filter.limit as usize;
            for line in lines {
                self.filter.after = Some(line.sequence);
                self.send(event(line)).await?;
            }
            if !full {
                return Ok(());
            }
        }
    }

    async fn send(&self, event: String) -> Result<(), Gone> {
        match tokio::time::timeout(STANDSTILL_MAX, self.events.send(event.into())).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) | Err(_) => Err(Gone),
        }
    }
}

fn event(line: LogView) -> String {
    let sequence = line.sequence;
    // JSON has no line end in it, so it is one field.
    let data = serde_json::to_string(&wire::LogLine::from(line)).unwrap_or_default();
    format!("id: {sequence}\ndata: {data}\n\n")
}
