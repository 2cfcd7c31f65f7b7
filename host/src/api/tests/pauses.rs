//! What the routes of pause rules answer, under both prefixes.

use serde_json::json;

use super::harness::*;

const PREFIXES: [&str; 2] = ["/admin/v1", "/zart/admin/v1"];

#[tokio::test]
async fn a_rule_is_made_listed_and_ended() {
    for prefix in PREFIXES {
        let host = Host::start().await;
        let path = format!("{prefix}/pause");
        let body = r#"{"executionId":"e","taskName":"order","stepPattern":"charge*",
            "expiresAt":"2026-01-31T13:00:00Z","triggeredBy":"ann","reason":"the bank is down"}"#;
        let made = host.post(&path, body).await;
        assert_eq!(made.status, 201, "{}", made.text);
        let rule = made.json();
        let id = rule["ruleId"].as_str().unwrap().to_owned();
        assert_eq!(
            rule,
            json!({
                "ruleId": id, "executionId": "e", "taskName": "order", "stepPattern": "charge*",
                "createdAt": NOW, "expiresAt": "2026-01-31T13:00:00.000Z", "createdBy": "ann",
                "deletedAt": null, "deletedBy": null, "reason": "the bank is down", "active": true,
            })
        );
        assert_eq!(host.get(&path).await.json(), json!([rule]));

        host.move_clock(1_000);
        let ended = host.post(&format!("{path}/{id}"), r#"{"triggeredBy":"bob"}"#).await;
        assert_eq!((ended.status, ended.text.as_str()), (204, ""));
        assert_eq!(host.get(&path).await.json(), json!([]));
        let all = host.get(&format!("{path}?includeDeleted=true")).await.json();
        assert_eq!((&all[0]["deletedBy"], &all[0]["active"]), (&json!("bob"), &json!(false)));
        assert_eq!(all[0]["deletedAt"], "2026-01-31T12:00:01.000Z");
        for request in [format!("POST {path}/{id}"), format!("DELETE {path}/none")] {
            let again = host.get(&request).await;
            assert!(again.refusal().starts_with("404 unknown_pause_rule"), "{request}: {}", again.text);
        }
    }
}

#[tokio::test]
async fn an_expired_rule_is_listed_with_the_deleted_ones_only() {
    let host = Host::start().await;
    let body = r#"{"taskName":"refund","expiresAt":"2026-01-31T12:00:05Z"}"#;
    assert_eq!(host.post("/admin/v1/pause", body).await.status, 201);
    host.move_clock(5_000);
    assert_eq!(host.get("/admin/v1/pause").await.json(), json!([]));
    let all = host.get("/admin/v1/pause?includeDeleted=true").await.json();
    assert_eq!((&all[0]["active"], &all[0]["deletedAt"]), (&json!(false), &json!(null)));
}

#[tokio::test]
async fn a_rule_that_would_stop_everything_or_is_past_is_refused() {
    let host = Host::start().await;
    for body in ["{}", r#"{"taskName":null,"reason":"all"}"#] {
        let refusal = host.post("/admin/v1/pause", body).await.refusal();
        assert!(refusal.starts_with("422 empty_scope"), "{refusal}");
    }
    for time in [NOW, "2026-01-31T11:59:59Z"] {
        let body = json!({ "taskName": "order", "expiresAt": time }).to_string();
        let refusal = host.post("/admin/v1/pause", &body).await.refusal();
        assert!(refusal.starts_with("422 expires_in_the_past"), "{refusal}");
    }
    assert_eq!(host.get("/admin/v1/pause?includeDeleted=true").await.json(), json!([]));
}

#[tokio::test]
async fn what_is_held_names_the_rule_and_resume_ends_it() {
    let host = Host::start().await;
    host.begin("sleeps", json!({ "do": "sleep" })).await;
    host.until("sleeps", |execution| !execution["waitingFor"].is_null()).await;
    let rule = host.post("/admin/v1/pause", r#"{"taskName":"order"}"#).await.json();
    let steps = r#"{"taskName":"order","stepPattern":"c*"}"#;
    assert_eq!(host.post("/admin/v1/pause", steps).await.status, 201);

    let held = host.begin("e", json!(null)).await.json();
    assert_eq!(held["status"], "scheduled");
    let paused = |then| json!({ "type": "pause", "ruleId": rule["ruleId"], "step": null, "until": null, "then": then });
    assert_eq!(held["waitingFor"], paused(json!(null)));
    let sleeps = host.get("/api/v1/executions/sleeps").await.json();
    let nap = json!({ "type": "sleep", "step": "nap", "until": "2026-01-31T13:00:00.000Z" });
    assert_eq!(sleeps["waitingFor"], paused(nap));
    let list = host.get("/api/v1/executions?search=sleeps").await.json();
    assert_eq!(list[0]["waitingFor"], sleeps["waitingFor"]);
    let wait = host.get("/api/v1/executions/e/wait?timeoutSecs=0").await.refusal();
    assert!(wait.contains("and is held by the pause rule"), "{wait}");

    let other = host.post("/zart/admin/v1/resume", r#"{"executionId":"e"}"#).await;
    assert_eq!((other.status, other.text.as_str()), (200, r#"{"rulesDeleted":0}"#));
    let same = host.post("/zart/admin/v1/resume", r#"{"taskName":"order","triggeredBy":"ann"}"#).await;
    assert_eq!((same.status, same.text.as_str()), (200, r#"{"rulesDeleted":1}"#));
    assert_eq!(host.get("/api/v1/executions/e/wait").await.json()["status"], "completed");
    assert_eq!(host.get("/admin/v1/pause").await.json().as_array().unwrap().len(), 1, "the pattern counts");
}
