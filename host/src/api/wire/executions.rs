//! Executions, and what is answered to who starts them or sends them events.

use serde::Serialize;
use stepbox_domain::{
    EventName, ExecutionId, ExecutionStatus, Failure, Json, RunId, StepKey, TaskName,
    pause::{Hold, PauseRuleId},
    run::Wait,
};

use super::Time;
use crate::{
    engine::Delivery,
    store::{Counts, ExecutionView},
};

/// An execution, in lists and alone.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Execution {
    name: TaskName,
    durable_execution_id: ExecutionId,
    payload: Json,
    /// `scheduled`, `running`, `completed`, `failed` or `cancelled`.
    status: &'static str,
    scheduled_at: Time,
    completed_at: Option<Time>,
    /// The module version that the current run is pinned to.
    version: u32,
    result: Option<Json>,
    error: Option<ExecutionError>,
    waiting_for: Option<WaitingFor>,
    /// The current run.
    run_id: RunId,
}

impl Execution {
    /// This, given that it may stand in the line of its task.
    pub fn in_line(mut self, live_max: Option<u64>) -> Self {
        self.waiting_for = WaitingFor::in_line(self.waiting_for, live_max);
        self
    }

    /// `hold` is the pause rule that holds it now, if one does.
    pub fn new(view: ExecutionView, hold: Option<Hold>) -> Self {
        let waiting_for = WaitingFor::of(&view, hold);
        Execution {
            name: view.task,
            durable_execution_id: view.id,
            payload: view.payload,
            status: view.status.as_str(),
            scheduled_at: Time(view.scheduled_at),
            completed_at: view.completed_at.map(Time),
            version: view.version,
            result: view.result,
            error: view.error.map(Into::into),
            waiting_for,
            run_id: view.run,
        }
    }
}

/// Why an execution failed.
#[derive(Serialize)]
pub(super) struct ExecutionError {
    kind: &'static str,
    message: String,
    step: Option<StepKey>,
    attempt: Option<u32>,
    details: Option<Json>,
    backtrace: Option<String>,
    /// The last lines that the guest printed before.
    logs: Vec<String>,
}

impl From<Failure> for ExecutionError {
    fn from(failure: Failure) -> Self {
        let Failure { kind, message, details, step, attempt, backtrace, logs } = failure;
        ExecutionError { kind: kind.as_str(), message, step, attempt, details, backtrace, logs }
    }
}

/// What an execution stands at.
#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
pub enum WaitingFor {
    Sleep {
        step: StepKey,
        until: Time,
    },
    Event {
        step: StepKey,
        event: EventName,
        deadline: Option<Time>,
    },
    Retry {
        step: StepKey,
        attempt: u32,
        at: Time,
    },
    #[serde(rename_all = "camelCase")]
    Pause {
        rule_id: PauseRuleId,
        step: Option<StepKey>,
        until: Option<Time>,
        /// What it stands at once the rule has let go.
        then: Option<Box<WaitingFor>>,
    },
    /// For another run of its task to make room: so many may be live at the same time.
    #[serde(rename_all = "camelCase")]
    Capacity {
        live_max: u64,
    },
}

impl WaitingFor {
    /// What it stands at, given that it stands in the line of its task as well.
    pub fn in_line(waiting_for: Option<Self>, live_max: Option<u64>) -> Option<Self> {
        match (waiting_for, live_max) {
            // Whoever ends the rule has it go on, or stand in line.
            (Some(paused @ WaitingFor::Pause { .. }), _) => Some(paused),
            (_, Some(live_max)) => Some(WaitingFor::Capacity { live_max }),
            (waiting_for, None) => waiting_for,
        }
    }

    /// What the execution stands at, given the rule that holds it now.
    pub fn of(view: &ExecutionView, hold: Option<Hold>) -> Option<Self> {
        let waiting = view.waiting.clone();
        match (hold, waiting) {
            (Some(hold), Some(Wait::Pause { step, .. })) => Some(Self::pause(hold, step, None)),
            (Some(hold), Some(wait)) => Some(Self::pause(hold, None, Some(wait))),
            (Some(hold), None) if view.status == ExecutionStatus::Scheduled => {
                Some(Self::pause(hold, None, None))
            }
            (_, waiting) => waiting.map(Into::into),
        }
    }

    fn pause(hold: Hold, step: Option<StepKey>, then: Option<Wait>) -> Self {
        WaitingFor::Pause {
            rule_id: hold.rule,
            step,
            until: hold.until.map(Time),
            then: then.map(|wait| Box::new(wait.into())),
        }
    }
}

impl From<Wait> for WaitingFor {
    fn from(wait: Wait) -> Self {
        match wait {
            Wait::Sleep { step, until } => WaitingFor::Sleep { step, until: Time(until) },
            Wait::Event { step, event, deadline } => {
                WaitingFor::Event { step, event, deadline: deadline.map(Time) }
            }
            Wait::Retry { step, attempt, at } => WaitingFor::Retry { step, attempt, at: Time(at) },
            Wait::Pause { rule, step, until } => {
                WaitingFor::Pause { rule_id: rule, step, until: until.map(Time), then: None }
            }
        }
    }
}

/// The answer to a start: the execution, under Zart's names for its ids too.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct StartedExecution {
    execution_id: ExecutionId,
    /// The first run.
    task_id: RunId,
    #[serde(flatten)]
    execution: Execution,
}

impl StartedExecution {
    pub fn new(view: ExecutionView, hold: Option<Hold>) -> Self {
        StartedExecution {
            execution_id: view.id.clone(),
            task_id: RunId::new(&view.id, 0),
            execution: Execution::new(view, hold),
        }
    }
}

/// What became of an event.
#[derive(Serialize)]
pub struct EventAnswer {
    delivered: bool,
    /// `delivered` or `buffered`.
    status: &'static str,
}

impl From<Delivery> for EventAnswer {
    fn from(delivery: Delivery) -> Self {
        match delivery {
            Delivery::Delivered => EventAnswer { delivered: true, status: "delivered" },
            Delivery::Buffered => EventAnswer { delivered: false, status: "buffered" },
        }
    }
}

/// How many executions there are of each status.
#[derive(Serialize)]
pub struct Stats {
    scheduled: u64,
    running: u64,
    completed: u64,
    failed: u64,
    cancelled: u64,
}

impl From<Counts> for Stats {
    fn from(counts: Counts) -> Self {
        let Counts { scheduled, running, completed, failed, cancelled } = counts;
        Stats { scheduled, running, completed, failed, cancelled }
    }
}
