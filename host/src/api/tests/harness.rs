//! A host without Wasm and without a disk, and a client that is a function.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use axum::{
    Router,
    body::{Body, to_bytes},
    http::{HeaderMap, Request, header},
};
use serde_json::{Value, json};
use stepbox_domain::{
    Digest, EventName, FailureKind, Json, Limits, Manifest, StepName, Timestamp,
    decide::Until,
    manifest::ManifestError,
    run::Policy,
    step::{AttemptFailure, StepOptions},
};
use tokio::sync::watch;
use tower::ServiceExt as _;

use crate::{
    api::{Api, router},
    config::BodyLimits,
    engine::{
        Engine, EngineConfig,
        clock::Clock,
        loader::{LoadError, Loader},
    },
    guest_logs::{GuestLogs, QueueBounds},
    sandbox::{
        Guest, GuestExit, HandlerSetup, HostCalls, Inspected, NotAComponent, Rejected, StepCall, StepExit,
        StepRunner, StepSetup,
    },
    store::{
        Store as _,
        logs::{LogBounds, memory::MemoryLogs},
        memory::Memory,
    },
    vault::{SecretsKey, Vault},
};

/// What every execution is scheduled at, until the clock is moved.
pub const NOW: &str = "2026-01-31T12:00:00.000Z";
pub const NOW_MS: i64 = 1_769_860_800_000;

pub struct Host {
    pub router: Router,
    pub store: Arc<Memory>,
    pub logs: GuestLogs,
    pub clock: Clock,
    pub stop: watch::Sender<bool>,
    pub stopping: watch::Receiver<bool>,
}

pub const LIMITS: BodyLimits = BodyLimits { body_max_bytes: 1_000, upload_max_bytes: 2_000, uploads_max: 2 };

impl Host {
    /// With no module in it.
    pub async fn empty() -> Self {
        let store = Arc::new(Memory::new());
        let clock = Clock::manual(Timestamp::from_ms(NOW_MS));
        let config = EngineConfig {
            limits: Limits::default(),
            ceilings: Limits::ceilings(),
            policy: Policy::default(),
            live_max: 8,
            parked_max: 4,
            park_max: Duration::from_millis(50),
            caution: Duration::ZERO,
        };
        let log_store = Arc::new(MemoryLogs::new(LogBounds::new(1 << 20)));
        let logs = GuestLogs::begin(log_store, clock.clone(), QueueBounds::default());
        let sink = Arc::new(logs.clone());
        let engine = Engine::new(store.clone(), Arc::new(Scripted), sink, clock.clone(), config);
        engine.begin().await.unwrap();
        let vault = Vault::open(store.clone(), Some(SecretsKey::generate()), clock.clone()).await.unwrap();
        let (stop, stopping) = watch::channel(false);
        let router = router(Api::new(engine, store.clone(), logs.clone(), vault, LIMITS, stopping.clone()));
        Host { router, store, logs, clock, stop, stopping }
    }

    /// With the task `order` in it.
    pub async fn start() -> Self {
        let host = Self::empty().await;
        host.upload("order", "one").await;
        host
    }

    pub async fn upload(&self, task: &str, component: &str) {
        let answer = self.call("PUT", &format!("/admin/v1/modules/{task}"), WASM, component.to_owned()).await;
        assert!(matches!(answer.status, 200 | 201), "{}", answer.text);
    }

    pub fn move_clock(&self, ms: u64) {
        self.clock.set(self.clock.now().plus_ms(ms));
    }

    /// `request` is method and path.
    pub async fn get(&self, request: &str) -> Answer {
        let (method, path) = request.split_once(' ').unwrap_or(("GET", request));
        self.call(method, path, "", "").await
    }

    pub async fn post(&self, path: &str, body: &str) -> Answer {
        self.call("POST", path, "application/json", body.to_owned()).await
    }

    pub async fn begin(&self, id: &str, payload: Value) -> Answer {
        let body = json!({ "executionId": id, "taskName": "order", "payload": payload });
        self.post("/api/v1/executions", &body.to_string()).await
    }

    /// The execution, once `condition` holds.
    pub async fn until(&self, id: &str, condition: impl Fn(&Value) -> bool) -> Value {
        for _ in 0..2_000 {
            let execution = self.get(&format!("/api/v1/executions/{id}")).await.json();
            if condition(&execution) {
                return execution;
            }
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        panic!("never came to it: {}", self.get(&format!("/api/v1/executions/{id}")).await.text);
    }

    pub async fn call(&self, method: &str, path: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if !content_type.is_empty() {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let response = self.router.clone().oneshot(request.body(body.into()).unwrap()).await.unwrap();
        let (parts, body) = response.into_parts();
        let text = String::from_utf8(to_bytes(body, usize::MAX).await.unwrap().into()).unwrap();
        Answer { status: parts.status.as_u16(), headers: parts.headers, text }
    }
}

pub const WASM: &str = "application/wasm";

pub struct Answer {
    pub status: u16,
    pub headers: HeaderMap,
    pub text: String,
}

impl Answer {
    pub fn json(&self) -> Value {
        assert_eq!(self.header("content-type"), "application/json", "{}", self.text);
        serde_json::from_str(&self.text).unwrap()
    }

    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }

    /// Status, code and sentence of an error.
    pub fn refusal(&self) -> String {
        let body = self.json();
        let field =
            |name: &str| body[name].as_str().unwrap_or_else(|| panic!("no {name}: {}", self.text)).to_owned();
        format!("{} {}: {}", self.status, field("code"), field("error"))
    }
}

/// Takes anything for a component but what says how it is to be refused (`wants {"env":["A"]}` is one
/// that wants something); runs what the payload says.
struct Scripted;

#[async_trait]
impl Loader for Scripted {
    async fn inspect(&self, component: &[u8], _: &Arc<Limits>) -> Result<Inspected, Rejected> {
        let text = String::from_utf8_lossy(component);
        let reason = || "of that".to_owned();
        let rejected = match text.as_ref() {
            "panic" => panic!("as asked"),
            "large" => Rejected::TooLarge { bytes: 5, max_bytes: 4 },
            "text" => Rejected::NotAComponent { found: NotAComponent::Text },
            "no-compile" => Rejected::DoesNotCompile { reason: reason() },
            "limit" => Rejected::CompileLimit { limit: "more than 2 s".to_owned() },
            "import" => Rejected::ForbiddenImport { name: "env:evil/x".to_owned(), why: reason() },
            "export" => Rejected::MissingExport { name: "run" },
            "type" => Rejected::WrongType { reason: reason() },
            "describe" => {
                Rejected::DescribeFailed { reason: reason(), backtrace: Some("0: boom".to_owned()) }
            }
            "manifest" => Rejected::BadManifest(ManifestError::NotJson(reason())),
            "later" => Rejected::Unavailable { reason: reason() },
            _ => {
                let payload = match text.as_ref() {
                    "schema" => json!({ "type": 7 }),
                    _ => json!({ "properties": { "items": { "type": "integer" } } }),
                };
                let mut manifest = json!({ "stepbox": "0.1.0", "task": { "payload": payload } });
                if let Some(wanted) = text.strip_prefix("wants ") {
                    manifest["capabilities"] = serde_json::from_str(wanted).unwrap();
                }
                return Ok(Inspected {
                    digest: Digest::of(component),
                    size_bytes: component.len(),
                    compiled_in_ms: 7,
                    manifest: Manifest::parse(&manifest.to_string()).unwrap(),
                    manifest_text: Json::from(manifest),
                    imports: Vec::new(),
                    exports: Vec::new(),
                });
            }
        };
        Err(rejected)
    }

    async fn load(&self, _: &Digest) -> Result<Arc<dyn Guest>, LoadError> {
        Ok(Arc::new(Scripted))
    }

    fn forget(&self, _: &Digest) {}
}

#[async_trait]
impl Guest for Scripted {
    async fn run(&self, _: HandlerSetup, payload: &Json, mut calls: Box<dyn HostCalls>) -> GuestExit {
        let payload = payload.to_value().unwrap();
        let answer = match payload["do"].as_str() {
            Some("wait") => calls.wait_event(EventName::parse("approval").unwrap(), None).await,
            Some("sleep") => calls.sleep(StepName::parse("nap").unwrap(), Until::After(3_600_000)).await,
            Some("fail") => calls.step(step("charge", "declines", Json::null())).await,
            // What is charged is what was reserved.
            Some("order") => match calls.step(step("reserve", "echo", Json::from(payload))).await {
                Ok(reserved) => {
                    let charge = step("charge", "declines once", reserved.outcome.unwrap());
                    calls.step(charge).await
                }
                Err(end) => Err(end),
            },
            Some("hang") => std::future::pending().await,
            _ => return GuestExit::Returned(Ok(Json::from(payload))),
        };
        match answer {
            Ok(answer) => GuestExit::Returned(answer.outcome),
            Err(_) => GuestExit::Ended,
        }
    }

    fn steps(&self, _: StepSetup) -> Box<dyn StepRunner> {
        Box::new(Scripted)
    }
}

fn step(name: &str, function: &str, input: Json) -> StepCall {
    StepCall {
        name: StepName::parse(name).unwrap(),
        function: function.to_owned(),
        input,
        options: StepOptions::default(),
    }
}

#[async_trait]
impl StepRunner for Scripted {
    async fn run_step(&mut self, function: &str, input: &Json, attempt: u32) -> StepExit {
        if function == "echo" || function == "declines once" && attempt > 1 {
            return StepExit::Completed(input.clone());
        }
        let mut failure = AttemptFailure::new(FailureKind::Error, "declined");
        failure.details = Some(Json::from(json!({ "left": 3 })));
        StepExit::Failed(failure)
    }
}

impl Host {
    /// From now on the store refuses whatever goes to its disk.
    pub async fn close_store(&self) {
        self.store.close().await;
    }
}
