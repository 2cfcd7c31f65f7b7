//! What became of a run under test.

use std::time::Duration;

use serde_json::Value;
use stepbox_domain::Run;
use stepbox_domain::run::{RunOutcome, Step, Wait};

use super::session::{State, run_to_rest};
use super::{Crashes, Setup, convert};
use crate::{Failure, Task};

/// A run that came to its end, or that waits for what never comes.
///
/// What is asked of it panics with a message that says how the run stands, where there is no
/// answer: a test fails with that.
pub struct Finished<T: Task> {
    setup: Setup,
    output: Option<T::Output>,
    state: State,
}

/// What became of one durable call: a step, a sleep, a wait or a capture.
#[derive(Debug, Clone, PartialEq)]
pub struct StepRun {
    /// `charge`, or `charge#2` for the second call of that name.
    pub key: String,
    /// How often a step was attempted; 0 for a sleep, a wait and a capture.
    pub attempts: u32,
    /// How often the step's body, or the test's own function in its place, was run.
    pub bodies_run: u32,
    /// What the handler heard. A sleep gives `null`.
    pub outcome: Result<Value, Failure>,
    /// In virtual time.
    pub took: Duration,
}

impl<T: Task> Finished<T> {
    pub(super) fn new(setup: Setup, output: Option<T::Output>, state: State) -> Finished<T> {
        Finished { setup, output, state }
    }

    /// How the run ended.
    ///
    /// Panics when it did not: it waits for what never comes.
    #[track_caller]
    pub fn result(&self) -> Result<&T::Output, Failure> {
        match (outcome(&self.state.run), &self.output) {
            (Some(Err(failure)), _) => Err(failure),
            (Some(Ok(_)), Some(output)) => Ok(output),
            _ => panic!("the run is not over: {}", self.standing()),
        }
    }

    /// The failure of a run that failed.
    ///
    /// Panics when it did not.
    #[track_caller]
    pub fn failure(&self) -> Failure {
        match self.result() {
            Err(failure) => failure,
            Ok(_) => panic!("the run completed"),
        }
    }

    /// The name of the event that the run waits for, if that is why it is not over.
    pub fn waits_for(&self) -> Option<&str> {
        match &self.state.stuck_at {
            Some(Wait::Event { event, .. }) => Some(event.as_str()),
            _ => None,
        }
    }

    /// The keys of all durable calls that the handler made, in their order.
    pub fn calls(&self) -> Vec<&str> {
        self.state.run.steps().iter().map(|step| step.key.as_str()).collect()
    }

    /// What became of all durable calls, in their order.
    pub fn steps(&self) -> Vec<StepRun> {
        self.state.run.steps().iter().map(|step| self.step_run(step)).collect()
    }

    /// What became of one durable call.
    ///
    /// Panics when there is none of that key.
    #[track_caller]
    pub fn step(&self, key: &str) -> StepRun {
        match self.state.run.steps().iter().find(|step| step.key.as_str() == key) {
            Some(step) => self.step_run(step),
            None => panic!("no call has the key `{key}`; there are {:?}", self.calls()),
        }
    }

    /// How long the run took, in virtual time.
    pub fn took(&self) -> Duration {
        Duration::from_millis(self.state.clock.ms_since(self.setup.facts.created_at))
    }

    /// Calls the handler again with the journal of this run, as a host does after a restart.
    ///
    /// Panics when it makes other calls than before, comes to another result, or when a step
    /// runs again: the handler is not deterministic. What it does outside of its steps may
    /// depend on its payload and on what its calls answered, and on nothing else. (A component
    /// sees virtual time and randomness there; a test sees the real ones. The order of a
    /// `HashMap` differs in each run of a test: sort, or use a `BTreeMap`.)
    #[track_caller]
    pub fn assert_replays(&self) {
        let mut journal = self.state.records.clone();
        if self.state.run.end().is_some() {
            journal.pop();
        }
        let before = Run::fold(self.setup.facts.clone(), self.setup.policy.clone(), &journal);
        // What came is in the journal.
        let setup = Setup { events: Vec::new(), crashes: Crashes::default(), ..self.setup.clone() };
        let (_, again) = run_to_rest::<T>(&setup, journal);

        assert!(again.bodies_run.is_empty(), "steps ran again: {:?}", again.bodies_run.keys());
        let new: Vec<_> = again.run.steps().iter().skip(before.steps().len()).map(|step| &step.key).collect();
        assert!(new.is_empty(), "the handler made calls that it did not make before: {new:?}");
        assert_eq!(outcome(&again.run), outcome(&self.state.run), "the handler came to another end");
    }

    fn step_run(&self, step: &Step) -> StepRun {
        let key = step.key.to_string();
        let open = |_| Failure::misuse(format!("`{key}` has no outcome: {}", self.standing()));
        StepRun {
            attempts: u32::try_from(step.attempts.len()).unwrap_or(u32::MAX),
            bodies_run: self.state.bodies_run.get(&key).copied().unwrap_or(0),
            outcome: step.outcome().ok_or(()).map_err(open).and_then(convert::value),
            took: Duration::from_millis(step.ended_at.unwrap_or(self.state.clock).ms_since(step.started_at)),
            key,
        }
    }

    fn standing(&self) -> String {
        match (&self.state.stuck_at, outcome(&self.state.run)) {
            (Some(Wait::Event { event, .. }), _) => {
                format!("it waits for the event `{event}`, which never comes")
            }
            (_, Some(Err(failure))) => format!("the run failed: {failure}"),
            _ => "it stands still".to_owned(),
        }
    }
}

fn outcome(run: &Run) -> Option<Result<Value, Failure>> {
    match &run.end()?.outcome {
        RunOutcome::Completed(result) => Some(Ok(result.to_value().unwrap_or_default())),
        RunOutcome::Failed(failure) => Some(Err(failure.clone().into())),
        RunOutcome::Cancelled { .. } => None,
    }
}
