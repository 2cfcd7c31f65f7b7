//! A call of the handler, as its run remembers it.

use serde::{Deserialize, Serialize};

use crate::{
    EventName, Failure, FailureKind, Json, Receipt, RunId, StepKey, Timestamp,
    journal::StepStarted,
    lineage::PartHash,
    step::{Attempt, AttemptState, InputHash, Interruption, Overrides, StepKind, StepStatus},
};

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
    /// About what it takes in memory, in bytes.
    pub fn size_bytes(&self) -> usize {
        let called = match &self.call {
            Call::Step { function, parts, .. } => function.len() + parts.len() * size_of::<PartHash>(),
            Call::Sleep { .. } | Call::WaitForEvent { .. } | Call::Capture => 0,
        };
        let came_to = match &self.state {
            StepState::Completed(result) => result.len_bytes(),
            StepState::TimedOut(failure) | StepState::Dead(failure) => failure.heap_bytes(),
            StepState::Open | StepState::RetryAt(_) => 0,
        };
        let attempts: usize =
            self.attempts.iter().map(|attempt| size_of::<Attempt>() + attempt.heap_bytes()).sum();
        let replaced = self.replaced.as_ref().map_or(0, |step| step.size_bytes());
        size_of::<Step>() + self.key.as_str().len() + called + came_to + attempts + replaced
    }

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

/// What a handler hears when its wait `key` ends without its event.
pub(crate) fn wait_timed_out(key: &StepKey, event: &EventName) -> Failure {
    let mut failure =
        Failure::new(FailureKind::TimedOut, format!("no event \"{event}\" came in time for \"{key}\""));
    failure.step = Some(key.clone());
    failure
}

/// As a record has it.
type Bill<'a> = Option<&'a Box<Receipt>>;

/// How records change it.
impl Step {
    /// A call that has no outcome yet.
    pub(super) fn opened(key: &StepKey, call: Call, at: Timestamp) -> Step {
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

    /// A step proper with its first attempt under way.
    pub(super) fn started(start: &StepStarted) -> Step {
        let call = Call::Step {
            function: start.function.clone(),
            input: start.input.clone(),
            parts: start.parts.clone(),
            deadline: None,
        };
        let mut step = Step::opened(&start.key, call, start.at);
        step.try_again(1, start.step_deadline, start.at);
        step
    }

    pub(super) fn try_again(&mut self, attempt: u32, step_deadline: Option<Timestamp>, at: Timestamp) {
        if let (Call::Step { deadline, .. }, Some(anew)) = (&mut self.call, step_deadline) {
            *deadline = Some(anew);
        }
        let state = AttemptState::Running;
        self.attempts.push(Attempt { number: attempt, started_at: at, ended_at: None, state, receipt: None });
        self.state = StepState::Open;
    }

    pub(super) fn complete(&mut self, attempt: u32, result: &Json, receipt: Bill<'_>, at: Timestamp) {
        self.end_attempt(attempt, AttemptState::Completed, receipt, at);
        self.end(StepState::Completed(result.clone()), at);
    }

    pub(super) fn fail(
        &mut self,
        attempt: u32,
        failure: &Failure,
        retry_at: Option<Timestamp>,
        receipt: Bill<'_>,
        at: Timestamp,
    ) {
        self.end_attempt(attempt, AttemptState::Failed(failure.clone()), receipt, at);
        match retry_at {
            Some(retry_at) => self.state = StepState::RetryAt(retry_at),
            None => self.die(failure, at),
        }
    }

    pub(super) fn interrupt(&mut self, attempt: u32, cause: Interruption, receipt: Bill<'_>, at: Timestamp) {
        self.end_attempt(attempt, AttemptState::Interrupted(cause), receipt, at);
        // At once: nothing speaks against the next attempt.
        self.state = StepState::RetryAt(at);
    }

    pub(super) fn die(&mut self, failure: &Failure, at: Timestamp) {
        self.end(StepState::Dead(failure.clone()), at);
    }

    pub(super) fn end(&mut self, state: StepState, at: Timestamp) {
        self.state = state;
        self.ended_at = Some(at);
    }

    /// All its attempts and its time from now on.
    pub(super) fn begin_anew(&mut self, overrides: Overrides, at: Timestamp) {
        self.tried_before = self.attempts.last().map_or(0, |last| last.number);
        self.overrides = overrides;
        self.state = StepState::RetryAt(at);
        self.ended_at = None;
        self.resolved = None;
        if let Call::Step { deadline, .. } = &mut self.call {
            *deadline = None;
        }
    }

    pub(super) fn resolve(&mut self, outcome: &Result<Json, Failure>, by: Option<&str>, at: Timestamp) {
        self.resolved = Some(Resolved { by: by.map(str::to_owned), at });
        let state = match outcome {
            Ok(result) => StepState::Completed(result.clone()),
            Err(failure) => StepState::Dead(failure.clone()),
        };
        self.end(state, at);
    }

    /// Ends the attempt that is under way, if one is: whoever ran it is interrupted in good order.
    pub(super) fn cut_off(&mut self, at: Timestamp) {
        let under_way = self.attempts.last().filter(|last| last.state == AttemptState::Running);
        if let Some(number) = under_way.map(|last| last.number) {
            self.interrupt(number, Interruption::Mended, None, at);
        }
    }

    /// What of it is worth keeping while nobody works at it. An outcome is. Without one it begins
    /// anew when it is called again, or its time would run out while it lies there; a sleep or a
    /// wait then has nothing to show.
    pub(super) fn set_aside(mut self, at: Timestamp) -> Option<Step> {
        if self.outcome().is_some() {
            return Some(self);
        }
        self.cut_off(at);
        let overrides = self.overrides.clone();
        self.begin_anew(overrides, at);
        (self.call.kind() == StepKind::Step).then_some(self)
    }

    /// Stands where `old` was expected. What an admin wants of a step that is to be tried again
    /// holds for it, whatever its input.
    pub(super) fn replace(&mut self, mut old: Step) {
        if old.outcome().is_none() {
            self.overrides = old.overrides.clone();
        }
        // One is enough to see what happened, and a chain could grow without end.
        old.replaced = None;
        self.replaced = Some(Box::new(old));
    }

    fn end_attempt(&mut self, number: u32, state: AttemptState, receipt: Bill<'_>, at: Timestamp) {
        if let Some(attempt) = self.attempts.iter_mut().rev().find(|attempt| attempt.number == number) {
            attempt.state = state;
            attempt.ended_at = Some(at);
            attempt.receipt = receipt.cloned();
        }
    }
}
