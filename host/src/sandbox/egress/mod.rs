//! The way out: HTTP requests of steps, and of nothing else.
//!
//! A request passes, in this order, its form (`target.rs`), the grants by name, the check of every
//! address that the name stands for (`address.rs`), and only then the network, at exactly an
//! address that was checked. There is no second lookup, no redirect is followed and no proxy asked,
//! so there is nothing between check and use. What is refused is an error that the guest can read
//! and the attempt's receipt shows.
//!
//! Secrets are put in where a request leaves (`secrets.rs`), and are nowhere before.

mod address;
mod bill;
mod body;
mod connect;
mod environment;
mod link;
mod pool;
mod resolve;
mod secrets;
mod send;
mod shares;
mod target;
mod tls;
mod trouble;

#[cfg(test)]
mod tests;

use std::{
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use hyper::http::{HeaderName, Request, Response, header};
use stepbox_domain::{Limits, TaskName, capability::Grants};
use wasmtime_wasi_http::{
    DEFAULT_FORBIDDEN_HEADERS, Error, ForbiddenHeaderFilter, RequestOptions, WasiBody, WasiHttpCtx,
    WasiHttpHooks,
};

use super::{Gate, Meter, Secrets, StepSetup};
use pool::Connections;
use shares::HostRoom;

pub(super) use environment::of_steps as environment_of_steps;
pub(super) use link::{offer, offer_and_refuse};
pub use resolve::{Resolver, SystemResolver};

/// How requests go out.
#[derive(Clone, Debug)]
pub struct EgressConfig {
    /// Certificates (PEM) of authorities that servers are believed by, beside the public ones.
    pub ca_file: Option<PathBuf>,
    /// Who knows the addresses of names.
    pub resolver: Arc<dyn Resolver>,
    /// Connections of all steps together, half of which one task may have; who comes when all are
    /// taken waits. Each is a file descriptor, of which the host has some thousands.
    pub connections_max: usize,
}

impl Default for EgressConfig {
    fn default() -> Self {
        EgressConfig { ca_file: None, resolver: Arc::new(SystemResolver::default()), connections_max: 1_000 }
    }
}

/// Headers of one request, or of one answer: what servers and proxies take at most.
const HEADERS_MAX_BYTES: usize = 64 << 10;
/// Header lines of an answer.
const HEADERS_MAX: usize = 256;
/// What is kept of a path in a receipt.
const PATH_SHOWN_MAX_BYTES: usize = 300;
/// A guest's request bodies wait in the host in two pieces of this size, and an instance can have
/// hundreds of them.
const PIECE_MAX_BYTES: usize = 16 << 10;

/// What all requests of the host share.
pub(super) struct Outside {
    resolver: Arc<dyn Resolver>,
    tls: tls::Tls,
    secrets: Arc<dyn Secrets>,
    room: Arc<HostRoom>,
}

impl Outside {
    pub(super) fn new(config: &EgressConfig, secrets: Arc<dyn Secrets>) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Outside {
            resolver: config.resolver.clone(),
            tls: tls::Tls::new(config.ca_file.as_deref())?,
            secrets,
            room: HostRoom::new(config.connections_max),
        }))
    }
}

/// What the requests of one step instance go through.
pub(super) struct Egress {
    outside: Arc<Outside>,
    task: TaskName,
    grants: Arc<Grants>,
    limits: Arc<Limits>,
    meter: Arc<Meter>,
    connections: Arc<Connections>,
    gate: Arc<Gate>,
    /// Of the attempt under way.
    requests: AtomicU64,
    /// Held by every request until its answer is complete.
    under_way: Arc<()>,
}

impl Egress {
    pub(super) fn new(outside: &Arc<Outside>, setup: &StepSetup) -> Arc<Self> {
        Arc::new(Egress {
            outside: outside.clone(),
            task: setup.context.task.clone(),
            grants: setup.grants.clone(),
            limits: setup.limits.clone(),
            meter: setup.meter.clone(),
            connections: Arc::new(Connections::new(
                outside.room.share_of(&setup.context.task),
                &setup.limits,
            )),
            gate: setup.gate.clone(),
            requests: AtomicU64::new(0),
            under_way: Arc::new(()),
        })
    }

    /// Whether nothing is under way. Connections that nobody uses are closed where the host, or the
    /// task, has few left.
    fn is_at_rest(&self) -> bool {
        self.connections.close_idle_if_crowded();
        Arc::strong_count(&self.under_way) == 1
    }
}

/// What wasmtime asks about `wasi:http`, for one instance.
pub(super) struct Hooks(Option<Arc<Egress>>);

impl Hooks {
    /// For a step's instance.
    pub(super) fn outgoing(egress: Arc<Egress>) -> Self {
        Hooks(Some(egress))
    }

    /// For instances from which nothing goes out.
    pub(super) fn nothing() -> Self {
        Hooks(None)
    }

    /// An attempt begins in an instance that has run some already.
    pub(super) fn begin_attempt(&self) {
        if let Some(egress) = &self.0 {
            egress.requests.store(0, Relaxed);
        }
    }

    /// Whether the attempt left nothing behind that would go on into the next.
    pub(super) fn is_at_rest(&self) -> bool {
        self.0.as_ref().is_none_or(|egress| egress.is_at_rest())
    }
}

pub(super) fn context() -> WasiHttpCtx {
    let mut context = WasiHttpCtx::new();
    context.set_field_size_limit(HEADERS_MAX_BYTES);
    context
}

/// A response, and what else there is to do for it, which is nothing: connections drive themselves.
type Sent = (Response<WasiBody>, Box<dyn Future<Output = Result<(), Error>> + Send>);

impl WasiHttpHooks for Hooks {
    fn forbidden_header_filter(&mut self) -> ForbiddenHeaderFilter {
        // Those of one connection, which is the host's, in both directions.
        Arc::new(|name: &HeaderName| DEFAULT_FORBIDDEN_HEADERS.contains(name) || *name == header::TE)
    }

    /// It is set from the target that was checked.
    fn set_host_header(&mut self) -> bool {
        false
    }

    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        PIECE_MAX_BYTES
    }

    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        options: Option<RequestOptions>,
        _: Box<dyn Future<Output = Result<(), Error>> + Send>,
    ) -> Box<dyn Future<Output = Result<Sent, Error>> + Send> {
        let Some(egress) = self.0.clone() else {
            return Box::new(async { Err(Error::HttpRequestDenied) });
        };
        // From the call on: nobody may take the attempt for over while this has not been polled yet.
        let under_way = egress.under_way.clone();
        Box::new(async move {
            let _under_way = under_way;
            let response = egress.send(request, options.unwrap_or_default()).await?;
            Ok((response, Box::new(async { Ok(()) }) as Box<_>))
        })
    }
}
