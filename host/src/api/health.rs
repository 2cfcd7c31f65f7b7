//! Is the process there, does it do its work, and what does it count?

use std::{sync::Arc, time::Duration};

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use prometheus_client::registry::Registry;
use serde_json::json;

use super::{Api, ApiError, wire};
use crate::{engine::Engine, guest_logs::GuestLogs, store::Store};

/// A database that takes longer than this to answer is not ready.
const PING_MAX: Duration = Duration::from_secs(2);

/// The claim loop goes round every second or so, even with nothing to do.
const PULSE_MAX: Duration = Duration::from_secs(5);

/// What tells whether the host is ready: the store, of which only the pulse is felt here.
pub(super) struct Probe(Arc<dyn Store>);

impl Probe {
    pub fn new(store: Arc<dyn Store>) -> Self {
        Probe(store)
    }

    /// What is wrong, if anything is.
    async fn trouble(&self, engine: &Engine) -> Option<String> {
        match tokio::time::timeout(PING_MAX, self.0.ping()).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Some(error.to_string()),
            Err(_) => return Some(format!("the database has not answered for {} s", PING_MAX.as_secs())),
        }
        let pulse = engine.pulse();
        (pulse >= PULSE_MAX).then(|| {
            format!("the claim loop makes no progress: it last went round {} s ago", pulse.as_secs())
        })
    }
}

/// `GET /healthz`
pub async fn live() -> Response {
    wire::json(StatusCode::OK, &json!({ "status": "ok" }))
}

/// `GET /readyz`
pub async fn ready(State(api): State<Api>) -> Result<Response, ApiError> {
    if api.is_stopping() {
        return Err(ApiError::unavailable("not_ready", "the host is stopping"));
    }
    match api.probe().trouble(api.engine()).await {
        None => Ok(wire::json(StatusCode::OK, &json!({ "status": "ok" }))),
        Some(trouble) => Err(ApiError::unavailable("not_ready", trouble)),
    }
}

const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";
const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// Everything that is counted, under its public name.
pub(super) fn registry(engine: &Engine, logs: &GuestLogs) -> Registry {
    let mut registry = Registry::with_prefix("stepbox");
    engine.metrics().register(&mut registry);
    logs.register(&mut registry);
    registry
}

/// `GET /metrics`. The text is the same in both formats but for its last line, which is a comment
/// in the older one.
pub async fn metrics(State(api): State<Api>, headers: HeaderMap) -> Result<Response, ApiError> {
    // Brings the gauges up to date.
    api.engine().metrics();
    api.logs().measure();
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, api.registry()).map_err(ApiError::internal)?;
    let accepted = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    let format = if accepted.contains("application/openmetrics-text") { OPEN_METRICS } else { TEXT };
    let mut response = Response::new(Body::from(text));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(format));
    Ok(response)
}
