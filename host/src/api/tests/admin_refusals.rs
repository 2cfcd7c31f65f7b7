//! Every no of the admin routes that is given before anything is looked at: status, code, sentence.

use super::harness::*;

const PREFIXES: [&str; 2] = ["/admin/v1", "/zart/admin/v1"];

/// Posts `body` under both prefixes and wants the same refusal.
async fn refused(host: &Host, path: &str, body: &str, expected: &str) {
    for prefix in PREFIXES {
        let answer = host.post(&format!("{prefix}{path}"), body).await;
        assert_eq!(answer.refusal(), expected, "{path} {body}");
    }
}

#[tokio::test]
async fn a_field_of_the_wrong_shape_or_out_of_range_is_422_and_named() {
    let host = Host::start().await;
    let long = format!(r#"{{"stepName":"s","triggeredBy":"{}"}}"#, "x".repeat(256));
    let cases = [
        ("/executions/e/retry-step", "{}", "wrong_shape: `stepName` is missing: it must be a string"),
        (
            "/executions/e/retry-step",
            r#"{"stepName":"s","attemptsMax":0}"#,
            "out_of_range: `attemptsMax`: must be a whole number from 1 to 1000, this is 0",
        ),
        (
            "/executions/e/retry-step",
            r#"{"stepName":"s","attemptsMax":1.5}"#,
            "out_of_range: `attemptsMax`: must be a whole number from 1 to 1000, this is 1.5",
        ),
        (
            "/executions/e/retry-step",
            r#"{"stepName":"s","attemptsMax":"3"}"#,
            "wrong_shape: `attemptsMax` must be a whole number, this is a string",
        ),
        (
            "/executions/e/retry-step",
            r#"{"stepName":"s","timeoutMs":2592000001}"#,
            "out_of_range: `timeoutMs`: must be a whole number from 1 to 2592000000, this is 2592000001",
        ),
        (
            "/executions/e/retry-step",
            r#"{"stepName":"s","moduleVersion":-1}"#,
            "out_of_range: `moduleVersion`: must be a whole number from 1 to 4294967295, this is -1",
        ),
        (
            "/executions/e/retry-step",
            &long,
            "out_of_range: `triggeredBy`: must have at most 255 characters, this has 256",
        ),
        (
            "/executions/e/retry-step",
            r#"{"stepName":""}"#,
            "out_of_range: `stepName`: a step key must have 1 to 212 characters, this one has 0",
        ),
        (
            "/executions/e/rerun",
            r#"{"rerunSteps":"charge"}"#,
            "wrong_shape: `rerunSteps` must be an array of strings, this is a string",
        ),
        (
            "/executions/e/rerun",
            r#"{"preserveSteps":["a",7]}"#,
            "wrong_shape: `preserveSteps[1]` must be a string, this is a number",
        ),
        (
            "/executions/e/rerun",
            r#"{"preserveSteps":["a",""]}"#,
            "out_of_range: `preserveSteps`: item 1: a step key must have 1 to 212 characters, this one has 0",
        ),
        ("/executions/e/restart", "[]", "wrong_shape: the body must be a JSON object, this is an array"),
        (
            "/executions/e/restart",
            r#"{"reason":1}"#,
            "wrong_shape: `reason` must be a string, this is a number",
        ),
        (
            "/executions/e/steps/charge/resolve",
            "{}",
            "wrong_shape: what the step has come to is missing: give `result` (any JSON) or `failure` (an object \
             with `message`, and `details` if there are any)",
        ),
        (
            "/executions/e/steps/charge/resolve",
            r#"{"result":1,"failure":{"message":"no"}}"#,
            "wrong_shape: give `result` or `failure`, not both: a step has come to one of them",
        ),
        (
            "/executions/e/steps/charge/resolve",
            r#"{"failure":"no"}"#,
            "wrong_shape: `failure` must be an object, this is a string",
        ),
        (
            "/executions/e/steps/charge/resolve",
            r#"{"failure":{"details":1}}"#,
            "wrong_shape: `failure` must have a `message`, which must be a string",
        ),
        (
            "/pause",
            r#"{"taskName":"order","expiresAt":"tomorrow"}"#,
            "out_of_range: `expiresAt`: must be a time like 2026-01-31T12:00:00.000Z (RFC 3339)",
        ),
        (
            "/pause",
            r#"{"taskName":"or der"}"#,
            "out_of_range: `taskName`: a task name (letters, digits, '.', '_' and '-') must be printable: the \
             character ' ' at position 2 is not allowed",
        ),
        ("/resume", r#"{"executionId":7}"#, "wrong_shape: `executionId` must be a string, this is a number"),
    ];
    for (path, body, expected) in cases {
        refused(&host, path, body, &format!("422 {expected}")).await;
        if let Some(named) = expected.strip_prefix("out_of_range: `").and_then(|rest| rest.split('`').next())
        {
            let answer = host.post(&format!("/admin/v1{path}"), body).await;
            assert_eq!(answer.json()["field"], named);
        }
    }
    for pattern in ["", "charge[", "{a,b"] {
        let body = serde_json::json!({ "stepPattern": pattern }).to_string();
        let answer = host.post("/admin/v1/pause", &body).await;
        let refusal = answer.refusal();
        assert!(refusal.starts_with("422 out_of_range: `stepPattern`: "), "{refusal}");
    }
}

#[tokio::test]
async fn a_bulk_repair_must_say_for_what_and_nothing_of_it_is_passed_over() {
    let host = Host::start().await;
    let print = r#""fingerprint":"0123456789abcdef","action":"#;
    let cases = [
        (
            r#"{"action":"retry-step"}"#.to_owned(),
            "empty_selection: give a `fingerprint` (GET /admin/v1/failures lists them) or a `filter` with at least \
             one of taskName, moduleVersion, from, to, search: without both it would be for every failed execution",
        ),
        (
            r#"{"action":"retry-step","filter":{"search":""}}"#.to_owned(),
            "empty_selection: give a `fingerprint` (GET /admin/v1/failures lists them) or a `filter` with at least \
             one of taskName, moduleVersion, from, to, search: without both it would be for every failed execution",
        ),
        (
            r#"{"action":"restart","filter":{"taskname":"order"}}"#.to_owned(),
            "wrong_shape: `filter` has no field \"taskname\"; allowed are taskName, moduleVersion, from, to, search",
        ),
        (
            r#"{"action":"restart","filter":{"taskName":"order"},"rate":1}"#.to_owned(),
            "wrong_shape: the body has no field \"rate\"; allowed are action, fingerprint, filter, ratePerSecond, \
             canary, failedShareMaxPercent, attemptsMax, timeoutMs, moduleVersion, dryRun, triggeredBy, reason",
        ),
        (
            r#"{"action":"restart","fingerprint":"all"}"#.to_owned(),
            "out_of_range: `fingerprint`: must be 16 hexadecimal digits, as GET /admin/v1/failures lists them",
        ),
        (format!(r#"{{{print}"rerun"}}"#), "out_of_range: `action`: must be retry-step or restart"),
        (
            format!(r#"{{{print}"restart","attemptsMax":3}}"#),
            "out_of_range: `attemptsMax`: goes with retry-step only: a restart takes the active version and its \
             own options",
        ),
        (
            format!(r#"{{{print}"restart","ratePerSecond":0}}"#),
            "out_of_range: `ratePerSecond`: must be a whole number from 1 to 5000, this is 0",
        ),
        (
            format!(r#"{{{print}"restart","canary":-1}}"#),
            "out_of_range: `canary`: must be a whole number from 0 to 10000, this is -1",
        ),
        (
            format!(r#"{{{print}"restart","failedShareMaxPercent":101}}"#),
            "out_of_range: `failedShareMaxPercent`: must be a whole number from 0 to 100, this is 101",
        ),
    ];
    for (body, expected) in cases {
        refused(&host, "/bulk", &body, &format!("422 {expected}")).await;
        refused(&host, "/bulk?dryRun=true", &body, &format!("422 {expected}")).await;
    }
}

#[tokio::test]
async fn a_bad_query_is_400_and_the_allowed_is_named() {
    let host = Host::start().await;
    let whole = "must be a whole number from 0 to";
    let cases = [
        (
            "GET /executions/e/detail?run=1",
            "there is no query parameter \"run\"; allowed are runId, stepsLimit, stepsOffset".to_owned(),
        ),
        ("GET /executions/e/detail?stepsLimit=10001", format!("stepsLimit {whole} 10000, this is \"10001\"")),
        ("GET /executions/e/detail?stepsOffset=-1", format!("stepsOffset {whole} 2^63-1, this is \"-1\"")),
        ("GET /executions/e/runs?limit=1", "there is no query parameter \"limit\"; there are none here".to_owned()),
        ("POST /executions/e/restart?dryRun=1", "dryRun must be true or false, this is \"1\"".to_owned()),
        (
            "POST /executions/e/rerun?dry_run=true",
            "there is no query parameter \"dry_run\"; allowed are dryRun".to_owned(),
        ),
        ("GET /pause?includeDeleted=yes", "includeDeleted must be true or false, this is \"yes\"".to_owned()),
        ("GET /failures?limit=1001", format!("limit {whole} 1000, this is \"1001\"")),
        ("GET /failures?examples=21", format!("examples {whole} 20, this is \"21\"")),
        (
            "GET /failures?status=failed",
            "there is no query parameter \"status\"; allowed are taskName, moduleVersion, from, to, search, limit, examples".to_owned(),
        ),
        ("GET /bulk?state=running", "there is no query parameter \"state\"; there are none here".to_owned()),
        (
            "GET /audit?action=delete",
            "action must be one of retry_step, resolve_step, restart, rerun, cancel, pause, resume, upload_module, \
             activate_version, remove_module, set_grants, set_limits, start_bulk, cancel_bulk, stop_bulk, \
             set_secret, delete_secret, this is \"delete\"".to_owned(),
        ),
        (
            "GET /audit?who=ann",
            "there is no query parameter \"who\"; allowed are action, actor, executionId, taskName, from, to, limit, \
             offset".to_owned(),
        ),
        ("GET /audit?limit=1001", format!("limit {whole} 1000, this is \"1001\"")),
        ("GET /audit?taskName=a%20b", "taskName must be a task name, this is \"a b\"".to_owned()),
        (
            "DELETE /pause/r?why=x",
            "there is no query parameter \"why\"; allowed are triggeredBy, reason".to_owned(),
        ),
        ("GET /modules/order/grants?of=1", "there is no query parameter \"of\"; there are none here".to_owned()),
        ("GET /modules/order/limits?of=1", "there is no query parameter \"of\"; there are none here".to_owned()),
        (
            "DELETE /modules/order?force=true",
            "there is no query parameter \"force\"; allowed are triggeredBy, reason".to_owned(),
        ),
    ];
    for (request, expected) in cases {
        let (method, path) = request.split_once(' ').unwrap();
        for prefix in PREFIXES {
            let answer = host.get(&format!("{method} {prefix}{path}")).await;
            assert_eq!(answer.refusal(), format!("400 bad_query: {expected}"), "{request}");
        }
    }
}

#[tokio::test]
async fn what_is_not_json_is_refused_but_nothing_at_all_is_none() {
    let host = Host::start().await;
    for path in ["retry-step", "restart", "rerun", "steps/charge/resolve"] {
        let path = format!("/admin/v1/executions/e/{path}");
        let answer = host.post(&path, "{").await;
        assert!(answer.refusal().starts_with("400 not_json: "), "{path}");
        let answer = host.call("POST", &path, "text/plain", "{}").await;
        assert!(answer.refusal().starts_with("415 wrong_content_type: "), "{path}");
        let answer = host.post(&path, &format!("{{}}{}", " ".repeat(1_000))).await;
        assert!(answer.refusal().starts_with("413 too_large: "), "{path}");
    }
    let answer = host.post("/api/v1/executions/none/cancel", r#"{"reason":7}"#).await;
    assert_eq!(answer.refusal(), "422 wrong_shape: `reason` must be a string, this is a number");
    for body in ["", "null", "{}", r#"{"triggeredBy":"ann","reason":null,"other":1}"#] {
        let answer = host.post("/api/v1/executions/none/cancel", body).await;
        assert_eq!(answer.refusal(), "404 unknown_execution: there is no execution \"none\"", "{body}");
    }
}

#[tokio::test]
async fn a_path_that_names_nothing_possible_is_404() {
    let host = Host::start().await;
    let long = "x".repeat(256);
    for request in ["GET /executions/{}/detail", "GET /executions/{}/runs", "POST /executions/{}/restart"] {
        for prefix in PREFIXES {
            let (method, path) = request.split_once(' ').unwrap();
            let answer = host.get(&format!("{method} {prefix}{}", path.replace("{}", &long))).await;
            assert!(answer.refusal().starts_with("404 unknown_execution: there is no such execution"));
        }
    }
    let path = format!("/admin/v1/executions/e/steps/{long}/resolve");
    let answer = host.post(&path, r#"{"result":1}"#).await;
    assert!(answer.refusal().starts_with("404 unknown_step: there is no such step"), "{}", answer.text);
}

#[tokio::test]
async fn the_wrong_method_says_which_are_right() {
    let host = Host::start().await;
    for (request, allowed) in [
        ("POST /executions/e/detail", "GET,HEAD"),
        ("GET /executions/e/retry-step", "POST"),
        ("GET /executions/e/steps/s/resolve", "POST"),
        ("DELETE /pause", "POST,GET,HEAD"),
        ("GET /pause/r", "POST,DELETE"),
        ("GET /resume", "POST"),
        ("POST /failures", "GET,HEAD"),
        ("DELETE /bulk/b", "GET,HEAD"),
        ("POST /audit", "GET,HEAD"),
    ] {
        let (method, path) = request.split_once(' ').unwrap();
        for prefix in PREFIXES {
            let answer = host.get(&format!("{method} {prefix}{path}")).await;
            assert!(answer.refusal().starts_with("405 method_not_allowed"), "{request}");
            assert_eq!(answer.header("allow"), allowed, "{request}");
        }
    }
}
