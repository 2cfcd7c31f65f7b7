//! What a handler sees is the same each time it is called; what a step sees is the world.

use std::collections::HashSet;

use crate::harness::*;

/// What the first leg saw is in the journal, as the input of a step; what the last leg saw is in
/// the result. A leg in between that saw something else would have diverged.
#[tokio::test]
async fn time_and_chance_outside_of_steps_are_the_same_on_every_replay_over_restarts() {
    let mut server = Server::with("park-max-ms", 0).start().await;
    let tell = |n: u32| json!({ "tell": { "name": format!("tell-{n}") } });
    let lines = [
        tell(0),
        step("first"),
        tell(1),
        sleep("nap", 5),
        tell(2),
        wait_event("go"),
        tell(3),
        wait_event("go"),
        tell(4),
    ];
    let ids = ["o-1", "o-2"];
    for id in ids {
        server.run_script(id, &script(lines.clone())).await;
        server.until_waiting(id, "event").await;
    }
    server.kill_9().restart();
    for id in ids {
        server.event(id, "go", &Value::Null).await.expect(202);
        server.until(id, "stands at the second wait", |e| e["waitingFor"]["step"] == "go#2").await;
    }
    server.terminate().await;
    server.restart();

    let mut drawn = HashSet::new();
    for id in ids {
        server.event(id, "go", &Value::Null).await.expect(202);
        let result = server.result(id).await;
        for n in [0, 2, 4, 6, 8] {
            assert_eq!(result[n]["seen"], result[n]["recorded"], "at {n} of {id}: {result:#}");
            drawn.insert(result[n]["seen"][1].as_u64().unwrap());
        }
        assert_eq!(server.effects_of(id).len(), 6, "each step ran once");
    }
    assert_eq!(drawn.len(), 10, "each draw differs, also between two runs");
}

#[tokio::test]
async fn a_handler_sees_the_time_of_what_was_recorded_last_and_it_does_not_run_backwards() {
    let server = Server::start().await;
    let busy = step_with("busy", json!({ "act": { "reallySleep": { "ms": 30 } } }));
    let lines =
        [json!("now"), json!("now"), busy, json!("now"), sleep("nap", 50), json!("now"), json!("elapsed")];
    server.run_script("o-1", &script(lines)).await;
    let result = server.result("o-1").await;
    let [start, same, after_step, after_nap] = [0, 1, 3, 5].map(|n| result[n].as_u64().unwrap());
    assert_eq!(start, same, "it stands still between two calls");
    assert!(after_step >= start + 30 && after_nap >= after_step + 50, "{result}");
    let scheduled = server.execution("o-1").await["scheduledAt"].as_str().unwrap().to_owned();
    let scheduled: chrono::DateTime<chrono::Utc> = scheduled.parse().unwrap();
    assert_eq!(start, scheduled.timestamp_millis().unsigned_abs());
}

#[tokio::test]
async fn a_step_sees_the_real_time_and_real_chance() {
    let server = Server::start().await;
    let act = |what: &str| step_with(what, json!({ "act": what }));
    let lines = [act("whatTimeItIs"), act("random"), act("random")];
    let before = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).timestamp_millis();
    server.run_script("o-1", &script(lines)).await;
    let result = server.result("o-1").await;
    let after = chrono::DateTime::<chrono::Utc>::from(std::time::SystemTime::now()).timestamp_millis();
    assert!((before..=after).contains(&result[0].as_i64().unwrap()), "{before} {result} {after}");
    assert_ne!(result[1], result[2]);
}

#[tokio::test]
async fn what_is_captured_stays() {
    let server = Server::with("park-max-ms", 0).start().await;
    let lines = [
        json!({ "captureRandom": { "name": "lot" } }),
        json!({ "capture": { "name": "rate", "value": { "percent": 5 } } }),
        sleep("nap", 5),
        json!({ "captureRandom": { "name": "lot" } }),
    ];
    server.run_script("o-1", &script(lines)).await;
    let result = server.result("o-1").await;
    assert!(result[0].is_u64());
    assert_eq!(result[1], json!({ "percent": 5 }));
    assert_ne!(result[0], result[3], "the second of that name is another one");
}

#[tokio::test]
async fn a_guest_knows_which_execution_it_is() {
    let server = Server::start().await;
    server.run_script("o-1", &script([json!("context")])).await;
    let over = server.over("o-1").await;
    let context = &over["result"][0];
    assert_eq!(context["executionId"], "o-1");
    assert_eq!(context["runId"], "o-1:run:0");
    assert_eq!((&context["runIndex"], &context["moduleVersion"]), (&json!(0), &json!(1)));
    assert_eq!(context["taskName"], "scenario");
}

#[tokio::test]
async fn neither_handler_nor_step_sees_anything_of_the_host() {
    let server = Server::start().await;
    let acts = [
        json!("environment"),
        json!({ "readFile": { "path": "/etc/passwd" } }),
        json!({ "connect": { "address": server.address() } }),
    ];
    let lines: Vec<Value> = (acts.iter().map(|act| json!({ "do": act })))
        .chain(acts.iter().map(|act| step_with("step", json!({ "act": act }))))
        .collect();
    server.run_script("o-1", &script(lines)).await;
    let result = server.result("o-1").await;
    for seen in [0, 3] {
        assert_eq!(result[seen], json!({ "variables": [], "arguments": [] }));
        assert!(result[seen + 1]["error"].is_string(), "{result}");
        assert!(result[seen + 2]["error"].is_string(), "{result}");
    }
}
