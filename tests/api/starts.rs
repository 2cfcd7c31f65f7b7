//! `POST /api/v1/executions`

use std::collections::BTreeMap;

use futures_util::future::join_all;

use crate::harness::*;

const PATH: &str = "/api/v1/executions";

/// Nothing is known of `id`: it cannot be read, it is in no list, and it is counted nowhere.
async fn assert_left_no_row(server: &Server, id: &str) {
    server.get(&client::execution_path(id)).await.error(404, "unknown_execution");
    assert_eq!(server.list("").await, (vec![], 0));
    let stats = server.stats().await;
    assert!(stats.as_object().unwrap().values().all(|count| count == 0), "{stats}");
}

#[tokio::test]
async fn a_new_start_answers_201_with_the_execution_and_its_ids() {
    let server = Server::start().await;
    let payload = script([wait_event("go")]);

    let answer = server.start("o-1", "scenario", &payload).await;

    let started = answer.expect(201);
    assert_eq!(answer.header("location"), Some("/api/v1/executions/o-1"));
    assert_eq!(started["executionId"], "o-1");
    assert_eq!(started["durableExecutionId"], "o-1");
    assert_eq!(started["taskId"], "o-1:run:0");
    assert_eq!(started["name"], "scenario");
    assert_eq!(started["payload"], payload);
    assert_eq!(started["version"], 1);
    assert!(["scheduled", "running"].contains(&started["status"].as_str().unwrap()), "{started}");
    assert!(chrono::DateTime::parse_from_rfc3339(started["scheduledAt"].as_str().unwrap()).is_ok());
    for field in ["completedAt", "result", "error", "waitingFor"] {
        assert_eq!(started.get(field), Some(&Value::Null), "{field} is written out, in {started}");
    }
}

#[tokio::test]
async fn an_id_is_made_where_it_is_left_out() {
    let server = Server::start().await;
    let mut ids = Vec::new();
    for body in
        [json!({ "taskName": "raw" }), json!({ "executionId": null, "taskName": "raw", "payload": null })]
    {
        let started = server.post_json(PATH, &body).await.expect(201);
        let id = started["executionId"].as_str().unwrap().to_owned();
        let parts: Vec<usize> = id.split('-').map(str::len).collect();
        assert_eq!(parts, [8, 4, 4, 4, 12], "{id} is a UUID");
        assert!(matches!(&id[14..15], "4" | "7"), "{id} is of version 4 or 7");
        assert_eq!(started["payload"], Value::Null);
        assert_eq!(server.over(&id).await["status"], "completed");
        ids.push(id);
    }
    assert_ne!(ids[0], ids[1]);
}

#[tokio::test]
async fn the_same_start_again_answers_200_and_how_it_stands_and_does_not_run_again() {
    let server = Server::start().await;
    let payload = script([step("charge"), wait_event("go")]);
    server.run_script("o-1", &payload).await;
    let waiting = server.until_waiting("o-1", "event").await;

    let answer = server.start("o-1", "scenario", &payload).await;
    let again = answer.expect(200);
    assert_eq!(answer.header("location"), Some("/api/v1/executions/o-1"));
    assert_eq!((&again["executionId"], &again["taskId"]), (&json!("o-1"), &json!("o-1:run:0")));
    assert_eq!(again["status"], "running");
    assert_eq!(again["waitingFor"], waiting["waitingFor"]);

    server.event("o-1", "go", &json!(1)).await.expect(202);
    let over = server.over("o-1").await;
    let again = server.start("o-1", "scenario", &payload).await.expect(200);
    assert_eq!(again["status"], "completed");
    assert_eq!(again["result"], over["result"]);
    assert_eq!(again["completedAt"], over["completedAt"]);

    // Were it run again, it would be seen to: nothing else can have begun the step.
    assert_eq!(server.execution("o-1").await, over);
    assert_eq!(server.effects_of("o-1"), ["charge 1"]);
}

#[tokio::test]
async fn a_start_is_the_same_whatever_the_order_of_its_keys_and_the_white_space() {
    let server = Server::start().await;
    let bodies = [
        r#"{"executionId":"o-1","taskName":"raw","payload":{"a":1,"b":[2,{"c":3,"d":4}]}}"#,
        "{ \"payload\" : {\"b\":[2, {\"d\":4,\n\"c\":3}], \"a\":1},\t\"taskName\":\"raw\", \"executionId\":\"o-1\"} ",
    ];
    server.post_text(PATH, bodies[0]).await.expect(201);
    server.post_text(PATH, bodies[1]).await.expect(200);
}

#[tokio::test]
async fn the_same_id_with_another_task_or_payload_is_409_and_changes_nothing() {
    let server = Server::start().await;
    server.start("o-1", "raw", &json!({ "return": "1" })).await.expect(201);
    let before = server.over("o-1").await;

    for (task, payload) in [
        ("raw", json!({ "return": "2" })),
        ("raw", Value::Null),
        ("scenario", script([])),
        // Refused whether or not it could be started under another id.
        ("nobody", json!({ "return": "1" })),
        ("scenario", json!("not what its schema wants")),
    ] {
        let message = server.start("o-1", task, &payload).await.error(409, "id_taken");
        assert!(message.contains("o-1"), "{message}");
    }
    assert_eq!(server.execution("o-1").await, before);
    assert_eq!(server.list("").await.1, 1);
}

#[tokio::test]
async fn an_unknown_task_is_422_names_the_task_and_leaves_no_row() {
    let server = Server::start().await;
    let message = server.start("o-1", "refund", &Value::Null).await.error(422, "unknown_task");
    assert!(message.contains("\"refund\""), "{message}");
    assert_left_no_row(&server, "o-1").await;
}

#[tokio::test]
async fn a_payload_that_the_schema_refuses_is_422_names_the_pointer_and_leaves_no_row() {
    let server = Server::start().await;
    for (payload, pointer) in [
        (json!({ "script": "none" }), "/script"),
        (json!({ "script": [step("fine"), { "jump": 1 }] }), "/script/1"),
        (json!({}), ""),
        (json!(null), ""),
    ] {
        let answer = server.start("o-1", "scenario", &payload).await;
        let message = answer.error(422, "payload_refused");
        assert!(message.contains(&format!("\"{pointer}\"")), "{message} does not point to {pointer:?}");
        assert_eq!(answer.json()["pointer"], pointer);
    }
    assert_left_no_row(&server, "o-1").await;
}

#[tokio::test]
async fn an_id_has_1_to_255_printable_characters() {
    let server = Server::start().await;
    let long = "ä".repeat(255);
    for good in ["1", &long, "with space", "a/b?c#d%e&f", "50% off_\"quoted\"", "日本語 🦀", "null"] {
        let answer = server.start(good, "raw", &Value::Null).await;
        assert_eq!(answer.expect(201)["executionId"], good);
        let location = answer.header("location").unwrap().to_owned();
        assert_eq!(server.get(&location).await.expect(200)["durableExecutionId"], good, "at {location}");
        assert_eq!(server.over(good).await["durableExecutionId"], good);
    }
    let (_, before) = server.list("").await;
    for bad in ["", &"x".repeat(256), "line\nbreak", "nul\u{0}", "\u{7f}", "turned \u{202e}round"] {
        server.start(bad, "raw", &Value::Null).await.any_error(422);
    }
    assert_eq!(server.list("").await.1, before);
}

#[tokio::test]
async fn what_does_not_parse_is_400_what_does_not_fit_is_422_and_leaves_no_row() {
    let server = Server::start().await;
    for text in ["", "{", "nonsense", "{\"taskName\":\"raw\"}}", "{'taskName':'raw'}", "\u{feff}{}"] {
        server.post_text(PATH, text).await.any_error(400);
    }
    server.post_text(PATH, b"{\"taskName\":\"r\xff\"}".to_vec()).await.any_error(400);
    for (body, named) in [
        (json!([]), ""),
        (json!("raw"), ""),
        (json!(null), ""),
        (json!({}), "taskName"),
        (json!({ "taskName": null }), "taskName"),
        (json!({ "taskName": 5 }), "taskName"),
        (json!({ "taskName": "" }), "taskName"),
        (json!({ "taskName": "no spaces" }), "taskName"),
        (json!({ "taskName": "x".repeat(129) }), "taskName"),
        (json!({ "taskName": "raw", "executionId": 5 }), "executionId"),
        (json!({ "taskName": "raw", "executionId": {} }), "executionId"),
        (json!({ "taskName": "raw", "executionId": "" }), "executionId"),
    ] {
        let message = server.post_json(PATH, &body).await.any_error(422);
        assert!(message.contains(named), "{message} does not name {named}");
    }
    assert_left_no_row(&server, "o-1").await;
}

#[tokio::test]
async fn another_content_type_is_415() {
    let server = Server::start().await;
    let body = json!({ "executionId": "o-1", "taskName": "raw" }).to_string();
    for kind in [None, Some("text/plain"), Some("application/x-www-form-urlencoded"), Some("nonsense")] {
        let mut request = server.request("POST", PATH).body(body.clone());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let message = server.send(request).await.any_error(415);
        assert!(message.contains("application/json"), "{message}");
    }
    assert_left_no_row(&server, "o-1").await;
    for kind in ["application/json; charset=utf-8", "Application/JSON"] {
        let request = server.request("POST", PATH).header("content-type", kind).body(body.clone());
        assert!(server.send(request).await.status < 300, "{kind}");
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_413_and_says_the_limit() {
    let server = Server::start().await;
    let too_large = json!({ "executionId": "o-1", "taskName": "raw", "payload": "x".repeat(32 << 20) });
    let message = server.post_json(PATH, &too_large).await.error(413, "too_large");
    assert!(message.contains(|c: char| c.is_ascii_digit()), "no limit in: {message}");
    assert_left_no_row(&server, "o-1").await;
}

#[tokio::test]
async fn the_limit_of_bodies_and_of_modules_can_be_set() {
    let server = Server::with("body-max-bytes", 400).with("upload-max-bytes", 100_000).start().await;
    let too_large = json!({ "taskName": "raw", "payload": "x".repeat(400) });
    let message = server.post_json(PATH, &too_large).await.error(413, "too_large");
    assert!(message.contains("400"), "{message}");
    let message = server.event("nobody", "go", &json!("x".repeat(400))).await.error(413, "too_large");
    assert!(message.contains("400"), "{message}");
    let message = server.upload("raw", guests::raw()).await.error(413, "too_large");
    assert!(message.contains("100000"), "{message}");
    server.start("o-1", "raw", &json!("x".repeat(300))).await.expect(201);
}

#[tokio::test]
async fn a_payload_is_kept_to_the_letter() {
    let server = Server::start().await;
    let payload = r#"{"z":1.0,"a":12345678901234567890123,"e":1e2,"t":"\u00e9 é","deep":[[[{"x":null}]]]}"#;
    let body = format!(r#"{{"executionId":"o-1","taskName":"raw","payload":{payload}}}"#);
    server.post_text(PATH, body).await.expect(201);
    server.over("o-1").await;
    for path in [client::execution_path("o-1"), PATH.to_owned()] {
        let text = server.get(&path).await.text;
        assert!(text.contains(payload), "{path} has another payload: {text}");
    }
}

#[tokio::test]
async fn of_a_thousand_identical_concurrent_starts_one_makes_the_execution_and_all_hear_of_it() {
    let server = Server::start().await;
    let payload = script([step("charge"), wait_event("go")]);

    let answers = join_all((0..1_000).map(|_| server.start("o-1", "scenario", &payload))).await;

    let mut statuses: BTreeMap<u16, u32> = BTreeMap::new();
    answers.iter().for_each(|answer| *statuses.entry(answer.status).or_default() += 1);
    assert_eq!(statuses, BTreeMap::from([(200, 999), (201, 1)]));
    // How it stands moves on meanwhile; what it is does not.
    let lasting = |answer: &Answer| {
        let mut body = answer.json();
        for moving in ["status", "waitingFor"] {
            body.as_object_mut().unwrap().remove(moving);
        }
        body
    };
    let first = lasting(&answers[0]);
    assert!(answers.iter().all(|answer| lasting(answer) == first));

    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.result("o-1").await;
    assert_eq!(server.list("").await.1, 1);
    assert_eq!(server.effects_of("o-1"), ["charge 1"]);
    assert_eq!(server.stats().await["completed"], 1);
}

#[tokio::test]
async fn of_two_concurrent_starts_with_different_payloads_one_is_201_and_one_409() {
    let server = Server::start().await;
    for round in 0..25 {
        let id = format!("o-{round}");
        let payloads = [json!({ "return": "1" }), json!({ "return": "2" })];
        let answers = join_all(payloads.iter().map(|payload| server.start(&id, "raw", payload))).await;
        let winner = answers.iter().position(|answer| answer.status == 201).expect("one is new");
        answers[1 - winner].error(409, "id_taken");
        assert_eq!(server.over(&id).await["payload"], payloads[winner]);
    }
    assert_eq!(server.list("").await.1, 25);
}
