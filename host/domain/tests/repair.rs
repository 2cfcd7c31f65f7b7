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

#[test]
fn what_was_called_after_a_retried_step_answers_again() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    bench.completes("mail", "sorry");
    bench.returns(Ok(Json::null()));
    bench.now = 50;
    bench.retried("charge");
    assert_eq!(bench.aside(), ["mail"]);
    bench.completes("charge", "");
    bench.now = 90;
    assert_eq!(bench.call("mail", "sorry"), answer("result of mail with sorry", 1));
    assert_eq!(bench.aside(), [""; 0]);
    // Whether the adoption was written or lost, the answer is the same.
    assert_eq!(bench.records.pop(), Some(Record::StepAdopted { key: key("mail"), at: at(90) }));
    bench.run = Run::fold(bench.run.facts().clone(), bench.run.policy().clone(), &bench.records);
    bench.now = 120;
    bench.again().call("charge", "");
    assert_eq!(bench.call("mail", "sorry"), answer("result of mail with sorry", 1));
}

#[test]
fn with_another_input_it_runs_again_and_shows_what_it_was() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    bench.completes("mail", "sorry");
    bench.retried("charge");
    bench.completes("charge", "");
    bench.completes("mail", "thanks");
    let mail = bench.run.step(&key("mail")).unwrap();
    assert_eq!(mail.outcome(), Some(Ok(json("result of mail with thanks"))));
    assert_eq!(mail.replaced.as_ref().unwrap().outcome(), Some(Ok(json("result of mail with sorry"))));
}

/// A chain of what was before what was before would grow with each retry.
#[test]
fn a_step_shows_one_predecessor() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    for round in 0..5 {
        bench.completes("mail", &round.to_string());
        bench.retried("charge");
        bench.dies("charge", "");
    }
    bench.completes("mail", "last");
    let mail = bench.run.step(&key("mail")).unwrap();
    assert_eq!(mail.replaced.as_ref().unwrap().replaced, None);
    assert_eq!(bench.run.step(&key("charge")).unwrap().attempts.len(), 6);
}

#[test]
fn a_set_aside_step_without_an_outcome_begins_anew() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    assert_eq!(bench.call("mail", ""), bench.go(1, 1_001));
    bench.now = 600;
    bench.retried("charge");
    let mail = bench.run.step(&key("mail")).unwrap();
    assert_eq!((mail.attempts.len(), mail.tries(), mail.status()), (1, 0, StepStatus::Scheduled));
    // Long after the deadline that it had.
    bench.now = 5_000;
    bench.completes("charge", "");
    assert_eq!(bench.call("mail", ""), bench.go(2, 6_000));
    let failure = || AttemptOutcome::Failed(AttemptFailure::new(FailureKind::Error, "busy"));
    assert!(matches!(bench.ends(2, failure()), Reply::Wait(Wait::Retry { attempt: 3, .. })));
    bench.now = 5_100;
    bench.again().call("charge", "");
    assert_eq!(bench.call("mail", ""), bench.go(3, 6_000));
    assert!(
        matches!(bench.ends(3, failure()), Reply::Recorded { outcome: Err(_), .. }),
        "two attempts, as at first"
    );
}

#[test]
fn a_set_aside_sleep_or_wait_that_was_not_over_starts_anew() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    assert!(matches!(bench.wait("paid", 500), Reply::Wait(_)));
    bench.now = 400;
    bench.retried("charge");
    assert_eq!(bench.aside(), [""; 0]);
    bench.now = 1_000;
    bench.completes("charge", "");
    let Reply::Wait(Wait::Event { deadline, .. }) = bench.wait("paid", 500) else { panic!() };
    assert_eq!(deadline, Some(at(1_500)));
}

#[test]
fn a_sleep_that_was_over_is_the_same_only_with_the_same_length() {
    for (ms, slept_on) in [(50, true), (60, false)] {
        let mut bench = bench(None);
        bench.dies("charge", "");
        assert!(matches!(bench.sleep("nap", 50), Reply::Wait(_)));
        bench.now = 70;
        bench.again();
        bench.call("charge", "");
        assert!(matches!(bench.sleep("nap", 50), Reply::Recorded { .. }));
        bench.retried("charge");
        bench.completes("charge", "");
        let reply = bench.sleep("nap", ms);
        assert_eq!(
            matches!(reply, Reply::Recorded { at: then, .. } if then == at(51)),
            slept_on,
            "{reply:?}"
        );
        assert_eq!(matches!(reply, Reply::Wait(_)), !slept_on);
    }
}

#[test]
fn a_dead_step_that_lies_aside_can_be_retried_there() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    bench.dies("mail", "");
    bench.retried("charge");
    assert_eq!(bench.aside(), ["mail"]);
    let overrides = Overrides { attempts_max: Some(1), timeout_ms: Some(20) };
    bench.retry("mail", overrides, None).unwrap();
    assert_eq!(bench.aside(), ["mail"]);
    assert_eq!(
        bench.retry("mail", Overrides::default(), None),
        Err(RepairError::NotDead { step: key("mail"), status: StepStatus::Scheduled })
    );
    bench.now = 100;
    bench.completes("charge", "");
    assert_eq!(bench.call("mail", ""), bench.go(2, 120));
    assert!(matches!(
        bench.ends(2, AttemptOutcome::Failed(AttemptFailure::new(FailureKind::Error, "busy"))),
        Reply::Recorded { outcome: Err(_), .. }
    ));
}

#[test]
fn what_was_called_after_the_mended_step_is_named_as_set_aside() {
    let mut bench = bench(None);
    bench.completes("reserve", "");
    bench.dies("charge", "");
    bench.completes("release", "");
    let retry = RetryStep { step: key("charge"), overrides: Overrides::default(), version: None, by: None };
    for _ in 0..2 {
        let effects = repair::plan_retry(&bench.run, &retry, at(9)).unwrap().effects;
        assert_eq!(effects.runs, [key("charge")]);
        assert_eq!(effects.kept, [key("reserve"), key("release")]);
        assert_eq!(effects.set_aside, [key("release")]);
        // It dies again, and the goods stay released.
        bench.retried("charge");
        assert!(matches!(bench.call("reserve", ""), Reply::Recorded { .. }));
        bench.dies("charge", "");
    }
}

/// Whoever runs it is interrupted by the repair; the host has not died under it.
#[test]
fn an_attempt_under_way_is_cut_off_by_a_retry_of_a_step_that_lies_aside() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    bench.dies("mail", "");
    bench.retried("charge");
    assert!(matches!(bench.call("charge", ""), Reply::Go { .. }));
    bench.retried("mail");
    let attempts = &bench.run.step(&key("charge")).unwrap().attempts;
    assert_eq!(attempts.last().unwrap().state, AttemptState::Interrupted(Interruption::Mended));
    assert_eq!(bench.status("charge"), StepStatus::Scheduled);
}

/// Neither for ever nor from before: it begins with the first attempt that is known of.
#[test]
fn a_retried_steps_time_begins_with_its_first_attempt() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    bench.now = 2_000;
    bench.retried("charge");
    bench.now = 3_000;
    let unwritten = bench.records.len();
    assert_eq!(bench.call("charge", ""), bench.go(2, 4_000));
    // The host died before that was written: nobody knows of it.
    let written = bench.records.split_off(unwritten);
    bench.run = Run::fold(bench.run.facts().clone(), bench.run.policy().clone(), &bench.records);
    assert_eq!(bench.run.step(&key("charge")).unwrap().attempts.len(), 1);
    bench.apply(written);
    for (attempt, now) in [(3, 3_400), (4, 3_800)] {
        bench.now = now;
        assert_eq!(bench.again().call("charge", ""), bench.go(attempt, 4_000), "it crashed under each");
    }
    assert_eq!(bench.run.steps()[0].crashes_in_a_row(), 2);
    bench.now = 3_900;
    let Reply::Recorded { outcome: Err(failure), .. } = bench.again().call("charge", "") else { panic!() };
    assert_eq!(failure.kind, FailureKind::HostCrashed);
    bench.retried("charge");
    assert_eq!(bench.run.steps()[0].crashes_in_a_row(), 0);
    bench.now = 9_000;
    assert_eq!(bench.call("charge", ""), bench.go(5, 10_000));
}

#[test]
fn overrides_count_in_both_scopes() {
    for (scope, deadlines) in [
        (TimeoutScope::AllAttempts, [2_050, 2_050, 2_050]),
        (TimeoutScope::PerAttempt, [2_050, 2_070, 2_090]),
    ] {
        let mut bench = bench(None);
        bench.options.timeout_scope = scope;
        bench.options.retry.delay_first_ms = 10;
        bench.dies("charge", "");
        bench.now = 2_000;
        let overrides = Overrides { attempts_max: Some(3), timeout_ms: Some(50) };
        bench.retry("charge", overrides, None).unwrap();
        for (attempt, deadline) in (2..).zip(deadlines) {
            assert_eq!(bench.again().call("charge", ""), bench.go(attempt, deadline));
            let failure = AttemptFailure::new(FailureKind::Error, "busy");
            let reply = bench.ends(attempt, AttemptOutcome::Failed(failure));
            assert_eq!(matches!(reply, Reply::Wait(_)), attempt < 4, "{reply:?}");
            bench.now += 20;
        }
        assert_eq!(bench.status("charge"), StepStatus::Dead);
    }
}

#[test]
fn another_version_may_call_the_step_otherwise() {
    for (name, input) in [("charge", ""), ("charge", "fixed"), ("charge-card", "")] {
        let mut bench = bench(None);
        bench.completes("reserve", "");
        bench.dies("charge", "");
        bench.returns(Err(Failure::new(FailureKind::Error, "no charge")));
        bench.now = 500;
        let overrides = Overrides { attempts_max: None, timeout_ms: Some(40) };
        bench.retry("charge", overrides, Some(2)).unwrap();
        assert_eq!(bench.call("reserve", ""), answer("result of reserve with ", 1));
        let (attempt, deadline) = match (name, input) {
            ("charge", "") => (2, 540),
            ("charge", _) => (1, 540),
            _ => (1, 1_500),
        };
        assert_eq!(bench.call(name, input), bench.go(attempt, deadline), "{name} {input}");
        bench.ends(attempt, AttemptOutcome::Completed(Json::null()));
        bench.returns(Ok(Json::null()));
    }
}

#[test]
fn a_run_that_was_over_has_its_time_anew_and_one_that_goes_on_has_what_is_left() {
    let mut bench = bench(Some(1_000));
    bench.dies("charge", "");
    bench.now = 300;
    bench.retried("charge");
    assert_eq!(bench.run.deadline(), Some(at(1_000)));
    bench.dies("charge", "");
    bench.returns(Err(Failure::new(FailureKind::Error, "no charge")));
    bench.now = 50_000;
    bench.retried("charge");
    assert_eq!((bench.run.deadline(), bench.run.clock_read()), (Some(at(51_000)), at(50_000)));
    bench.now = 51_000;
    bench.call("charge", "");
    let Some(Record::RunFailed { failure, .. }) = bench.records.last() else { panic!() };
    assert!(
        failure.message.contains("within 1000 ms") && failure.message.contains("last repair"),
        "{failure}"
    );
}

#[test]
fn only_a_dead_step_is_mended_and_never_in_a_cancelled_run() {
    let mut bench = bench(None);
    bench.completes("reserve", "");
    bench.dies("charge", "");
    let not_dead = RepairError::NotDead { step: key("reserve"), status: StepStatus::Completed };
    assert_eq!(bench.retry("reserve", Overrides::default(), None), Err(not_dead));
    assert!(matches!(bench.retry("ship", Overrides::default(), None), Err(RepairError::NoSuchStep { .. })));
    // Not even by a journal that somebody edited.
    let asked = |step: &str| Record::StepRetryAsked {
        key: key(step),
        overrides: Overrides::default(),
        version: None,
        by: None,
        at: at(9),
    };
    let before = bench.run.clone();
    bench.apply(vec![asked("reserve"), asked("ship")]);
    assert_eq!(bench.run, before);
    bench.apply(vec![Record::RunCancelled { by: None, at: at(5) }]);
    assert_eq!(bench.retry("charge", Overrides::default(), None), Err(RepairError::Cancelled));
    let before = bench.run.clone();
    bench.apply(vec![asked("charge")]);
    assert_eq!(bench.run, before);
}

#[test]
fn a_result_put_in_by_hand_is_heard_and_a_failure_can_be_mended_again() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    for outcome in [Err(Failure::new(FailureKind::Error, "by hand")), Ok(json("by hand"))] {
        let by = Some("ada".to_owned());
        let amendment =
            repair::plan_resolve(&bench.run, &key("charge"), outcome.clone(), by, at(77)).unwrap();
        assert_eq!(amendment.effects.kept, [key("charge")]);
        bench.apply(vec![amendment.record]);
        let outcome = outcome.map_err(|failure| failure.of_step(key("charge"), 1));
        assert_eq!(bench.again().call("charge", ""), Reply::Recorded { outcome, at: at(77) });
        assert_eq!(bench.run.steps()[0].resolved.as_ref().unwrap().by.as_deref(), Some("ada"));
    }
    assert_eq!(bench.status("charge"), StepStatus::Completed);
}

fn hold(by_step: bool) -> Option<Hold> {
    Some(Hold { rule: PauseRuleId::new("rule-1"), until: None, by_step })
}

#[test]
fn a_held_step_does_not_die_of_its_time_while_it_is_held() {
    let mut bench = bench(Some(100_000));
    let Reply::Go { .. } = bench.call("charge", "") else { panic!() };
    bench.ends(1, AttemptOutcome::Failed(AttemptFailure::new(FailureKind::Error, "busy")));
    bench.hold = hold(true);
    // Not yet: until then it waits for its next attempt.
    bench.now = 50;
    assert!(matches!(bench.again().call("charge", ""), Reply::Wait(Wait::Retry { .. })));
    assert_eq!(bench.run.held(), None);
    bench.now = 200;
    for now in [200, 5_000] {
        bench.now = now;
        assert!(matches!(bench.again().call("charge", ""), Reply::Wait(Wait::Pause { .. })));
        assert_eq!(bench.run.held().map(|held| held.since), Some(at(200)));
    }
    bench.hold = None;
    bench.apply(vec![Record::ClockStood { ms: 4_800, until: at(5_000) }]);
    assert_eq!((bench.run.deadline(), bench.run.clock_read()), (Some(at(104_800)), at(5_000)));
    assert_eq!(bench.again().call("charge", ""), bench.go(2, 5_801));
    assert_eq!(bench.run.held(), None);
}

/// Or the time for which it was held would be missing from the run's clock.
#[test]
fn a_run_that_is_mended_while_it_is_held_stays_held_until_something_starts() {
    let mut bench = bench(Some(1_000));
    bench.dies("charge", "");
    bench.hold = hold(true);
    bench.now = 10;
    assert!(matches!(bench.call("mail", ""), Reply::Wait(Wait::Pause { .. })));
    bench.now = 900;
    bench.retried("charge");
    assert_eq!(bench.run.held().map(|held| held.since), Some(at(10)));
    bench.hold = None;
    assert!(matches!(bench.call("charge", ""), Reply::Go { .. }));
    assert_eq!(bench.run.held(), None);
}

#[test]
fn what_is_adopted_is_held_no_more() {
    let mut bench = bench(None);
    bench.dies("charge", "");
    bench.completes("mail", "");
    bench.retried("charge");
    bench.completes("charge", "");
    bench.apply(vec![Record::StepHeld { key: key("mail"), at: at(3) }]);
    bench.call("mail", "");
    assert_eq!(bench.run.held(), None);
}

/// A hold of the whole run is known from its rule alone.
#[test]
fn a_hold_of_the_whole_run_leaves_no_record_at_the_step() {
    let mut bench = bench(None);
    bench.hold = hold(false);
    assert!(matches!(bench.call("charge", ""), Reply::Wait(Wait::Pause { .. })));
    assert!(bench.records.is_empty());
}

/// Late, after the step was given up or the run was mended: it cannot come to another end.
#[test]
fn a_step_that_is_over_ends_no_second_time() {
    let mut bench = bench(None);
    bench.completes("charge", "");
    let before = bench.records.len();
    assert_eq!(bench.ends(1, AttemptOutcome::Completed(json("late"))), Reply::Leave);
    assert_eq!(bench.ends(2, AttemptOutcome::Interrupted), Reply::Leave);
    assert_eq!(bench.records.len(), before);
    assert!(matches!(bench.run.steps()[0].state, StepState::Completed(_)));
    assert_eq!(bench.run.steps()[0].call.kind(), StepKind::Step);
}

#[test]
fn kept_steps_count_as_calls_when_they_are_made() {
    let mut bench = bench(None);
    bench.run = Run::new(bench.run.facts().clone(), Policy { steps_max: 2, ..Policy::default() });
    bench.dies("charge", "");
    bench.completes("mail", "");
    bench.retried("charge");
    bench.completes("charge", "");
    assert!(matches!(bench.call("mail", ""), Reply::Recorded { .. }));
    assert_eq!(bench.call("ship", ""), Reply::Stop);
    let Some(Record::RunFailed { failure, .. }) = bench.records.last() else { panic!() };
    assert_eq!(failure.kind, FailureKind::OverLimit);
}
