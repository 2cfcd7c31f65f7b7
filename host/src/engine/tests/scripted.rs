//! A guest without Wasm: an async function that makes host calls, so that the engine can be
//! tested for itself.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use futures_util::future::BoxFuture;
use serde_json::json;
use stepbox_domain::{
    Digest, EventName, ExecutionId, Failure, FailureKind, Json, Limits, StepName, TaskName, Timestamp,
    audit::{AuditAction, AuditEntry},
    decide::Until,
    run::Policy,
    step::{AttemptFailure, StepOptions},
};

use crate::{
    engine::{
        Engine, EngineConfig, EngineError, Started, Who,
        clock::Clock,
        loader::{LoadError, Loader},
    },
    sandbox::{
        Answer, EndHandler, Gate, Guest, GuestContext, GuestExit, HandlerSetup, HostCalls, Inspected,
        LogLevel, LogLine, LogSink, Rejected, StepCall, StepExit, StepRunner, StepSetup,
    },
    store::{ExecutionView, NewVersion, Store, memory::Memory},
};

pub type Handler = dyn Fn(Script) -> BoxFuture<'static, Result<Json, Ending>> + Send + Sync;

/// Why a scripted handler stops: its own failure, or the host's word.
pub enum Ending {
    Failed(Failure),
    Host,
}

impl From<EndHandler> for Ending {
    fn from(_: EndHandler) -> Self {
        Ending::Host
    }
}

/// What a scripted handler makes its calls through.
pub struct Script {
    calls: Box<dyn HostCalls>,
    context: GuestContext,
}

impl Script {
    pub fn print(&self, message: &str) {
        print(&self.context, message);
    }

    pub async fn step(&mut self, name: &str, options: StepOptions) -> Result<Json, Ending> {
        self.step_with(name, Json::null(), options).await
    }

    pub async fn step_with(&mut self, name: &str, input: Json, options: StepOptions) -> Result<Json, Ending> {
        let call =
            StepCall { name: StepName::parse(name).unwrap(), function: name.to_owned(), input, options };
        answer(self.calls.step(call).await?)
    }

    pub async fn sleep(&mut self, name: &str, ms: u64) -> Result<(), Ending> {
        let answered = self.calls.sleep(StepName::parse(name).unwrap(), Until::After(ms)).await?;
        answer(answered).map(|_| ())
    }

    pub async fn event(&mut self, name: &str, timeout_ms: Option<u64>) -> Result<Json, Ending> {
        answer(self.calls.wait_event(EventName::parse(name).unwrap(), timeout_ms).await?)
    }
}

fn answer(answer: Answer) -> Result<Json, Ending> {
    answer.outcome.map_err(Ending::Failed)
}

/// What a step does, by its function's name; anything else completes with its attempt's number.
pub type Step = dyn Fn(u32) -> BoxFuture<'static, StepExit> + Send + Sync;

#[derive(Clone)]
pub struct Scripted {
    handler: Arc<Handler>,
    steps: HashMap<&'static str, Arc<Step>>,
    /// How often the handler was called.
    pub legs: Arc<AtomicU32>,
    context: Option<GuestContext>,
    gate: Arc<Gate>,
    /// Steps of which nothing is seen outside.
    silent: bool,
    /// Every attempt that was run: function and number.
    pub attempts: Arc<Mutex<Vec<(String, u32)>>>,
    /// Whether the gate was open when each was called.
    pub gate_was_open: Arc<Mutex<Vec<bool>>>,
}

impl Scripted {
    pub fn new<F>(handler: impl Fn(Script) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = Result<Json, Ending>> + Send + 'static,
    {
        Scripted {
            handler: Arc::new(move |script| Box::pin(handler(script))),
            steps: HashMap::new(),
            legs: Arc::default(),
            context: None,
            gate: Arc::default(),
            silent: false,
            attempts: Arc::default(),
            gate_was_open: Arc::default(),
        }
    }

    pub fn step<F>(mut self, function: &'static str, step: impl Fn(u32) -> F + Send + Sync + 'static) -> Self
    where
        F: Future<Output = StepExit> + Send + 'static,
    {
        self.steps.insert(function, Arc::new(move |attempt| Box::pin(step(attempt))));
        self
    }

    /// Nothing of its steps is seen outside.
    pub fn silent(self) -> Self {
        Scripted { silent: true, ..self }
    }

    pub fn attempts_of(&self, function: &str) -> Vec<u32> {
        let attempts = self.attempts.lock().unwrap();
        attempts.iter().filter(|(name, _)| name == function).map(|(_, attempt)| *attempt).collect()
    }
}

fn print(context: &GuestContext, message: &str) {
    let (run, level) = (&context.run_id, LogLevel::Info);
    context.logs.line(LogLine { run, step: None, level, target: "stdout", message });
}

#[async_trait]
impl Guest for Scripted {
    async fn run(&self, setup: HandlerSetup, _: &Json, calls: Box<dyn HostCalls>) -> GuestExit {
        self.legs.fetch_add(1, Ordering::Relaxed);
        print(&setup.context, "the handler is called");
        match (self.handler)(Script { calls, context: setup.context }).await {
            Ok(result) => GuestExit::Returned(Ok(result)),
            Err(Ending::Failed(failure)) => GuestExit::Returned(Err(failure)),
            Err(Ending::Host) => GuestExit::Ended,
        }
    }

    fn steps(&self, setup: StepSetup) -> Box<dyn StepRunner> {
        Box::new(Scripted { context: Some(setup.context), gate: setup.gate, ..self.clone() })
    }
}

#[async_trait]
impl StepRunner for Scripted {
    async fn run_step(&mut self, function: &str, _: &Json, attempt: u32) -> StepExit {
        self.gate_was_open.lock().unwrap().push(self.gate.is_open());
        if !self.silent {
            self.gate.passed().await;
        }
        self.attempts.lock().unwrap().push((function.to_owned(), attempt));
        if let Some(context) = self.context.as_ref().filter(|_| !self.silent) {
            print(context, &format!("{function} {attempt}"));
        }
        match self.steps.get(function) {
            Some(step) => step(attempt).await,
            None => StepExit::Completed(Json::from(json!(attempt))),
        }
    }
}

#[async_trait]
impl Loader for Scripted {
    async fn inspect(&self, _: &[u8], _: &Arc<Limits>) -> Result<Inspected, Rejected> {
        unreachable!("scripted modules are registered straight in the store")
    }

    async fn load(&self, _: &Digest) -> Result<Arc<dyn Guest>, LoadError> {
        Ok(Arc::new(self.clone()))
    }

    fn forget(&self, _: &Digest) {}
}

pub struct NoLogs;

impl LogSink for NoLogs {
    fn line(&self, _: LogLine<'_>) {}
}

/// A host around a scripted guest. Its store outlives it; dropping it is a crash.
pub struct Host {
    pub engine: Engine,
    runtime: Option<tokio::runtime::Runtime>,
}

pub fn config() -> EngineConfig {
    EngineConfig {
        limits: Limits::default(),
        ceilings: Limits::ceilings(),
        policy: Policy { crashes_max: 3, ..Policy::default() },
        live_max: 8,
        parked_max: 4,
        park_max: Duration::from_millis(50),
        caution: Duration::ZERO,
    }
}

/// A store with the task `t` in it.
pub fn store(task_timeout_ms: Option<u64>) -> Arc<Memory> {
    let store = Arc::new(Memory::new());
    add_version(&store, "t", json!({ "timeoutMs": task_timeout_ms }));
    store
}

/// Adds a version of the task `t` that describes itself as `about`. A host that has begun does not
/// know of it.
pub fn add_version(store: &Memory, component: &str, about: serde_json::Value) {
    let manifest = json!({ "stepbox": "0.1.0", "task": about, "steps": [] });
    let new = NewVersion {
        task: task(),
        digest: Digest::of(component.as_bytes()),
        component: component.as_bytes().to_vec(),
        manifest: Json::from(manifest),
        compiled_in_ms: 0,
        now: Timestamp::from_ms(0),
        waits: false,
    };
    futures_util::FutureExt::now_or_never(store.add_version(new, audit(AuditAction::UploadModule)))
        .unwrap()
        .unwrap();
}

/// Of something that is done to the task's module.
pub fn audit(action: AuditAction) -> AuditEntry {
    AuditEntry { task: Some(task()), ..Who::default().entry(action, Timestamp::from_ms(0)) }
}

pub fn task() -> TaskName {
    TaskName::parse("t").unwrap()
}

impl Host {
    pub fn start(store: &Arc<Memory>, guest: &Scripted, config: EngineConfig) -> Self {
        Host::start_by(store, guest, config, Clock::system())
    }

    pub fn start_by(store: &Arc<Memory>, guest: &Scripted, config: EngineConfig, clock: Clock) -> Self {
        Host::begin_with(store, guest, config, clock, Arc::new(NoLogs))
    }

    /// One that tells `logs` what is printed.
    pub fn start_with_logs(
        store: &Arc<Memory>,
        guest: &Scripted,
        config: EngineConfig,
        logs: Arc<dyn LogSink>,
    ) -> Self {
        Host::begin_with(store, guest, config, Clock::system(), logs)
    }

    fn begin_with(
        store: &Arc<Memory>,
        guest: &Scripted,
        config: EngineConfig,
        clock: Clock,
        logs: Arc<dyn LogSink>,
    ) -> Self {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let engine = Engine::new(store.clone(), Arc::new(guest.clone()), logs, clock, config);
        runtime.block_on(engine.begin()).unwrap();
        Host { engine, runtime: Some(runtime) }
    }

    pub fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.as_ref().unwrap().block_on(future)
    }

    pub fn spawn<T: Send + 'static>(
        &self,
        future: impl Future<Output = T> + Send + 'static,
    ) -> tokio::task::JoinHandle<T> {
        self.runtime.as_ref().unwrap().spawn(future)
    }

    pub fn begin(&self, id: &str) -> ExecutionView {
        match self.block_on(self.engine.start(execution(id), task(), Json::null())) {
            Ok(Started::New(view) | Started::Replay(view)) => view,
            Err(error) => panic!("{error}"),
        }
    }

    /// How the execution stands when it is over, or after ten seconds.
    pub fn end_of(&self, id: &str) -> ExecutionView {
        self.block_on(self.engine.wait(&execution(id), Duration::from_secs(10))).unwrap()
    }

    pub fn send(
        &self,
        id: &str,
        name: &str,
        payload: serde_json::Value,
    ) -> Result<super::Delivery, EngineError> {
        let name = EventName::parse(name).unwrap();
        self.block_on(self.engine.send_event(&execution(id), &name, &Json::from(payload)))
    }

    /// How the execution stands once `condition` holds.
    pub fn until(&self, id: &str, condition: impl Fn(&ExecutionView) -> bool) -> ExecutionView {
        let store = self.engine.0.store.clone();
        for _ in 0..2_000 {
            let view = self.block_on(store.execution(&execution(id))).unwrap().unwrap();
            if condition(&view) {
                return view;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("never came to it: {:?}", self.block_on(store.execution(&execution(id))));
    }

    /// Everything that this process knew is gone, in the middle of whatever it did.
    pub fn crash(mut self) {
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_timeout(Duration::from_secs(5));
        }
    }
}

pub fn execution(id: &str) -> ExecutionId {
    ExecutionId::parse(id).unwrap()
}

pub fn fails(message: &str) -> StepExit {
    StepExit::Failed(AttemptFailure::new(FailureKind::Error, message))
}
