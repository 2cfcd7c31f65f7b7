//! Moves runs, and owns the time in which they move.
//!
//! [`Engine`] has one method for each thing that somebody can ask. Inside, a run that could go
//! now stands in [`ready`], one that goes later in [`timers`]; [`worker`] takes runs up and
//! drives them, each as a [`live_run`]. What is in memory here is a copy of what the store has:
//! losing it loses nothing (see [`Engine::begin`]).

mod ahead;
mod bulk;
mod calls;
mod capacity;
mod changes;
pub mod clock;
mod deliver;
mod grants;
mod kept;
mod live;
mod live_run;
pub mod loader;
mod log_tail;
pub mod metrics;
mod modules;
mod opening;
mod parking;
mod pauses;
mod ready;
mod repair;
mod replay_logs;
mod settings;
mod start;
mod step_logs;
mod stopping;
mod timers;
mod turns;
mod waiters;
mod worker;

#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, OnceLock,
        atomic::{AtomicI64, Ordering},
    },
    time::Duration,
};

use stepbox_domain::{
    ExecutionId, ExecutionStatus, Json, Limit, Limits, TaskName, Timestamp,
    audit::{AuditAction, AuditEntry},
    bulk::{BulkId, BulkState},
    capability::{GrantsError, Missing, SecretName},
    limits::LimitError,
    pause::PauseRuleId,
    repair::RepairError,
    run::Policy,
};
use tokio::{
    sync::{RwLock, Semaphore},
    time::Instant,
};

pub use deliver::Delivery;
pub use grants::LimitShown;
pub use modules::Uploaded;
pub use repair::{Rerun, Resolved, Restarted, Retried, StepRetry};
pub use start::Started;

use self::{
    bulk::Bulks,
    capacity::Capacity,
    clock::Clock,
    kept::KeptRuns,
    live::LiveRuns,
    loader::Loader,
    metrics::Metrics,
    modules::Modules,
    parking::Parking,
    pauses::Pauses,
    ready::Ready,
    settings::Settings,
    stopping::{Phase, Stopping},
    timers::Timers,
    turns::Turns,
    waiters::Waiters,
};
use crate::{
    sandbox::{LogSink, Rejected},
    store::{Store, StoreError},
};

/// How the engine works.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// What no task differs in; what is a limit of the task is taken from there.
    pub policy: Policy,
    /// What guests may take where nothing is set for their task.
    pub limits: Limits,
    /// What no task may be set above.
    pub ceilings: Limits,
    /// Runs that hold an instance at the same time, parked ones counted.
    pub live_max: usize,
    /// Of these, how many may stand still.
    pub parked_max: usize,
    /// A wait that is over sooner keeps its instance.
    pub park_max: Duration,
    /// So long after a host that was killed, a start is on disk before its run begins: the run may be
    /// what took the host down, and is counted only when it is there.
    pub caution: Duration,
}

/// The handle on the engine; cheap to clone.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

pub(crate) struct Inner {
    store: Arc<dyn Store>,
    loader: Arc<dyn Loader>,
    logs: Arc<dyn LogSink>,
    clock: Clock,
    config: EngineConfig,
    modules: RwLock<Modules>,
    settings: Settings,
    ready: Ready,
    timers: Timers,
    live: LiveRuns,
    kept: KeptRuns,
    places: Arc<Semaphore>,
    parking: Parking,
    capacity: Capacity,
    pauses: Pauses,
    waiters: Waiters,
    turns: Turns,
    bulks: Bulks,
    stopping: Stopping,
    pulse: Pulse,
    metrics: Metrics,
    /// See [`EngineConfig::caution`].
    cautious_until: OnceLock<Instant>,
}

/// Why a verb was not carried out. The store's own troubles apart, each is the caller's to mend.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error(
        "there is no task \"{0}\"; upload a module for it with PUT /admin/v1/modules/{0}, or see GET /admin/v1/modules for the names of those that there are"
    )]
    UnknownTask(TaskName),
    #[error("the payload is refused by the task's schema at \"{pointer}\": {reason}")]
    PayloadRefused { pointer: String, reason: String },
    #[error(
        "{what} has {bytes} bytes; a value of task \"{task}\" may have {max_bytes} bytes (valueMaxBytes): keep large data elsewhere and pass a reference to it, or raise the limit with PUT /admin/v1/modules/{task}/limits"
    )]
    ValueTooLarge { what: &'static str, task: TaskName, bytes: usize, max_bytes: u64 },
    #[error(
        "the execution id \"{id}\" is taken by another start of task \"{task}\", with another task or payload; use a new id"
    )]
    IdTaken { id: ExecutionId, task: TaskName },
    #[error("there is no execution \"{0}\"")]
    UnknownExecution(ExecutionId),
    #[error("the execution \"{id}\" is {status} and can no longer {wanted}", status = .status.as_str())]
    AlreadyOver { id: ExecutionId, status: ExecutionStatus, wanted: &'static str },
    #[error(
        "no version of task \"{task}\" can be started yet: version {version} waits to be granted {missing}; an admin grants it with PUT /admin/v1/modules/{task}/grants, or by uploading it again with ?grant=wanted"
    )]
    TaskWaits { task: TaskName, version: u32, missing: Box<Missing> },
    #[error(
        "version {version} of task \"{task}\" has not been granted all that it wants: {missing}; grant it first, with PUT /admin/v1/modules/{task}/grants"
    )]
    NotGranted { task: TaskName, version: u32, missing: Box<Missing> },
    #[error(transparent)]
    BadGrants(#[from] GrantsError),
    #[error(transparent)]
    BadLimit(#[from] LimitError),
    #[error("there is no module \"{0}\"; see GET /admin/v1/modules")]
    UnknownModule(TaskName),
    #[error("task \"{task}\" has no version {version}; see GET /admin/v1/modules/{task}/versions")]
    UnknownVersion { task: TaskName, version: u32 },
    #[error(
        "version {version} of task \"{task}\", which the run is pinned to, has been removed; name another version to go on with, or restart the execution"
    )]
    VersionRemoved { task: TaskName, version: u32 },
    #[error(
        "task \"{task}\" has {executions} executions that are not over; cancel them or wait for their end before removing the module"
    )]
    ModuleInUse { task: TaskName, executions: u64 },
    #[error(transparent)]
    Repair(#[from] RepairError),
    #[error(
        "a pause rule without executionId, taskName or stepPattern would stop everything; name at least one"
    )]
    EmptyScope,
    #[error("expiresAt is past; a pause rule must end in the future, or by hand when it is left out")]
    ExpiresInThePast,
    #[error("there is no pause rule \"{}\" in force; see GET /admin/v1/pause", .0.as_str())]
    UnknownPauseRule(PauseRuleId),
    #[error("{field} {reason}")]
    BadBulk { field: &'static str, reason: &'static str },
    #[error("no failed execution matches, so there is nothing to repair")]
    NothingSelected,
    #[error("there is no bulk repair \"{}\"; see GET /admin/v1/bulk", .0.as_str())]
    UnknownBulk(BulkId),
    #[error("the bulk repair \"{id}\" is {state} already", id = .id.as_str(), state = .state.as_str())]
    BulkOver { id: BulkId, state: BulkState },
    #[error("the module is refused: {0}")]
    Rejected(Rejected),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Who asks for an admin write, and why; kept in the audit trail.
#[derive(Clone, Debug, Default)]
pub struct Who {
    pub by: Option<String>,
    pub reason: Option<String>,
}

impl Who {
    /// What goes into the audit trail, but for what it was done to.
    pub(crate) fn entry(&self, action: AuditAction, at: Timestamp) -> AuditEntry {
        AuditEntry {
            at,
            actor: self.by.clone(),
            action,
            execution: None,
            task: None,
            target: None,
            before: Json::null(),
            after: Json::null(),
            reason: self.reason.clone(),
        }
    }
}

impl Inner {
    /// Whether a run may not begin before its start is on disk.
    fn is_cautious(&self) -> bool {
        self.cautious_until.get().is_some_and(|until| Instant::now() < *until)
    }

    /// What decisions about runs of `task` keep.
    fn policy(&self, task: &TaskName) -> Policy {
        self.policy_within(&self.settings.of(task).limits)
    }

    fn policy_within(&self, limits: &Limits) -> Policy {
        Policy {
            attempt_wall_max_ms: limits.get(Limit::AttemptWallMaxMs),
            steps_max: u32::try_from(limits.get(Limit::StepsMax)).unwrap_or(u32::MAX),
            ..self.config.policy
        }
    }
}

impl Engine {
    pub fn new(
        store: Arc<dyn Store>,
        loader: Arc<dyn Loader>,
        logs: Arc<dyn LogSink>,
        clock: Clock,
        config: EngineConfig,
    ) -> Self {
        Engine(Arc::new(Inner {
            places: Arc::new(Semaphore::new(config.live_max)),
            parking: Parking::new(config.parked_max),
            settings: Settings::new(&config.limits, &config.ceilings),
            store,
            loader,
            logs,
            clock,
            config,
            modules: RwLock::default(),
            ready: Ready::default(),
            timers: Timers::default(),
            pauses: Pauses::default(),
            capacity: Capacity::default(),
            live: LiveRuns::default(),
            kept: KeptRuns::default(),
            waiters: Waiters::default(),
            turns: Turns::default(),
            bulks: Bulks::default(),
            stopping: Stopping::new(),
            pulse: Pulse::new(),
            metrics: Metrics::default(),
            cautious_until: OnceLock::new(),
        }))
    }

    /// Reads what the store has, picks up every run that is not over, and begins to move.
    ///
    /// Errors: the store does not answer. What is wrong with one module is logged, and starts of
    /// its task are refused, but the others go on.
    pub async fn begin(&self) -> Result<(), StoreError> {
        let engine = &self.0;
        let mut modules = engine.modules.write().await;
        for (task, settings) in engine.store.settings().await? {
            engine.settings.set(task, settings.grants, &settings.limits);
        }
        for module in engine.store.modules().await? {
            if let Err(error) = modules.take_note(&module) {
                tracing::error!(task = %module.task, %error, "a module cannot be used; upload it again");
            }
        }
        drop(modules);

        if engine.store.was_left_open() && !engine.config.caution.is_zero() {
            let _ = engine.cautious_until.set(Instant::now() + engine.config.caution);
        }
        let unfinished = engine.store.recover().await?;
        let count = unfinished.len();
        let now = engine.clock.now();
        let since = pauses::oldest_unfinished(engine.store.as_ref(), now).await?;
        engine.pauses.load(engine.store.pause_rules(true).await?, since);
        for run in unfinished {
            if run.held {
                engine.pauses.will_show(run.run);
            }
            match (run.waiting && !run.held, run.due) {
                (true, Some(due)) if due > now => engine.timers.set(run.run, due),
                (true, None) => {} // stands at an event that has not come
                _ => match quarantine_ms(run.crashes) {
                    0 => engine.ready.push(run.run),
                    ms => engine.timers.set(run.run, now.plus_ms(ms)),
                },
            }
        }
        tracing::info!(
            unfinished = count,
            ready = engine.ready.len(),
            "picked up the runs that are not over"
        );

        let (timers, pauses, dispatcher) = (Arc::clone(engine), Arc::clone(engine), Arc::clone(engine));
        let capacity = Arc::clone(engine);
        tokio::spawn(async move { capacity.capacity.run(&capacity.settings, &capacity.ready).await });
        tokio::spawn(async move { timers.timers.run(&timers.clock, &timers.ready).await });
        tokio::spawn(async move { pauses.pauses.run(&pauses.clock, &pauses.ready).await });
        tokio::spawn(worker::dispatch(dispatcher));
        tokio::spawn(bulk::resume(Arc::clone(engine)));
        Ok(())
    }

    /// Begins nothing new, suspends what stands still, lets steps under way finish for `patience`
    /// and interrupts the rest. Afterwards nothing of the engine writes.
    pub async fn stop(&self, patience: Duration) {
        let engine = &self.0;
        engine.stopping.advance(Phase::Draining);
        let at_rest = async {
            engine.bulks.stopped().await;
            engine.live.empty().await;
        };
        if tokio::time::timeout(patience, at_rest).await.is_err() {
            tracing::warn!(
                runs = engine.live.len(),
                "the time for stopping is up; interrupting what still runs"
            );
            engine.stopping.advance(Phase::Expired);
            // What is interrupted writes that it was, which takes a commit.
            if tokio::time::timeout(Duration::from_secs(5), engine.live.empty()).await.is_err() {
                tracing::error!(
                    runs = engine.live.len(),
                    "some runs could not be let go of; the next start picks them up"
                );
            }
        }
    }

    /// Whether the claim loop makes progress: how long ago it last went round.
    pub fn pulse(&self) -> Duration {
        self.0.pulse.age()
    }

    /// The counters, with the gauges as of now.
    pub fn metrics(&self) -> &Metrics {
        let engine = &self.0;
        let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
        engine.metrics.live.set(count(engine.live.len()));
        engine.metrics.parked.set(count(engine.parking.len()));
        engine.metrics.ready.set(count(engine.ready.len()));
        engine.metrics.in_line.set(count(engine.capacity.len()));
        engine.metrics.timers.set(count(engine.timers.len()));
        &engine.metrics
    }

    /// The tasks whose grants name the secret.
    pub fn tasks_granted(&self, secret: &SecretName) -> Vec<TaskName> {
        self.0.settings.tasks_granted(secret)
    }

    pub fn clock(&self) -> &Clock {
        &self.0.clock
    }
}

/// How long a run is kept back after a start, under which the host has died `crashes` times in a
/// row before the last time. The host dies under all that it runs, and the longer it is up before
/// a suspect goes on, the less likely an innocent one is under way when it dies again.
fn quarantine_ms(crashes: u32) -> u64 {
    match crashes {
        0 => 0,
        1 => 100,
        2 => 500,
        3 => 2_000,
        _ => 5_000,
    }
}

/// Carries `verb` through although whoever asked for it may go away: a client that hangs up must
/// not leave a run claimed by nobody, or an event stored that no one was told of.
pub(crate) async fn carried_through<T: Send + 'static>(verb: impl Future<Output = T> + Send + 'static) -> T {
    match tokio::spawn(verb).await {
        Ok(done) => done,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // Nobody aborts it; the runtime itself is going down.
            Err(_) => std::future::pending().await,
        },
    }
}

/// When the claim loop last went round.
struct Pulse {
    begun: Instant,
    last_ms: AtomicI64,
}

impl Pulse {
    fn new() -> Self {
        Pulse { begun: Instant::now(), last_ms: AtomicI64::new(0) }
    }

    fn now_ms(&self) -> i64 {
        i64::try_from(self.begun.elapsed().as_millis()).unwrap_or(i64::MAX)
    }

    fn beat(&self) {
        self.last_ms.store(self.now_ms(), Ordering::Relaxed);
    }

    fn age(&self) -> Duration {
        let age_ms = self.now_ms() - self.last_ms.load(Ordering::Relaxed);
        Duration::from_millis(u64::try_from(age_ms).unwrap_or(0))
    }
}
