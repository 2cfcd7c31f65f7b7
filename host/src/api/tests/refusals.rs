//! Every no of the contract: its status, its code, its sentence.

use axum::body::{Body, Bytes};
use futures_util::stream;
use serde_json::json;

use super::harness::*;

const START: &str = "/api/v1/executions";

#[tokio::test]
async fn what_is_not_json_is_400_with_its_place() {
    let host = Host::start().await;
    let cases: [(&[u8], &str); 7] = [
        (b"", "EOF while parsing a value at line 1 column 0"),
        (b"{\n  \"taskName\": order }", "expected value at line 2 column 15"),
        (b"{} {}", "trailing characters at line 1 column 4"),
        (b"{'taskName':1}", "key must be a string at line 1 column 2"),
        (b"{\"taskName\":7, \"payload\": }", "expected value at line 1 column 27"),
        (b"\xef\xbb\xbf{}", "expected value at line 1 column 1"),
        (b"{\"taskName\":\"\xff\"}", "it is not UTF-8 at byte 13"),
    ];
    for (body, reason) in cases {
        let answer = host.call("POST", START, "application/json", Bytes::from_static(body)).await;
        assert_eq!(answer.refusal(), format!("400 not_json: the body is not JSON: {reason}"));
    }
    let event = host.post("/api/v1/events/e/approval", "{").await;
    assert_eq!(
        event.refusal(),
        "400 not_json: the body is not JSON: EOF while parsing an object at line 1 column 1"
    );
}

#[tokio::test]
async fn json_of_the_wrong_shape_is_422_and_the_field_is_named() {
    let host = Host::start().await;
    let cases = [
        (r#"[]"#, "wrong_shape: the body must be a JSON object, this is an array"),
        (r#" "x""#, "wrong_shape: the body must be a JSON object, this is a string"),
        (r#"{}"#, "wrong_shape: `taskName` is missing: it must be a string"),
        (r#"{"taskName":null}"#, "wrong_shape: `taskName` is missing: it must be a string"),
        (r#"{"taskName":7}"#, "wrong_shape: `taskName` must be a string, this is a number"),
        (r#"{"taskName":["a"]}"#, "wrong_shape: `taskName` must be a string, this is an array"),
        (
            r#"{"taskName":"\ud800"}"#,
            "wrong_shape: `taskName` must be a string, this is half of a surrogate pair",
        ),
        (
            r#"{"taskName":"order","executionId":1}"#,
            "wrong_shape: `executionId` must be a string, this is a number",
        ),
        (
            r#"{"taskName":"a","taskName":"order"}"#,
            "wrong_shape: the field `taskName` is there twice at line 1 column 35",
        ),
        (
            r#"{"taskName":"or der"}"#,
            "out_of_range: `taskName`: a task name (letters, digits, '.', '_' and '-') must be printable: the \
             character ' ' at position 2 is not allowed",
        ),
        (
            r#"{"taskName":"order","executionId":""}"#,
            "out_of_range: `executionId`: an execution id must have 1 to 255 characters, this one has 0",
        ),
        (
            r#"{"taskName":"order","executionId":"a\u0000"}"#,
            "out_of_range: `executionId`: an execution id must be printable: the character '\\0' at position 1 is \
             not allowed",
        ),
    ];
    for (body, expected) in cases {
        let answer = host.post(START, body).await;
        assert_eq!(answer.refusal(), format!("422 {expected}"), "{body}");
        let named = expected.split('`').nth(1).filter(|_| !expected.contains("twice"));
        assert_eq!(answer.json()["field"].as_str(), named, "{body}");
    }
    for id in [".", ".."] {
        assert_eq!(
            host.begin(id, json!(null)).await.refusal(),
            "422 out_of_range: `executionId`: \".\" and \"..\" cannot be asked for: URLs use them up"
        );
    }
    let deep = format!(r#"{{"taskName":"order","payload":{}{}}}"#, "[".repeat(300), "]".repeat(300));
    assert_eq!(
        host.post(START, &deep).await.refusal(),
        "422 out_of_range: `payload`: nested more than 127 deep"
    );
    let deep = format!("{}{}", "[".repeat(300), "]".repeat(300));
    assert_eq!(
        host.post("/api/v1/events/e/approval", &deep).await.refusal(),
        "422 out_of_range: the body cannot be kept: nested more than 127 deep"
    );
    assert_eq!(
        host.post("/api/v1/events/e/approval%232", "1").await.status,
        422,
        "an event's name must not look like a repeat"
    );
    assert_eq!(host.call("PUT", "/admin/v1/modules/a%20b", WASM, "one").await.json()["field"], "taskName");
}

#[tokio::test]
async fn the_wrong_content_type_is_415_and_the_right_one_is_named() {
    let host = Host::start().await;
    let body = r#"{"taskName":"order"}"#;
    for (content_type, found) in [
        ("", "there is none"),
        ("text/plain", "this is \"text/plain\""),
        ("application/x-www-form-urlencoded", "this is \"application/x-www-form-urlencoded\""),
        ("application/json; charset=latin1", "this is \"application/json; charset=latin1\""),
    ] {
        let expected = format!("415 wrong_content_type: the Content-Type must be application/json, {found}");
        assert_eq!(host.call("POST", START, content_type, body).await.refusal(), expected);
        assert_eq!(host.call("POST", "/api/v1/events/e/a", content_type, "1").await.refusal(), expected);
    }
    for content_type in ["application/json;charset=\"utf-8\"", "APPLICATION/JSON", "application/vnd.x+json"] {
        assert_eq!(host.call("POST", START, content_type, body).await.status, 201);
    }
    for content_type in ["", "application/json", "application/octet-stream"] {
        let answer = host.call("PUT", "/admin/v1/modules/order", content_type, "one").await;
        assert!(
            answer
                .refusal()
                .starts_with("415 wrong_content_type: the Content-Type must be application/wasm,")
        );
    }
}

#[tokio::test]
async fn what_is_too_large_is_413_with_the_limit_and_how_to_raise_it() {
    let host = Host::start().await;
    let in_pieces = |bytes: usize| {
        let pieces = std::iter::repeat_n(Bytes::from(vec![b' '; 100]), bytes / 100);
        Body::from_stream(stream::iter(pieces.map(Ok::<_, std::io::Error>)))
    };
    let body = "413 too_large: the body has more than 1000 bytes, which is the limit; raise it with \
                --body-max-bytes (STEPBOX_BODY_MAX_BYTES)";
    for path in [START, "/api/v1/events/e/a"] {
        let answer = host.post(path, &" ".repeat(1_001)).await;
        assert_eq!(answer.refusal(), body);
        assert_eq!(answer.json()["maxBytes"], 1_000);
        assert_eq!(host.call("POST", path, "application/json", in_pieces(1_100)).await.refusal(), body);
        assert_eq!(host.post(path, &" ".repeat(1_000)).await.status, 400, "not JSON, but not too large");
    }
    for component in [Body::from(vec![0; 2_001]), in_pieces(2_100)] {
        assert_eq!(
            host.call("PUT", "/admin/v1/modules/order", WASM, component).await.refusal(),
            "413 too_large: the body has more than 2000 bytes, which is the limit; raise it with \
             --upload-max-bytes (STEPBOX_UPLOAD_MAX_BYTES)"
        );
    }
}

#[tokio::test]
async fn a_body_that_breaks_off_is_400() {
    let host = Host::start().await;
    let pieces = [Ok(Bytes::from_static(b"{")), Err(std::io::Error::other("gone"))];
    let answer = host.call("POST", START, "application/json", Body::from_stream(stream::iter(pieces))).await;
    assert!(answer.refusal().starts_with("400 body_cut_off: the body could not be read to its end"));
}

#[tokio::test]
async fn a_start_that_cannot_be_says_why_and_leaves_nothing_behind() {
    let host = Host::start().await;
    assert_eq!(
        host.post(START, r#"{"executionId":"e","taskName":"refund"}"#).await.refusal(),
        "422 unknown_task: there is no task \"refund\"; upload a module for it with PUT \
         /admin/v1/modules/refund, or see GET /admin/v1/modules for the names of those that there are"
    );
    let refused = host.begin("e", json!({ "items": "two" })).await;
    assert_eq!(
        refused.refusal(),
        "422 payload_refused: the payload is refused by the task's schema at \"/items\": \"two\" is not of type \
         \"integer\""
    );
    assert_eq!(refused.json()["pointer"], "/items");
    assert_eq!(host.get("/api/v1/executions/e").await.status, 404);

    host.begin("e", json!({ "items": 2 })).await;
    assert_eq!(
        host.begin("e", json!({ "items": 3 })).await.refusal(),
        "409 id_taken: the execution id \"e\" is taken by another start of task \"order\", with another task or \
         payload; use a new id"
    );
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let host = Host::start().await;
    for request in [
        "GET /api/v1/executions/none",
        "GET /api/v1/executions/none/wait",
        "POST /api/v1/executions/none/cancel",
        "POST /api/v1/events/none/approval",
    ] {
        assert_eq!(
            host.get(request).await.refusal(),
            "404 unknown_execution: there is no execution \"none\"",
            "{request}"
        );
    }
    let long = format!("/api/v1/executions/{}", "x".repeat(256));
    assert_eq!(
        host.get(&long).await.refusal(),
        "404 unknown_execution: there is no such execution: an execution id must have 1 to 255 characters, \
         this one has 256"
    );
    for request in [
        "GET /admin/v1/modules/none",
        "DELETE /admin/v1/modules/none",
        "GET /admin/v1/modules/none/versions",
        "GET /admin/v1/modules/a%20b",
    ] {
        let refusal = host.get(request).await.refusal();
        assert!(refusal.starts_with("404 unknown_module: there is no "), "{request}: {refusal}");
    }
    for version in ["7", "0", "-1", "x", "99999999999"] {
        let answer = host.get(&format!("POST /admin/v1/modules/order/versions/{version}/activate")).await;
        assert!(
            answer.refusal().starts_with("404 unknown_version: task \"order\" has no version"),
            "{version}"
        );
    }
}

#[tokio::test]
async fn what_is_over_is_409_and_says_how_it_ended() {
    let host = Host::start().await;
    host.begin("e", json!(null)).await;
    host.get("/api/v1/executions/e/wait").await;
    let cancel = host.get("POST /api/v1/executions/e/cancel").await;
    assert_eq!(
        cancel.refusal(),
        "409 already_over: the execution \"e\" is completed and can no longer be cancelled"
    );
    assert_eq!(cancel.json()["status"], "completed");
    assert_eq!(
        host.get("POST /api/v1/events/e/approval").await.refusal(),
        "409 already_over: the execution \"e\" is completed and can no longer take an event"
    );
}

#[tokio::test]
async fn a_bad_query_is_400_and_the_allowed_is_named() {
    let host = Host::start().await;
    let cases = [
        (
            "executions?status=done",
            "status must be one of scheduled, running, completed, failed, cancelled, this is \"done\"",
        ),
        (
            "executions?status=",
            "status must be one of scheduled, running, completed, failed, cancelled, this is \"\"",
        ),
        ("executions?sortBy=name", "sortBy must be one of scheduledAt, status, taskName, this is \"name\""),
        ("executions?sortOrder=up", "sortOrder must be asc or desc, this is \"up\""),
        ("executions?limit=1001", "limit must be a whole number from 0 to 1000, this is \"1001\""),
        ("executions?limit=-1", "limit must be a whole number from 0 to 1000, this is \"-1\""),
        (
            "executions?offset=9223372036854775808",
            "offset must be a whole number from 0 to 2^63-1, this is \"9223372036854775808\"",
        ),
        (
            "executions?from=yesterday",
            "from must be a time like 2026-01-31T12:00:00.000Z (RFC 3339; write + as %2B), this is \"yesterday\"",
        ),
        (
            "executions?state=x",
            "there is no query parameter \"state\"; allowed are status, taskName, from, to, search, sortBy, sortOrder, limit, offset",
        ),
        ("executions?limit=1&limit=2", "the query parameter \"limit\" is given twice; give it once"),
        ("executions?search=%ff", "what is percent-encoded in the query must be UTF-8"),
        (
            "executions/e/wait?timeoutSecs=soon",
            "timeoutSecs must be a number of seconds, not negative, this is \"soon\"",
        ),
        (
            "executions/e/wait?timeout_secs=-1",
            "timeout_secs must be a number of seconds, not negative, this is \"-1\"",
        ),
        (
            "executions/e/wait?timeout_secs=NaN",
            "timeout_secs must be a number of seconds, not negative, this is \"NaN\"",
        ),
        (
            "executions/e/wait?timeoutSecs=1&timeout_secs=1",
            "timeoutSecs and timeout_secs are two names of one thing; give one of them",
        ),
        (
            "executions/e/wait?timeout=1",
            "there is no query parameter \"timeout\"; allowed are timeoutSecs, timeout_secs",
        ),
        ("stats?taskName=order", "there is no query parameter \"taskName\"; there are none here"),
    ];
    for (query, expected) in cases {
        assert_eq!(
            host.get(&format!("/api/v1/{query}")).await.refusal(),
            format!("400 bad_query: {expected}")
        );
    }
}

#[tokio::test]
async fn a_path_that_is_not_well_encoded_is_400() {
    let host = Host::start().await;
    for path in ["/api/v1/executions/%", "/api/v1/executions/%zz", "/api/v1/executions/%f"] {
        let refusal = host.get(path).await.refusal();
        assert!(
            refusal.starts_with("400 bad_path: the path is not well encoded: a % is followed"),
            "{refusal}"
        );
    }
    assert_eq!(
        host.get("/api/v1/executions/%ff").await.refusal(),
        "400 bad_path: the path is not well encoded: what is percent-encoded must be UTF-8"
    );
}

#[tokio::test]
async fn an_unknown_route_is_404_and_an_unknown_method_405() {
    let host = Host::start().await;
    assert_eq!(
        host.get("/api/v2/executions").await.refusal(),
        "404 unknown_route: there is no route GET /api/v2/executions; the routes are under /api/v1 and /admin/v1"
    );
    for request in ["GET /", "GET /api/v1/executions/", "GET /admin/v1/executions/e", "POST /admin/v1/pauses"]
    {
        assert!(host.get(request).await.refusal().starts_with("404 unknown_route"), "{request}");
    }
    for (request, allowed) in [
        ("DELETE /api/v1/executions", "POST,GET,HEAD"),
        ("GET /api/v1/events/e/a", "POST"),
        ("POST /admin/v1/modules/order", "PUT,GET,HEAD,DELETE"),
        ("POST /healthz", "GET,HEAD"),
    ] {
        let answer = host.get(request).await;
        assert!(answer.refusal().starts_with("405 method_not_allowed"), "{request}");
        assert_eq!(answer.header("allow"), allowed);
        let path = request.split_once(' ').unwrap().1;
        let options = host.get(&format!("OPTIONS {path}")).await;
        assert_eq!((options.status, options.header("allow"), options.text.as_str()), (204, allowed, ""));
        assert_eq!(options.header("access-control-allow-origin"), "");
    }
    let head = host.get("HEAD /api/v1/stats").await;
    assert_eq!((head.status, head.text.as_str()), (200, ""));
}
