//! How a bulk repair goes: canaries first, at its rate, until it is done, stopped or cancelled.

use std::time::{Duration, Instant};

use futures_util::future::join_all;

use crate::harness::*;

/// Executions `<prefix>-<n>` that failed at `charge`.
async fn failed(server: &Server, prefix: &str, count: usize, charge: Value) {
    let payload = script([step("before"), step_with("charge", charge)]);
    for n in 0..count {
        server.run_script(&format!("{prefix}-{n}"), &payload).await;
    }
    for n in 0..count {
        server.failure(&format!("{prefix}-{n}")).await;
    }
}

fn retry(search: &str) -> Value {
    json!({ "action": "retry-step", "filter": { "search": search }, "ratePerSecond": 500, "canary": 0 })
}

fn progress(bulk: &Value) -> [u64; 6] {
    ["total", "pending", "underWay", "completed", "failed", "skipped"]
        .map(|field| bulk["progress"][field].as_u64().unwrap_or_else(|| panic!("no {field} in {bulk:#}")))
}

#[tokio::test]
async fn all_of_one_fingerprint_are_retried_and_the_others_not() {
    let server = Server::start().await;
    failed(&server, "o", 12, json!({ "failures": 1 })).await;
    let other = json!({ "act": { "fail": { "message": "another trouble", "fatal": true } } });
    failed(&server, "p", 2, other).await;
    let groups = server.failures("").await;
    assert_eq!((groups.len(), &groups[0]["count"]), (2, &json!(12)));
    let body = json!({
        "action": "retry-step", "fingerprint": groups[0]["fingerprint"], "ratePerSecond": 200, "canary": 3,
        "failedShareMaxPercent": 10, "triggeredBy": "ada", "reason": "the bank is back",
    });

    let bulk = server.start_bulk(&body).await;

    for field in ["action", "ratePerSecond", "canary", "failedShareMaxPercent", "triggeredBy", "reason"] {
        assert_eq!(bulk[field], body[field], "{field}");
    }
    assert_eq!((&bulk["selection"]["fingerprint"], &bulk["endedAt"]), (&body["fingerprint"], &Value::Null));
    let over = server.bulk_over(&bulk).await;
    assert_eq!((&over["state"], &over["why"]), (&json!("completed"), &Value::Null));
    assert_eq!(progress(&over), [12, 0, 0, 12, 0, 0]);
    assert!(time(&over["createdAt"]) <= time(&over["endedAt"]));
    for n in 0..12 {
        let id = format!("o-{n}");
        assert_eq!(server.execution(&id).await["status"], "completed");
        assert_eq!(server.effects_of(&id), ["before 1", "charge 1", "charge 2"]);
    }
    for n in 0..2 {
        assert_eq!(server.execution(&format!("p-{n}")).await["status"], "failed");
    }
    // Each of the writes says for whom it was done.
    let (entries, total) = server.audit("?action=retry_step").await;
    assert_eq!(total, 12);
    assert!(entries.iter().all(|entry| entry["actor"] == "ada" && entry["reason"] == "the bank is back"));
    let (entries, _) = server.audit("?action=start_bulk").await;
    assert_eq!((entries.len(), &entries[0]["target"]), (1, &bulk["bulkId"]));
    assert_eq!(server.get("/admin/v1/bulk").await.expect(200), json!([over]));
}

#[tokio::test]
async fn those_of_a_filter_are_restarted() {
    let server = Server::start().await;
    let mends = json!({ "act": { "failBeforeRun": { "index": 1 } } });
    failed(&server, "o", 5, mends.clone()).await;
    failed(&server, "p", 1, mends).await;
    let body = json!({ "action": "restart", "filter": { "search": "o-", "taskName": "scenario" } });
    let bulk = server.bulk_over(&server.start_bulk(&body).await).await;
    assert_eq!(progress(&bulk), [5, 0, 0, 5, 0, 0]);
    for n in 0..5 {
        let id = format!("o-{n}");
        assert_eq!(server.runs(&id).await.len(), 2);
        assert_eq!(server.effects_of(&id), ["before 1", "charge 1", "before 1", "charge 1"]);
    }
    assert_eq!(server.runs("p-0").await.len(), 1);
}

#[tokio::test]
async fn with_overrides() {
    let server = Server::start().await;
    failed(&server, "o", 3, json!({ "failures": 3 })).await;
    let mut body = retry("o-");
    body["attemptsMax"] = json!(3);
    let bulk = server.bulk_over(&server.start_bulk(&body).await).await;
    assert_eq!((progress(&bulk), &bulk["attemptsMax"]), ([3, 0, 0, 3, 0, 0], &json!(3)));
    assert_eq!(server.effects_of("o-0").last().unwrap(), "charge 4");

    let in_first = json!({ "act": { "failInVariant": { "mark": "001" } } });
    failed(&server, "v", 3, in_first).await;
    server.upload("scenario", guests::scenario_marked("002")).await.expect(201);
    let mut body = retry("v-");
    body["moduleVersion"] = json!(2);
    let bulk = server.bulk_over(&server.start_bulk(&body).await).await;
    assert_eq!(progress(&bulk), [3, 0, 0, 3, 0, 0]);
    assert_eq!(server.execution("v-2").await["version"], 2);
}

#[tokio::test]
async fn the_canaries_go_first_and_their_outcomes_are_waited_for() {
    let server = Server::start().await;
    // When it is retried it stands in the step until somebody ends it.
    let holds = json!({ "failures": 1, "act": { "reallySleep": { "ms": 3_600_000 } } });
    failed(&server, "o", 8, holds).await;
    failed(&server, "q", 40, json!({ "failures": 1 })).await;
    let mut body = retry("o-");
    body["canary"] = json!(3);
    let bulk = server.start_bulk(&body).await;
    let stands = server.until_bulk(&bulk, "has its canaries out", |b| b["progress"]["underWay"] == 3).await;
    assert_eq!((progress(&stands), &stands["state"]), ([8, 5, 3, 0, 0, 0], &json!("running")));

    // While another one goes from beginning to end, this one does not move.
    let quick = server.bulk_over(&server.start_bulk(&retry("q-")).await).await;
    assert_eq!(progress(&quick), [40, 0, 0, 40, 0, 0]);
    assert_eq!(progress(&server.bulk(&bulk).await), [8, 5, 3, 0, 0, 0]);
    let again = server.effects().iter().filter(|e| e.execution.starts_with("o-") && e.attempt == 2).count();
    assert_eq!(again, 3);

    let path = format!("/admin/v1/bulk/{}/cancel", bulk_id(&bulk));
    let cancelled = server.post_json(&path, &json!({ "triggeredBy": "ada" })).await.expect(200);
    assert_eq!((&cancelled["state"], progress(&cancelled)[1]), (&json!("cancelled"), 5));
    assert_eq!(server.stats().await["running"], 3, "what is under way goes on");
    let message = server.post(&path).await.error(409, "bulk_over");
    assert!(message.contains("cancelled"), "{message}");
    let (entries, total) = server.audit("?action=cancel_bulk").await;
    assert_eq!((total, &entries[0]["actor"], &entries[0]["target"]), (1, &json!("ada"), &bulk["bulkId"]));
    assert_eq!(server.failures("").await[0]["count"], 5);
}

#[tokio::test]
async fn it_stops_itself_when_too_many_fail_again() {
    let server = Server::start().await;
    failed(&server, "o", 12, json!({ "failures": 99 })).await;
    let mut body = retry("o-");
    (body["canary"], body["failedShareMaxPercent"]) = (json!(4), json!(50));
    let bulk = server.bulk_over(&server.start_bulk(&body).await).await;
    assert_eq!(bulk["state"], "stopped");
    assert!(bulk["why"].as_str().unwrap().contains("50 percent"), "{bulk}");
    let [total, pending, _, completed, failed, skipped] = progress(&bulk);
    assert_eq!((total, pending, completed, skipped), (12, 8, 0, 0), "{bulk}");
    assert!((3..=4).contains(&failed), "{bulk}");
    assert!(!bulk["examples"].as_array().unwrap().is_empty(), "{bulk}");
    assert!(bulk["examples"][0]["why"].as_str().unwrap().contains("fails"), "{bulk}");
    let (entries, total) = server.audit("?action=stop_bulk").await;
    assert_eq!((total, &entries[0]["target"]), (1, &bulk["bulkId"]));
    let again = server.effects().iter().filter(|effect| effect.attempt == 2).count();
    assert_eq!(again, 4, "none but the canaries was touched");
}

#[tokio::test]
async fn some_failures_are_put_up_with() {
    let server = Server::start().await;
    failed(&server, "o-a", 2, json!({ "failures": 99 })).await;
    failed(&server, "o-b", 8, json!({ "failures": 1 })).await;
    let mut body = retry("o-");
    body["failedShareMaxPercent"] = json!(20);
    let bulk = server.bulk_over(&server.start_bulk(&body).await).await;
    assert_eq!((&bulk["state"], progress(&bulk)), (&json!("completed"), [10, 0, 0, 8, 2, 0]));
}

#[tokio::test]
async fn what_has_changed_meanwhile_is_left_alone() {
    let server = Server::start().await;
    // A handler that failed by itself has no step to retry.
    let fail = script([step("before"), json!({ "fail": { "message": "as asked" } })]);
    server.play("o-0", &fail).await;
    failed(&server, "o-1", 2, json!({ "failures": 1 })).await;
    let bulk = server.bulk_over(&server.start_bulk(&retry("o-")).await).await;
    assert_eq!((&bulk["state"], progress(&bulk)), (&json!("completed"), [3, 0, 0, 2, 0, 1]));
    let example = &bulk["examples"][0];
    assert_eq!(example["executionId"], "o-0", "{bulk}");
    assert!(!example["why"].as_str().unwrap().is_empty());
    assert_eq!(server.execution("o-0").await["status"], "failed");
}

#[tokio::test]
async fn it_goes_on_after_kill_9_and_repairs_nothing_twice() {
    let mut server = Server::start().await;
    failed(&server, "o", 40, json!({ "failures": 1 })).await;
    let mut body = retry("o-");
    (body["ratePerSecond"], body["canary"]) = (json!(20), json!(2));
    let bulk = server.start_bulk(&body).await;
    for done in [4, 14, 25] {
        server.until_bulk(&bulk, "has gone some way", |b| progress(b)[3] >= done).await;
        server.kill_9().restart();
    }
    let over = server.bulk_over(&bulk).await;
    assert_eq!((&over["state"], progress(&over)), (&json!("completed"), [40, 0, 0, 40, 0, 0]));
    for n in 0..40 {
        let id = format!("o-{n}");
        let detail = server.detail(&id).await;
        let attempts = step_in(&detail, "charge")["attempts"].as_array().unwrap().iter();
        // One that a kill cut off is counted, and says so.
        let own: Vec<_> = attempts.filter(|a| a["interrupted"].is_null()).map(|a| &a["status"]).collect();
        assert_eq!(own, [&json!("failed"), &json!("completed")], "{id}: {detail:#}");
        let query = format!("?action=retry_step&executionId={id}");
        assert_eq!(server.audit(&query).await.1, 1, "{id} was repaired twice");
    }
    assert_eq!(server.audit("?action=start_bulk").await.1, 1);
}

#[tokio::test]
async fn one_that_was_cancelled_stays_so_after_kill_9() {
    let mut server = Server::start().await;
    failed(&server, "o", 10, json!({ "failures": 1 })).await;
    let mut body = retry("o-");
    body["ratePerSecond"] = json!(1);
    let bulk = server.start_bulk(&body).await;
    let path = format!("/admin/v1/bulk/{}/cancel", bulk_id(&bulk));
    let cancelled = server.post(&path).await.expect(200);
    let untouched = progress(&cancelled)[1];
    assert!(untouched > 0, "{cancelled}");
    server.kill_9().restart();
    server.play("another", &script([step("charge")])).await;
    let after = server.bulk(&bulk).await;
    assert_eq!((&after["state"], progress(&after)[1]), (&json!("cancelled"), untouched));
}

/// The same with ten thousand, as of its writing: 20 s at 500 a second, and new starts as ever.
#[tokio::test]
async fn new_starts_get_their_turn_while_thousands_are_retried() {
    const HUNDREDS: usize = 15;
    let server = Server::start().await;
    let payload = script([step_with("charge", json!({ "failures": 1 }))]);
    for hundred in 0..HUNDREDS {
        let ids: Vec<String> = (0..100).map(|n| format!("o-{hundred}-{n}")).collect();
        join_all(ids.iter().map(|id| server.run_script(id, &payload))).await;
    }
    let total = HUNDREDS as u64 * 100;
    until("all have failed", async || server.stats().await, |stats| stats["failed"] == total).await;
    let fingerprint = server.failures("").await[0]["fingerprint"].clone();
    let body = json!({
        "action": "retry-step", "fingerprint": fingerprint, "ratePerSecond": 500, "canary": 10,
    });

    let begun = Instant::now();
    let mut bulk = server.start_bulk(&body).await;
    let (mut starts, mut slowest) = (0, Duration::ZERO);
    while bulk["state"] == "running" {
        let start = Instant::now();
        server.play(&format!("new-{starts}"), &script([step("charge")])).await;
        slowest = slowest.max(start.elapsed());
        starts += 1;
        bulk = server.bulk(&bulk).await;
    }

    println!(
        "{total} retried in {:?}; {starts} new ones meanwhile, the slowest in {slowest:?}",
        begun.elapsed()
    );
    assert_eq!((&bulk["state"], progress(&bulk)), (&json!("completed"), [total, 0, 0, total, 0, 0]));
    assert!(starts > 0, "new starts had to wait for all of them");
    // A rate is a promise: all but the canaries and a half-second's worth take their time.
    let least = Duration::from_millis((total - 10) * 1_000 / 500).saturating_sub(Duration::from_millis(700));
    assert!(begun.elapsed() > least, "{total} in {:?} are more than 500 a second", begun.elapsed());
}
