//! Killed in each state that a run can be in: it goes on where it was.

use crate::harness::*;

#[tokio::test]
async fn a_completed_step_survives_kill_9_and_one_under_way_is_tried_again() {
    let mut server = Server::start().await;
    let slow = step_with("slow", json!({ "act": { "effect": { "ms": 2_000 } }, "retry": { "attempts": 3 } }));
    server.run_script("o-1", &script([step("charge"), slow, step("after")])).await;
    server.until_effect("o-1", "slow 1").await;

    server.kill_9().restart();

    let result = server.result("o-1").await;
    let effects = server.effects();
    let slow: Vec<_> = effects.iter().filter(|effect| effect.tag == "slow").collect();
    assert_eq!(slow.len(), 2, "{effects:#?}");
    assert_eq!(result[1]["nonce"], slow[1].nonce, "what counts is the attempt after the crash");
    assert_eq!(effects.iter().filter(|effect| effect.tag == "charge").count(), 1);
}

/// A crash is not a failure of the step: it uses up none of its attempts.
#[tokio::test]
async fn a_step_without_retries_is_tried_again_after_a_crash() {
    let mut server = Server::start().await;
    let slow = step_with("slow", json!({ "act": { "effect": { "ms": 1_000 } } }));
    server.run_script("o-1", &script([slow])).await;
    server.until_effect("o-1", "slow 1").await;
    server.kill_9().restart();
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1").len(), 2);
}

#[tokio::test]
async fn one_that_moves_from_step_to_step_goes_on_with_the_next() {
    let mut server = Server::start().await;
    let steps: Vec<Value> =
        (0..400).map(|n| step_with(&format!("s-{n}"), json!({ "act": { "effect": { "ms": 3 } } }))).collect();
    server.run_script("o-1", &script(steps)).await;
    for n in [40, 120, 260] {
        server.until_effect("o-1", &format!("s-{n} 1")).await;
        server.kill_9().restart();
    }
    let result = server.result("o-1").await;
    let effects = server.effects();
    for (n, value) in result.as_array().unwrap().iter().enumerate() {
        let tag = format!("s-{n}");
        let last = effects.iter().rfind(|effect| effect.tag == tag).expect("it ran");
        assert_eq!(value["nonce"], last.nonce, "{tag} was run again after it had completed");
    }
    let again = effects.len() - 400;
    assert!(again <= 3, "{again} attempts were cut off by three kills");
}

#[tokio::test]
async fn one_that_sleeps_wakes_at_its_time() {
    for park_max_ms in [0, 60_000] {
        let mut server = Server::with("park-max-ms", park_max_ms).start().await;
        server.run_script("passes-by", &script([step("before"), sleep("nap", 300), step("after")])).await;
        server.run_script("lasts", &script([sleep("long", 3_600_000)])).await;
        server.until_waiting("passes-by", "sleep").await;
        let before = server.until_waiting("lasts", "sleep").await;
        server.kill_9().restart();
        server.result("passes-by").await;
        assert_eq!(server.effects_of("passes-by"), ["before 1", "after 1"]);
        let after = server.until_waiting("lasts", "sleep").await;
        assert_eq!(after["waitingFor"], before["waitingFor"], "it wakes when it was to");
    }
}

#[tokio::test]
async fn one_that_waits_gets_the_events_from_before_and_after() {
    for park_max_ms in [0, 60_000] {
        let mut server = Server::with("park-max-ms", park_max_ms).start().await;
        let payload = script([wait_event("first"), wait_event("go"), wait_event("go")]);
        server.run_script("o-1", &payload).await;
        server.until_waiting("o-1", "event").await;
        server.event("o-1", "go", &json!("buffered")).await.expect(202);
        server.kill_9().restart();
        server.event("o-1", "first", &json!(1)).await.expect(202);
        // Killed at once: whether it was consumed or not, it was acknowledged.
        server.kill_9().restart();
        server.until("o-1", "stands at the third wait", |e| e["waitingFor"]["step"] == "go#2").await;
        server.event("o-1", "go", &json!("late")).await.expect(202);
        server.kill_9().restart();
        let expected = json!([{ "value": 1 }, { "value": "buffered" }, { "value": "late" }]);
        assert_eq!(server.result("o-1").await, expected);
    }
}

#[tokio::test]
async fn one_that_waits_to_try_again_tries_at_its_time() {
    let mut server = Server::start().await;
    let soon = json!({ "failures": 1, "retry": { "attempts": 2, "delayMs": 400 } });
    let late = json!({ "failures": 1, "retry": { "attempts": 2, "delayMs": 3_600_000 } });
    server.run_script("soon", &script([step_with("charge", soon)])).await;
    server.run_script("late", &script([step_with("charge", late)])).await;
    server.until_waiting("soon", "retry").await;
    let before = server.until_waiting("late", "retry").await;
    server.kill_9().restart();
    assert_eq!(server.result("soon").await, json!([{ "attempt": 2 }]));
    assert_eq!(server.effects_of("soon"), ["charge 1", "charge 2"]);
    assert_eq!(server.until_waiting("late", "retry").await["waitingFor"], before["waitingFor"]);
}

#[tokio::test]
async fn one_that_is_over_stays_as_it_is() {
    let mut server = Server::start().await;
    server.play("completed", &script([step("charge")])).await;
    server.play("failed", &script([json!({ "fail": { "message": "as asked" } })])).await;
    server.run_script("cancelled", &script([wait_event("go")])).await;
    server.cancel("cancelled").await.expect_empty(204);
    let before = server.list("?sortBy=scheduledAt&sortOrder=asc").await;
    let stats = server.stats().await;
    server.kill_9().restart();
    assert_eq!(server.list("?sortBy=scheduledAt&sortOrder=asc").await, before);
    assert_eq!(server.stats().await, stats);
    assert_eq!(server.effects_of("completed"), ["charge 1"]);
}

/// The answer is the promise: killed right after it, the execution is there and goes on.
#[tokio::test]
async fn what_was_acknowledged_is_there_after_kill_9() {
    let mut server = Server::start().await;
    for round in 0..8 {
        let (started, told, cancelled) = (format!("s-{round}"), format!("e-{round}"), format!("c-{round}"));
        server.run_script(&told, &script([wait_event("go")])).await;
        server.run_script(&cancelled, &script([wait_event("go")])).await;
        server.event(&told, "go", &json!(round)).await.expect(202);
        server.cancel(&cancelled).await.expect_empty(204);
        server.run_script(&started, &script([step("charge")])).await;
        server.kill_9().restart();
        assert_eq!(server.result(&started).await, json!([{ "attempt": 1 }]));
        assert_eq!(server.result(&told).await, json!([{ "value": round }]));
        assert_eq!(server.execution(&cancelled).await["status"], "cancelled");
    }
}

/// The answer of a start can have the result; then that is the promise. And whoever was killed begins no
/// run before its start is there.
#[tokio::test]
async fn a_result_that_came_with_the_answer_of_its_start_is_there_after_kill_9() {
    let mut server = Server::start().await;
    let mut number = 0;
    let start = async || {
        number += 1;
        server.run_script(&format!("o-{number}"), &script([])).await
    };
    // The first may take longer than a run has before its start is written.
    let over = until("a start has the result", start, |started| started["status"] == "completed").await;
    let id = over["executionId"].as_str().expect("an id").to_owned();
    assert_eq!(over["result"], json!([]));

    server.kill_9().restart();

    let there = server.execution(&id).await;
    for field in ["status", "result", "completedAt", "runId"] {
        assert_eq!(there[field], over[field], "{field}");
    }
    assert_eq!(server.start(&id, "scenario", &script([])).await.expect(200)["status"], "completed");
    assert_eq!(server.run_script("next", &script([])).await["status"], "scheduled");
    server.result("next").await;
}

/// Nobody's fault but the machine's: a run that was under way in a few crashes is not given up.
#[tokio::test]
async fn a_run_that_makes_progress_survives_any_number_of_crashes() {
    let mut server = Server::start().await;
    let steps: Vec<Value> =
        (0..8).map(|n| step_with(&format!("s-{n}"), json!({ "act": { "effect": { "ms": 40 } } }))).collect();
    server.run_script("o-1", &script(steps)).await;
    for n in 0..8 {
        let tag = format!("s-{n}");
        until(
            &format!("{tag} has begun"),
            async || server.effects(),
            |effects| effects.iter().any(|effect| effect.tag == tag),
        )
        .await;
        server.kill_9().restart();
    }
    server.result("o-1").await;
}
