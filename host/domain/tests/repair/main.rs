//! Repairs within a run, case by case: what an admin can rely on after a retry, and what the clocks
//! of a held step do.

use stepbox_domain::{
    EventName, ExecutionId, Failure, FailureKind, Json, Run, RunId, StepKey, StepName, TaskName, Timestamp,
    decide::{Bound, Input, Reply, Until},
    journal::Record,
    leg::Leg,
    pause::{Hold, PauseRuleId},
    repair::{self, RepairError, RetryStep},
    retry::RetryPolicy,
    run::{Policy, RunFacts, StepState, Wait},
    step::{
        AttemptFailure, AttemptOutcome, AttemptState, Interruption, Overrides, StepInput, StepKind,
        StepOptions, StepStatus, TimeoutScope,
    },
};

mod clocks;
mod retries;

/// A run that is called from the top and asked call by call.
struct Bench {
    run: Run,
    leg: Leg,
    now: i64,
    records: Vec<Record>,
    options: StepOptions,
    hold: Option<Hold>,
}

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn key(text: &str) -> StepKey {
    StepKey::parse(text).unwrap()
}

fn json(text: &str) -> Json {
    Json::from(serde_json::json!(text))
}

fn bench(timeout_ms: Option<i64>) -> Bench {
    let execution = ExecutionId::parse("e-1").unwrap();
    let facts = RunFacts {
        run: RunId::new(&execution, 0),
        execution,
        index: 0,
        task: TaskName::parse("order").unwrap(),
        version: 1,
        created_at: at(0),
        deadline: timeout_ms.map(at),
    };
    let retry = RetryPolicy {
        attempts_max: 2,
        delay_first_ms: 100,
        growth_percent: 100,
        delay_max_ms: 100,
        jitter: false,
    };
    Bench {
        run: Run::new(facts, Policy { crashes_max: 3, attempt_wall_max_ms: 7_000, ..Policy::default() }),
        leg: Leg::default(),
        now: 1,
        records: Vec::new(),
        options: StepOptions { retry, timeout_ms: Some(1_000), timeout_scope: TimeoutScope::AllAttempts },
        hold: None,
    }
}

impl Bench {
    fn take(&mut self, input: Input<'_>) -> Reply {
        let decision = self.run.decide(input, at(self.now));
        self.apply(decision.records);
        decision.reply
    }

    fn apply(&mut self, records: Vec<Record>) {
        records.iter().for_each(|record| self.run.apply(record));
        self.records.extend(records);
        let read = Run::fold(self.run.facts().clone(), self.run.policy().clone(), &self.records);
        assert_eq!(read, self.run);
    }

    /// Drops the handler; the next call is its first.
    fn again(&mut self) -> &mut Self {
        self.leg = Leg::default();
        self
    }

    fn call(&mut self, name: &str, input: &str) -> Reply {
        let place = self.leg.place(StepName::parse(name).unwrap());
        let (input, options, hold) = (StepInput::of(&json(input)), self.options.clone(), self.hold.clone());
        let call = Input::StepCalled {
            place: &place,
            function: "f",
            input: &input,
            options: &options,
            hold: hold.as_ref(),
        };
        self.take(call)
    }

    /// The outcome of the last call's attempt.
    fn ends(&mut self, attempt: u32, outcome: AttemptOutcome) -> Reply {
        let index = self.leg.calls_made() - 1;
        let place = stepbox_domain::leg::Place { index, key: self.run.steps()[index as usize].key.clone() };
        let options = self.options.clone();
        self.take(Input::AttemptEnded { place: &place, attempt, outcome, receipt: None, options: &options })
    }

    fn completes(&mut self, name: &str, input: &str) {
        let Reply::Go { attempt, .. } = self.call(name, input) else { panic!("{name}") };
        self.ends(attempt, AttemptOutcome::Completed(json(&format!("result of {name} with {input}"))));
    }

    fn dies(&mut self, name: &str, input: &str) {
        let Reply::Go { attempt, .. } = self.call(name, input) else { panic!("{name}") };
        let failure = AttemptFailure::new(FailureKind::Error, "declined").not_retryable();
        self.ends(attempt, AttemptOutcome::Failed(failure));
        assert_eq!(self.status(name), StepStatus::Dead);
    }

    fn sleep(&mut self, name: &str, ms: u64) -> Reply {
        let place = self.leg.place(StepName::parse(name).unwrap());
        self.take(Input::Sleeps { place: &place, until: Until::After(ms) })
    }

    fn wait(&mut self, event: &str, timeout_ms: u64) -> Reply {
        let event = EventName::parse(event).unwrap();
        let place = self.leg.place(StepName::from(&event));
        self.take(Input::WaitsForEvent { place: &place, event: &event, timeout_ms: Some(timeout_ms) })
    }

    fn returns(&mut self, result: Result<Json, Failure>) {
        let calls_made = self.leg.calls_made();
        assert_eq!(self.take(Input::HandlerReturns { calls_made, result }), Reply::Stop);
    }

    fn retry(&mut self, step: &str, overrides: Overrides, version: Option<u32>) -> Result<(), RepairError> {
        let retry = RetryStep { step: key(step), overrides, version, by: None };
        let amendment = repair::plan_retry(&self.run, &retry, at(self.now))?;
        self.apply(vec![amendment.record]);
        self.again();
        Ok(())
    }

    fn retried(&mut self, step: &str) {
        self.retry(step, Overrides::default(), None).unwrap();
    }

    fn status(&self, step: &str) -> StepStatus {
        self.run.step(&key(step)).unwrap().status()
    }

    /// The attempt begins now and has until `deadline`.
    fn go(&self, attempt: u32, deadline: i64) -> Reply {
        Reply::Go { attempt, time_ms: (deadline - self.now).unsigned_abs(), bound: Bound::Timeout }
    }

    fn aside(&self) -> Vec<&str> {
        self.run.aside().iter().map(|step| step.key.as_str()).collect()
    }
}

fn answer(text: &str, ms: i64) -> Reply {
    Reply::Recorded { outcome: Ok(json(text)), at: at(ms) }
}
