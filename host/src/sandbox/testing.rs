//! What the sandbox's tests have in common: guests written in WebAssembly text, a host that
//! answers by a script, a sandbox with small limits.

mod wat_guest;

use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use stepbox_domain::{
    Digest, EventName, Failure, Json, Limit, RunId, StepName, TaskName, Timestamp, decide::Until,
};

pub(super) use wat_guest::WatGuest;

use super::*;

pub(super) const STARTED_AT_MS: i64 = 1_700_000_000_000;

/// Keeps every line: `Level target: message`.
#[derive(Default)]
pub(super) struct Captured(Mutex<Vec<String>>);

impl Captured {
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl LogSink for Captured {
    fn line(&self, line: LogLine<'_>) {
        self.0.lock().unwrap().push(format!("{:?} {}: {}", line.level, line.target, line.message));
    }
}

/// Answers every call by `answer`, which is told `step charge …`, `sleep nap …`; one more
/// millisecond has passed at each.
pub(super) fn script<F>(answer: F) -> Box<dyn HostCalls>
where
    F: FnMut(&str) -> Result<Result<Json, Failure>, EndHandler> + Send + 'static,
{
    Box::new(Script { answer, calls: 0 })
}

struct Script<F> {
    answer: F,
    calls: i64,
}

impl<F> Script<F>
where
    F: FnMut(&str) -> Result<Result<Json, Failure>, EndHandler> + Send + 'static,
{
    fn call(&mut self, call: String) -> Result<Answer, EndHandler> {
        self.calls += 1;
        let outcome = (self.answer)(&call)?;
        Ok(Answer { outcome, now: Timestamp::from_ms(STARTED_AT_MS + self.calls) })
    }
}

/// For guests that make no calls, or do not care: everything is `null`.
pub(super) fn nothing() -> Box<dyn HostCalls> {
    script(|_| Ok(Ok(Json::null())))
}

#[async_trait]
impl<F> HostCalls for Script<F>
where
    F: FnMut(&str) -> Result<Result<Json, Failure>, EndHandler> + Send + 'static,
{
    async fn step(&mut self, call: StepCall) -> Result<Answer, EndHandler> {
        self.call(format!("step {} {} {} {:?}", call.name, call.function, call.input, call.options))
    }

    async fn sleep(&mut self, name: StepName, until: Until) -> Result<Answer, EndHandler> {
        self.call(format!("sleep {name} {until:?}"))
    }

    async fn wait_event(&mut self, event: EventName, timeout_ms: Option<u64>) -> Result<Answer, EndHandler> {
        self.call(format!("wait-event {event} {timeout_ms:?}"))
    }

    async fn capture(&mut self, name: StepName, value: Json) -> Result<Answer, EndHandler> {
        self.call(format!("capture {name} {value}"))
    }
}

/// A sandbox in a folder of its own, small and strict.
pub(super) struct TestBed {
    /// Of every instance.
    pub limits: Arc<Limits>,
    pub sandbox: Arc<Sandbox>,
    pub logs: Arc<Captured>,
    pub dir: tempfile::TempDir,
}

impl TestBed {
    pub(super) fn new() -> Self {
        Self::with(|_| {})
    }

    pub(super) fn with(change: impl FnOnce(&mut SandboxConfig)) -> Self {
        Self::within(tempfile::tempdir().unwrap(), change)
    }

    pub(super) fn within(dir: tempfile::TempDir, change: impl FnOnce(&mut SandboxConfig)) -> Self {
        let mut config = SandboxConfig::new(dir.path().join("cache"), Compiler::InProcess);
        config.pool = PoolSizes { handlers_max: 10, steps_max: 4, ..PoolSizes::default() };
        config.guest = GuestLimits { describe_cpu_max_ms: 200, ..GuestLimits::default() };
        config.limits = limits(&[
            (Limit::MemoryMaxBytes, 16 << 20),
            (Limit::HandlerCpuMaxMs, 200),
            (Limit::AttemptCpuMaxMs, 200),
        ]);
        change(&mut config);
        let limits = Arc::new(config.limits.clone());
        TestBed {
            limits,
            sandbox: Sandbox::new(config, Arc::new(NoSecrets)).unwrap(),
            logs: Arc::default(),
            dir,
        }
    }

    pub(super) async fn guest(&self, guest: WatGuest) -> Arc<dyn Guest> {
        self.load(&guest.build()).await
    }

    pub(super) async fn load(&self, component: &[u8]) -> Arc<dyn Guest> {
        let bytes = component.to_vec();
        let loaded = self.sandbox.load(&Digest::of(component), async || Ok(bytes)).await;
        loaded.unwrap_or_else(|error| panic!("{error}"))
    }

    pub(super) async fn inspect(&self, guest: WatGuest) -> Result<Inspected, Rejected> {
        self.sandbox.inspect(&guest.build()).await
    }

    pub(super) fn step_setup(&self) -> StepSetup {
        StepSetup {
            context: self.context(),
            limits: self.limits.clone(),
            grants: Arc::default(),
            meter: Arc::default(),
            gate: Arc::default(),
        }
    }

    pub(super) fn context(&self) -> GuestContext {
        GuestContext {
            execution_id: "order-7".to_owned(),
            run_id: RunId::parse("order-7:run:0").unwrap(),
            run_index: 0,
            task: TaskName::parse("order").unwrap(),
            version: 3,
            started_at: Timestamp::from_ms(STARTED_AT_MS),
            logs: self.logs.clone(),
        }
    }

    pub(super) async fn run(&self, guest: &Arc<dyn Guest>, calls: Box<dyn HostCalls>) -> GuestExit {
        let setup =
            HandlerSetup { context: self.context(), limits: self.limits.clone(), meter: Arc::default() };
        guest.run(setup, &json("null"), calls).await
    }

    pub(super) fn steps(&self, guest: &Arc<dyn Guest>) -> Box<dyn StepRunner> {
        guest.steps(self.step_setup())
    }
}

/// The defaults but for these.
pub(super) fn limits(settings: &[(Limit, u64)]) -> Limits {
    Limits::default().with(&settings.iter().copied().collect())
}

impl SandboxConfig {
    /// What `TestBed` has but for this.
    pub(super) fn set(&mut self, limit: Limit, value: u64) {
        self.limits = self.limits.with(&[(limit, value)].into_iter().collect());
    }
}

pub(super) fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

/// The handler's result, which must be one.
pub(super) fn result(exit: GuestExit) -> String {
    match exit {
        GuestExit::Returned(Ok(json)) => json.to_string(),
        other => panic!("not a result: {other:?}"),
    }
}

/// The failure with which the host ended the handler.
pub(super) fn failed(exit: GuestExit) -> Failure {
    match exit {
        GuestExit::Failed(failure) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}

pub(super) fn completed(exit: StepExit) -> String {
    match exit {
        StepExit::Completed(json) => json.to_string(),
        other => panic!("not completed: {other:?}"),
    }
}

pub(super) fn attempt_failed(exit: StepExit) -> stepbox_domain::step::AttemptFailure {
    match exit {
        StepExit::Failed(failure) => failure,
        other => panic!("not a failure: {other:?}"),
    }
}
