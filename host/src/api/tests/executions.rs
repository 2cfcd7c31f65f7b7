//! What the routes of executions and events answer when all is well.

use serde_json::json;

use super::harness::*;

#[tokio::test]
async fn a_start_answers_the_execution_and_where_it_is() {
    let host = Host::start().await;
    let body = r#"{"executionId":"order 1/é","taskName":"order","payload":{"b":1.0,"a":[]},"unknown":1}"#;
    let answer = host.post("/api/v1/executions", body).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.header("location"), "/api/v1/executions/order%201%2F%C3%A9");
    let expected = concat!(
        r#"{"executionId":"order 1/é","taskId":"order 1/é:run:0","name":"order","#,
        r#""durableExecutionId":"order 1/é","payload":{"b":1.0,"a":[]},"status":"completed","#,
        r#""scheduledAt":"2026-01-31T12:00:00.000Z","completedAt":"2026-01-31T12:00:00.000Z","#,
        r#""version":1,"result":{"a":[],"b":1.0},"error":null,"waitingFor":null,"runId":"order 1/é:run:0"}"#,
    );
    assert_eq!(answer.text, expected, "to the letter: payloads are passed through");
    let location = answer.header("location").to_owned();
    assert_eq!(host.get(&location).await.json()["durableExecutionId"], "order 1/é");
}

#[tokio::test]
async fn a_start_without_an_id_is_given_a_uuid() {
    let host = Host::start().await;
    for body in [r#"{"taskName":"order"}"#, r#"{"taskName":"order","executionId":null,"payload":null}"#] {
        let answer = host.post("/api/v1/executions", body).await.json();
        let id = answer["executionId"].as_str().unwrap();
        assert_eq!(uuid::Uuid::parse_str(id).unwrap().get_version_num(), 7);
        assert_eq!(answer["payload"], json!(null));
    }
}

#[tokio::test]
async fn the_same_start_again_answers_how_the_first_stands() {
    let host = Host::start().await;
    let first = host.begin("e", json!({ "items": 2 })).await;
    assert_eq!(first.status, 201);
    assert_eq!(host.get("/api/v1/executions/e/wait").await.json()["status"], "completed");
    let again = host.begin("e", json!({ "items": 2 })).await;
    assert_eq!(again.status, 200);
    assert_eq!(again.header("location"), "/api/v1/executions/e");
    let body = again.json();
    assert_eq!((&body["status"], &body["result"]), (&json!("completed"), &json!({ "items": 2 })));
    assert_eq!(body["taskId"], "e:run:0");
}

#[tokio::test]
async fn an_execution_shows_why_it_failed() {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "fail" })).await;
    let execution = host.get("/api/v1/executions/e/wait").await.json();
    assert_eq!(execution["status"], "failed");
    assert_eq!(execution["completedAt"], NOW);
    assert_eq!(
        execution["error"],
        json!({
            "kind": "error", "message": "declined", "step": "charge", "attempt": 1,
            "details": { "left": 3 }, "backtrace": null, "logs": [],
        })
    );
}

#[tokio::test]
async fn an_execution_shows_what_it_waits_for() {
    let host = Host::start().await;
    host.begin("event", json!({ "do": "wait" })).await;
    host.begin("sleep", json!({ "do": "sleep" })).await;
    let event = host.until("event", |execution| !execution["waitingFor"].is_null()).await;
    assert_eq!(
        event["waitingFor"],
        json!({ "type": "event", "step": "approval", "event": "approval", "deadline": null })
    );
    assert_eq!(event["status"], "running");
    let sleep = host.until("sleep", |execution| !execution["waitingFor"].is_null()).await;
    assert_eq!(
        sleep["waitingFor"],
        json!({ "type": "sleep", "step": "nap", "until": "2026-01-31T13:00:00.000Z" })
    );
}

#[tokio::test]
async fn events_are_delivered_or_buffered_and_the_answer_says_which() {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "wait" })).await;
    host.until("e", |execution| !execution["waitingFor"].is_null()).await;
    let other = host.post("/api/v1/events/e/other", "[1]").await;
    assert_eq!((other.status, other.json()), (202, json!({ "delivered": false, "status": "buffered" })));
    let approval = host.post("/api/v1/events/e/approval", r#"{ "by": "ann" }"#).await;
    assert_eq!(
        (approval.status, approval.json()),
        (202, json!({ "delivered": true, "status": "delivered" }))
    );
    assert_eq!(host.get("/api/v1/executions/e/wait").await.json()["result"], json!({ "by": "ann" }));
}

#[tokio::test]
async fn an_empty_event_is_null_and_needs_no_type() {
    let host = Host::start().await;
    for (content_type, body) in
        [("", ""), ("application/json", ""), ("Application/JSON; charset=UTF-8", "null")]
    {
        let id = format!("e{}", content_type.len());
        host.begin(&id, json!({ "do": "wait" })).await;
        let sent = host.call("POST", &format!("/api/v1/events/{id}/approval"), content_type, body).await;
        assert_eq!(sent.status, 202, "{}", sent.text);
        let end = host.get(&format!("/api/v1/executions/{id}/wait")).await.json();
        assert_eq!((&end["status"], &end["result"]), (&json!("completed"), &json!(null)));
    }
}

#[tokio::test]
async fn cancel_ends_an_execution() {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "hang" })).await;
    let answer = host.get("POST /api/v1/executions/e/cancel").await;
    assert_eq!((answer.status, answer.text.as_str()), (204, ""));
    assert_eq!(host.get("/api/v1/executions/e").await.json()["status"], "cancelled");
}

#[tokio::test]
async fn lists_are_filtered_sorted_paged_and_counted() {
    let host = Host::start().await;
    host.upload("refund", "two").await;
    for id in ["a1", "a2", "B3"] {
        host.begin(id, json!(null)).await;
        host.get(&format!("/api/v1/executions/{id}/wait")).await;
        host.move_clock(1_000);
    }
    host.post("/api/v1/executions", r#"{"executionId":"r4","taskName":"refund","payload":{"do":"hang"}}"#)
        .await;

    let check = async |query: &str, expected: &str, total: &str| {
        let answer = host.get(&format!("/api/v1/executions{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let list = answer.json();
        let ids: Vec<&str> =
            list.as_array().unwrap().iter().map(|e| e["durableExecutionId"].as_str().unwrap()).collect();
        assert_eq!((ids.join(" ").as_str(), answer.header("x-total-count")), (expected, total), "{query}");
    };
    check("", "r4 B3 a2 a1", "4").await;
    check("?sortOrder=asc", "a1 a2 B3 r4", "4").await;
    check("?sortBy=taskName&sortOrder=desc", "r4 B3 a2 a1", "4").await;
    check("?sortBy=status&sortOrder=asc", "a1 a2 B3 r4", "4").await;
    check("?limit=2&offset=1", "B3 a2", "4").await;
    check("?limit=0", "", "4").await;
    check("?offset=9223372036854775807", "", "4").await;
    check("?status=completed", "B3 a2 a1", "3").await;
    check("?status=failed", "", "0").await;
    check("?taskName=refund", "r4", "1").await;
    check("?taskName=no%20such", "", "0").await;
    check("?search=A", "a2 a1", "2").await;
    check("?search=FUND", "r4", "1").await;
    check("?from=2026-01-31T12:00:01.000Z&to=2026-01-31T12:00:02Z", "B3 a2", "2").await;
    check("?from=2026-01-31T13:00:03%2B01:00", "r4", "1").await;
}

#[tokio::test]
async fn stats_count_by_status() {
    let host = Host::start().await;
    host.begin("a", json!(null)).await;
    host.begin("b", json!({ "do": "fail" })).await;
    host.begin("c", json!({ "do": "wait" })).await;
    for id in ["a", "b"] {
        host.get(&format!("/api/v1/executions/{id}/wait")).await;
    }
    assert_eq!(
        host.get("/api/v1/stats").await.text,
        r#"{"scheduled":0,"running":1,"completed":1,"failed":1,"cancelled":0}"#
    );
}

#[tokio::test]
async fn wait_takes_both_names_of_its_timeout_and_says_how_things_stand() {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "wait" })).await;
    host.until("e", |execution| !execution["waitingFor"].is_null()).await;
    for query in ["timeoutSecs=0.02", "timeout_secs=0"] {
        let answer = host.get(&format!("/api/v1/executions/e/wait?{query}")).await;
        let seconds = query.split_once('=').unwrap().1;
        assert_eq!(
            answer.refusal(),
            format!(
                "504 not_over_yet: the execution \"e\" is not over after {seconds} s: it is running and waits \
                 for the event \"approval\"; ask again"
            )
        );
        assert_eq!(answer.json()["status"], "running");
        assert_eq!(answer.json()["waitingFor"]["type"], "event");
    }
    host.begin("done", json!(null)).await;
    for query in ["timeoutSecs=9999", "timeout_secs=30", ""] {
        assert_eq!(host.get(&format!("/api/v1/executions/done/wait?{query}")).await.status, 200);
    }
}
