//! What runs again after a repair, and what is kept.

use super::*;

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
