//! `POST …/retry-step` with other limits or another version than before, and what it would do.

use crate::harness::*;

#[tokio::test]
async fn with_more_attempts() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 4 }))])).await;
    let body = json!({ "stepName": "charge", "attemptsMax": 4 });
    server.retry_step("o-1", &body).await.expect(200);
    assert_eq!(server.result("o-1").await, json!([{ "attempt": 5 }]));
    assert_eq!(server.effects_of("o-1").len(), 5);
}

#[tokio::test]
async fn with_fewer_attempts() {
    let server = Server::start().await;
    let charge = json!({ "failures": 99, "retry": { "attempts": 3 } });
    server.play("o-1", &script([step_with("charge", charge)])).await;
    server.retry_step("o-1", &json!({ "stepName": "charge", "attemptsMax": 1 })).await.expect(200);
    assert_eq!(server.failure("o-1").await["attempt"], 4);
    // That was for once: the next retry has what the step itself says.
    server.retried("o-1", "charge").await;
    assert_eq!(server.failure("o-1").await["attempt"], 7);
}

#[tokio::test]
async fn with_more_time() {
    let server = Server::start().await;
    for (id, per_attempt) in [("all-attempts", false), ("per-attempt", true)] {
        let slow = json!({
            "act": { "effect": { "ms": 700 } }, "timeoutMs": 200, "perAttempt": per_attempt,
        });
        server.play(id, &script([step_with("charge", slow)])).await;
        assert_eq!(server.failure(id).await["kind"], "timed_out");
        server.retry_step(id, &json!({ "stepName": "charge", "timeoutMs": 60_000 })).await.expect(200);
        assert_eq!(server.result(id).await[0]["attempt"], 2);
    }
}

#[tokio::test]
async fn with_another_version_of_the_module() {
    let server = Server::start().await;
    let charge = json!({ "act": { "failInVariant": { "mark": "001" } } });
    let lines = [json!("variant"), step("before"), step_with("charge", charge), json!("variant")];
    server.play("o-1", &script(lines)).await;
    server.upload("scenario", guests::scenario_marked("002")).await.expect(201);

    // It stays with the version that it began on, whichever is active.
    server.retried("o-1", "charge").await;
    assert_eq!(server.failure("o-1").await["attempt"], 2);
    assert_eq!(server.execution("o-1").await["version"], 1);

    let body = json!({ "stepName": "charge", "moduleVersion": 2 });
    server.retry_step("o-1", &body).await.expect(200);
    let over = server.over("o-1").await;
    assert_eq!(over["version"], 2, "{over:#}");
    let expected = json!(["002", { "attempt": 1 }, { "attempt": 3, "variant": "002" }, "002"]);
    assert_eq!(over["result"], expected);
    assert_eq!(server.effects_of("o-1"), ["before 1", "charge 1", "charge 2", "charge 3"]);
    assert_eq!(server.runs("o-1").await[0]["moduleVersion"], 2);
}

#[tokio::test]
async fn a_version_that_is_not_there_changes_nothing() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    let before = server.all_of("o-1").await;
    let body = json!({ "stepName": "charge", "moduleVersion": 7 });
    let answer = server.retry_step("o-1", &body).await;
    assert!([404, 422].contains(&answer.status), "{answer:#?}");
    assert!(answer.any_error(answer.status).contains('7'));
    assert_eq!(server.all_of("o-1").await, before);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let server = Server::start().await;
    let lines = [step("before"), settle("charge", json!({ "failures": 1 })), step("later"), wait_event("go")];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;
    let before = server.all_of("o-1").await;

    let body = json!({ "stepName": "charge", "triggeredBy": "ada" });
    let answer = server.dry_run("o-1", "retry-step", &body).await.expect(200);

    assert_eq!(answer["dryRun"], true);
    assert_eq!(answer["wouldRun"], json!(["charge", "go"]));
    assert_eq!(answer["wouldKeep"], json!(["before", "later"]));
    assert_eq!(answer["wouldRepeat"], json!([]));
    assert_eq!(server.all_of("o-1").await, before);
    // Neither is a refusal another than the real one's.
    let body = json!({ "stepName": "before" });
    server.dry_run("o-1", "retry-step", &body).await.error(409, "step_not_dead");
    let unclear = admin_path("o-1", "retry-step?dryRun=perhaps");
    assert!(server.post_json(&unclear, &body).await.any_error(400).contains("true or false"));
    let real = server.retried("o-1", "charge").await;
    for field in ["newTaskId", "wouldRun", "wouldKeep", "wouldRepeat", "wouldSetAside"] {
        assert_eq!(real[field], answer[field], "{field}");
    }
    assert_eq!(real["dryRun"], false);
}

/// Zart takes `triggeredBy` and forgets it.
#[tokio::test]
async fn who_did_it_and_why_is_kept() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    let body = json!({ "stepName": "charge", "triggeredBy": "ada", "reason": "the bank is back" });
    server.retry_step("o-1", &body).await.expect(200);
    server.result("o-1").await;
    let (entries, total) = server.audit("?action=retry_step").await;
    assert_eq!(total, 1);
    let entry = &entries[0];
    assert_eq!((&entry["actor"], &entry["reason"]), (&json!("ada"), &json!("the bank is back")));
    assert_eq!((&entry["executionId"], &entry["target"]), (&json!("o-1"), &json!("charge")));
}
