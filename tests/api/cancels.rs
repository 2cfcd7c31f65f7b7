//! `POST /api/v1/executions/{id}/cancel`

use futures_util::future::join_all;

use crate::harness::*;

#[tokio::test]
async fn whatever_it_does_it_is_cancelled_at_the_moment_of_the_answer() {
    let server = Server::start().await;
    let retry = json!({ "failures": 1, "retry": { "attempts": 2, "delayMs": 3_600_000 } });
    for (id, script, waits_for) in [
        ("sleeps", script([sleep("long", 3_600_000)]), "sleep"),
        ("naps", script([sleep("short", 20_000)]), "sleep"),
        ("waits", script([wait_event("go")]), "event"),
        ("retries", script([step_with("charge", retry)]), "retry"),
    ] {
        server.run_script(id, &script).await;
        server.until_waiting(id, waits_for).await;
        server.cancel(id).await.expect_empty(204);
        assert_eq!(server.execution(id).await["status"], "cancelled");
        assert_eq!(server.wait(id, "0").await.expect(200)["status"], "cancelled");
    }
    assert_eq!(server.stats().await["cancelled"], 4);
}

#[tokio::test]
async fn an_unknown_execution_is_404() {
    let server = Server::start().await;
    server.cancel("nobody").await.error(404, "unknown_execution");
}

#[tokio::test]
async fn one_that_is_over_is_409_and_its_state_is_named() {
    let server = Server::start().await;
    server.play("completed", &script([])).await;
    server.play("failed", &script([json!({ "fail": { "message": "as asked" } })])).await;
    server.run_script("cancelled", &script([wait_event("go")])).await;
    server.cancel("cancelled").await.expect_empty(204);
    for status in ["completed", "failed", "cancelled"] {
        let before = server.execution(status).await;
        let answer = server.cancel(status).await;
        let message = answer.error(409, "already_over");
        assert!(message.contains(status), "{message}");
        assert_eq!(answer.json()["status"], status);
        assert_eq!(server.execution(status).await, before);
    }
}

#[tokio::test]
async fn a_step_that_loops_for_ever_is_interrupted_and_its_place_is_free() {
    let server = Server::with("live-max", 4).with("parked-max", 1).start().await;
    let ids = ["o-1", "o-2", "o-3", "o-4"];
    for id in ids {
        server.run_script(id, &script([step_with("spins", json!({ "act": "spin" }))])).await;
        server.until_effect(id, "spins 1").await;
    }
    for id in ids {
        server.cancel(id).await.expect_empty(204);
        assert_eq!(server.execution(id).await["status"], "cancelled");
    }
    // All places are taken until they are interrupted; their own limits are far away.
    server.play("next", &script([step("charge")])).await;
    assert_eq!(server.effects_of("o-1"), ["spins 1"]);
}

#[tokio::test]
async fn a_handler_that_computes_is_interrupted() {
    let server = Server::start().await;
    let compute = json!({ "do": { "compute": { "rounds": 300_000_000 } } });
    let lines = [step("before"), compute, step("after")];
    server.run_script("o-1", &script(lines.clone())).await;
    server.until_effect("o-1", "before 1").await;
    server.cancel("o-1").await.expect_empty(204);
    // Began later and has as much to do: when it is through, the other one would be.
    server.play("o-2", &script(lines)).await;
    assert_eq!(server.effects_of("o-2"), ["before 1", "after 1"]);
    assert_eq!(server.effects_of("o-1"), ["before 1"]);
}

#[tokio::test]
async fn of_many_concurrent_cancels_one_is_204_and_the_others_409() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    let answers = join_all((0..50).map(|_| server.cancel("o-1"))).await;
    assert_eq!(answers.iter().filter(|answer| answer.status == 204).count(), 1);
    for answer in answers.iter().filter(|answer| answer.status != 204) {
        answer.error(409, "already_over");
    }
}

/// Cancel is one transaction: the answer, the state and the result never tell different stories.
#[tokio::test]
async fn a_cancel_that_races_with_the_end_either_wins_or_is_409() {
    let server = Server::start().await;
    let (mut won, mut lost) = (0, 0);
    for n in 0..60 {
        let id = format!("o-{n}");
        server.run_script(&id, &script([wait_event("go"), step("charge")])).await;
        server.event(&id, "go", &Value::Null).await.expect(202);
        let answer = server.cancel(&id).await;
        let right_after = server.execution(&id).await;
        let over = server.over(&id).await;
        match answer.status {
            204 => {
                won += 1;
                assert_eq!((&over["status"], &over["result"]), (&json!("cancelled"), &Value::Null));
                assert_eq!(right_after, over, "nothing is recorded after the answer");
            }
            _ => {
                lost += 1;
                answer.error(409, "already_over");
                assert_eq!(over["status"], "completed");
            }
        }
        assert_eq!(over, server.execution(&id).await);
    }
    println!("cancels that came in time: {won}, too late: {lost}");
}

#[tokio::test]
async fn nothing_of_it_goes_on_after_the_answer() {
    let mut server = Server::start().await;
    let lines = json!({ "repeat": { "times": 10_000, "lines": [step("tick")] } });
    server.run_script("o-1", &script([lines])).await;
    server.until_effect("o-1", "tick 1").await;
    server.cancel("o-1").await.expect_empty(204);
    let cancelled = server.execution("o-1").await;
    // A restart would take up whatever was not over.
    server.terminate().await;
    let effects = server.effects_of("o-1").len();
    server.restart();
    server.play("o-2", &script([step("another")])).await;
    assert_eq!(server.effects_of("o-1").len(), effects);
    assert_eq!(server.execution("o-1").await, cancelled);
}
