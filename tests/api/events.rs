//! `POST /api/v1/events/{id}/{eventName}`

use crate::harness::*;

fn waits(n: usize) -> Value {
    script(vec![wait_event("go"); n])
}

fn values(values: impl IntoIterator<Item = Value>) -> Value {
    values.into_iter().map(|value| json!({ "value": value })).collect()
}

#[tokio::test]
async fn an_event_that_is_waited_for_is_delivered() {
    let server = Server::start().await;
    server.run_script("o-1", &waits(1)).await;
    server.until_waiting("o-1", "event").await;

    let answer = server.event("o-1", "go", &json!({ "carrier": "Red Van" })).await.expect(202);

    assert_eq!((&answer["status"], &answer["delivered"]), (&json!("delivered"), &json!(true)));
    assert_eq!(server.result("o-1").await, values([json!({ "carrier": "Red Van" })]));
}

#[tokio::test]
async fn an_event_that_comes_before_the_wait_is_buffered_and_consumed_by_the_first_matching_one() {
    let server = Server::start().await;
    let lines = [wait_event("first"), wait_event("go"), wait_event("go")];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;

    let answer = server.event("o-1", "go", &json!("early")).await.expect(202);
    assert_eq!((&answer["status"], &answer["delivered"]), (&json!("buffered"), &json!(false)));

    server.event("o-1", "first", &Value::Null).await.expect(202);
    server.until("o-1", "has come to the second wait", |e| e["waitingFor"]["step"] == "go#2").await;
    let answer = server.event("o-1", "go", &json!("late")).await.expect(202);
    assert_eq!(answer["status"], "delivered");
    assert_eq!(server.result("o-1").await, values([Value::Null, json!("early"), json!("late")]));
}

#[tokio::test]
async fn an_event_that_is_sent_twice_is_two_and_each_is_consumed_once_in_order_of_arrival() {
    let server = Server::start().await;
    server
        .run_script(
            "o-1",
            &script([wait_event("first"), json!({ "repeat": { "times": 6, "lines": [wait_event("go")] } })]),
        )
        .await;
    for payload in [json!(1), json!(1), json!(2), json!(null), json!(2), json!(3)] {
        server.event("o-1", "go", &payload).await.expect(202);
    }
    server.event("o-1", "other", &json!("nobody waits for it")).await.expect(202);
    server.event("o-1", "first", &json!(0)).await.expect(202);

    let expected = [json!(0), json!(1), json!(1), json!(2), json!(null), json!(2), json!(3)];
    assert_eq!(server.result("o-1").await, values(expected));
}

#[tokio::test]
async fn an_event_that_comes_after_a_wait_has_timed_out_is_kept_for_the_next_one() {
    let server = Server::start().await;
    let short = json!({ "waitEvent": { "event": "go", "timeoutMs": 1 } });
    server.run_script("o-1", &script([short, wait_event("again"), wait_event("go")])).await;
    server.until("o-1", "has come to the second wait", |e| e["waitingFor"]["event"] == "again").await;
    server.event("o-1", "go", &json!("late")).await.expect(202);
    server.event("o-1", "again", &json!(0)).await.expect(202);

    let result = server.result("o-1").await;
    assert_eq!(result[0]["failure"]["kind"], "timed_out");
    assert_eq!(result[2], json!({ "value": "late" }));
}

#[tokio::test]
async fn an_event_reaches_its_own_execution_only() {
    let server = Server::start().await;
    for id in ["o-1", "o-2"] {
        server.run_script(id, &waits(1)).await;
        server.until_waiting(id, "event").await;
    }
    server.event("o-2", "go", &json!(2)).await.expect(202);
    assert_eq!(server.result("o-2").await, values([json!(2)]));
    assert_eq!(server.execution("o-1").await["status"], "running");
    server.event("o-1", "go", &json!(1)).await.expect(202);
    assert_eq!(server.result("o-1").await, values([json!(1)]));
}

#[tokio::test]
async fn an_empty_body_is_null() {
    let server = Server::start().await;
    server.run_script("o-1", &waits(3)).await;
    server.post("/api/v1/events/o-1/go").await.expect(202);
    server.post_text("/api/v1/events/o-1/go", "").await.expect(202);
    server.event("o-1", "go", &json!("last")).await.expect(202);
    assert_eq!(server.result("o-1").await, values([Value::Null, Value::Null, json!("last")]));
}

#[tokio::test]
async fn any_json_will_do_and_arrives_to_the_letter() {
    let server = Server::start().await;
    let payloads = ["0", "-1.5e3", "true", "\"text \\u00e9 🦀\"", "[]", "{\"a\":{\"b\":[1,null]}}"];
    server.run_script("o-1", &waits(payloads.len())).await;
    for payload in payloads {
        server.post_text("/api/v1/events/o-1/go", payload).await.expect(202);
    }
    let expected = payloads.map(|payload| serde_json::from_str::<Value>(payload).unwrap());
    assert_eq!(server.result("o-1").await, values(expected));
}

#[tokio::test]
async fn an_unknown_execution_is_404() {
    let server = Server::start().await;
    let message = server.event("nobody", "go", &Value::Null).await.error(404, "unknown_execution");
    assert!(message.contains("nobody"), "{message}");
}

#[tokio::test]
async fn a_terminal_execution_is_409_and_its_state_is_named() {
    let server = Server::start().await;
    server.play("completed", &script([])).await;
    server.play("failed", &script([json!({ "fail": { "message": "as asked" } })])).await;
    server.run_script("cancelled", &waits(1)).await;
    server.cancel("cancelled").await.expect_empty(204);
    for status in ["completed", "failed", "cancelled"] {
        let before = server.execution(status).await;
        let message = server.event(status, "go", &Value::Null).await.error(409, "already_over");
        assert!(message.contains(status), "{message}");
        assert_eq!(server.execution(status).await, before);
    }
}

#[tokio::test]
async fn a_body_or_name_that_makes_no_sense_is_refused_and_nothing_is_kept() {
    let server = Server::start().await;
    server.run_script("o-1", &waits(1)).await;
    for text in ["{", "nonsense", "1 2", "\"\u{1}\""] {
        server.post_text("/api/v1/events/o-1/go", text).await.any_error(400);
    }
    server.post_text("/api/v1/events/o-1/go", b"\"\xff\"".to_vec()).await.any_error(400);
    for kind in ["text/plain", "application/xml"] {
        let request = server.request("POST", "/api/v1/events/o-1/go").header("content-type", kind).body("1");
        server.send(request).await.any_error(415);
    }
    let too_large = json!("x".repeat(32 << 20));
    server.event("o-1", "go", &too_large).await.error(413, "too_large");
    for name in [&"x".repeat(201), "go#2", "line\nbreak", "nul\u{0}"] {
        server.event("o-1", name, &Value::Null).await.any_error(422);
    }
    server.event("o-1", "go", &json!("the only one")).await.expect(202);
    assert_eq!(server.result("o-1").await, values([json!("the only one")]));
}
