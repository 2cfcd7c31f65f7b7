//! One go at an execution: what it has recorded, folded.
//!
//! What a call of the guest leads to is in [`crate::decide`]; this file knows only what is so.

mod aside;
mod step;

use serde::{Deserialize, Serialize};

pub(crate) use self::step::wait_timed_out;
pub use self::{
    aside::Aside,
    step::{Call, Resolved, Step, StepState},
};
use crate::{
    EventName, ExecutionId, ExecutionStatus, Failure, Json, RunId, StepKey, TaskName, Timestamp,
    event::Mailbox, journal::Record, pause::PauseRuleId, step::StepStatus,
};

/// What is fixed about a run before anything happens in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunFacts {
    pub run: RunId,
    pub execution: ExecutionId,
    /// 0 for the first run of the execution.
    pub index: u32,
    pub task: TaskName,
    /// The module version that the run is pinned to.
    pub version: u32,
    pub created_at: Timestamp,
    /// When the execution's time is up.
    pub deadline: Option<Timestamp>,
}

impl RunFacts {
    /// How much time the execution has.
    pub fn time_ms(&self) -> Option<u64> {
        self.deadline.map(|deadline| deadline.ms_since(self.created_at))
    }
}

/// Limits that decisions keep: the task's, and the host's own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For an attempt of a step, whatever its own timeout.
    pub attempt_wall_max_ms: u64,
    /// Calls that a run may record.
    pub steps_max: u32,
    /// How often in a row the host may die under one attempt before the step is given up.
    pub crashes_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { attempt_wall_max_ms: 15 * 60_000, steps_max: 50_000, crashes_max: 5 }
    }
}

/// The fold of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    facts: RunFacts,
    policy: Policy,
    steps: Vec<Step>,
    aside: Aside,
    end: Option<RunEnd>,
    mailbox: Mailbox,
    /// When the execution's time is up, as of now: pauses and retries move it.
    deadline: Option<Timestamp>,
    /// Up to when it is known how long the clocks have stood still.
    clock_read: Timestamp,
    held: Option<HeldStep>,
}

/// The step that a pause rule which names steps keeps from going on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HeldStep {
    pub key: StepKey,
    pub since: Timestamp,
}

/// How a run ended, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RunEnd {
    pub at: Timestamp,
    pub outcome: RunOutcome,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RunOutcome {
    Completed(Json),
    Failed(Failure),
    Cancelled { by: Option<String> },
}

/// What a run stands at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    Sleep {
        step: StepKey,
        until: Timestamp,
    },
    Event {
        step: StepKey,
        event: EventName,
        deadline: Option<Timestamp>,
    },
    Retry {
        step: StepKey,
        attempt: u32,
        at: Timestamp,
    },
    /// Held by a pause rule, at this step or before anything; ends with the rule.
    Pause {
        rule: PauseRuleId,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepKey>,
        /// When the rule expires, if it does.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Timestamp>,
    },
}

impl Wait {
    /// When the wait is over whatever happens; none when only an event, or somebody, can end it.
    pub fn until(&self) -> Option<Timestamp> {
        match self {
            Wait::Sleep { until, .. } => Some(*until),
            Wait::Event { deadline, .. } => *deadline,
            Wait::Retry { at, .. } => Some(*at),
            // A rule can be ended sooner, and another may hold on: whoever watches the rules wakes.
            Wait::Pause { .. } => None,
        }
    }
}

impl Run {
    /// A run in which nothing has happened yet.
    pub fn new(facts: RunFacts, policy: Policy) -> Self {
        Run {
            deadline: facts.deadline,
            clock_read: facts.created_at,
            facts,
            policy,
            steps: Vec::new(),
            aside: Aside::default(),
            end: None,
            mailbox: Mailbox::default(),
            held: None,
        }
    }

    /// The run that lived through `records`.
    pub fn fold<'a>(facts: RunFacts, policy: Policy, records: impl IntoIterator<Item = &'a Record>) -> Self {
        let mut run = Run::new(facts, policy);
        records.into_iter().for_each(|record| run.apply(record));
        run
    }

    /// About how much memory it takes, in bytes.
    pub fn size_bytes(&self) -> usize {
        self.steps.iter().chain(self.aside.iter()).map(Step::size_bytes).sum()
    }

    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// From now on decisions keep this one.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// The calls that the handler has made, in their order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What was kept or set aside and not called (again) yet.
    pub fn aside(&self) -> &Aside {
        &self.aside
    }

    /// The step `key`, called or not yet called again.
    pub fn step(&self, key: &StepKey) -> Option<&Step> {
        self.aside.get(key).or_else(|| self.steps.iter().find(|step| step.key == *key))
    }

    /// When the execution's time is up, given the pauses that are known of.
    pub fn deadline(&self) -> Option<Timestamp> {
        self.deadline
    }

    /// Up to when the pauses are known of.
    pub fn clock_read(&self) -> Timestamp {
        self.clock_read
    }

    /// The step that a pause rule keeps from going on.
    pub fn held(&self) -> Option<&HeldStep> {
        self.held.as_ref()
    }

    pub fn end(&self) -> Option<&RunEnd> {
        self.end.as_ref()
    }

    pub fn mailbox(&self) -> &Mailbox {
        &self.mailbox
    }

    /// The events that wait for this run. They are no part of its journal until one is consumed.
    pub fn mailbox_mut(&mut self) -> &mut Mailbox {
        &mut self.mailbox
    }

    /// As a claimed run: `Running` until it ends.
    pub fn status(&self) -> ExecutionStatus {
        match &self.end {
            None => ExecutionStatus::Running,
            Some(RunEnd { outcome: RunOutcome::Completed(_), .. }) => ExecutionStatus::Completed,
            Some(RunEnd { outcome: RunOutcome::Failed(_), .. }) => ExecutionStatus::Failed,
            Some(RunEnd { outcome: RunOutcome::Cancelled { .. }, .. }) => ExecutionStatus::Cancelled,
        }
    }

    /// What the run stands at, if it stands.
    pub fn wait(&self) -> Option<Wait> {
        if self.end.is_some() {
            return None;
        }
        let step = self.steps.last()?;
        let key = step.key.clone();
        match (&step.state, &step.call) {
            (StepState::RetryAt(at), _) => {
                let attempt = step.attempts.last().map_or(1, |last| last.number + 1);
                Some(Wait::Retry { step: key, attempt, at: *at })
            }
            (StepState::Open, Call::Sleep { until }) => Some(Wait::Sleep { step: key, until: *until }),
            (StepState::Open, Call::WaitForEvent { event, deadline }) => {
                Some(Wait::Event { step: key, event: event.clone(), deadline: *deadline })
            }
            _ => None,
        }
    }

    /// When the run should next be looked at, given that nothing comes from outside.
    pub fn due(&self) -> Option<Timestamp> {
        if self.end.is_some() {
            return None;
        }
        let wait = self.wait().and_then(|wait| wait.until());
        [wait, self.deadline].into_iter().flatten().min()
    }

    /// Folds `record` in. Never decides and never fails: what makes no sense at this place (a
    /// journal that somebody edited) changes nothing.
    pub fn apply(&mut self, record: &Record) {
        match record {
            Record::StepStarted(start) => self.call(Step::started(start)),
            Record::StepRan { start, result, completed_at, receipt } => {
                let mut step = Step::started(start);
                step.complete(1, result, receipt.as_ref(), *completed_at);
                self.call(step);
            }
            Record::AttemptStarted { step, attempt, at, step_deadline, .. } => {
                self.held = None;
                self.with_step(*step, |step| step.try_again(*attempt, *step_deadline, *at));
            }
            Record::StepCompleted { step, attempt, result, at, receipt } => {
                self.with_step(*step, |step| step.complete(*attempt, result, receipt.as_ref(), *at));
            }
            Record::AttemptFailed { step, attempt, failure, at, retry_at, receipt } => {
                self.with_step(*step, |step| step.fail(*attempt, failure, *retry_at, receipt.as_ref(), *at));
            }
            Record::AttemptInterrupted { step, attempt, cause, at, receipt } => {
                self.with_step(*step, |step| step.interrupt(*attempt, *cause, receipt.as_ref(), *at));
            }
            Record::StepDied { step, failure, at } => {
                self.held = None;
                self.with_step(*step, |step| step.die(failure, *at));
            }
            Record::SleepStarted { key, until, at } => {
                self.call(Step::opened(key, Call::Sleep { until: *until }, *at));
            }
            Record::SleepEnded { step, at } => {
                self.with_step(*step, |step| step.end(StepState::Completed(Json::null()), *at));
            }
            Record::WaitStarted { key, event, deadline, at } => {
                let call = Call::WaitForEvent { event: event.clone(), deadline: *deadline };
                self.call(Step::opened(key, call, *at));
            }
            Record::EventConsumed { step, event, payload, at } => {
                self.mailbox.remove(*event);
                self.with_step(*step, |step| step.end(StepState::Completed(payload.clone()), *at));
            }
            Record::WaitTimedOut { step, at } => self.with_step(*step, |step| {
                if let Call::WaitForEvent { event, .. } = &step.call {
                    let failure = wait_timed_out(&step.key, event);
                    step.end(StepState::TimedOut(failure), *at);
                }
            }),
            Record::Captured { key, value, at } => {
                let mut step = Step::opened(key, Call::Capture, *at);
                step.end(StepState::Completed(value.clone()), *at);
                self.call(step);
            }
            Record::StepKept { step } => self.aside.push((**step).clone()),
            Record::StepAdopted { key, .. } => {
                self.held = None;
                self.steps.extend(self.aside.take(key));
            }
            Record::StepRetryAsked { key, overrides, version, at, .. } => {
                // Another version may call it otherwise, or not at all.
                let stays = version.is_none();
                self.reopen(key, stays, *at, |step| step.begin_anew(overrides.clone(), *at));
            }
            Record::StepResolved { key, outcome, by, at } => {
                self.reopen(key, true, *at, |step| step.resolve(outcome, by.as_deref(), *at));
            }
            Record::StepHeld { key, at } => self.held = Some(HeldStep { key: key.clone(), since: *at }),
            Record::ClockStood { ms, until } => self.clock_stood(*ms, *until),
            Record::RunCompleted { result, at } => self.finish(RunOutcome::Completed(result.clone()), *at),
            Record::RunFailed { failure, at } => self.finish(RunOutcome::Failed(failure.clone()), *at),
            Record::RunCancelled { by, at } => self.finish(RunOutcome::Cancelled { by: by.clone() }, *at),
        }
    }

    /// The handler made a new call. What was kept under its key is not what it called.
    fn call(&mut self, mut step: Step) {
        self.held = None;
        if let Some(replaced) = self.aside.take(&step.key) {
            step.replace(replaced);
        }
        self.steps.push(step);
    }

    /// Changes the dead step `key`. The handler has to be called again from the top, and may go
    /// another way from there on: what it called later is set aside, and the step itself with it
    /// unless it `stays`.
    fn reopen(&mut self, key: &StepKey, stays: bool, at: Timestamp, change: impl FnOnce(&mut Step)) {
        let cancelled = matches!(&self.end, Some(end) if matches!(end.outcome, RunOutcome::Cancelled { .. }));
        let is_it = |step: &Step| step.key == *key && step.status() == StepStatus::Dead;
        if cancelled {
            return;
        } else if let Some(place) = self.steps.iter().position(is_it) {
            change(&mut self.steps[place]);
            let first_later = if stays { place + 1 } else { place };
            let later = self.steps.split_off(first_later);
            self.aside.put_before(later.into_iter().filter_map(|step| step.set_aside(at)));
        } else if let Some(step) = self.aside.get_mut(key).filter(|step| is_it(step)) {
            change(step);
            self.steps.iter_mut().rev().take(1).for_each(|last| last.cut_off(at));
        } else {
            return;
        }
        if self.end.take().is_some() {
            // While it was over nobody worked at it, so its time begins anew. One that still goes
            // on stays held until something starts: how long it was is not written down yet.
            self.held = None;
            self.deadline = self.facts.time_ms().map(|ms| at.plus_ms(ms));
            self.clock_read = at;
        }
    }

    fn clock_stood(&mut self, ms: u64, until: Timestamp) {
        self.clock_read = until;
        self.deadline = self.deadline.map(|deadline| deadline.plus_ms(ms));
        let Some(step) = self.steps.last_mut().filter(|step| step.ended_at.is_none()) else { return };
        match &mut step.call {
            Call::Step { deadline, .. } | Call::WaitForEvent { deadline, .. } => {
                *deadline = deadline.map(|deadline| deadline.plus_ms(ms));
            }
            Call::Sleep { .. } | Call::Capture => {}
        }
    }

    fn with_step(&mut self, index: u32, change: impl FnOnce(&mut Step)) {
        if let Some(step) = self.steps.get_mut(index as usize) {
            change(step);
        }
    }

    fn finish(&mut self, outcome: RunOutcome, at: Timestamp) {
        self.end.get_or_insert(RunEnd { at, outcome });
    }
}
