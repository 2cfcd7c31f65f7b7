//! Sleeps, waits, captures, crashes and replays, in the journal of a test.

use std::cell::Cell;
use std::time::{Duration, SystemTime};

use serde::Deserialize;
use serde_json::json;
use stepbox_guest::testing::TestRun;
use stepbox_guest::{
    FailureKind, StepError, TaskError, capture, days, hours, minutes, now, seconds, sleep, sleep_until, step,
    task, wait_event, wait_event_forever,
};

mod time {
    use super::*;

    #[task]
    fn sleeps() -> Result<u64, TaskError> {
        let start = now();
        sleep("a while", minutes(5));
        sleep_until("tomorrow", start + days(1));
        sleep_until("yesterday", start);
        Ok(now().duration_since(start)?.as_secs())
    }

    #[test]
    fn a_sleep_moves_the_clock_and_takes_no_time() {
        let began = std::time::Instant::now();
        let start = SystemTime::UNIX_EPOCH + days(20_000);
        let run = TestRun::of::<sleeps>().started_at(start).run();

        assert_eq!(run.result(), Ok(&86_400));
        assert_eq!(run.took(), days(1));
        assert_eq!(run.step("tomorrow").took, days(1) - minutes(5));
        assert!(began.elapsed() < Duration::from_secs(5));
        run.assert_replays();
    }

    mod deadline {
        use super::*;

        #[task(timeout = "1h")]
        pub fn dawdles() -> Result<(), TaskError> {
            sleep("too long", hours(2));
            Ok(())
        }
    }

    #[test]
    fn a_run_ends_at_its_deadline() {
        let run = TestRun::of::<deadline::dawdles>().run();

        assert_eq!(run.failure().kind, FailureKind::TimedOut);
        assert_eq!(run.took(), hours(1));
    }
}

mod events {
    use super::*;

    #[derive(Debug, PartialEq, Deserialize)]
    struct Vote {
        yes: bool,
    }

    #[task]
    fn counts() -> Result<Vec<bool>, TaskError> {
        let mut votes = Vec::new();
        loop {
            match wait_event::<Vote>("vote", hours(1)) {
                Ok(vote) => votes.push(vote.yes),
                Err(failure) if failure.is_timeout() => return Ok(votes),
                Err(failure) => return Err(failure.into()),
            }
        }
    }

    #[test]
    fn events_are_consumed_once_and_in_their_order() {
        let run = TestRun::of::<counts>()
            .event_after(minutes(90), "vote", json!({ "yes": true }))
            .event("vote", json!({ "yes": true }))
            .event("veto", json!({}))
            .event_after(minutes(50), "vote", json!({ "yes": false }))
            .run();

        assert_eq!(run.result().unwrap(), &[true, false, true]);
        assert_eq!(run.took(), minutes(150));
        run.assert_replays();
    }

    #[test]
    fn an_event_that_does_not_fit_is_told_with_its_payload() {
        let failure = TestRun::of::<counts>().event("vote", "yes").run().failure();

        assert!(failure.message.starts_with("the payload of the event `vote` does not fit"), "{failure}");
        assert_eq!(failure.details, Some(json!("yes")));
    }

    mod for_ever {
        use super::*;

        #[task]
        pub fn waits() -> Result<u8, TaskError> {
            Ok(wait_event_forever("go")?)
        }
    }

    #[test]
    fn a_run_that_waits_for_what_never_comes_says_for_what() {
        let run = TestRun::of::<for_ever::waits>().run();

        assert_eq!(run.waits_for(), Some("go"));
        assert_eq!(TestRun::of::<for_ever::waits>().event_after(days(900), "go", 7).run().result(), Ok(&7));
    }
}

mod replay {
    use super::*;

    thread_local! {
        static CALLS: Cell<u32> = const { Cell::new(0) };
    }

    fn count() -> u32 {
        CALLS.replace(CALLS.get() + 1)
    }

    #[step(retry = fixed(3, "1s"))]
    fn deed(n: u32) -> Result<u32, StepError> {
        if stepbox_guest::attempt() < 2 { Err("not yet".into()) } else { Ok(n * 10) }
    }

    #[task]
    fn captures() -> Result<(u32, u32), TaskError> {
        let captured = capture("count", count)?;
        let done = deed(captured)?;
        sleep("a bit", seconds(1));
        let told: u32 = wait_event("tell", hours(1))?;
        Ok((captured, done + told))
    }

    #[test]
    fn what_was_captured_stays_though_the_host_dies_again_and_again() {
        let run = TestRun::of::<captures>().event("tell", 5).crash_after_each_record().run();

        let (captured, sum) = *run.result().unwrap();
        assert_eq!(sum, captured * 10 + 5);
        assert!(CALLS.get() > 3, "the handler was called again");
        assert_eq!(run.step("deed").bodies_run, 2, "one that failed, one that did not");
        run.assert_replays();
    }

    #[test]
    fn a_step_that_nobody_recorded_runs_again() {
        let run = TestRun::of::<captures>().event("tell", 5).crash_during::<deed>().run();

        let deed = run.step("deed");
        assert_eq!((deed.attempts, deed.bodies_run), (2, 2));
    }

    mod astray {
        use super::*;

        #[task]
        pub fn strays() -> Result<(), TaskError> {
            deed(count())?;
            Ok(())
        }
    }

    #[test]
    #[should_panic(expected = "the same step with another input")]
    fn a_handler_that_goes_another_way_is_found() {
        TestRun::of::<astray::strays>().run().assert_replays();
    }

    #[test]
    fn a_handler_that_goes_another_way_fails_its_run() {
        let failure = TestRun::of::<astray::strays>().crash_after_each_record().run().failure();

        assert_eq!(failure.kind, FailureKind::Diverged);
    }

    mod other_end {
        use super::*;

        #[task]
        pub fn wanders() -> Result<u32, TaskError> {
            Ok(count())
        }
    }

    #[test]
    #[should_panic(expected = "the handler came to another end")]
    fn a_handler_that_comes_to_another_result_is_found() {
        TestRun::of::<other_end::wanders>().run().assert_replays();
    }

    mod panics {
        use super::*;

        #[task]
        pub fn falls(n: u32) -> Result<u32, TaskError> {
            assert!(n > 3, "{n} is too few");
            Ok(n)
        }
    }

    #[test]
    fn a_handler_that_panics_fails_its_run() {
        let failure = TestRun::of::<panics::falls>().payload(2).run().failure();

        assert_eq!(failure.kind, FailureKind::Trapped);
        assert_eq!(failure.message, "the handler panicked: 2 is too few");
    }
}
