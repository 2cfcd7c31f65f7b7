//! `POST …/cancel` of a guest that computes without end. (All else about it: `tests/api/cancels.rs`.)

use std::time::{Duration, Instant};

use crate::harness::*;

/// A guest that is not interrupted goes on for ten seconds in a handler, sixty in a step.
const FAR_LESS: Duration = Duration::from_secs(8);

#[tokio::test]
async fn a_guest_that_computes_without_end_is_interrupted_in_a_step_and_in_the_handler() {
    let mut server = Server::with("live-max", 2).with("parked-max", 1).start().await;
    let spins_in_step = step_with("spins", json!({ "act": "spin" }));
    for (kind, line) in [("step", spins_in_step), ("handler", json!({ "do": "spin" }))] {
        let ids = [format!("{kind}-1"), format!("{kind}-2")];
        for id in &ids {
            server.run_script(id, &script([step("before"), line.clone(), step("after")])).await;
            server.until_effect(id, "before 1").await;
        }
        server.until_detail(&ids[1], "has done its first step", |d| is_step(d, "before", "completed")).await;

        let mut answered = Instant::now();
        for id in &ids {
            server.cancel(id).await.expect_empty(204);
            answered = Instant::now();
        }
        let right_after = [server.all_of(&ids[0]).await, server.all_of(&ids[1]).await];

        // All places were taken: this one gets through when one of them is free.
        server.play(&format!("{kind}-next"), &script([step("charge")])).await;
        let free_after = answered.elapsed();
        println!("in a {kind}: another run was through {free_after:?} after the answer");
        assert!(free_after < FAR_LESS, "the guest was not interrupted: {free_after:?}");
        for (id, right_after) in ids.iter().zip(&right_after) {
            assert_eq!(server.all_of(id).await, *right_after, "something was recorded after the answer");
            assert!(!server.effects_of(id).contains(&"after 1".to_owned()));
        }
        server.kill_9().restart();
        for (id, right_after) in ids.iter().zip(&right_after) {
            assert_eq!(server.all_of(id).await, *right_after, "after kill -9");
        }
    }
}

#[tokio::test]
async fn who_did_it_and_why_is_kept_where_somebody_says_so() {
    let server = Server::start().await;
    for id in ["told", "silent"] {
        server.run_script(id, &script([wait_event("go")])).await;
    }
    let body = json!({ "triggeredBy": "ada", "reason": "ordered twice" });
    server.post_json("/api/v1/executions/told/cancel", &body).await.expect_empty(204);
    server.cancel("silent").await.expect_empty(204);
    let (entries, total) = server.audit("?action=cancel").await;
    assert_eq!(total, 2);
    let told = entries.iter().find(|entry| entry["executionId"] == "told").unwrap();
    assert_eq!((&told["actor"], &told["reason"]), (&json!("ada"), &json!("ordered twice")));
    let silent = entries.iter().find(|entry| entry["executionId"] == "silent").unwrap();
    assert_eq!((&silent["actor"], &silent["reason"]), (&Value::Null, &Value::Null));
}

#[tokio::test]
async fn a_sleeping_step_is_not_waited_for() {
    let server = Server::with("live-max", 2).with("parked-max", 1).start().await;
    let holds = step_with("holds", json!({ "act": { "reallySleep": { "ms": 3_600_000 } } }));
    for id in ["o-1", "o-2"] {
        server.run_script(id, &script([holds.clone()])).await;
        server.until_effect(id, "holds 1").await;
    }
    for id in ["o-1", "o-2"] {
        server.cancel(id).await.expect_empty(204);
    }
    server.play("next", &script([step("charge")])).await;
    let detail = server.detail("o-1").await;
    assert_eq!(detail["execution"]["status"], "cancelled");
    assert!(!is_step(&detail, "holds", "running"), "nothing is under way in what is over: {detail:#}");
}
