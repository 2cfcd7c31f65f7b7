//! `GET /api/v1/executions/{id}` and what an execution object says in each state.

use crate::harness::*;

const FIELDS: [&str; 10] = [
    "name",
    "durableExecutionId",
    "payload",
    "status",
    "scheduledAt",
    "completedAt",
    "version",
    "result",
    "error",
    "waitingFor",
];

#[track_caller]
fn assert_complete(execution: &Value) {
    for field in FIELDS {
        assert!(execution.get(field).is_some(), "{field} is missing in {execution:#}");
    }
}

#[tokio::test]
async fn an_unknown_execution_is_404_and_named() {
    let server = Server::start().await;
    let message = server.get("/api/v1/executions/nobody").await.error(404, "unknown_execution");
    assert!(message.contains("nobody"), "{message}");
}

#[tokio::test]
async fn a_completed_execution_has_its_result_and_when_it_ended() {
    let server = Server::start().await;
    let over = server.play("o-1", &script([step("charge")])).await;
    assert_complete(&over);
    assert_eq!(over["status"], "completed");
    assert_eq!(over["result"], json!([{ "attempt": 1 }]));
    assert_eq!((&over["error"], &over["waitingFor"]), (&Value::Null, &Value::Null));
    let times = ["scheduledAt", "completedAt"].map(|field| over[field].as_str().unwrap().to_owned());
    assert!(times[0] <= times[1], "{times:?}");
    assert!(times.iter().all(|time| time.ends_with('Z')), "{times:?} are in UTC");
    assert_eq!(server.execution("o-1").await, over);
}

#[tokio::test]
async fn a_failed_execution_says_what_failed_in_which_step_and_attempt() {
    let server = Server::start().await;
    let charge = json!({ "failures": 5, "retry": { "attempts": 3 } });
    let over = server.play("o-1", &script([step("reserve"), step_with("charge", charge)])).await;
    assert_complete(&over);
    assert_eq!(over["status"], "failed");
    assert_eq!(over["result"], Value::Null);
    assert!(over["completedAt"].is_string());
    let error = &over["error"];
    assert_eq!((&error["step"], &error["attempt"]), (&json!("charge"), &json!(3)));
    assert_eq!(error["kind"], "exhausted");
    assert!(error["message"].as_str().unwrap().contains("attempt 3 fails"), "{error}");
    assert_eq!(error["details"], 3);
}

#[tokio::test]
async fn a_handler_that_fails_by_itself_says_why() {
    let server = Server::start().await;
    let fail = json!({ "fail": { "message": "nothing was ordered", "details": { "items": 0 } } });
    let over = server.play("o-1", &script([fail])).await;
    let error = &over["error"];
    assert_eq!((&error["kind"], &error["message"]), (&json!("error"), &json!("nothing was ordered")));
    assert_eq!(error["details"], json!({ "items": 0 }));
    assert_eq!((&error["step"], &error["attempt"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_cancelled_execution_has_neither_result_nor_wait() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    server.cancel("o-1").await.expect_empty(204);
    let over = server.execution("o-1").await;
    assert_complete(&over);
    assert_eq!(over["status"], "cancelled");
    assert_eq!((&over["result"], &over["waitingFor"]), (&Value::Null, &Value::Null));
    assert!(over["completedAt"].is_string());
}

#[tokio::test]
async fn one_that_stands_still_is_running_and_says_what_it_waits_for() {
    let server = Server::start().await;

    server.run_script("slept", &script([sleep("settle", 3_600_000)])).await;
    let slept = server.until_waiting("slept", "sleep").await;
    assert_complete(&slept);
    assert_eq!((&slept["status"], &slept["completedAt"]), (&json!("running"), &Value::Null));
    assert_eq!(slept["waitingFor"]["step"], "settle");
    let until: chrono::DateTime<chrono::Utc> =
        slept["waitingFor"]["until"].as_str().unwrap().parse().expect("a time");
    let scheduled: chrono::DateTime<chrono::Utc> = slept["scheduledAt"].as_str().unwrap().parse().unwrap();
    assert!((until - scheduled).num_milliseconds() >= 3_600_000);

    let wait = json!({ "waitEvent": { "event": "shipment", "timeoutMs": 3_600_000 } });
    server.run_script("waits", &script([wait])).await;
    let waits = server.until_waiting("waits", "event").await;
    assert_eq!(waits["status"], "running");
    assert_eq!(waits["waitingFor"]["event"], "shipment");
    assert!(waits["waitingFor"]["deadline"].is_string(), "{waits}");

    server.run_script("for-ever", &script([wait_event("shipment")])).await;
    assert_eq!(server.until_waiting("for-ever", "event").await["waitingFor"]["deadline"], Value::Null);

    let charge = json!({ "failures": 1, "retry": { "attempts": 2, "delayMs": 3_600_000 } });
    server.run_script("retries", &script([step_with("charge", charge)])).await;
    let retries = server.until_waiting("retries", "retry").await;
    assert_eq!(retries["status"], "running");
    let wait = &retries["waitingFor"];
    assert_eq!((&wait["step"], &wait["attempt"]), (&json!("charge"), &json!(2)));
    assert!(wait["at"].is_string());
}
