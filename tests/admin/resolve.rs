//! `POST …/steps/{name}/resolve`: what a dead step has come to is put in by hand.

use crate::harness::*;

/// A run that failed at `charge`.
async fn failed(server: &Server, id: &str) {
    let lines = [step("before"), step_with("charge", json!({ "failures": 9 })), step("after")];
    server.play(id, &script(lines)).await;
}

#[tokio::test]
async fn with_a_result_the_handler_gets_it_and_goes_on() {
    let server = Server::start().await;
    failed(&server, "o-1").await;
    let body = json!({ "result": { "receipt": 7 }, "triggeredBy": "ada", "reason": "paid by hand" });

    let answer = server.resolve_step("o-1", "charge", &body).await.expect(200);

    assert_eq!((&answer["stepName"], &answer["runId"]), (&json!("charge"), &json!("o-1:run:0")));
    assert_eq!(server.result("o-1").await, json!([{ "attempt": 1 }, { "receipt": 7 }, { "attempt": 1 }]));
    assert_eq!(server.effects_of("o-1"), ["before 1", "charge 1", "after 1"]);
    let detail = server.detail("o-1").await;
    let charge = step_in(&detail, "charge");
    assert_eq!((&charge["status"], &charge["retryable"]), (&json!("completed"), &json!(false)));
    assert_eq!(charge["result"], json!({ "receipt": 7 }));
    assert_eq!((&charge["resolved"], &charge["resolvedBy"]), (&json!(true), &json!("ada")));
    assert!(time(&charge["resolvedAt"]) >= time(&charge["attempts"][0]["completedAt"]));
    assert_eq!(attempts_in(&detail, "charge"), ["1 failed"], "what it tried itself stays visible");
    assert_eq!(step_in(&detail, "after")["resolved"], false);
    let (entries, _) = server.audit("?action=resolve_step").await;
    let entry = &entries[0];
    assert_eq!((&entry["actor"], &entry["reason"]), (&json!("ada"), &json!("paid by hand")));
    assert_eq!((&entry["executionId"], &entry["target"]), (&json!("o-1"), &json!("charge")));
}

#[tokio::test]
async fn null_is_a_result() {
    let server = Server::start().await;
    failed(&server, "o-1").await;
    server.resolve_step("o-1", "charge", &json!({ "result": null })).await.expect(200);
    assert_eq!(server.result("o-1").await[1], Value::Null);
}

#[tokio::test]
async fn with_a_failure_the_handler_sees_it_and_may_go_another_way() {
    let server = Server::start().await;
    let lines = [settle("charge", json!({ "failures": 9 })), wait_event("go")];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;
    let failure = json!({ "message": "the customer is gone", "details": { "since": 1999 } });

    server.resolve_step("o-1", "charge", &json!({ "failure": failure })).await.expect(200);

    server.event("o-1", "go", &Value::Null).await.expect(202);
    let heard = server.result("o-1").await[0]["failure"].clone();
    assert!(heard["message"].as_str().unwrap().contains("the customer is gone"), "{heard}");
    let detail = server.detail("o-1").await;
    let charge = step_in(&detail, "charge");
    assert_eq!((&charge["status"], &charge["resolved"]), (&json!("dead"), &json!(true)));
    assert_eq!(charge["lastError"], "the customer is gone");
    assert_eq!(charge["failure"]["details"], json!({ "since": 1999 }));
    // It is dead as before, so it can be mended as before.
    server.retried("o-1", "charge").await;
    assert_eq!(server.result("o-1").await[0]["failure"]["attempt"], 2);
}

#[tokio::test]
async fn a_failure_that_nobody_catches_fails_the_run_with_it() {
    let server = Server::start().await;
    failed(&server, "o-1").await;
    let body = json!({ "failure": { "message": "given up" } });
    server.resolve_step("o-1", "charge", &body).await.expect(200);
    let failure = server.until("o-1", "has failed again", |e| e["error"]["message"] == "given up").await;
    assert_eq!((&failure["status"], &failure["error"]["step"]), (&json!("failed"), &json!("charge")));
}

#[tokio::test]
async fn one_and_just_one_of_result_and_failure_is_given() {
    let server = Server::start().await;
    failed(&server, "o-1").await;
    let before = server.all_of("o-1").await;
    for (body, field) in [
        (json!({}), "result"),
        (json!({ "triggeredBy": "ada" }), "result"),
        (json!({ "result": 1, "failure": { "message": "no" } }), "failure"),
        (json!({ "failure": "no" }), "failure"),
        (json!({ "failure": {} }), "failure"),
        (json!({ "failure": { "message": 7 } }), "failure"),
        (json!({ "result": 1, "triggeredBy": 7 }), "triggeredBy"),
    ] {
        let answer = server.resolve_step("o-1", "charge", &body).await;
        assert!(answer.error(422, "wrong_shape").contains(field), "{answer:#?}");
        assert_eq!(answer.json()["field"], field);
    }
    assert_eq!(server.all_of("o-1").await, before);
}

#[tokio::test]
async fn only_a_dead_step_can_be_resolved() {
    let server = Server::start().await;
    failed(&server, "o-1").await;
    server.run_script("o-2", &script([settle("charge", json!({ "failures": 1 })), wait_event("go")])).await;
    server.until_waiting("o-2", "event").await;
    let result = json!({ "result": 1 });
    let message = server.resolve_step("o-1", "before", &result).await.error(409, "step_not_dead");
    assert!(message.contains("before") && message.contains("completed"), "{message}");
    let message = server.resolve_step("o-2", "go", &result).await.error(409, "step_not_dead");
    assert!(message.contains("running"), "{message}");
    server.resolve_step("o-1", "after", &result).await.error(404, "unknown_step");
    server.resolve_step("nobody", "charge", &result).await.error(404, "unknown_execution");
    server.cancel("o-2").await.expect_empty(204);
    server.resolve_step("o-2", "charge", &result).await.error(409, "run_cancelled");
    assert_eq!(server.audit("?action=resolve_step").await.1, 0);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let server = Server::start().await;
    failed(&server, "o-1").await;
    let before = server.all_of("o-1").await;
    let answer = server.dry_run("o-1", "steps/charge/resolve", &json!({ "result": 1 })).await.expect(200);
    assert_eq!(answer["dryRun"], true);
    assert_eq!(answer["wouldKeep"], json!(["charge", "before"]));
    assert_eq!((&answer["wouldRun"], &answer["wouldRepeat"]), (&json!([]), &json!([])));
    assert_eq!(server.all_of("o-1").await, before);
}

#[tokio::test]
async fn a_step_whose_name_needs_encoding_is_found() {
    let server = Server::start().await;
    let name = "charge a/b #1 für 50%";
    server.play("o-1", &script([step_with(name, json!({ "failures": 1, "tag": "charge" }))])).await;
    server.resolve_step("o-1", name, &json!({ "result": "by hand" })).await.expect(200);
    assert_eq!(server.result("o-1").await, json!(["by hand"]));
}

#[tokio::test]
async fn it_survives_kill_9_right_after_the_answer() {
    let mut server = Server::start().await;
    failed(&server, "o-1").await;
    server.resolve_step("o-1", "charge", &json!({ "result": 1 })).await.expect(200);
    server.kill_9().restart();
    assert_eq!(server.result("o-1").await[1], 1);
    let charge = server.effects_of("o-1").iter().filter(|effect| effect.starts_with("charge")).count();
    assert_eq!(charge, 1);
}
