//! While a pause rule holds a run its clocks stand still.

use crate::harness::*;

/// More than anything here takes between two calls, so that a busy machine does not matter.
const TIMEOUT_MS: u64 = 4_000;

#[tokio::test]
async fn that_of_the_execution() {
    let server = Server::start().await;
    let manifest = json!({ "stepbox": "0.1.0", "task": { "timeoutMs": TIMEOUT_MS } });
    server.upload("short", guests::raw_with_manifest(&manifest)).await.expect(201);
    let waits = json!({ "calls": [{ "call": "wait-for-ever", "name": "go" }] });
    let rule = server.pause(&json!({ "executionId": "not-begun" })).await;
    for id in ["not-begun", "waits"] {
        server.start(id, "short", &waits).await.expect(201);
    }
    server.until_waiting("waits", "event").await;
    let deadline = time(&server.detail("waits").await["deadline"]);
    let other = server.pause(&json!({ "executionId": "waits" })).await;

    until_past(deadline).await;

    // What nobody holds runs out of its time, and later than that of these two.
    server.start("not-held", "short", &waits).await.expect(201);
    assert_eq!(server.failure("not-held").await["kind"], "timed_out");
    server.until_held("waits", &other).await;
    server.until_held("not-begun", &rule).await;
    for (id, rule) in [("waits", &other), ("not-begun", &rule)] {
        server.end_pause(rule).await;
        server.event(id, "go", &Value::Null).await.expect(202);
        server.result(id).await;
        let moved = time(&server.detail(id).await["deadline"]);
        assert!(moved > deadline, "{id}: {moved}");
    }
}

#[tokio::test]
async fn that_of_the_execution_goes_on_afterwards() {
    let server = Server::start().await;
    let manifest = json!({ "stepbox": "0.1.0", "task": { "timeoutMs": 1_500 } });
    server.upload("short", guests::raw_with_manifest(&manifest)).await.expect(201);
    let waits = json!({ "calls": [{ "call": "wait-for-ever", "name": "go" }] });
    let rule = server.pause(&json!({ "taskName": "short" })).await;
    server.start("o-1", "short", &waits).await.expect(201);
    until_past(time(&server.detail("o-1").await["deadline"])).await;
    server.until_held("o-1", &rule).await;
    server.end_pause(&rule).await;
    let ended = now();
    let over = server.over("o-1").await;
    assert_eq!(over["error"]["kind"], "timed_out", "{over:#}");
    let left = time(&over["completedAt"]) - ended;
    assert!(left.num_milliseconds() >= 1_000, "it had no more than {left}");
}

#[tokio::test]
async fn that_of_a_step_over_all_its_attempts() {
    let server = Server::start().await;
    let charge = json!({
        "failures": 1, "timeoutMs": TIMEOUT_MS, "retry": { "attempts": 2, "delayMs": TIMEOUT_MS / 2 },
    });
    for (id, scope) in [
        ("by-step", json!({ "executionId": "by-step", "stepPattern": "charge" })),
        ("whole", json!({ "executionId": "whole" })),
    ] {
        server.run_script(id, &script([step_with("charge", charge.clone())])).await;
        server.until_waiting(id, "retry").await;
        let deadline = time(&step_in(&server.detail(id).await, "charge")["deadline"]);
        let rule = server.pause(&scope).await;
        server.until_held(id, &rule).await;
        until_past(deadline).await;
        server.until_held(id, &rule).await;
        assert_eq!(server.effects_of(id), ["charge 1"]);
        server.end_pause(&rule).await;
        assert_eq!(server.result(id).await, json!([{ "attempt": 2 }]), "{id}");
        let moved = time(&step_in(&server.detail(id).await, "charge")["deadline"]);
        assert!(moved > deadline, "{id}: {moved}");
    }
}

#[tokio::test]
async fn that_of_an_attempt_under_way() {
    let server = Server::start().await;
    let slow = json!({ "act": { "effect": { "ms": TIMEOUT_MS + 1_500 } }, "timeoutMs": TIMEOUT_MS });
    server.run_script("held", &script([step_with("slow", slow.clone())])).await;
    server.until_effect("held", "slow 1").await;
    let rule = server.pause(&json!({ "executionId": "held" })).await;
    // The attempt itself goes on: it began before.
    server.run_script("not-held", &script([step_with("slow", slow)])).await;
    assert_eq!(server.failure("not-held").await["kind"], "timed_out");
    server.until_detail("held", "has come to its end", |detail| is_step(detail, "slow", "completed")).await;
    server.end_pause(&rule).await;
    server.result("held").await;
}

#[tokio::test]
async fn that_of_a_wait_for_an_event_which_is_stored_meanwhile() {
    let server = Server::start().await;
    let wait = json!({ "waitEvent": { "event": "go", "timeoutMs": TIMEOUT_MS } });
    for id in ["told", "not-told"] {
        server.run_script(id, &script([wait.clone()])).await;
    }
    let deadline = time(&server.until_waiting("not-told", "event").await["waitingFor"]["deadline"]);
    server.until_waiting("told", "event").await;
    let rule = server.pause(&json!({ "taskName": "scenario" })).await;
    until_past(deadline).await;
    let answer = server.event("told", "go", &json!("late")).await.expect(202);
    assert!(answer["status"].is_string());
    for id in ["told", "not-told"] {
        server.until_held(id, &rule).await;
    }
    server.end_pause(&rule).await;
    assert_eq!(server.result("told").await, json!([{ "value": "late" }]));
    // The other one has the rest of its time, and no more.
    assert_eq!(server.result("not-told").await[0]["failure"]["kind"], "timed_out");
    let over = server.execution("not-told").await;
    assert!(time(&over["completedAt"]) > time(&server.execution("told").await["completedAt"]));
}

#[tokio::test]
async fn a_host_that_was_down_meanwhile_knows_of_it() {
    let mut server = Server::start().await;
    let manifest = json!({ "stepbox": "0.1.0", "task": { "timeoutMs": TIMEOUT_MS } });
    server.upload("short", guests::raw_with_manifest(&manifest)).await.expect(201);
    let waits = json!({ "calls": [{ "call": "wait-for-ever", "name": "go" }] });
    server.start("o-1", "short", &waits).await.expect(201);
    server.until_waiting("o-1", "event").await;
    let deadline = time(&server.detail("o-1").await["deadline"]);
    let rule = server.pause(&json!({ "taskName": "short" })).await;
    server.kill_9();
    until_past(deadline).await;
    server.restart();
    server.until_held("o-1", &rule).await;
    server.end_pause(&rule).await;
    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.result("o-1").await;
}

#[tokio::test]
async fn a_host_that_was_down_meanwhile_knows_which_step_was_held() {
    let mut server = Server::start().await;
    let charge = json!({
        "failures": 1, "timeoutMs": TIMEOUT_MS, "retry": { "attempts": 2, "delayMs": TIMEOUT_MS / 2 },
    });
    server.run_script("o-1", &script([step_with("charge", charge)])).await;
    server.until_waiting("o-1", "retry").await;
    let deadline = time(&step_in(&server.detail("o-1").await, "charge")["deadline"]);
    let rule = server.pause(&json!({ "stepPattern": "charge" })).await;
    server.until_held("o-1", &rule).await;
    server.kill_9();
    until_past(deadline).await;
    server.restart();
    server.until_held("o-1", &rule).await;
    server.end_pause(&rule).await;
    assert_eq!(server.result("o-1").await, json!([{ "attempt": 2 }]));
}
