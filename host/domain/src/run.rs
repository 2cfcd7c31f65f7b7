//! One go at an execution: what it has recorded, folded.
//!
//! What a call of the guest leads to is in [`crate::decide`]; this file knows only what is so.

use serde::{Deserialize, Serialize};

use crate::{
    EventName, ExecutionId, ExecutionStatus, Failure, FailureKind, Json, RunId, StepKey, TaskName, Timestamp,
    event::Mailbox,
    journal::{Record, StepStarted},
    lineage::PartHash,
    pause::PauseRuleId,
    step::{Attempt, AttemptState, InputHash, Interruption, Overrides, StepKind, StepStatus},
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

/// Limits that decisions keep; the host's configuration sets them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// For an attempt of a step that names no timeout.
    pub attempt_timeout_ms: u64,
    /// Calls that a run may record.
    pub steps_max: u32,
    /// How often in a row the host may die under one attempt before the step is given up.
    pub crashes_max: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { attempt_timeout_ms: 15 * 60_000, steps_max: 50_000, crashes_max: 5 }
    }
}

/// The fold of a journal.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    facts: RunFacts,
    policy: Policy,
    steps: Vec<Step>,
    /// Kept from an earlier run, or set aside by a retry: waiting for the handler to make their
    /// calls (again). In the order in which they were made the first time.
    aside: Vec<Step>,
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

/// One durable call of the handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Step {
    pub key: StepKey,
    pub call: Call,
    pub started_at: Timestamp,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    pub state: StepState,
    /// Of a step proper; empty for the other kinds.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// Attempts up to this number were before the last retry by hand and count no more.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub tried_before: u32,
    #[serde(default, skip_serializing_if = "Overrides::is_empty")]
    pub overrides: Overrides,
    /// Whether its outcome was put in by hand.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved: Option<Resolved>,
    /// The run that made the call, where that is an earlier one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept_from: Option<RunId>,
    /// The step that was kept or set aside under this key, and was not this call: the handler
    /// brought another input.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced: Option<Box<Step>>,
}

/// Who put in an outcome by hand, and when.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Resolved {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub by: Option<String>,
    pub at: Timestamp,
}

/// What was called.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Call {
    Step {
        function: String,
        input: InputHash,
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        parts: Vec<PartHash>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    Sleep {
        until: Timestamp,
    },
    WaitForEvent {
        event: EventName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
    },
    Capture,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

impl Call {
    pub fn kind(&self) -> StepKind {
        match self {
            Call::Step { .. } => StepKind::Step,
            Call::Sleep { .. } => StepKind::Sleep,
            Call::WaitForEvent { .. } => StepKind::WaitForEvent,
            Call::Capture => StepKind::Capture,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StepState {
    /// An attempt is under way, a sleep is not over, an event has not come.
    Open,
    /// Between two attempts.
    RetryAt(Timestamp),
    Completed(Json),
    /// A wait that ended without its event. Over, and nothing to mend.
    TimedOut(Failure),
    /// Retries used up.
    Dead(Failure),
}

impl Step {
    pub fn status(&self) -> StepStatus {
        match self.state {
            StepState::Open => StepStatus::Running,
            StepState::RetryAt(_) => StepStatus::Scheduled,
            StepState::Completed(_) | StepState::TimedOut(_) => StepStatus::Completed,
            StepState::Dead(_) => StepStatus::Dead,
        }
    }

    /// What the handler gets to hear, once there is something.
    pub fn outcome(&self) -> Option<Result<Json, Failure>> {
        match &self.state {
            StepState::Completed(result) => Some(Ok(result.clone())),
            StepState::TimedOut(failure) | StepState::Dead(failure) => Some(Err(failure.clone())),
            StepState::Open | StepState::RetryAt(_) => None,
        }
    }

    /// What was printed last, in the last attempt if that failed.
    pub(crate) fn last_logs(&self) -> Vec<String> {
        match self.attempts.iter().rev().find(|attempt| attempt.ended_at.is_some()).map(|last| &last.state) {
            Some(AttemptState::Failed(failure)) => failure.logs.clone(),
            _ => Vec::new(),
        }
    }

    /// Attempts that used up some of the retry policy: all since the last retry by hand but those
    /// that the host cut off.
    pub fn tries(&self) -> u32 {
        let used = |attempt: &&Attempt| !matches!(attempt.state, AttemptState::Interrupted(_));
        let tries = self.attempts_anew().filter(used).count();
        u32::try_from(tries).unwrap_or(u32::MAX)
    }

    /// The attempts since the last retry by hand.
    fn attempts_anew(&self) -> impl DoubleEndedIterator<Item = &Attempt> {
        self.attempts.iter().filter(|attempt| attempt.number > self.tried_before)
    }

    /// Whether its time begins with the next attempt, since somebody wanted it to be tried again.
    pub fn begins_anew(&self) -> bool {
        self.tried_before > 0 && self.attempts_anew().next().is_none()
    }

    /// How often in a row, up to the attempt under way, the host died under this step.
    pub fn crashes_in_a_row(&self) -> u32 {
        let under_way = |attempt: &&Attempt| attempt.state == AttemptState::Running;
        let crashed = |attempt: &&Attempt| attempt.state == AttemptState::Interrupted(Interruption::Crashed);
        let crashes = self.attempts_anew().rev().skip_while(under_way).take_while(crashed).count();
        u32::try_from(crashes).unwrap_or(u32::MAX)
    }
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
            aside: Vec::new(),
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

    pub fn facts(&self) -> &RunFacts {
        &self.facts
    }

    pub fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The calls that the handler has made, in their order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// What was kept or set aside and not called (again) yet.
    pub fn aside(&self) -> &[Step] {
        &self.aside
    }

    /// The step `key`, called or not yet called again.
    pub fn step(&self, key: &StepKey) -> Option<&Step> {
        self.steps.iter().chain(&self.aside).find(|step| step.key == *key)
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
            Record::StepStarted(start) => self.call(started(start)),
            Record::StepRan { start, result, completed_at } => {
                let mut step = started(start);
                step.complete(1, result, *completed_at);
                self.call(step);
            }
            Record::AttemptStarted { step, attempt, at, step_deadline: anew, .. } => {
                self.held = None;
                self.with_step(*step, |step| {
                    if let (Call::Step { deadline, .. }, Some(anew)) = (&mut step.call, anew) {
                        *deadline = Some(*anew);
                    }
                    step.attempts.push(Attempt {
                        number: *attempt,
                        started_at: *at,
                        ended_at: None,
                        state: AttemptState::Running,
                    });
                    step.state = StepState::Open;
                });
            }
            Record::StepCompleted { step, attempt, result, at } => {
                self.with_step(*step, |step| step.complete(*attempt, result, *at));
            }
            Record::AttemptFailed { step, attempt, failure, at, retry_at } => self.with_step(*step, |step| {
                step.end_attempt(*attempt, AttemptState::Failed(failure.clone()), *at);
                match retry_at {
                    Some(retry_at) => step.state = StepState::RetryAt(*retry_at),
                    None => step.die(failure, *at),
                }
            }),
            Record::AttemptInterrupted { step, attempt, cause, at } => {
                self.with_step(*step, |step| step.interrupt(*attempt, *cause, *at));
            }
            Record::StepDied { step, failure, at } => self.with_step(*step, |step| step.die(failure, *at)),
            Record::SleepStarted { key, until, at } => {
                self.call(opened(key, Call::Sleep { until: *until }, *at));
            }
            Record::SleepEnded { step, at } => {
                self.with_step(*step, |step| step.end(StepState::Completed(Json::null()), *at));
            }
            Record::WaitStarted { key, event, deadline, at } => {
                let call = Call::WaitForEvent { event: event.clone(), deadline: *deadline };
                self.call(opened(key, call, *at));
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
                let mut step = opened(key, Call::Capture, *at);
                step.end(StepState::Completed(value.clone()), *at);
                self.call(step);
            }
            Record::StepKept { step } => self.aside.push((**step).clone()),
            Record::StepAdopted { key, .. } => {
                if let Some(step) = self.take_aside(key) {
                    self.steps.push(step);
                }
            }
            Record::StepRetryAsked { key, overrides, at, .. } => {
                self.reopen(key, *at, |step| step.begin_anew(overrides, *at));
            }
            Record::StepResolved { key, outcome, by, at } => {
                self.reopen(key, *at, |step| step.resolve(outcome, by.as_deref(), *at));
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
        step.replaced = self.take_aside(&step.key).map(Box::new);
        self.steps.push(step);
    }

    fn take_aside(&mut self, key: &StepKey) -> Option<Step> {
        let place = self.aside.iter().position(|step| step.key == *key)?;
        Some(self.aside.remove(place))
    }

    /// Changes the dead step `key`. The handler has to be called again from the top, and may go
    /// another way from there on: what it called later is set aside.
    fn reopen(&mut self, key: &StepKey, at: Timestamp, change: impl FnOnce(&mut Step)) {
        if let Some(place) = self.steps.iter().position(|step| step.key == *key) {
            let mut later = self.steps.split_off(place + 1);
            later.iter_mut().for_each(|step| step.cut_off(at));
            later.append(&mut self.aside);
            self.aside = later;
            change(&mut self.steps[place]);
        } else if let Some(step) = self.aside.iter_mut().find(|step| step.key == *key) {
            change(step);
        } else {
            return;
        }
        self.held = None;
        if self.end.take().is_some() {
            // While it was over nobody worked at it, so its time begins anew.
            let allowed = self.facts.deadline.map(|deadline| deadline.ms_since(self.facts.created_at));
            self.deadline = allowed.map(|ms| at.plus_ms(ms));
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

fn opened(key: &StepKey, call: Call, at: Timestamp) -> Step {
    Step {
        key: key.clone(),
        call,
        started_at: at,
        ended_at: None,
        state: StepState::Open,
        attempts: Vec::new(),
        tried_before: 0,
        overrides: Overrides::default(),
        resolved: None,
        kept_from: None,
        replaced: None,
    }
}

fn started(start: &StepStarted) -> Step {
    let call = Call::Step {
        function: start.function.clone(),
        input: start.input.clone(),
        parts: start.parts.clone(),
        deadline: start.step_deadline,
    };
    let mut step = opened(&start.key, call, start.at);
    step.attempts.push(Attempt {
        number: 1,
        started_at: start.at,
        ended_at: None,
        state: AttemptState::Running,
    });
    step
}

/// What a handler hears when its wait `key` ends without its event.
pub(crate) fn wait_timed_out(key: &StepKey, event: &EventName) -> Failure {
    let mut failure =
        Failure::new(FailureKind::TimedOut, format!("no event \"{event}\" came in time for \"{key}\""));
    failure.step = Some(key.clone());
    failure
}

impl Step {
    fn end_attempt(&mut self, number: u32, state: AttemptState, at: Timestamp) {
        if let Some(attempt) = self.attempts.iter_mut().rev().find(|attempt| attempt.number == number) {
            attempt.state = state;
            attempt.ended_at = Some(at);
        }
    }

    fn complete(&mut self, attempt: u32, result: &Json, at: Timestamp) {
        self.end_attempt(attempt, AttemptState::Completed, at);
        self.end(StepState::Completed(result.clone()), at);
    }

    fn interrupt(&mut self, attempt: u32, cause: Interruption, at: Timestamp) {
        self.end_attempt(attempt, AttemptState::Interrupted(cause), at);
        // At once: nothing speaks against the next attempt.
        self.state = StepState::RetryAt(at);
    }

    /// Ends the attempt that is under way, if one is.
    fn cut_off(&mut self, at: Timestamp) {
        let running = self.attempts.iter().rev().find(|attempt| attempt.state == AttemptState::Running);
        if let Some(number) = running.map(|attempt| attempt.number) {
            self.interrupt(number, Interruption::Stopped, at);
        }
    }

    fn begin_anew(&mut self, overrides: &Overrides, at: Timestamp) {
        self.tried_before = self.attempts.last().map_or(0, |last| last.number);
        self.overrides = overrides.clone();
        self.state = StepState::RetryAt(at);
        self.ended_at = None;
        self.resolved = None;
        if let Call::Step { deadline, .. } = &mut self.call {
            *deadline = None;
        }
    }

    fn resolve(&mut self, outcome: &Result<Json, Failure>, by: Option<&str>, at: Timestamp) {
        self.resolved = Some(Resolved { by: by.map(str::to_owned), at });
        let state = match outcome {
            Ok(result) => StepState::Completed(result.clone()),
            Err(failure) => StepState::Dead(failure.clone()),
        };
        self.end(state, at);
    }

    fn die(&mut self, failure: &Failure, at: Timestamp) {
        self.end(StepState::Dead(failure.clone()), at);
    }

    fn end(&mut self, state: StepState, at: Timestamp) {
        self.state = state;
        self.ended_at = Some(at);
    }
}
