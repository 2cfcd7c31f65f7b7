//! One execution with all that can be known of it: its runs, their steps, the steps' attempts.

use serde::Serialize;
use stepbox_domain::{
    self as domain, ExecutionId, Failure, Json, RunId, StepKey, Timestamp,
    run::{Call, StepState},
    step::{AttemptState, InputHash, Interruption, StepStatus},
};

use super::{Execution, Time, executions::ExecutionError, receipt::Receipt};
use crate::store::RunView;

/// The answer to a detail, borrowed from the run that it shows.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Detail<'a> {
    pub execution: Execution,
    /// Oldest first.
    pub runs: Vec<Run>,
    /// The run that the steps are of.
    run_id: &'a RunId,
    /// When that run's time is up, given the pauses so far.
    deadline: Option<Time>,
    /// In the order of the handler's calls; then those that wait to be called again.
    steps: Vec<Step<'a>>,
    /// How many steps the run has, whether or not they are all here.
    steps_total: usize,
}

impl<'a> Detail<'a> {
    /// With the steps of `run` from number `offset` (from 0) on, at most `limit`.
    pub fn new(
        execution: Execution,
        runs: Vec<Run>,
        run: &'a domain::Run,
        offset: usize,
        limit: usize,
    ) -> Self {
        let id = &run.facts().run;
        let called = run.steps().iter().map(|step| (step, false));
        let aside = run.aside().iter().map(|step| (step, true));
        let over_at = run.end().map(|end| end.at);
        Detail {
            execution,
            runs,
            run_id: id,
            deadline: run.deadline().map(Time),
            steps: called
                .chain(aside)
                .skip(offset)
                .take(limit)
                .map(|(step, awaiting_call)| Step::new(id, step, awaiting_call, over_at))
                .collect(),
            steps_total: run.steps().len() + run.aside().len(),
        }
    }
}

/// One go at an execution.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Run {
    run_id: RunId,
    execution_id: ExecutionId,
    /// From 0.
    run_index: u32,
    payload: Json,
    status: &'static str,
    result: Option<Json>,
    error: Option<ExecutionError>,
    created_at: Time,
    /// When a worker first took it up.
    started_at: Option<Time>,
    completed_at: Option<Time>,
    /// `initial`, `restart` or `selective_rerun`.
    trigger: &'static str,
    triggered_by: Option<String>,
    module_version: u32,
}

impl Run {
    pub fn new(execution: &ExecutionId, view: RunView) -> Self {
        Run {
            run_id: view.run,
            execution_id: execution.clone(),
            run_index: view.index,
            payload: view.payload,
            status: view.status.as_str(),
            result: view.result,
            error: view.error.map(Into::into),
            created_at: Time(view.created_at),
            started_at: view.started_at.map(Time),
            completed_at: view.completed_at.map(Time),
            trigger: view.trigger.as_str(),
            triggered_by: view.triggered_by,
            module_version: view.version,
        }
    }
}

/// One durable call of the handler.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Step<'a> {
    step_id: String,
    /// Its key: `charge`, and `charge#2` for the second call of that name.
    name: &'a StepKey,
    kind: &'static str,
    status: &'static str,
    /// Retries so far.
    retry_attempt: usize,
    result: Option<&'a Json>,
    /// The message of what keeps it from being completed.
    last_error: Option<&'a str>,
    /// All that is known of that.
    failure: Option<WholeFailure<'a>>,
    /// Whether it is dead, and can be mended.
    retryable: bool,
    scheduled_at: Time,
    completed_at: Option<Time>,
    attempts: Vec<Attempt<'a>>,
    /// What `run-step` dispatches on; of a step proper.
    function: Option<&'a str>,
    input_hash: Option<&'a InputHash>,
    /// The name of the event that is waited for.
    event: Option<&'a str>,
    /// When its time is up; of a sleep, when it ends.
    deadline: Option<Time>,
    next_attempt_at: Option<Time>,
    /// The earlier run that its result was kept from.
    kept_from_run: Option<&'a RunId>,
    /// Kept or set aside, and not called again yet.
    awaiting_call: bool,
    /// Whether its outcome was put in by hand, and who did.
    resolved: bool,
    resolved_by: Option<&'a str>,
    resolved_at: Option<Time>,
    /// Whether something was kept under this name and could not answer: the call was another, most
    /// often by its input. `replaced` is what had been kept.
    input_changed: bool,
    replaced: Option<Box<Step<'a>>>,
}

impl<'a> Step<'a> {
    /// `over_at`: when the run ended, if it did.
    fn new(
        run: &RunId,
        step: &'a domain::run::Step,
        awaiting_call: bool,
        over_at: Option<Timestamp>,
    ) -> Self {
        let (function, input_hash) = match &step.call {
            Call::Step { function, input, .. } => (Some(function.as_str()), Some(input)),
            _ => (None, None),
        };
        let event = match &step.call {
            Call::WaitForEvent { event, .. } => Some(event.as_str()),
            _ => None,
        };
        let deadline = match &step.call {
            Call::Step { deadline, .. } | Call::WaitForEvent { deadline, .. } => *deadline,
            Call::Sleep { until } => Some(*until),
            Call::Capture => None,
        };
        let result = match &step.state {
            StepState::Completed(result) => Some(result),
            _ => None,
        };
        let status = match (step.status(), over_at) {
            // In a run that is over nothing is under way.
            (StepStatus::Running, Some(_)) => StepStatus::Scheduled,
            (status, _) => status,
        };
        let failure = failure(step);
        Step {
            step_id: format!("{run}:step:{}", step.key),
            name: &step.key,
            kind: step.call.kind().as_str(),
            status: status.as_str(),
            retry_attempt: step.attempts.len().saturating_sub(1),
            result,
            last_error: failure.map(|failure| failure.message.as_str()),
            failure: failure.map(Into::into),
            retryable: status == StepStatus::Dead,
            scheduled_at: Time(step.started_at),
            completed_at: step.ended_at.map(Time),
            attempts: step.attempts.iter().map(|attempt| Attempt::new(attempt, result, over_at)).collect(),
            function,
            input_hash,
            event,
            deadline: deadline.map(Time),
            next_attempt_at: match (&step.state, over_at) {
                (StepState::RetryAt(at), None) => Some(Time(*at)),
                _ => None,
            },
            kept_from_run: step.kept_from.as_ref(),
            awaiting_call,
            resolved: step.resolved.is_some(),
            resolved_by: step.resolved.as_ref().and_then(|resolved| resolved.by.as_deref()),
            resolved_at: step.resolved.as_ref().map(|resolved| Time(resolved.at)),
            input_changed: step.replaced.is_some(),
            replaced: step
                .replaced
                .as_deref()
                .map(|replaced| Box::new(Step::new(run, replaced, false, over_at))),
        }
    }
}

/// What keeps a step from being completed, or ended a wait without its event.
fn failure(step: &domain::run::Step) -> Option<&Failure> {
    match &step.state {
        StepState::Completed(_) => None,
        StepState::Dead(failure) | StepState::TimedOut(failure) => Some(failure),
        StepState::Open | StepState::RetryAt(_) => {
            step.attempts.iter().rev().find_map(|attempt| match &attempt.state {
                AttemptState::Failed(failure) => Some(failure),
                _ => None,
            })
        }
    }
}

/// One try of a step.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Attempt<'a> {
    /// From 1.
    attempt_number: u32,
    /// `running`, `completed` or `failed`.
    status: &'static str,
    result: Option<&'a Json>,
    error: Option<&'a str>,
    failure: Option<WholeFailure<'a>>,
    started_at: Time,
    completed_at: Option<Time>,
    /// Why it was cut off, which says nothing about the step and used up no attempt of its policy:
    /// `host_stopped`, `host_crashed`, `run_mended` or `run_over`.
    interrupted: Option<&'static str>,
    /// What it took. None while it is under way, and where the host died under it.
    receipt: Option<Receipt<'a>>,
}

impl<'a> Attempt<'a> {
    fn new(
        attempt: &'a domain::step::Attempt,
        result_of_step: Option<&'a Json>,
        over_at: Option<Timestamp>,
    ) -> Self {
        let mut shown = Attempt {
            attempt_number: attempt.number,
            status: "failed",
            result: None,
            error: None,
            failure: None,
            started_at: Time(attempt.started_at),
            completed_at: attempt.ended_at.map(Time),
            interrupted: None,
            receipt: attempt.receipt.as_deref().map(Into::into),
        };
        match &attempt.state {
            AttemptState::Completed => {
                shown.status = "completed";
                shown.result = result_of_step;
            }
            AttemptState::Failed(failure) => {
                shown.error = Some(&failure.message);
                shown.failure = Some(failure.into());
            }
            AttemptState::Interrupted(Interruption::Stopped) => {
                shown.interrupted = Some("host_stopped");
                shown.error = Some("the host stopped before it was done");
            }
            AttemptState::Interrupted(Interruption::Crashed) => {
                shown.interrupted = Some("host_crashed");
                shown.error = Some("the host died, or lost its claim, before it was done");
            }
            AttemptState::Interrupted(Interruption::Mended) => {
                shown.interrupted = Some("run_mended");
                shown.error = Some("an earlier step was mended before it was done");
            }
            AttemptState::Running => match over_at {
                None => shown.status = "running",
                Some(at) => {
                    shown.interrupted = Some("run_over");
                    shown.error = Some("the run was ended before it was done");
                    shown.completed_at = Some(Time(at));
                }
            },
        }
        shown
    }
}

/// A failure with all that is known of it.
#[derive(Serialize)]
struct WholeFailure<'a> {
    kind: &'static str,
    message: &'a str,
    step: Option<&'a StepKey>,
    attempt: Option<u32>,
    details: Option<&'a Json>,
    backtrace: Option<&'a str>,
    logs: &'a [String],
}

impl<'a> From<&'a Failure> for WholeFailure<'a> {
    fn from(failure: &'a Failure) -> Self {
        WholeFailure {
            kind: failure.kind.as_str(),
            message: &failure.message,
            step: failure.step.as_ref(),
            attempt: failure.attempt,
            details: failure.details.as_ref(),
            backtrace: failure.backtrace.as_deref(),
            logs: &failure.logs,
        }
    }
}
