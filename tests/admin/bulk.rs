//! `…/failures` and `…/bulk`: failures in groups, and what a bulk repair is for. (How it goes:
//! `bulk_course`.)

use crate::harness::*;

fn fails(name: &str, message: &str) -> Value {
    let act = json!({ "fail": { "message": message, "fatal": true } });
    script([step_with(name, json!({ "act": act }))])
}

/// Four that lack an order, one at another step, one with other words, one by its handler, one of
/// another task, two of another version. And some that did not fail.
async fn troubled() -> Server {
    let server = Server::start().await;
    for n in 0..4 {
        server.play(&format!("gone-{n}"), &fails("charge", &format!("order {} is gone", 17 + n))).await;
    }
    server.play("step", &fails("refund", "order 17 is gone")).await;
    server.play("words", &fails("charge", "order 17 is unpaid")).await;
    server.play("handler", &script([json!({ "fail": { "message": "order 17 is gone" } })])).await;
    server.play("fine", &script([step("charge")])).await;
    server.run_script("cancelled", &script([wait_event("go")])).await;
    server.cancel("cancelled").await.expect_empty(204);
    server.start("task", "raw", &json!({ "fail": "{}" })).await.expect(201);
    server.over("task").await;
    server.upload("scenario", guests::scenario_marked("002")).await.expect(201);
    for n in 0..2 {
        server.play(&format!("newer-{n}"), &fails("charge", &format!("order {n} is gone"))).await;
    }
    server
}

fn group<'a>(groups: &'a [Value], example: &str) -> &'a Value {
    let has = |group: &&Value| group["examples"].as_array().unwrap().contains(&json!(example));
    groups.iter().find(has).unwrap_or_else(|| panic!("no group with {example} in {groups:#?}"))
}

#[tokio::test]
async fn failures_are_grouped_by_what_they_have_in_common() {
    let server = troubled().await;
    let groups = server.failures("").await;
    assert_eq!(groups.len(), 6, "{groups:#?}");
    let counts: Vec<u64> = groups.iter().map(|group| group["count"].as_u64().unwrap()).collect();
    assert_eq!(counts, [4, 2, 1, 1, 1, 1], "the most frequent first");

    let gone = &groups[0];
    assert_eq!(gone["examples"], json!(["gone-3", "gone-2", "gone-1"]), "the newest first");
    assert_eq!((&gone["taskName"], &gone["moduleVersion"]), (&json!("scenario"), &json!(1)));
    assert_eq!((&gone["step"], &gone["kind"]), (&json!("charge"), &json!("error")));
    assert!(gone["shape"].as_str().unwrap().contains("order # is gone"), "{gone}");
    assert!(time(&gone["firstAt"]) <= time(&gone["lastAt"]));
    let fingerprints: std::collections::HashSet<_> =
        groups.iter().map(|group| group["fingerprint"].as_str().unwrap()).collect();
    assert_eq!(fingerprints.len(), 6);
    assert!(fingerprints.iter().all(|fingerprint| fingerprint.len() == 16));
    assert_eq!(group(&groups, "newer-0")["moduleVersion"], 2);
    assert_eq!(group(&groups, "step")["step"], "refund");
    assert_eq!(group(&groups, "handler")["step"], Value::Null);
    assert_eq!(group(&groups, "task")["taskName"], "raw");
    assert!(group(&groups, "words")["shape"].as_str().unwrap().contains("unpaid"));
}

#[tokio::test]
async fn groups_can_be_filtered_and_show_as_many_examples_as_are_asked_for() {
    let server = troubled().await;
    for (query, groups, examples) in [
        ("?taskName=raw", 1, 1),
        ("?taskName=nobody", 0, 0),
        ("?search=GONE", 1, 3),
        ("?search=newer", 1, 2),
        ("?limit=1", 1, 3),
        ("?limit=0", 0, 0),
        ("?taskName=scenario&limit=1&examples=20", 1, 4),
        ("?limit=1&examples=0", 1, 0),
        ("?from=2999-01-01T00:00:00Z", 0, 0),
        ("?to=2999-01-01T00:00:00Z&limit=1", 1, 3),
    ] {
        let found = server.failures(query).await;
        let shown: usize = found.iter().map(|group| group["examples"].as_array().unwrap().len()).sum();
        assert_eq!((found.len(), shown), (groups, examples), "{query}: {found:#?}");
    }
    for (query, named) in [
        ("task=raw", "taskName"),
        ("status=failed", "taskName"),
        ("from=yesterday", "from"),
        ("limit=many", "limit"),
        ("limit=1001", "1000"),
        ("examples=21", "20"),
    ] {
        let message = server.get(&format!("/admin/v1/failures?{query}")).await.any_error(400);
        assert!(message.contains(named), "{query}: {message}");
    }
}

#[tokio::test]
async fn what_is_mended_is_in_no_group_any_more() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    assert_eq!(server.failures("").await.len(), 1);
    server.retried("o-1", "charge").await;
    server.result("o-1").await;
    assert_eq!(server.failures("").await, Vec::<Value>::new());
}

#[tokio::test]
async fn a_dry_run_counts_and_changes_nothing() {
    let server = troubled().await;
    let groups = server.failures("").await;
    let (_, audited) = server.audit("?limit=1").await;
    let gone = groups[0]["fingerprint"].clone();
    for (selection, count) in [
        (json!({ "fingerprint": gone }), 4),
        (json!({ "fingerprint": "0123456789abcdef" }), 0),
        (json!({ "filter": { "taskName": "raw" } }), 1),
        (json!({ "filter": { "taskName": "scenario" } }), 9),
        (json!({ "filter": { "taskName": "scenario", "moduleVersion": 2 } }), 2),
        (json!({ "filter": { "search": "GONE-" } }), 4),
        (json!({ "filter": { "from": "2999-01-01T00:00:00Z" } }), 0),
        (json!({ "fingerprint": gone, "filter": { "search": "gone-1" } }), 1),
        (json!({ "fingerprint": gone, "filter": { "taskName": "raw" } }), 0),
    ] {
        for action in ["retry-step", "restart"] {
            let mut body = selection.clone();
            body["action"] = json!(action);
            let answer = server.post_json("/admin/v1/bulk?dryRun=true", &body).await.expect(200);
            assert_eq!(answer, json!({ "dryRun": true, "wouldRepair": count }), "{body}");
        }
    }
    assert_eq!(server.get("/admin/v1/bulk").await.expect(200), json!([]));
    assert_eq!(server.audit("?limit=1").await.1, audited);
    assert_eq!(server.failures("").await, groups);
}

#[tokio::test]
async fn a_selection_or_a_plan_that_makes_no_sense_is_422_and_named() {
    let server = troubled().await;
    for (body, word) in [
        (json!({ "action": "retry-step" }), "fingerprint"),
        (json!({ "action": "retry-step", "filter": {} }), "filter"),
        (json!({ "fingerprint": "0123456789abcdef" }), "action"),
        (json!({ "action": "rerun", "filter": { "taskName": "raw" } }), "restart"),
        (json!({ "action": "restart", "fingerprint": "nonsense" }), "fingerprint"),
        (json!({ "action": "restart", "filter": "raw" }), "filter"),
        (json!({ "action": "restart", "filter": { "task": "raw" } }), "task"),
        (json!({ "action": "restart", "fillter": { "taskName": "raw" } }), "fillter"),
        (
            json!({ "action": "restart", "filter": { "taskName": "raw" }, "ratePerSecond": 0 }),
            "ratePerSecond",
        ),
        (json!({ "action": "restart", "filter": { "taskName": "raw" }, "canary": -1 }), "canary"),
        (
            json!({ "action": "restart", "filter": { "taskName": "raw" }, "failedShareMaxPercent": 101 }),
            "failedShareMaxPercent",
        ),
        (json!({ "action": "restart", "filter": { "taskName": "raw" }, "attemptsMax": 3 }), "attemptsMax"),
        (json!({ "action": "restart", "fingerprint": "0123456789abcdef" }), "failed"),
    ] {
        let message = server.post_json("/admin/v1/bulk", &body).await.any_error(422);
        assert!(message.contains(word), "{body}: {message}");
    }
    assert_eq!(server.get("/admin/v1/bulk").await.expect(200), json!([]));
    assert_eq!(server.audit("?action=start_bulk").await.1, 0);
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let server = Server::start().await;
    let message = server.get("/admin/v1/bulk/nobody").await.error(404, "unknown_bulk");
    assert!(message.contains("nobody"), "{message}");
    server.post("/admin/v1/bulk/nobody/cancel").await.error(404, "unknown_bulk");
    server.get("/admin/v1/bulk?state=running").await.any_error(400);
}
