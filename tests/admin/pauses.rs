//! `…/pause` and `…/resume`: the rules. (What they hold: `holds`; the clocks meanwhile: `clocks`.)

use crate::harness::*;

#[tokio::test]
async fn a_rule_is_201_and_listed_until_it_ends() {
    let server = Server::start().await;
    let expires_at = in_ms(3_600_000);
    let scope = json!({
        "executionId": "o-1", "taskName": "scenario", "stepPattern": "charge*", "expiresAt": expires_at,
        "triggeredBy": "ada", "reason": "the bank is down",
    });
    let rule = server.pause(&scope).await;
    for field in ["executionId", "taskName", "stepPattern", "expiresAt", "reason"] {
        assert_eq!(rule[field], scope[field], "{field}");
    }
    assert_eq!(
        (&rule["createdBy"], &rule["deletedAt"], &rule["deletedBy"]),
        (&json!("ada"), &Value::Null, &Value::Null)
    );
    assert!(time(&rule["createdAt"]) <= now());
    let other = server.pause(&json!({ "taskName": "raw" })).await;
    assert_eq!(
        (&other["stepPattern"], &other["expiresAt"], &other["createdBy"]),
        (&Value::Null, &Value::Null, &Value::Null)
    );
    assert_eq!(server.pause_rules("").await, [rule.clone(), other.clone()]);

    let path = format!("/admin/v1/pause/{}?triggeredBy=bob", rule_id(&rule));
    server.delete(&path).await.expect_empty(204);

    assert_eq!(server.pause_rules("").await, std::slice::from_ref(&other));
    assert_eq!(server.pause_rules("?includeDeleted=false").await, std::slice::from_ref(&other));
    let all = server.pause_rules("?includeDeleted=true").await;
    assert_eq!((all.len(), &all[1]), (2, &other));
    assert_eq!((&all[0]["ruleId"], &all[0]["deletedBy"]), (&rule["ruleId"], &json!("bob")));
    assert!(time(&all[0]["deletedAt"]) >= time(&rule["createdAt"]));
}

#[tokio::test]
async fn it_can_be_ended_by_post_and_by_delete_once() {
    let server = Server::start().await;
    for prefix in ADMIN_PREFIXES {
        for method in ["POST", "DELETE"] {
            let rule = server.pause(&json!({ "taskName": "raw" })).await;
            let path = format!("{prefix}/pause/{}", rule_id(&rule));
            server.send(server.request(method, &path)).await.expect_empty(204);
            let message = server.send(server.request(method, &path)).await.error(404, "unknown_pause_rule");
            assert!(message.contains(rule_id(&rule)), "{message}");
        }
    }
    server.delete("/admin/v1/pause/nonsense").await.error(404, "unknown_pause_rule");
    assert_eq!(server.pause_rules("?includeDeleted=true").await.len(), 4);
}

#[tokio::test]
async fn a_rule_that_would_hold_everything_or_nothing_is_422() {
    let server = Server::start().await;
    for (body, code) in [
        (json!({}), "empty_scope"),
        (json!({ "reason": "all of it", "triggeredBy": "ada" }), "empty_scope"),
        (json!({ "executionId": null, "taskName": null, "stepPattern": null }), "empty_scope"),
        (json!({ "taskName": "raw", "expiresAt": in_ms(-1_000) }), "expires_in_the_past"),
        (json!({ "taskName": "raw", "expiresAt": "1999-12-31T23:59:59Z" }), "expires_in_the_past"),
    ] {
        server.post_json("/admin/v1/pause", &body).await.error(422, code);
    }
    for (body, field) in [
        (json!({ "taskName": "raw", "expiresAt": "tomorrow" }), "expiresAt"),
        (json!({ "taskName": "raw", "expiresAt": 5 }), "expiresAt"),
        (json!({ "stepPattern": "" }), "stepPattern"),
        (json!({ "stepPattern": "charge[" }), "stepPattern"),
        (json!({ "stepPattern": "{a,b" }), "stepPattern"),
        (json!({ "stepPattern": ["charge"] }), "stepPattern"),
        (json!({ "stepPattern": "x".repeat(201) }), "stepPattern"),
        (json!({ "executionId": "" }), "executionId"),
        (json!({ "executionId": 7 }), "executionId"),
        (json!({ "taskName": "no name" }), "taskName"),
        (json!({ "taskName": "raw", "reason": 7 }), "reason"),
    ] {
        let answer = server.post_json("/admin/v1/pause", &body).await;
        answer.any_error(422);
        assert_eq!(answer.json()["field"], field, "{body}: {answer:#?}");
    }
    server.post_text("/admin/v1/pause", "{").await.any_error(400);
    server.get("/admin/v1/pause?includeDeleted=yes").await.any_error(400);
    server.get("/admin/v1/pause?deleted=true").await.any_error(400);
    assert!(server.pause_rules("?includeDeleted=true").await.is_empty());
    assert_eq!(server.audit("?action=pause").await.1, 0);
}

/// Zart's resume does not look at the step pattern.
#[tokio::test]
async fn resume_ends_the_rules_of_just_that_scope() {
    let server = Server::start().await;
    let scopes = [
        json!({ "taskName": "scenario" }),
        json!({ "taskName": "scenario", "stepPattern": "a*" }),
        json!({ "taskName": "scenario", "stepPattern": "b*" }),
        json!({ "taskName": "scenario", "executionId": "o-1" }),
        json!({ "stepPattern": "a*" }),
        json!({ "taskName": "scenario", "stepPattern": "a*" }),
    ];
    for scope in &scopes {
        server.pause(scope).await;
    }
    let left = async || {
        let rules = server.pause_rules("").await;
        rules.iter().map(|rule| (rule["taskName"].clone(), rule["stepPattern"].clone())).collect::<Vec<_>>()
    };
    assert_eq!(server.resume(&json!({ "stepPattern": "b*" })).await, 0);
    assert_eq!(server.resume(&json!({ "taskName": "scenario", "stepPattern": "*" })).await, 0);
    assert_eq!(left().await.len(), 6);

    assert_eq!(server.resume(&scopes[1]).await, 2, "all of that scope");
    assert_eq!(server.resume(&scopes[1]).await, 0);
    let task = json!("scenario");
    let expected = [
        (task.clone(), Value::Null),
        (task.clone(), json!("b*")),
        (task.clone(), Value::Null),
        (Value::Null, json!("a*")),
    ];
    assert_eq!(left().await, expected);
    assert_eq!(server.resume(&scopes[0]).await, 1, "not that of one execution of the task");
    assert_eq!(left().await, expected[1..]);

    server.post_json("/admin/v1/resume", &json!({})).await.error(422, "empty_scope");
    let answer = server.post_json("/admin/v1/resume", &json!({ "stepPattern": "[" })).await;
    assert_eq!(answer.json()["field"], "stepPattern");
    answer.any_error(422);
    assert_eq!(left().await, expected[1..]);
}

#[tokio::test]
async fn a_rule_that_has_expired_is_no_longer_in_force_and_cannot_be_ended() {
    let server = Server::start().await;
    let rule = server.pause(&json!({ "taskName": "raw", "expiresAt": in_ms(300) })).await;
    until("it has expired", async || server.pause_rules("").await, Vec::is_empty).await;
    server.delete(&format!("/admin/v1/pause/{}", rule_id(&rule))).await.error(404, "unknown_pause_rule");
    assert_eq!(server.resume(&json!({ "taskName": "raw" })).await, 0);
    let all = server.pause_rules("?includeDeleted=true").await;
    assert_eq!((&all[0]["ruleId"], &all[0]["deletedAt"]), (&rule["ruleId"], &Value::Null));
    server.start("o-1", "raw", &Value::Null).await.expect(201);
    server.result("o-1").await;
}

#[tokio::test]
async fn rules_survive_kill_9() {
    let mut server = Server::start().await;
    let rule = server.pause(&json!({ "taskName": "scenario", "stepPattern": "ch?rge" })).await;
    let ended = server.pause(&json!({ "taskName": "raw" })).await;
    server.end_pause(&ended).await;
    let all = server.pause_rules("?includeDeleted=true").await;
    server.kill_9().restart();
    assert_eq!(server.pause_rules("").await, std::slice::from_ref(&rule));
    assert_eq!(server.pause_rules("?includeDeleted=true").await, all);
    server.run_script("o-1", &script([step("charge")])).await;
    server.until_held("o-1", &rule).await;
}
