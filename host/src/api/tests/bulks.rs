//! What the routes of failures and bulk repairs answer, under both prefixes.

use serde_json::{Value, json};

use super::harness::*;

const PREFIXES: [&str; 2] = ["/admin/v1", "/zart/admin/v1"];

/// Has three executions that failed alike, and their group.
async fn with_failures() -> (Host, Value) {
    let host = Host::start().await;
    for id in ["a", "b", "c"] {
        host.begin(id, json!({ "do": "order" })).await;
        host.get(&format!("/api/v1/executions/{id}/wait")).await;
        host.move_clock(1_000);
    }
    let groups = host.get("/admin/v1/failures").await.json();
    assert_eq!(groups.as_array().unwrap().len(), 1, "{groups:#}");
    (host, groups[0].clone())
}

#[tokio::test]
async fn failures_stand_in_groups() {
    let (host, group) = with_failures().await;
    assert_eq!(
        group,
        json!({
            "fingerprint": group["fingerprint"], "taskName": "order", "moduleVersion": 1, "step": "charge",
            "kind": "error", "shape": "declined", "count": 3, "firstAt": NOW,
            "lastAt": "2026-01-31T12:00:02.000Z", "examples": ["c", "b", "a"],
        })
    );
    assert_eq!(group["fingerprint"].as_str().unwrap().len(), 16);
    for prefix in PREFIXES {
        let found = async |query: &str| {
            host.get(&format!("{prefix}/failures{query}")).await.json().as_array().unwrap().clone()
        };
        assert_eq!(found("?examples=1").await[0]["examples"], json!(["c"]));
        assert_eq!(found("?search=b").await[0]["count"], 1);
        for query in ["?taskName=refund", "?limit=0", "?from=2026-02-01T00:00:00Z"] {
            assert_eq!(found(query).await.len(), 0, "{query}");
        }
    }
}

#[tokio::test]
async fn a_bulk_repair_is_started_watched_and_over() {
    let (host, group) = with_failures().await;
    let body = json!({
        "action": "retry-step", "fingerprint": group["fingerprint"], "ratePerSecond": 1_000, "canary": 1,
        "failedShareMaxPercent": 50, "attemptsMax": 2, "triggeredBy": "ann", "reason": "mended",
    })
    .to_string();
    let dry = host.post("/admin/v1/bulk?dryRun=true", &body).await;
    assert_eq!((dry.status, dry.text.as_str()), (200, r#"{"dryRun":true,"wouldRepair":3}"#));
    assert_eq!(host.get("/admin/v1/bulk").await.json(), json!([]));

    let started = host.post("/zart/admin/v1/bulk", &body).await;
    assert_eq!(started.status, 202, "{}", started.text);
    let bulk = started.json();
    let id = bulk["bulkId"].as_str().unwrap().to_owned();
    assert_eq!(bulk["progress"]["total"], 3);
    let mut shape = bulk.clone();
    shape["progress"] = json!(null);
    assert_eq!(
        shape,
        json!({
            "bulkId": id, "action": "retry-step", "state": "running", "why": null,
            "selection": {
                "fingerprint": group["fingerprint"], "taskName": null, "moduleVersion": null, "from": null,
                "to": null, "search": null,
            },
            "ratePerSecond": 1_000, "canary": 1, "failedShareMaxPercent": 50, "attemptsMax": 2,
            "timeoutMs": null, "moduleVersion": null, "triggeredBy": "ann", "reason": "mended",
            "progress": null, "createdAt": "2026-01-31T12:00:03.000Z", "endedAt": null, "examples": [],
        })
    );
    for id in ["a", "b", "c"] {
        host.until(id, |execution| execution["status"] == "completed").await;
    }
    let path = format!("/admin/v1/bulk/{id}");
    let mut over = host.get(&path).await.json();
    for _ in 0..5_000 {
        if over["state"] != "running" {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(1)).await;
        over = host.get(&path).await.json();
    }
    assert_eq!(over["state"], "completed", "{over:#}");
    assert_eq!(
        over["progress"],
        json!({ "total": 3, "pending": 0, "underWay": 0, "completed": 3, "failed": 0, "skipped": 0 })
    );
    assert_eq!(host.get("/zart/admin/v1/bulk").await.json(), json!([over]));
    let late = host.get(&format!("POST {path}/cancel")).await;
    assert!(late.refusal().starts_with("409 bulk_over"), "{}", late.text);
    assert_eq!(late.json()["state"], "completed");
}

#[tokio::test]
async fn a_bulk_repair_that_is_not_there_or_for_nothing_is_refused() {
    let host = Host::start().await;
    for prefix in PREFIXES {
        for request in ["GET {}/bulk/none", "POST {}/bulk/none/cancel"] {
            let refusal = host.get(&request.replace("{}", prefix)).await.refusal();
            assert!(refusal.starts_with("404 unknown_bulk: there is no bulk repair \"none\""), "{refusal}");
        }
        let body = r#"{"action":"restart","filter":{"taskName":"order"}}"#;
        let refusal = host.post(&format!("{prefix}/bulk"), body).await.refusal();
        assert!(refusal.starts_with("422 nothing_selected"), "{refusal}");
        let dry = host.post(&format!("{prefix}/bulk?dryRun=true"), body).await;
        assert_eq!((dry.status, &dry.json()["wouldRepair"]), (200, &json!(0)));
    }
}

#[tokio::test]
async fn a_bulk_repair_can_be_cancelled() {
    let (host, _) = with_failures().await;
    // A restart fails again, so the canary never comes through.
    let body =
        r#"{"action":"restart","filter":{"taskName":"order","search":"B"},"canary":1,"triggeredBy":"ann"}"#;
    let dry = host.post("/admin/v1/bulk?dryRun=true", body).await.json();
    assert_eq!(dry["wouldRepair"], 1);
    host.post("/admin/v1/pause", r#"{"taskName":"order"}"#).await;
    let bulk = host.post("/admin/v1/bulk", body).await;
    assert_eq!(bulk.status, 202, "{}", bulk.text);
    let path = format!("/admin/v1/bulk/{}/cancel", bulk.json()["bulkId"].as_str().unwrap());
    let cancelled = host.post(&path, r#"{"triggeredBy":"bob","reason":"enough"}"#).await;
    assert_eq!(cancelled.status, 200, "{}", cancelled.text);
    assert_eq!(cancelled.json()["state"], "cancelled");
    assert_eq!(cancelled.json()["endedAt"], "2026-01-31T12:00:03.000Z");
}
