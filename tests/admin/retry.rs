//! `POST …/retry-step`: a dead step is tried again, in its run. (With other limits: `retry_overrides`.)

use futures_util::future::join_all;

use crate::harness::*;

fn fails_once() -> Value {
    json!({ "failures": 1 })
}

#[tokio::test]
async fn after_the_run_failed_it_goes_on_in_the_same_run_with_the_next_attempt() {
    let server = Server::start().await;
    let lines = [step("before"), step_with("charge", fails_once()), wait_event("go"), step("after")];
    server.play("o-1", &script(lines)).await;
    let failed = server.detail("o-1").await;
    assert_eq!(steps_in(&failed), ["before completed", "charge dead"]);
    assert_eq!(step_in(&failed, "charge")["retryable"], true);

    let answer = server.retried("o-1", "charge").await;

    assert!(answer["newTaskId"].as_str().is_some_and(|id| !id.is_empty()), "{answer}");
    let again = server.execution("o-1").await;
    assert_eq!(
        (&again["status"], &again["completedAt"], &again["error"]),
        (&json!("running"), &Value::Null, &Value::Null)
    );
    server.event("o-1", "go", &Value::Null).await.expect(202);
    assert_eq!(server.result("o-1").await[3], json!({ "attempt": 1 }));
    assert_eq!(server.effects_of("o-1"), ["before 1", "charge 1", "charge 2", "after 1"]);
    let detail = server.detail("o-1").await;
    assert_eq!(
        steps_in(&detail),
        ["before completed", "charge completed", "go completed", "after completed"]
    );
    assert_eq!(attempts_in(&detail, "charge"), ["1 failed", "2 completed"]);
    assert_eq!(step_in(&detail, "charge")["attempts"][0], step_in(&failed, "charge")["attempts"][0]);
    let runs = server.runs("o-1").await;
    assert_eq!(runs.len(), 1, "it is the same run: {runs:#?}");
    assert_eq!((&runs[0]["status"], &runs[0]["error"]), (&json!("completed"), &Value::Null));
    assert_eq!(server.stats().await["failed"], 0);
}

#[tokio::test]
async fn while_the_run_goes_on_what_was_done_later_is_not_done_again() {
    let server = Server::start().await;
    let lines = [settle("charge", fails_once()), step("ship"), wait_event("go"), step("after")];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;

    server.retried("o-1", "charge").await;

    let detail = server
        .until_detail("o-1", "stands at the event again", |detail| {
            is_step(detail, "charge", "completed") && detail["execution"]["waitingFor"]["type"] == "event"
        })
        .await;
    assert_eq!(steps_in(&detail), ["charge completed", "ship completed", "go running"]);
    server.event("o-1", "go", &json!("now")).await.expect(202);
    let expected =
        json!([{ "value": { "attempt": 2 } }, { "attempt": 1 }, { "value": "now" }, { "attempt": 1 }]);
    assert_eq!(server.result("o-1").await, expected);
    assert_eq!(server.effects_of("o-1"), ["charge 1", "ship 1", "charge 2", "after 1"]);
}

#[tokio::test]
async fn an_event_that_was_consumed_after_the_step_is_not_waited_for_again() {
    let server = Server::start().await;
    let lines = [settle("charge", fails_once()), wait_event("go"), wait_event("go")];
    server.run_script("o-1", &script(lines)).await;
    server.event("o-1", "go", &json!(1)).await.expect(202);
    server.until("o-1", "stands at the second wait", |e| e["waitingFor"]["step"] == "go#2").await;
    server.retried("o-1", "charge").await;
    server.until_detail("o-1", "has it", |detail| is_step(detail, "charge", "completed")).await;
    server.event("o-1", "go", &json!(2)).await.expect(202);
    assert_eq!(
        server.result("o-1").await,
        json!([{ "value": { "attempt": 2 } }, { "value": 1 }, { "value": 2 }])
    );
}

#[tokio::test]
async fn another_way_after_the_success_is_taken_and_what_it_makes_void_is_set_aside() {
    let server = Server::start().await;
    let lines =
        [settle("charge", fails_once()), if_failed(0, [step("refund")], [step("ship")]), wait_event("end")];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;
    assert_eq!(server.effects_of("o-1"), ["charge 1", "refund 1"]);

    server.retried("o-1", "charge").await;

    server.until_effect("o-1", "ship 1").await;
    server.event("o-1", "end", &Value::Null).await.expect(202);
    let expected = json!([{ "value": { "attempt": 2 } }, { "attempt": 1 }, { "value": null }]);
    assert_eq!(server.result("o-1").await, expected);
    assert_eq!(server.effects_of("o-1"), ["charge 1", "refund 1", "charge 2", "ship 1"]);
    let detail = server.detail("o-1").await;
    assert_eq!(step_in(&detail, "refund")["awaitingCall"], true, "what was done is not hidden: {detail:#}");
    assert_eq!(step_in(&detail, "ship")["awaitingCall"], false);
}

#[tokio::test]
async fn all_attempts_of_its_policy_are_there_again() {
    let server = Server::start().await;
    let charge = json!({ "failures": 4, "retry": { "attempts": 2 } });
    server.run_script("o-1", &script([step_with("charge", charge)])).await;
    assert_eq!(server.failure("o-1").await["attempt"], 2);

    server.retried("o-1", "charge").await;
    let failure = server.failure("o-1").await;
    assert_eq!((&failure["kind"], &failure["attempt"]), (&json!("exhausted"), &json!(4)));

    server.retried("o-1", "charge").await;
    assert_eq!(server.result("o-1").await, json!([{ "attempt": 5 }]));
    let attempts = attempts_in(&server.detail("o-1").await, "charge");
    assert_eq!(attempts, ["1 failed", "2 failed", "3 failed", "4 failed", "5 completed"]);
}

#[tokio::test]
async fn its_time_begins_anew() {
    let server = Server::start().await;
    // A second attempt would come after the timeout, so the first failure is the last.
    let charge = json!({ "failures": 1, "timeoutMs": 1_000, "retry": { "attempts": 9, "delayMs": 60_000 } });
    server.run_script("o-1", &script([step_with("charge", charge)])).await;
    assert_eq!(server.failure("o-1").await["kind"], "timed_out");
    let deadline = time(&step_in(&server.detail("o-1").await, "charge")["deadline"]);
    until_past(deadline).await;

    server.retried("o-1", "charge").await;

    assert_eq!(server.result("o-1").await, json!([{ "attempt": 2 }]));
    assert!(time(&step_in(&server.detail("o-1").await, "charge")["deadline"]) > deadline);
}

/// A failed run may lie for weeks before somebody mends it.
#[tokio::test]
async fn the_time_of_the_execution_begins_anew_too() {
    let server = Server::start().await;
    let manifest = json!({ "stepbox": "0.1.0", "task": { "timeoutMs": 1_500 } });
    server.upload("short", guests::raw_with_manifest(&manifest)).await.expect(201);
    let calls = json!({ "calls": [{ "call": "step", "name": "charge", "function": "bad-details", "input": "null" }] });
    server.start("o-1", "short", &calls).await.expect(201);
    server.result("o-1").await;
    let detail = server.detail("o-1").await;
    assert!(is_step(&detail, "charge", "dead"), "{detail:#}");
    until_past(time(&detail["deadline"])).await;

    server.retried("o-1", "charge").await;

    let over = server.over("o-1").await;
    assert_eq!(over["status"], "completed", "{over:#}");
    assert_eq!(attempts_in(&server.detail("o-1").await, "charge"), ["1 failed", "2 failed"]);
}

#[tokio::test]
async fn a_run_that_completed_with_a_dead_step_is_reopened() {
    let server = Server::start().await;
    server.play("o-1", &script([settle("charge", fails_once())])).await;
    assert_eq!(server.execution("o-1").await["status"], "completed");
    server.retried("o-1", "charge").await;
    assert_eq!(server.result("o-1").await, json!([{ "value": { "attempt": 2 } }]));
    // The same start as ever: the execution is what it was.
    let again = server.start("o-1", "scenario", &script([settle("charge", fails_once())])).await.expect(200);
    assert_eq!(again["result"], json!([{ "value": { "attempt": 2 } }]));
}

/// Zart says 404 "execution not found" to these.
#[tokio::test]
async fn a_step_that_is_not_dead_is_409_and_its_status_is_named() {
    let server = Server::start().await;
    let waits = json!({ "failures": 1, "retry": { "attempts": 2, "delayMs": 3_600_000 } });
    let holds = json!({ "act": { "reallySleep": { "ms": 3_600_000 } } });
    server.run_script("o-1", &script([step("done"), step_with("holds", holds)])).await;
    server.run_script("o-2", &script([step_with("waits", waits)])).await;
    server.run_script("o-3", &script([wait_event("go")])).await;
    server.until_detail("o-1", "holds", |detail| is_step(detail, "holds", "running")).await;
    server.until_waiting("o-2", "retry").await;
    server.until_waiting("o-3", "event").await;
    for (id, step, status) in [
        ("o-1", "done", "completed"),
        ("o-1", "holds", "running"),
        ("o-2", "waits", "scheduled"),
        ("o-3", "go", "running"),
    ] {
        let before = server.all_of(id).await;
        let answer = server.retry_step(id, &json!({ "stepName": step })).await;
        let message = answer.error(409, "step_not_dead");
        assert!(message.contains(step) && message.contains(status), "{message}");
        assert_eq!(answer.json()["status"], status);
        assert_eq!(server.all_of(id).await, before);
    }
}

#[tokio::test]
async fn what_is_not_there_is_404_and_says_which() {
    let server = Server::start().await;
    server.play("o-1", &script([step("charge")])).await;
    let answer = server.retry_step("nobody", &json!({ "stepName": "charge" })).await;
    assert!(answer.error(404, "unknown_execution").contains("nobody"));
    let answer = server.retry_step("o-1", &json!({ "stepName": "refund" })).await;
    assert!(answer.error(404, "unknown_step").contains("refund"));
}

#[tokio::test]
async fn a_cancelled_run_is_409() {
    let server = Server::start().await;
    server.run_script("o-1", &script([settle("charge", fails_once()), wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    server.cancel("o-1").await.expect_empty(204);
    let before = server.all_of("o-1").await;
    let answer = server.retry_step("o-1", &json!({ "stepName": "charge" })).await;
    assert!(answer.error(409, "run_cancelled").contains("cancelled"));
    assert_eq!(server.all_of("o-1").await, before);
}

#[tokio::test]
async fn of_many_at_once_one_wins_and_the_others_are_409() {
    let server = Server::start().await;
    let charge = json!({ "failures": 1, "act": { "effect": { "ms": 50 } } });
    for n in 0..4 {
        let id = format!("o-{n}");
        server.play(&id, &script([step_with("charge", charge.clone())])).await;
        let body = json!({ "stepName": "charge" });
        let answers = join_all((0..20).map(|_| server.retry_step(&id, &body))).await;
        assert_eq!(answers.iter().filter(|answer| answer.status == 200).count(), 1, "{answers:#?}");
        for answer in answers.iter().filter(|answer| answer.status != 200) {
            answer.error(409, "step_not_dead");
        }
        server.result(&id).await;
        assert_eq!(server.effects_of(&id), ["charge 1", "charge 2"]);
    }
    assert_eq!(server.audit("?action=retry_step").await.1, 4, "what was refused is no write");
}

#[tokio::test]
async fn it_survives_kill_9_right_after_the_answer() {
    let mut server = Server::start().await;
    for round in 0..4 {
        let id = format!("o-{round}");
        server.play(&id, &script([step("before"), step_with("charge", fails_once())])).await;
        server.retried(&id, "charge").await;
        server.kill_9().restart();
        let last = server.result(&id).await[1]["attempt"].as_u64().unwrap();
        assert!((2..=3).contains(&last), "attempt {last}");
        let again = server.effects_of(&id).iter().filter(|effect| effect.starts_with("before")).count();
        assert_eq!(again, 1);
    }
}

#[tokio::test]
async fn a_body_of_the_wrong_shape_is_422_and_names_the_field() {
    let server = Server::start().await;
    server.play("o-1", &script([settle("charge", fails_once())])).await;
    let before = server.all_of("o-1").await;
    for (body, field) in [
        (json!({}), "stepName"),
        (json!({ "stepName": 7 }), "stepName"),
        (json!({ "stepName": "" }), "stepName"),
        (json!({ "stepName": "charge", "triggeredBy": 7 }), "triggeredBy"),
        (json!({ "stepName": "charge", "attemptsMax": "many" }), "attemptsMax"),
        (json!({ "stepName": "charge", "attemptsMax": 0 }), "attemptsMax"),
        (json!({ "stepName": "charge", "timeoutMs": 0 }), "timeoutMs"),
        (json!({ "stepName": "charge", "timeoutMs": -5 }), "timeoutMs"),
        (json!({ "stepName": "charge", "moduleVersion": "newest" }), "moduleVersion"),
    ] {
        let answer = server.retry_step("o-1", &body).await;
        assert!([404, 422].contains(&answer.status), "{answer:#?}");
        let message = answer.any_error(answer.status);
        assert!(
            message.contains(field) || answer.json()["field"] == field || body["stepName"] == "",
            "{body}: {message}"
        );
    }
    server.post_text(&admin_path("o-1", "retry-step"), "{\"stepName\":").await.any_error(400);
    server.post_text(&admin_path("o-1", "retry-step"), "[]").await.any_error(422);
    assert_eq!(server.all_of("o-1").await, before);
}

/// The handler has to be called again from the top, and whatever stands later may not come to be.
#[tokio::test]
async fn a_later_step_that_is_under_way_is_interrupted_and_tried_again() {
    let server = Server::start().await;
    let slow = step_with("slow", json!({ "act": { "effect": { "ms": 2_000 } } }));
    server.run_script("o-1", &script([settle("charge", fails_once()), slow])).await;
    server.until_effect("o-1", "slow 1").await;
    // An attempt is written down while it runs already.
    let written =
        |detail: &Value| find_step(detail, "slow").is_some_and(|slow| slow["attempts"][0].is_object());
    until("the attempt is in the journal", async || server.detail("o-1").await, written).await;
    server.retried("o-1", "charge").await;
    let result = server.result("o-1").await;
    assert_eq!(result[0], json!({ "value": { "attempt": 2 } }));
    assert_eq!(server.effects_of("o-1"), ["charge 1", "slow 1", "charge 2", "slow 2"]);
    let effects = server.effects();
    assert_eq!(result[1]["nonce"], effects.last().unwrap().nonce, "the first one's end came too late");
    let detail = server.detail("o-1").await;
    assert_eq!(attempts_in(&detail, "slow"), ["1 failed", "2 completed"]);
    assert_eq!(step_in(&detail, "slow")["attempts"][0]["interrupted"], "run_mended");
}

#[tokio::test]
async fn of_several_steps_of_one_name_the_one_with_the_key_is_retried() {
    let server = Server::start().await;
    let lines = [step("charge"), settle("charge", fails_once()), settle("charge", fails_once())];
    server.play("o-1", &script(lines)).await;
    let body = json!({ "stepName": "charge" });
    server.retry_step("o-1", &body).await.error(409, "step_not_dead");
    server.retried("o-1", "charge#2").await;
    let result = server.result("o-1").await;
    assert_eq!(result[1], json!({ "value": { "attempt": 2 } }));
    assert_eq!(result[2]["failure"]["attempt"], 1);
    server.retried("o-1", "charge#3").await;
    assert_eq!(server.result("o-1").await[2], json!({ "value": { "attempt": 2 } }));
}

/// It is dead and was called once, so somebody may want it; but nobody calls it any more.
#[tokio::test]
async fn a_dead_step_that_was_set_aside_holds_nobody_up() {
    let server = Server::start().await;
    let refund = settle("refund", json!({ "failures": 9 }));
    let lines = [settle("charge", fails_once()), if_failed(0, [refund], [step("ship")])];
    server.play("o-1", &script(lines)).await;
    server.retried("o-1", "charge").await;
    let result = server.result("o-1").await;
    server.retried("o-1", "refund").await;
    assert_eq!(server.result("o-1").await, result);
    assert_eq!(server.effects_of("o-1"), ["charge 1", "refund 1", "charge 2", "ship 1"]);
}
