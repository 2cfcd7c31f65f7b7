//! Standing still: parked with an instance, or suspended without one; the guest cannot tell.

use crate::harness::*;

#[tokio::test]
async fn a_sleep_ends_whether_its_instance_was_kept_or_not() {
    for park_max_ms in [0, 50, 60_000] {
        let server = Server::with("park-max-ms", park_max_ms).start().await;
        let lines = [sleep("short", 10), sleep("longer", 100), sleep("none", 0), step("after")];
        server.run_script("o-1", &script(lines)).await;
        assert_eq!(server.result("o-1").await, json!([null, null, null, { "attempt": 1 }]));
    }
}

#[tokio::test]
async fn a_sleep_until_a_time_that_is_past_does_not_stand_still() {
    let server = Server::start().await;
    let lines = [
        json!({ "sleepUntil": { "name": "long ago", "atMs": 0 } }),
        json!({ "sleepUntil": { "name": "then", "atMs": 86_400_000 } }),
    ];
    assert_eq!(server.play("o-1", &script(lines)).await["status"], "completed");
}

#[tokio::test]
async fn a_sleep_without_end_is_a_time_like_any_other() {
    let server = Server::start().await;
    server.run_script("o-1", &script([sleep("for ever", u64::MAX)])).await;
    server
        .run_script("o-2", &script([json!({ "sleepUntil": { "name": "for ever", "atMs": u64::MAX } })]))
        .await;
    for id in ["o-1", "o-2"] {
        let slept = server.until_waiting(id, "sleep").await;
        assert!(slept["waitingFor"]["until"].is_string(), "{slept}");
        server.cancel(id).await.expect_empty(204);
    }
}

#[tokio::test]
async fn a_wait_for_an_event_times_out() {
    for park_max_ms in [0, 60_000] {
        let server = Server::with("park-max-ms", park_max_ms).start().await;
        let wait = json!({ "waitEvent": { "event": "shipment", "timeoutMs": 80 } });
        server.run_script("o-1", &script([wait, step("after")])).await;
        let failure = server.result("o-1").await[0]["failure"].clone();
        assert_eq!((&failure["kind"], &failure["step"]), (&json!("timed_out"), &json!("shipment")));
        assert!(failure["message"].as_str().unwrap().contains("shipment"), "{failure}");
    }
}

/// One whose journal is long enough to be kept while it stands still, and read when the host is gone.
#[tokio::test]
async fn a_long_run_goes_on_where_it_was_after_each_wait_and_over_a_restart() {
    let mut server = Server::with("park-max-ms", 0).start().await;
    let part = |part: &str| (0..70).map(|n| step(&format!("{part}-{n}"))).collect::<Vec<_>>();
    let waits = [sleep("nap", 20), wait_event("go"), sleep("doze", 20), wait_event("on")];
    let parts = ["a", "b", "c", "d"].map(part);
    let lines: Vec<Value> =
        parts.into_iter().zip(waits).flat_map(|(part, wait)| part.into_iter().chain([wait])).collect();
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;
    server.event("o-1", "go", &json!("went")).await.expect(202);
    server.until("o-1", "waits for more", |stands| stands["waitingFor"]["event"] == "on").await;
    server.kill_9().restart();
    server.event("o-1", "on", &json!("again")).await.expect(202);
    let result = server.result("o-1").await;
    assert_eq!((&result[141], &result[283]), (&json!({ "value": "went" }), &json!({ "value": "again" })));
    let each_once: Vec<String> =
        ["a", "b", "c", "d"].iter().flat_map(|part| (0..70).map(move |n| format!("{part}-{n} 1"))).collect();
    assert_eq!(server.effects_of("o-1"), each_once);
}

/// Whoever stands still for long holds nothing that others need.
#[tokio::test]
async fn many_more_runs_can_wait_than_can_be_alive() {
    let server = Server::with("live-max", 4).with("parked-max", 2).start().await;
    let payload = script([step("before"), wait_event("go"), sleep("nap", 20), step("after")]);
    let ids: Vec<String> = (0..100).map(|n| format!("o-{n}")).collect();
    for id in &ids {
        server.run_script(id, &payload).await;
    }
    for id in &ids {
        server.until_waiting(id, "event").await;
    }
    assert_eq!(server.stats().await["running"], 100);
    server.play("passes-by", &script([step("quick")])).await;
    for id in &ids {
        server.event(id, "go", &json!(id)).await.expect(202);
    }
    for id in &ids {
        assert_eq!(server.result(id).await[1], json!({ "value": id }));
        assert_eq!(server.effects_of(id), ["before 1", "after 1"]);
    }
}

#[tokio::test]
async fn runs_that_compute_do_not_keep_others_out() {
    let server = Server::start().await;
    for n in 0..8 {
        server
            .run_script(&format!("spins-{n}"), &script([step_with("spins", json!({ "act": "spin" }))]))
            .await;
        server.until_effect(&format!("spins-{n}"), "spins 1").await;
    }
    for n in 0..10 {
        server.play(&format!("o-{n}"), &script([step("charge")])).await;
    }
    assert_eq!(server.stats().await["running"], 8);
}
