//! What the engine counts. The API renders it.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
    registry::Registry,
};
use stepbox_domain::{ExecutionStatus, Receipt, TaskName, journal::Record};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct StatusLabel {
    status: &'static str,
}

/// As many as there are tasks, twice.
#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
pub struct GuestLabel {
    task: String,
    part: &'static str,
}

/// What of a task's guest did something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Part {
    Handler,
    Steps,
}

/// What a run has come to since it was last counted.
#[derive(Debug, Default)]
pub(crate) struct Deeds {
    steps_completed: u64,
    attempts_failed: u64,
    attempts_interrupted: u64,
    ended: Option<ExecutionStatus>,
}

impl Deeds {
    pub fn add(&mut self, record: &Record) {
        match record {
            Record::StepCompleted { .. } => self.steps_completed += 1,
            Record::AttemptFailed { .. } => self.attempts_failed += 1,
            Record::AttemptInterrupted { .. } => self.attempts_interrupted += 1,
            Record::RunCompleted { .. } => self.ended = Some(ExecutionStatus::Completed),
            Record::RunFailed { .. } => self.ended = Some(ExecutionStatus::Failed),
            _ => {}
        }
    }
}

/// Counters since the start of this process, and how things stand in it.
#[derive(Default)]
pub struct Metrics {
    pub started: Counter,
    ended: Family<StatusLabel, Counter>,
    steps_completed: Counter,
    attempts_failed: Counter,
    attempts_interrupted: Counter,
    pub suspended: Counter,
    pub events: Counter,
    pub live: Gauge,
    pub parked: Gauge,
    pub ready: Gauge,
    pub in_line: Gauge,
    guest_cpu: Family<GuestLabel, Counter<f64, AtomicU64>>,
    host_calls: Family<GuestLabel, Counter>,
    pub timers: Gauge,
}

impl Metrics {
    /// All of them, under their public names.
    pub fn register(&self, registry: &mut Registry) {
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("executions_started", "Executions created", &self.started);
        counter("steps_completed", "Attempts of steps that completed", &self.steps_completed);
        counter("attempts_failed", "Attempts of steps that failed", &self.attempts_failed);
        counter(
            "attempts_interrupted",
            "Attempts cut off by a stop or crash of the host",
            &self.attempts_interrupted,
        );
        counter("runs_suspended", "Times that a run was suspended", &self.suspended);
        counter("events_received", "Events stored", &self.events);
        registry.register("executions_ended", "Executions that came to their end", self.ended.clone());
        registry.register(
            "guest_cpu_seconds",
            "CPU time of handlers and steps, by task",
            self.guest_cpu.clone(),
        );
        registry.register(
            "host_calls",
            "Calls of the host by handlers and steps, by task",
            self.host_calls.clone(),
        );
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("runs_live", "Runs that hold an instance", &self.live);
        gauge("runs_parked", "Live runs that stand still", &self.parked);
        gauge("runs_ready", "Runs that wait for a place", &self.ready);
        gauge("runs_in_line", "Runs that wait because their task has as many as it may", &self.in_line);
        gauge("timers", "Suspended runs with a due time", &self.timers);
    }

    /// It is on disk.
    pub(crate) fn done(&self, deeds: Deeds) {
        self.steps_completed.inc_by(deeds.steps_completed);
        self.attempts_failed.inc_by(deeds.attempts_failed);
        self.attempts_interrupted.inc_by(deeds.attempts_interrupted);
        if let Some(status) = deeds.ended {
            self.ended(status);
        }
    }

    /// A leg of a handler or an attempt of a step is over, and has taken so much.
    pub(crate) fn guest(&self, task: &TaskName, part: Part, bill: &Receipt) {
        let part = match part {
            Part::Handler => "handler",
            Part::Steps => "steps",
        };
        let label = GuestLabel { task: task.to_string(), part };
        self.guest_cpu.get_or_create(&label).inc_by(bill.cpu_us as f64 / 1e6);
        self.host_calls.get_or_create(&label).inc_by(bill.host_calls);
    }

    pub(crate) fn ended(&self, status: ExecutionStatus) {
        self.ended.get_or_create(&StatusLabel { status: status.as_str() }).inc();
    }
}
