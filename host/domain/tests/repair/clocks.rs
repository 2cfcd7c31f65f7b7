//! What the clocks of a run and of its steps do in a repair, and while a step is held.

use super::*;

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
