//! Timeouts of steps and of executions.

use crate::harness::*;

const SPIN: &str = "spin";

#[tokio::test]
async fn a_step_that_takes_too_long_is_interrupted_and_not_retried_in_either_scope() {
    let server = Server::start().await;
    for (id, per_attempt) in [("all-attempts", false), ("per-attempt", true)] {
        for (how, act) in [("spins", json!(SPIN)), ("sleeps", json!({ "reallySleep": { "ms": 3_600_000 } }))]
        {
            let id = format!("{id}-{how}");
            let options = json!({
                "act": act, "timeoutMs": 200, "perAttempt": per_attempt, "retry": { "attempts": 5, "delayMs": 1 },
            });
            server.run_script(&id, &script([step_with("charge", options)])).await;
            let failure = server.failure(&id).await;
            assert_eq!(
                (&failure["kind"], &failure["step"], &failure["attempt"]),
                (&json!("timed_out"), &json!("charge"), &json!(1)),
                "{id}: {failure}"
            );
            assert_eq!(server.effects_of(&id), ["charge 1"]);
        }
    }
}

#[tokio::test]
async fn over_all_attempts_the_deadline_holds_for_the_delays_between_them_too() {
    let server = Server::start().await;
    let options =
        json!({ "failures": 1_000, "timeoutMs": 300, "retry": { "attempts": 1_000, "delayMs": 40 } });
    server.run_script("o-1", &script([step_with("charge", options)])).await;
    let failure = server.failure("o-1").await;
    assert_eq!(failure["kind"], "timed_out");
    let attempts = server.effects_of("o-1").len();
    assert!((1..=8).contains(&attempts), "{attempts} attempts with 40 ms between them in 300 ms");
}

#[tokio::test]
async fn per_attempt_the_delays_between_them_do_not_count() {
    let server = Server::start().await;
    // Three delays alone are longer than the timeout.
    let options = json!({
        "failures": 3, "timeoutMs": 5_000, "perAttempt": true, "retry": { "attempts": 4, "delayMs": 1_700 },
    });
    server.run_script("o-1", &script([step_with("charge", options)])).await;
    assert_eq!(server.result("o-1").await, json!([{ "attempt": 4 }]));
}

#[tokio::test]
async fn the_run_goes_on_after_a_step_that_was_interrupted() {
    let server = Server::start().await;
    let spins = settle("spins", json!({ "act": SPIN, "timeoutMs": 100 }));
    server.run_script("o-1", &script([spins, step("next")])).await;
    let result = server.result("o-1").await;
    assert_eq!(result[0]["failure"]["kind"], "timed_out");
    assert_eq!(result[1], json!({ "attempt": 1 }));
}

#[tokio::test]
async fn an_execution_that_is_not_over_in_time_fails_wherever_it_stands() {
    let server = Server::start().await;
    // The raw guest's own manifest cannot, and the scenario's own timeout is two days.
    let manifest = json!({ "stepbox": "0.1.0", "task": { "timeoutMs": 700 } });
    server.upload("short", guests::raw_with_manifest(&manifest)).await.expect(201);
    let spins = json!({ "call": "step", "name": "spins", "function": "spin", "input": "null" });
    let waits = json!({ "call": "wait-for-ever", "name": "go" });
    for (id, payload, stood_at) in [
        ("sleeps", json!({ "sleep": 3_600_000 }), "nap"),
        ("naps", json!({ "sleep": 900 }), "nap"),
        ("waits", json!({ "calls": [waits] }), "go"),
        ("spins-in-a-step", json!({ "calls": [spins] }), "spins"),
        ("spins", json!({ "spin": true }), ""),
    ] {
        server.start(id, "short", &payload).await.expect(201);
        let failure = server.failure(id).await;
        assert_eq!(failure["kind"], "timed_out", "{id}: {failure}");
        let message = failure["message"].as_str().unwrap();
        assert!(message.contains("700 ms") && message.contains(stood_at), "{id}: {message}");
        let known = match stood_at {
            "" => Value::Null,
            step => json!(step),
        };
        assert_eq!(failure["step"], known, "{id}");
    }
}

#[tokio::test]
async fn a_deadline_passes_while_the_host_is_down() {
    let mut server = Server::start().await;
    let manifest = json!({ "stepbox": "0.1.0", "task": { "timeoutMs": 500 } });
    server.upload("short", guests::raw_with_manifest(&manifest)).await.expect(201);
    server.start("o-1", "short", &json!({ "sleep": 3_600_000 })).await.expect(201);
    server.kill_9().restart();
    assert_eq!(server.failure("o-1").await["kind"], "timed_out");
}
