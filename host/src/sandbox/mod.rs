//! Runs what people upload, and lets none of it out.
//!
//! The only place that knows wasmtime. No type of wasmtime crosses its edge: the engine sees
//! [`Guest`], [`StepRunner`] and the exits, and answers the guest through [`HostCalls`], so a
//! *scripted guest* can take a component's place in the engine's tests.
//!
//! Interrupting a guest is dropping the future that runs it: guests yield every few
//! milliseconds, and what is dropped frees all that it held.

#![deny(unsafe_code)]

mod bindings;
mod bounds;
mod cache;
mod call_rate;
mod compile;
mod config;
mod egress;
mod ending;
mod gate;
mod host_calls;
mod inspect;
mod instance;
mod limits;
mod meter;
mod modules;
mod output;
mod places;
mod runtime;
mod state;
mod turns;
mod values;
mod virtual_wasi;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use async_trait::async_trait;
use stepbox_domain::{
    EventName, Failure, Json, Limits, RunId, StepKey, StepName, TaskName, Timestamp,
    capability::{Grants, SecretName},
    decide::Until,
    step::{AttemptFailure, StepOptions},
};
use zeroize::Zeroizing;

pub use compile::{COMPILE_COMMAND, compile_main};
pub use config::{CompileLimits, Compiler, GuestLimits, PoolSizes, SandboxConfig};
pub use egress::{EgressConfig, Resolver, SystemResolver};
pub use gate::Gate;
pub use inspect::{Inspected, InterfaceItem, NotAComponent, Rejected};
pub use meter::Meter;
pub use modules::{LoadError, Sandbox};

/// A module that is ready to run: compiled, linked, checked.
#[async_trait]
pub trait Guest: Send + Sync {
    /// Calls the handler from the top, in an instance of its own that sees nothing that could
    /// differ between two calls. Drop the future to interrupt it.
    async fn run(&self, setup: HandlerSetup, payload: &Json, calls: Box<dyn HostCalls>) -> GuestExit;

    /// Where the steps of one leg of a run are run. Cheap until the first step is.
    fn steps(&self, setup: StepSetup) -> Box<dyn StepRunner>;
}

/// The step instance of one leg of a run: made when first needed, used for one step after the
/// other, made anew after a trap, a limit, or an attempt that was dropped half-way.
#[async_trait]
pub trait StepRunner: Send {
    /// One attempt (from 1) of `function`. Drop the future to interrupt it.
    async fn run_step(&mut self, function: &str, input: &Json, attempt: u32) -> StepExit;
}

/// What a handler asks of its host.
///
/// `Err(EndHandler)` ends the guest there and then, whatever it is written in; who said so knows
/// why. `Ok(Err(failure))` is an answer that the guest can read.
#[async_trait]
pub trait HostCalls: Send {
    async fn step(&mut self, call: StepCall) -> Result<Answer, EndHandler>;
    async fn sleep(&mut self, name: StepName, until: Until) -> Result<Answer, EndHandler>;
    async fn wait_event(&mut self, event: EventName, timeout_ms: Option<u64>) -> Result<Answer, EndHandler>;
    async fn capture(&mut self, name: StepName, value: Json) -> Result<Answer, EndHandler>;
}

/// A step that the handler calls.
#[derive(Clone, Debug)]
pub struct StepCall {
    pub name: StepName,
    /// What `run-step` dispatches on.
    pub function: String,
    pub input: Json,
    pub options: StepOptions,
}

/// What the guest hears, and what its clock shows from now on.
#[derive(Clone, Debug)]
pub struct Answer {
    pub outcome: Result<Json, Failure>,
    /// The handler's clock moves to this moment; never backwards.
    pub now: Timestamp,
}

/// The handler is to be ended: it has to wait for long, its run is over, or the host is stopping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EndHandler;

/// What an instance is told about itself (`context`), and where its output goes.
#[derive(Clone)]
pub struct GuestContext {
    pub execution_id: String,
    pub run_id: RunId,
    pub run_index: u32,
    pub task: TaskName,
    pub version: u32,
    pub started_at: Timestamp,
    pub logs: Arc<dyn LogSink>,
}

/// For the handler instance.
pub struct HandlerSetup {
    pub context: GuestContext,
    pub limits: Arc<Limits>,
    /// Where it is noted what the leg takes.
    pub meter: Arc<Meter>,
}

/// For the step instance.
#[derive(Clone)]
pub struct StepSetup {
    pub context: GuestContext,
    pub limits: Arc<Limits>,
    /// What its steps may reach.
    pub grants: Arc<Grants>,
    /// Where it is noted what they take. Whoever made the setup reads it, also after an attempt
    /// that was dropped half-way.
    pub meter: Arc<Meter>,
    /// Shut while nothing that its steps do may be seen.
    pub gate: Arc<Gate>,
}

/// How the handler came to its end.
#[derive(Debug)]
pub enum GuestExit {
    /// It returned: a result, or its own failure.
    Returned(Result<Json, Failure>),
    /// [`EndHandler`] was answered.
    Ended,
    /// Trap, panic, a limit, or a call that makes no sense: what to fail the run with.
    Failed(Failure),
    /// The host could not give it an instance now; nothing was run.
    Unavailable(String),
}

/// How an attempt came to its end.
#[derive(Debug)]
pub enum StepExit {
    Completed(Json),
    Failed(AttemptFailure),
    /// The host could not give it an instance now; nothing was run.
    Unavailable(String),
}

/// Where the values of secrets come from, at the moment that a request leaves.
pub trait Secrets: Send + Sync {
    /// None: there is no such secret.
    fn reveal(&self, name: &SecretName) -> Option<Zeroizing<String>>;
}

/// A host that keeps no secrets.
pub struct NoSecrets;

impl Secrets for NoSecrets {
    fn reveal(&self, _: &SecretName) -> Option<Zeroizing<String>> {
        None
    }
}

/// Where guests' output goes. Called from inside of a guest's run: must not block.
pub trait LogSink: Send + Sync {
    fn line(&self, line: LogLine<'_>);
}

/// One line that a guest wrote, with nothing in it that could forge another.
#[derive(Clone, Copy, Debug)]
pub struct LogLine<'a> {
    pub run: &'a RunId,
    /// The attempt of a step that wrote it; none for the handler. Nothing here knows the step's key:
    /// whoever gave the sink fills it in.
    pub step: Option<(&'a StepKey, u32)>,
    pub level: LogLevel,
    /// `stdout`, `stderr`, or the target that the guest named; `stepbox` for what the host itself has
    /// to say, which no guest can.
    pub target: &'a str,
    pub message: &'a str,
}

/// How bad it is, the worst last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum LogLevel {
    Trace,
    Debug,
    Info,
    Warn,
    Error,
}

impl LogLevel {
    pub const ALL: [LogLevel; 5] = [Self::Trace, Self::Debug, Self::Info, Self::Warn, Self::Error];

    /// The word in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            LogLevel::Trace => "trace",
            LogLevel::Debug => "debug",
            LogLevel::Info => "info",
            LogLevel::Warn => "warn",
            LogLevel::Error => "error",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|level| level.as_str() == text)
    }
}
