use serde_json::json;
use stepbox_guest::testing::TestRun;
use stepbox_guest::{StepError, days, hours};

use super::*;

fn request() -> TestRun<approval> {
    TestRun::of::<approval>().payload(json!({
        "title": "a second monitor", "author": "ada@example.com", "approver": "bob@example.com",
    }))
}

fn answer(approved: bool) -> Answer {
    Answer { approved, by: "bob".into(), comment: "well".into() }
}

fn approved(reminded: bool) -> Decision {
    Decision { verdict: Verdict::Approved { by: "bob".into(), comment: "well".into() }, reminded }
}

#[test]
fn a_yes_in_time_approves() {
    let run = request().event_after(hours(5), "approval", answer(true)).run();

    assert_eq!(run.result(), Ok(&approved(false)));
    assert_eq!(run.calls(), ["ask bob@example.com", "approval", "tell ada@example.com"]);
    assert_eq!(run.took(), hours(5));
    run.assert_replays();
}

#[test]
fn a_no_rejects_with_its_reason() {
    let run = request().event("approval", answer(false)).run();

    let rejected = Verdict::Rejected { by: "bob".into(), comment: "well".into() };
    assert_eq!(run.result().unwrap().verdict, rejected);
}

#[test]
fn who_does_not_answer_is_reminded_once() {
    let run = request().event_after(days(2), "approval", answer(true)).run();

    assert_eq!(run.result(), Ok(&approved(true)));
    assert_eq!(
        run.calls(),
        ["ask bob@example.com", "approval", "remind bob@example.com", "approval#2", "tell ada@example.com"]
    );
    run.assert_replays();
}

#[test]
fn a_request_that_nobody_answers_times_out() {
    let run = request().run();

    assert_eq!(run.result(), Ok(&Decision { verdict: Verdict::TimedOut, reminded: true }));
    assert_eq!(run.took(), days(3));
}

#[test]
fn what_is_no_answer_is_passed_over() {
    let run = request().event("approval", "sure").event_after(hours(1), "approval", answer(true)).run();

    assert_eq!(run.result(), Ok(&approved(false)));
    run.assert_replays();
}

#[test]
fn the_time_to_answer_does_not_start_again_with_what_is_no_answer() {
    let run = request().event_after(hours(71), "approval", "hm").run();

    assert_eq!(run.took(), days(3));
}

#[test]
fn no_mail_is_sent_twice_however_often_the_host_dies() {
    let run = request().event_after(days(2), "approval", answer(true)).crash_after_each_record().run();

    assert_eq!(run.result(), Ok(&approved(true)));
    for mail in run.steps().iter().filter(|step| step.attempts > 0) {
        assert_eq!(mail.bodies_run, 1, "{}", mail.key);
    }
}

#[test]
fn a_mail_server_that_is_down_is_tried_again() {
    let run = request()
        .step::<ask>(|_, attempt| if attempt < 4 { Err(StepError::new("no answer")) } else { Ok(()) })
        .event("approval", answer(true))
        .run();

    assert_eq!(run.step("ask bob@example.com").attempts, 4);
    assert!(run.result().is_ok());
}
