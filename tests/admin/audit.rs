//! `GET …/audit`: who did what, when and why. (The chain: `verify`.)

use futures_util::future::join_all;

use crate::harness::*;

const FIELDS: [&str; 11] = [
    "number",
    "at",
    "actor",
    "action",
    "executionId",
    "taskName",
    "target",
    "before",
    "after",
    "reason",
    "hash",
];

/// Does one write of each kind, each with its own reason; answers with the actions in order.
pub async fn one_of_each(server: &Server) -> Vec<&'static str> {
    let who = |n: usize| json!({ "triggeredBy": "ada", "reason": format!("reason {n}") });
    let with = |n: usize, more: Value| {
        let mut body = who(n);
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let query = |n: usize| format!("triggeredBy=ada&reason=reason%20{n}");
    let dead = settle("charge", json!({ "failures": 9 }));
    server.run_script("o-1", &script([dead, wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;

    server.retry_step("o-1", &with(1, json!({ "stepName": "charge" }))).await.expect(200);
    server
        .until_detail("o-1", "is dead again", |detail| {
            attempts_in(detail, "charge") == ["1 failed", "2 failed"]
                && detail["execution"]["waitingFor"]["type"] == "event"
        })
        .await;
    server.resolve_step("o-1", "charge", &with(2, json!({ "result": 1 }))).await.expect(200);
    server.restart_run("o-1", &who(3)).await.expect(200);
    server.until_waiting("o-1", "event").await;
    server.rerun("o-1", &with(4, json!({ "rerunSteps": [] }))).await.expect(200);
    server.post_json("/api/v1/executions/o-1/cancel", &who(5)).await.expect_empty(204);
    let first = server.pause(&with(6, json!({ "taskName": "raw" }))).await;
    server.pause(&with(7, json!({ "stepPattern": "x*" }))).await;
    server.delete(&format!("/admin/v1/pause/{}?{}", rule_id(&first), query(8))).await.expect_empty(204);
    assert_eq!(server.resume(&with(9, json!({ "stepPattern": "x*" }))).await, 1);
    let put = server.request("PUT", &format!("/admin/v1/modules/more?{}", query(10)));
    let put = put.header("content-type", "application/wasm").body(guests::raw());
    server.send(put).await.expect(201);
    let put = server.request("PUT", &format!("/admin/v1/modules/scenario?{}", query(11)));
    let put = put.header("content-type", "application/wasm").body(guests::scenario_marked("002"));
    server.send(put).await.expect(201);
    server.post(&format!("/admin/v1/modules/scenario/versions/1/activate?{}", query(12))).await.expect(200);
    server.delete(&format!("/admin/v1/modules/more?{}", query(13))).await.expect_empty(204);
    for (n, what, body) in
        [(14, "grants", json!({ "env": { "A": "1" } })), (15, "limits", json!({ "stepsMax": 9 }))]
    {
        let put = server.request("PUT", &format!("/admin/v1/modules/more/{what}?{}", query(n)));
        server.send(put.json(&body)).await.expect(200);
    }
    vec![
        "retry_step",
        "resolve_step",
        "restart",
        "rerun",
        "cancel",
        "pause",
        "pause",
        "resume",
        "resume",
        "upload_module",
        "upload_module",
        "activate_version",
        "remove_module",
        "set_grants",
        "set_limits",
    ]
}

#[tokio::test]
async fn every_admin_write_leaves_one_entry_with_who_what_when_and_why() {
    let server = Server::start().await;
    let (_, given) = server.audit("?limit=0").await;
    let begun = now() - chrono::TimeDelta::milliseconds(1);
    let actions = one_of_each(&server).await;

    let (mut entries, total) = server.audit(&format!("?limit={}", actions.len())).await;

    assert_eq!(total, given + actions.len() as u64);
    entries.reverse();
    for (n, (entry, action)) in entries.iter().zip(&actions).enumerate() {
        for field in FIELDS {
            assert!(entry.get(field).is_some(), "{field} is missing in {entry:#}");
        }
        assert_eq!(entry["action"], *action, "{entry:#}");
        assert_eq!((&entry["actor"], &entry["reason"]), (&json!("ada"), &json!(format!("reason {}", n + 1))));
        assert_eq!(entry["number"], json!(given + n as u64 + 1));
        assert!(time(&entry["at"]) >= begun && time(&entry["at"]) <= now());
        assert_eq!(entry["hash"].as_str().unwrap().len(), 64);
        assert_ne!(entry["before"], entry["after"], "it changed something: {entry:#}");
        let about = if n < 5 { json!("o-1") } else { Value::Null };
        assert_eq!(entry["executionId"], about, "{entry:#}");
    }
    assert_eq!(entries[0]["target"], "charge");
    assert_eq!((&entries[10]["taskName"], &entries[10]["target"]), (&json!("scenario"), &json!("2")));
    assert_eq!((&entries[12]["taskName"], &entries[12]["after"]), (&json!("more"), &Value::Null));
    // The repair and what it wrote are one transaction, so they have one time.
    assert_eq!(server.runs("o-1").await[1]["createdAt"], entries[2]["at"]);
}

#[tokio::test]
async fn what_is_refused_or_changes_nothing_leaves_none() {
    let server = Server::start().await;
    server.play("o-1", &script([step("charge")])).await;
    let (_, before) = server.audit("?limit=0").await;
    server.retry_step("o-1", &json!({ "stepName": "charge" })).await.any_error(409);
    server.retry_step("nobody", &json!({ "stepName": "charge" })).await.any_error(404);
    server.resolve_step("o-1", "charge", &json!({ "result": 1 })).await.any_error(409);
    server.restart_run("nobody", &json!({})).await.any_error(404);
    server.restart_run("o-1", &json!({ "payload": 7 })).await.any_error(422);
    server.rerun("o-1", &json!({ "rerunSteps": ["refund"] })).await.any_error(422);
    server.dry_run("o-1", "restart", &json!({})).await.expect(200);
    server.dry_run("o-1", "rerun", &json!({})).await.expect(200);
    server.cancel("o-1").await.any_error(409);
    server.cancel("nobody").await.any_error(404);
    server.post_json("/admin/v1/pause", &json!({})).await.any_error(422);
    server.delete("/admin/v1/pause/nobody").await.any_error(404);
    assert_eq!(server.resume(&json!({ "taskName": "raw" })).await, 0);
    server.upload("scenario", guests::scenario()).await.expect(200);
    for what in ["grants", "limits"] {
        let path = format!("/admin/v1/modules/scenario/{what}");
        server.send(server.request("PUT", &path).json(&json!({}))).await.expect(200);
        server.send(server.request("PUT", &path).json(&json!({ "what": 1 }))).await.any_error(422);
    }
    server.upload("broken", b"no component".to_vec()).await.any_error(422);
    server.post("/admin/v1/modules/scenario/versions/1/activate").await.expect(200);
    server.post("/admin/v1/modules/scenario/versions/9/activate").await.any_error(404);
    server.delete("/admin/v1/modules/nobody").await.any_error(404);
    server.post_json("/admin/v1/bulk", &json!({})).await.any_error(422);
    let (entries, total) = server.audit("").await;
    assert_eq!(total, before, "{:#?}", entries.first());
}

#[tokio::test]
async fn filters_narrow_the_list_and_the_total() {
    let server = Server::start().await;
    one_of_each(&server).await;
    server.run_script("o-2", &script([wait_event("go")])).await;
    let body = json!({ "triggeredBy": "bob" });
    server.post_json("/api/v1/executions/o-2/cancel", &body).await.expect_empty(204);
    let (all, _) = server.audit("").await;
    let middle = all[4]["at"].as_str().unwrap();
    let count_if = |holds: &dyn Fn(&Value) -> bool| all.iter().filter(|entry| holds(entry)).count() as u64;
    for (query, expected) in [
        ("action=pause".to_owned(), 2),
        ("action=cancel".to_owned(), 2),
        ("actor=ada".to_owned(), 15),
        ("actor=bob".to_owned(), 1),
        ("actor=nobody".to_owned(), 0),
        ("executionId=o-1".to_owned(), 5),
        ("executionId=o-1&action=cancel".to_owned(), 1),
        ("executionId=o-2&actor=ada".to_owned(), 0),
        ("taskName=more".to_owned(), 4),
        (format!("from={middle}"), count_if(&|entry| time(&entry["at"]) >= time(&all[4]["at"]))),
        (format!("to={middle}"), count_if(&|entry| time(&entry["at"]) <= time(&all[4]["at"]))),
    ] {
        let (entries, total) = server.audit(&format!("?{query}")).await;
        assert_eq!((entries.len() as u64, total), (expected, expected), "{query}");
        assert_eq!(server.audit(&format!("?{query}&limit=1")).await.1, expected, "{query}");
    }
}

#[tokio::test]
async fn pages_join_without_gap_or_overlap_newest_first() {
    let server = Server::start().await;
    one_of_each(&server).await;
    let (all, total) = server.audit("").await;
    assert_eq!(all.len() as u64, total);
    let numbers: Vec<u64> = all.iter().map(|entry| entry["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=total).rev().collect::<Vec<_>>());
    let mut paged = Vec::new();
    for offset in (0..total).step_by(4) {
        let (page, of) = server.audit(&format!("?limit=4&offset={offset}")).await;
        assert_eq!(of, total);
        paged.extend(page);
    }
    assert_eq!(paged, all);
    assert_eq!(server.audit("?offset=9999").await, (vec![], total));
    for (query, named) in [
        ("action=retry", "retry_step"),
        ("action=", "retry_step"),
        ("who=ada", "actor"),
        ("from=yesterday", "from"),
        ("limit=1001", "1000"),
        ("limit=-1", "limit"),
        ("offset=many", "offset"),
        ("taskName=no%20name", "taskName"),
    ] {
        let message = server.get(&format!("/admin/v1/audit?{query}")).await.any_error(400);
        assert!(message.contains(named), "{query}: {message}");
    }
}

#[tokio::test]
async fn writes_at_the_same_time_are_one_chain() {
    let server = Server::start().await;
    let (_, before) = server.audit("?limit=0").await;
    let scopes: Vec<Value> = (0..40).map(|n| json!({ "executionId": format!("o-{n}") })).collect();
    join_all(scopes.iter().map(|scope| server.pause(scope))).await;
    join_all(scopes.iter().map(|scope| server.resume(scope))).await;
    let (entries, total) = server.audit("").await;
    assert_eq!(total, before + 80);
    let numbers: Vec<u64> = entries.iter().map(|entry| entry["number"].as_u64().unwrap()).collect();
    assert_eq!(numbers, (1..=total).rev().collect::<Vec<_>>());
}
