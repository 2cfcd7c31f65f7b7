//! What is promised of requests that go out, proved where they leave. That real guests get there
//! is proved in `tests/sandbox/egress.rs`.

mod addresses;
mod bounds;
mod certificates;
mod names;
mod secrets;
mod sending;
#[path = "../../../../../tests/harness/web.rs"]
#[allow(dead_code, reason = "other tests use the rest")]
mod web;

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    },
};

use async_trait::async_trait;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::http::{Request, Response};
use serde_json::{Value, json};
use stepbox_domain::{
    Limit, Limits, RunId, Timestamp, capability::SecretName, limits::LimitSettings, receipt,
};
use wasmtime_wasi_http::WasiBody;
use zeroize::Zeroizing;

use web::{Web, ok};

use super::*;
use crate::sandbox::{GuestContext, LogLine, LogSink, NoSecrets};

/// A step instance without the instance: what its requests go through, and what they leave behind.
struct Bed {
    egress: Arc<Egress>,
    meter: Arc<Meter>,
}

struct Setup {
    grants: Value,
    limits: Vec<(Limit, u64)>,
    config: EgressConfig,
    secrets: Arc<dyn Secrets>,
}

/// Everything by name on the ports of these servers, which are on 127.0.0.1.
fn reaching(servers: &[&Web]) -> Setup {
    reaching_ports(servers.iter().map(|server| server.address.port()))
}

fn reaching_ports(ports: impl IntoIterator<Item = u16>) -> Setup {
    let ports = ports.into_iter().map(|port| json!({ "scheme": "http", "host": "*", "port": port }));
    let rules: Vec<Value> =
        ports.chain([json!({ "host": "*" }), json!({ "scheme": "http", "host": "*" })]).collect();
    granted(json!({ "http": rules, "addresses": ["127.0.0.1"] }))
}

fn granted(grants: Value) -> Setup {
    Setup { grants, limits: Vec::new(), config: EgressConfig::default(), secrets: Arc::new(NoSecrets) }
}

impl Setup {
    fn limit(mut self, limit: Limit, value: u64) -> Self {
        self.limits.push((limit, value));
        self
    }

    fn names(mut self, names: &Arc<Names>) -> Self {
        self.config.resolver = names.clone();
        self
    }

    fn bed(self) -> Bed {
        let outside = Outside::new(&self.config, self.secrets.clone()).unwrap();
        self.bed_of("order", &outside)
    }

    /// A step instance of that task, on a host that may have others.
    fn bed_of(self, task: &str, outside: &Arc<Outside>) -> Bed {
        let meter: Arc<Meter> = Arc::default();
        let settings: LimitSettings = self.limits.into_iter().collect();
        let context = GuestContext {
            execution_id: "order-7".to_owned(),
            run_id: RunId::parse("order-7:run:0").unwrap(),
            run_index: 0,
            task: TaskName::parse(task).unwrap(),
            version: 3,
            started_at: Timestamp::from_ms(0),
            logs: Arc::new(Silence),
        };
        let setup = StepSetup {
            context,
            limits: Arc::new(Limits::default().with(&settings)),
            grants: Arc::new(serde_json::from_value(self.grants).unwrap()),
            meter: meter.clone(),
            gate: Arc::default(),
        };
        Bed { egress: Egress::new(outside, &setup), meter }
    }
}

struct Silence;

impl LogSink for Silence {
    fn line(&self, _: LogLine<'_>) {}
}

impl Bed {
    async fn get(&self, url: &str) -> Result<(u16, String), String> {
        let request = Request::get(url).body(body(b"")).unwrap();
        self.send(request).await
    }

    /// Status and body, or what the guest would read.
    async fn send(&self, request: Request<WasiBody>) -> Result<(u16, String), String> {
        self.send_with(request, RequestOptions::default()).await
    }

    async fn send_with(
        &self,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<(u16, String), String> {
        let response = self.egress.clone().send(request, options).await.map_err(told)?;
        let status = response.status().as_u16();
        Ok((status, text(response).await?))
    }

    fn requests(&self) -> Vec<receipt::Request> {
        self.meter.receipt().requests
    }

    /// The error in the receipt of the last request.
    fn last_error(&self) -> Option<String> {
        self.requests().pop().and_then(|request| request.error)
    }
}

async fn text(response: Response<WasiBody>) -> Result<String, String> {
    let collected = response.into_body().collect().await.map_err(told)?;
    Ok(String::from_utf8_lossy(&collected.to_bytes()).into_owned())
}

fn told(error: Error) -> String {
    match error {
        Error::InternalError(Some(text)) => text,
        other => panic!("an error without a text: {other:?}"),
    }
}

fn body(bytes: &'static [u8]) -> WasiBody {
    Full::new(Bytes::from_static(bytes)).map_err(|never| match never {}).boxed_unsync()
}

fn request(method: &str, url: &str) -> Request<WasiBody> {
    Request::builder().method(method).uri(url).body(body(b"")).unwrap()
}

#[track_caller]
fn assert_begins(told: &Result<(u16, String), String>, begin: &str) {
    let error = told.as_ref().expect_err("an answer came");
    assert!(error.starts_with(begin), "{error}\ndoes not begin with\n{begin}");
}

/// Answers by a list: of a name that has several, the next at each time, and the last for ever.
#[derive(Debug, Default)]
struct Names {
    answers: Mutex<HashMap<String, Vec<Vec<IpAddr>>>>,
    asked: AtomicUsize,
}

impl Names {
    fn new(answers: &[(&str, &[&[&str]])]) -> Arc<Self> {
        let parsed = |addresses: &[&str]| addresses.iter().map(|address| address.parse().unwrap()).collect();
        let answers = answers
            .iter()
            .map(|(name, answers)| {
                let mut answers: Vec<Vec<IpAddr>> = answers.iter().map(|answer| parsed(answer)).collect();
                answers.reverse();
                ((*name).to_owned(), answers)
            })
            .collect();
        Arc::new(Names { answers: Mutex::new(answers), asked: AtomicUsize::new(0) })
    }

    fn asked(&self) -> usize {
        self.asked.load(SeqCst)
    }
}

#[async_trait]
impl Resolver for Names {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        self.asked.fetch_add(1, SeqCst);
        let mut answers = self.answers.lock().unwrap();
        let answers = answers.get_mut(host).ok_or_else(|| io::Error::other("no such name"))?;
        Ok(if answers.len() > 1 { answers.pop() } else { answers.last().cloned() }.unwrap_or_default())
    }
}

/// One secret, whose value must be nowhere.
struct OneSecret;

const VALUE: &str = "s3cr3t/v@lue";

impl Secrets for OneSecret {
    fn reveal(&self, name: &SecretName) -> Option<Zeroizing<String>> {
        match name.as_str() {
            "KEY" => Some(Zeroizing::new(VALUE.to_owned())),
            "TWO_LINES" => Some(Zeroizing::new("a\r\nb: c".to_owned())),
            _ => None,
        }
    }
}
