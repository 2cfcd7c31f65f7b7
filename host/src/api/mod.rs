//! What people and programs see over HTTP. [`router`] is the whole map.
//!
//! Holds two things: the [`Engine`] for everything that changes something, and [`Views`] to read.
//! A status for an outcome is given in [`error`] only, a JSON field to a value in [`wire`] only.
//! There are no CORS headers: pages of other sites have nothing to do here.

mod audit;
mod bulks;
mod detail;
mod drain;
pub mod error;
mod executions;
mod extract;
mod fields;
mod grants;
mod health;
mod logs;
mod modules;
mod pauses;
mod query;
mod repairs;
mod secrets;
mod server;
pub mod wire;

#[cfg(test)]
mod tests;

use std::{any::Any, sync::Arc};

use axum::{
    Router,
    http::{Method, StatusCode, Uri},
    middleware,
    response::{IntoResponse, Response},
    routing::{get, post, put},
};
use prometheus_client::registry::Registry;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tower_http::catch_panic::CatchPanicLayer;

pub use self::{error::ApiError, server::serve};
use self::{extract::BodyMax, health::Probe};
use crate::{
    config::BodyLimits,
    engine::Engine,
    guest_logs::GuestLogs,
    store::{Store, Views},
    vault::Vault,
};

/// The whole map.
pub fn router(api: Api) -> Router {
    let public = Router::new()
        .route("/executions", post(executions::start).get(executions::list))
        .route("/executions/{id}", get(executions::one))
        .route("/executions/{id}/cancel", post(executions::cancel))
        .route("/executions/{id}/wait", get(executions::wait))
        .route("/events/{id}/{event}", post(executions::send_event))
        .route("/stats", get(executions::stats));

    let admin = Router::new()
        .route("/executions/{id}/detail", get(detail::detail))
        .route("/executions/{id}/runs", get(detail::runs))
        .route("/executions/{id}/logs", get(logs::logs))
        .route("/executions/{id}/retry-step", post(repairs::retry_step))
        .route("/executions/{id}/steps/{name}/resolve", post(repairs::resolve_step))
        .route("/executions/{id}/restart", post(repairs::restart))
        .route("/executions/{id}/rerun", post(repairs::rerun))
        .route("/pause", post(pauses::pause).get(pauses::list))
        .route("/pause/{rule}", post(pauses::end).delete(pauses::delete))
        .route("/resume", post(pauses::resume))
        .route("/failures", get(bulks::failures))
        .route("/bulk", post(bulks::start).get(bulks::list))
        .route("/bulk/{bulk}", get(bulks::one))
        .route("/bulk/{bulk}/cancel", post(bulks::cancel))
        .route("/audit", get(audit::list))
        .route("/secrets", get(secrets::list))
        .route("/secrets/{secret}", put(secrets::set).delete(secrets::delete))
        .route("/modules", get(modules::list))
        .route("/modules/{task}", put(modules::upload).get(modules::one).delete(modules::remove))
        .route("/modules/{task}/grants", get(grants::granted).put(grants::grant))
        .route("/modules/{task}/limits", get(grants::limits).put(grants::limit))
        .route("/modules/{task}/versions", get(modules::versions))
        .route("/modules/{task}/versions/{version}/activate", post(modules::activate));

    Router::new()
        .route("/healthz", get(health::live))
        .route("/readyz", get(health::ready))
        .route("/metrics", get(health::metrics))
        .nest("/api/v1", public)
        // Zart 0.1 has the first of these prefixes, Zart 0.2 the second.
        .nest("/admin/v1", admin.clone())
        .nest("/zart/admin/v1", admin)
        .fallback(no_such_route)
        .method_not_allowed_fallback(no_such_method)
        .layer(CatchPanicLayer::custom(panicked))
        .layer(middleware::from_fn(drain::drain))
        .with_state(api)
}

/// What the routes work with; cheap to clone.
#[derive(Clone)]
pub struct Api(Arc<Inner>);

struct Inner {
    engine: Engine,
    views: Arc<dyn Views>,
    logs: GuestLogs,
    vault: Vault,
    probe: Probe,
    registry: Registry,
    limits: BodyLimits,
    /// For uploads under way.
    uploads: Arc<Semaphore>,
    stopping: watch::Receiver<bool>,
}

impl Api {
    /// `stopping` turns true when the host begins to stop: who waits for a result is sent away.
    pub fn new(
        engine: Engine,
        store: Arc<dyn Store>,
        logs: GuestLogs,
        vault: Vault,
        limits: BodyLimits,
        stopping: watch::Receiver<bool>,
    ) -> Self {
        Api(Arc::new(Inner {
            registry: health::registry(&engine, &logs),
            logs,
            vault,
            probe: Probe::new(store.clone()),
            views: store,
            engine,
            uploads: Arc::new(Semaphore::new(limits.uploads_max as usize)),
            limits,
            stopping,
        }))
    }

    fn engine(&self) -> &Engine {
        &self.0.engine
    }

    fn views(&self) -> &dyn Views {
        self.0.views.as_ref()
    }

    fn logs(&self) -> &GuestLogs {
        &self.0.logs
    }

    fn vault(&self) -> &Vault {
        &self.0.vault
    }

    fn probe(&self) -> &Probe {
        &self.0.probe
    }

    fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// For payloads and events.
    fn body_max(&self) -> BodyMax {
        let how_to_raise = "--body-max-bytes (STEPBOX_BODY_MAX_BYTES)";
        BodyMax { bytes: self.0.limits.body_max_bytes, how_to_raise }
    }

    /// A place for an upload, to be held as long as its component is.
    fn place_for_upload(&self) -> Result<OwnedSemaphorePermit, ApiError> {
        self.0.uploads.clone().try_acquire_owned().map_err(|_| {
            let max = self.0.limits.uploads_max;
            let message = format!(
                "as many uploads are under way as may be: {max} (--uploads-max, STEPBOX_UPLOADS_MAX); send it \
                 again in a while"
            );
            ApiError::unavailable("too_many_uploads", message)
        })
    }

    /// For components.
    fn upload_max(&self) -> BodyMax {
        let how_to_raise = "--upload-max-bytes (STEPBOX_UPLOAD_MAX_BYTES)";
        BodyMax { bytes: self.0.limits.upload_max_bytes, how_to_raise }
    }

    fn is_stopping(&self) -> bool {
        *self.0.stopping.borrow()
    }

    /// Comes back when the host begins to stop.
    async fn stopping(&self) {
        // An error means that whoever would say so is gone, and with it the host.
        let _ = self.0.stopping.clone().wait_for(|stopping| *stopping).await;
    }
}

async fn no_such_route(method: Method, uri: Uri) -> ApiError {
    let message =
        format!("there is no route {method} {}; the routes are under /api/v1 and /admin/v1", uri.path());
    ApiError::not_found("unknown_route", message)
}

/// The router adds `Allow`.
async fn no_such_method(method: Method) -> Response {
    if method == Method::OPTIONS {
        return StatusCode::NO_CONTENT.into_response();
    }
    let message = format!("{method} is not allowed here; the header Allow says what is");
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", message).into_response()
}

fn panicked(panic: Box<dyn Any + Send>) -> Response {
    let text = panic
        .downcast_ref::<String>()
        .map(String::as_str)
        .or_else(|| panic.downcast_ref::<&str>().copied())
        .unwrap_or("a panic without words");
    ApiError::internal(format_args!("a request panicked: {text}")).into_response()
}
