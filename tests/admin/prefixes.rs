//! What holds on every admin route.

use crate::harness::*;

/// Every admin route that reads, given `o-1`, a pause rule and a bulk repair.
fn reads(bulk: &str) -> Vec<String> {
    let paths = [
        "/executions/o-1/detail",
        "/executions/o-1/detail?runId=o-1:run:0",
        "/executions/o-1/runs",
        "/executions/nobody/detail",
        "/executions/nobody/runs",
        "/pause",
        "/pause?includeDeleted=true",
        "/failures",
        "/bulk",
        "/bulk/nobody",
        "/audit",
        "/audit?action=nonsense",
        "/nonsense",
    ];
    paths.iter().map(|path| (*path).to_owned()).chain([format!("/bulk/{bulk}")]).collect()
}

#[tokio::test]
async fn both_prefixes_read_alike() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    server.pause(&json!({ "taskName": "raw" })).await;
    let body = json!({ "action": "retry-step", "filter": { "search": "o-1" } });
    let bulk = server.bulk_over(&server.start_bulk(&body).await).await;
    for path in reads(bulk_id(&bulk)) {
        let [old, new] = ADMIN_PREFIXES.map(|prefix| format!("{prefix}{path}"));
        let (old, new) = (server.get(&old).await, server.get(&new).await);
        if path == "/nonsense" {
            old.error(404, "unknown_route");
            new.error(404, "unknown_route");
        } else {
            assert_eq!((old.status, &old.text), (new.status, &new.text), "{path}");
        }
    }
}

#[tokio::test]
async fn both_prefixes_write_alike() {
    let server = Server::start().await;
    for (n, prefix) in ADMIN_PREFIXES.into_iter().enumerate() {
        let id = format!("o-{n}");
        let of = |verb: &str| format!("{prefix}/executions/{id}/{verb}");
        server.play(&id, &script([step_with("charge", json!({ "failures": 2 }))])).await;
        let retry = json!({ "stepName": "charge" });
        let retried = server.post_json(&of("retry-step"), &retry).await.expect(200);
        assert!(retried["newTaskId"].is_string(), "{retried}");
        server
            .until_detail(&id, "is dead again", |d| {
                attempts_in(d, "charge").len() == 2 && is_step(d, "charge", "dead")
            })
            .await;
        server.failure(&id).await;
        let result = json!({ "result": 1 });
        server.post_json(&of("steps/charge/resolve"), &result).await.expect(200);
        server.result(&id).await;
        let restarted = server.post_json(&of("restart"), &json!({})).await.expect(200);
        assert!(restarted["newRunId"].is_string(), "{restarted}");
        server.failure(&id).await;
        let rerun = server
            .post_json(&of("rerun"), &json!({ "rerunSteps": [], "preserveSteps": [] }))
            .await
            .expect(200);
        assert_eq!((&rerun["newRunNumber"], &rerun["effectiveRerun"]), (&json!(2), &json!(["charge"])));
        assert_eq!(rerun["potentiallyStale"], json!([]));
        server.failure(&id).await;
        let scope = json!({ "executionId": id });
        let rule = server.post_json(&format!("{prefix}/pause"), &scope).await.expect(201);
        let resumed = server.post_json(&format!("{prefix}/resume"), &scope).await.expect(200);
        assert_eq!(resumed, json!({ "rulesDeleted": 1 }));
        server.delete(&format!("{prefix}/pause/{}", rule_id(&rule))).await.error(404, "unknown_pause_rule");
        let body = json!({ "action": "restart", "filter": { "search": id } });
        let bulk = server.post_json(&format!("{prefix}/bulk"), &body).await.expect(202);
        server.bulk_over(&bulk).await;
        server.post(&format!("{prefix}/bulk/{}/cancel", bulk_id(&bulk))).await.error(409, "bulk_over");
    }
    let (_, total) = server.audit("?action=rerun").await;
    assert_eq!(total, 2);
}

#[tokio::test]
async fn a_wrong_method_is_405_and_names_the_right_ones() {
    let server = Server::empty().await;
    for prefix in ADMIN_PREFIXES {
        for (method, path, allowed) in [
            ("POST", "/executions/o-1/detail", "GET"),
            ("GET", "/executions/o-1/retry-step", "POST"),
            ("GET", "/executions/o-1/steps/charge/resolve", "POST"),
            ("PUT", "/executions/o-1/restart", "POST"),
            ("DELETE", "/executions/o-1/rerun", "POST"),
            ("POST", "/executions/o-1/runs", "GET"),
            ("DELETE", "/pause", "GET POST"),
            ("GET", "/pause/some", "POST DELETE"),
            ("GET", "/resume", "POST"),
            ("POST", "/failures", "GET"),
            ("DELETE", "/bulk", "GET POST"),
            ("POST", "/bulk/some", "GET"),
            ("GET", "/bulk/some/cancel", "POST"),
            ("DELETE", "/audit", "GET"),
            ("POST", "/audit", "GET"),
        ] {
            let answer = server.send(server.request(method, &format!("{prefix}{path}"))).await;
            answer.any_error(405);
            let allow = answer.header("allow").unwrap_or_default();
            assert!(allowed.split(' ').all(|allowed| allow.contains(allowed)), "{method} {path}: {allow}");
        }
    }
}

#[tokio::test]
async fn a_wrong_content_type_is_415_and_a_body_that_is_too_large_413() {
    let server = Server::with("body-max-bytes", 1_000).start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    let before = server.all_of("o-1").await;
    let large = json!({ "reason": "x".repeat(2_000) });
    for path in [
        "/executions/o-1/retry-step",
        "/executions/o-1/steps/charge/resolve",
        "/executions/o-1/restart",
        "/executions/o-1/rerun",
        "/pause",
        "/pause/some",
        "/resume",
        "/bulk",
        "/bulk/some/cancel",
    ] {
        let path = format!("/admin/v1{path}");
        let text = server.request("POST", &path).header("content-type", "text/plain").body("{}");
        server.send(text).await.any_error(415);
        let message = server.post_json(&path, &large).await.error(413, "too_large");
        assert!(message.contains("1000"), "{message}");
        server.post_text(&path, "{\"a\": }").await.error(400, "not_json");
        server.post_text(&path, "[1]").await.error(422, "wrong_shape");
    }
    assert_eq!(server.all_of("o-1").await, before);
}

/// Zart sends `access-control-allow-origin: *` for everything, and has no authentication.
#[tokio::test]
async fn pages_of_other_origins_are_not_let_in() {
    let server = Server::start().await;
    server.play("o-1", &script([])).await;
    let origin = ("origin", "https://elsewhere.example");
    for prefix in ADMIN_PREFIXES {
        for path in
            ["/executions/o-1/detail", "/executions/o-1/runs", "/pause", "/failures", "/bulk", "/audit"]
        {
            let path = format!("{prefix}{path}");
            for method in ["GET", "OPTIONS"] {
                let request = server.request(method, &path).header(origin.0, origin.1);
                let request = request.header("access-control-request-method", "POST");
                let answer = server.send(request).await;
                let cors: Vec<_> = answer
                    .headers
                    .keys()
                    .filter(|name| name.as_str().starts_with("access-control"))
                    .collect();
                assert!(cors.is_empty(), "{method} {path}: {cors:?}");
            }
        }
    }
}

#[tokio::test]
async fn nothing_behind_the_question_mark_is_ignored() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    let before = server.all_of("o-1").await;
    let body = json!({ "stepName": "charge", "result": 1, "taskName": "raw" });
    for path in [
        "/executions/o-1/retry-step?dryrun=true",
        "/executions/o-1/retry-step?dryRun=1",
        "/executions/o-1/restart?dryRun=",
        "/executions/o-1/rerun?dryRun=true&dryRun=false",
        "/executions/o-1/steps/charge/resolve?dry_run=true",
        "/bulk?dryRun=TRUE",
    ] {
        let message = server.post_json(&format!("/admin/v1{path}"), &body).await.error(400, "bad_query");
        assert!(message.contains("dry"), "{message}");
    }
    server.delete("/admin/v1/pause/some?by=ada").await.error(400, "bad_query");
    assert_eq!(server.all_of("o-1").await, before);
}

/// A dry run that is asked for in the wrong place must not become a real one.
#[tokio::test]
async fn a_dry_run_can_be_asked_for_in_the_body_too() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    let before = server.all_of("o-1").await;
    let body = json!({ "stepName": "charge", "result": 1, "dryRun": true });
    for verb in ["retry-step", "restart", "rerun", "steps/charge/resolve"] {
        let answer = server.post_json(&admin_path("o-1", verb), &body).await.expect(200);
        assert_eq!(answer["dryRun"], true, "{verb}");
        let unclear = json!({ "stepName": "charge", "result": 1, "dryRun": "yes" });
        let answer = server.post_json(&admin_path("o-1", verb), &unclear).await;
        assert!(answer.error(422, "wrong_shape").contains("dryRun"));
    }
    let bulk = json!({ "action": "restart", "filter": { "search": "o-1" }, "dryRun": true });
    let answer = server.post_json("/admin/v1/bulk", &bulk).await.expect(200);
    assert_eq!(answer, json!({ "dryRun": true, "wouldRepair": 1 }));
    assert_eq!(server.all_of("o-1").await, before);
}
