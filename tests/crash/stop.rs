//! Asked to stop, the host finishes what is under way; and one folder has one host.

use crate::harness::*;

#[tokio::test]
async fn a_host_that_is_asked_to_stop_lets_steps_finish_and_ends_well() {
    let mut server = Server::start().await;
    let slow = step_with("slow", json!({ "act": { "effect": { "ms": 700 } } }));
    server.run_script("steps", &script([slow, step("next")])).await;
    server.run_script("waits", &script([wait_event("go")])).await;
    server.run_script("sleeps", &script([sleep("long", 3_600_000)])).await;
    server.until_effect("steps", "slow 1").await;
    server.until_waiting("waits", "event").await;
    server.until_waiting("sleeps", "sleep").await;

    let status = server.terminate().await;

    assert_eq!(status.code(), Some(0), "{status}; {}", server.log_text());
    server.restart();
    server.result("steps").await;
    assert_eq!(server.effects_of("steps"), ["slow 1", "next 1"], "the step under way was let finish");
    server.event("waits", "go", &json!(1)).await.expect(202);
    assert_eq!(server.result("waits").await, json!([{ "value": 1 }]));
    assert_eq!(server.execution("sleeps").await["waitingFor"]["step"], "long");
}

#[tokio::test]
async fn what_does_not_finish_in_time_is_interrupted_and_tried_again_after_the_next_start() {
    let mut server = Server::with("stop-patience-ms", 300).start().await;
    let spins = step_with("spins", json!({ "act": { "reallySleep": { "ms": 5_000 } } }));
    server.run_script("step", &script([spins])).await;
    server.run_script("handler", &script([step("before"), json!({ "do": "spin" })])).await;
    server.until_effect("step", "spins 1").await;
    server.until_effect("handler", "before 1").await;

    let status = server.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}; {}", server.log_text());

    server.restart();
    until("it is tried again", async || server.effects_of("step"), |effects| effects.len() == 2).await;
    assert_eq!(server.effects_of("handler"), ["before 1"]);
    for id in ["step", "handler"] {
        assert_eq!(server.execution(id).await["status"], "running");
        server.cancel(id).await.expect_empty(204);
    }
}

#[tokio::test]
async fn who_waits_for_a_result_is_sent_away_when_the_host_stops() {
    let mut server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    let waiting = tokio::spawn({
        let client = (*server).clone();
        async move { client.wait("o-1", "30").await }
    });
    // It waits once the server has the request, which only the server knows: ask for something
    // after it on another connection.
    until("the server counts it", async || server.get("/healthz").await.status, |status| *status == 200)
        .await;
    let status = server.terminate().await;
    assert_eq!(status.code(), Some(0), "{status}");
    // An answer, or a connection that was refused where the request came too late.
    if let Ok(answer) = waiting.await {
        answer.error(503, "stopping");
        assert!(answer.header("retry-after").is_some(), "{answer:#?}");
    }
}

#[tokio::test]
async fn a_second_signal_stops_at_once() {
    let mut server = Server::with("stop-patience-ms", 600_000).start().await;
    server.run_script("o-1", &script([step_with("spins", json!({ "act": "spin" }))])).await;
    server.until_effect("o-1", "spins 1").await;
    server.ask_to_stop();
    until("it says that it stops", async || server.log_text(), |log| log.contains("stopping")).await;
    server.ask_to_stop();
    let status = server.ended().await;
    assert_ne!(status.code(), Some(0), "{status}");
    server.restart();
    until("it is tried again", async || server.effects_of("o-1").len(), |effects| *effects == 2).await;
}

#[tokio::test]
async fn a_second_host_over_the_same_data_is_refused_and_says_why() {
    let mut server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;

    let (status, said) = server.second_on_the_same_data();

    assert!(status.code().is_some_and(|code| code != 0), "{status}: {said}");
    let folder = server.data().to_str().unwrap().to_owned();
    assert!(said.contains(&folder), "{said:?} does not say which folder");
    assert!(!said.contains("stepbox listens on"), "{said}");
    assert!(!said.contains("panicked"), "{said}");

    // The first one has noticed nothing, and its place is free once it is gone.
    server.event("o-1", "go", &json!(1)).await.expect(202);
    server.result("o-1").await;
    server.kill_9().restart();
    server.play("o-2", &script([step("charge")])).await;
}

#[test]
fn what_cannot_be_started_says_why_in_one_sentence() {
    let stepbox = |arguments: &[&str]| {
        let output =
            std::process::Command::new(env!("CARGO_BIN_EXE_stepbox")).args(arguments).output().unwrap();
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let (code, said) = stepbox(&["serve", "--listen", "nonsense", "--data", "/nonexistent/folder"]);
    assert!(code.is_some_and(|code| code != 0), "{said}");
    let (code, said) = stepbox(&["serve", "--listen", "127.0.0.1:0", "--data", "/proc/nothing/here"]);
    assert!(code.is_some_and(|code| code != 0), "{said}");
    assert!(said.contains("/proc/nothing/here") && !said.contains("panicked"), "{said}");
    let (code, said) = stepbox(&["serve", "--no-such-thing"]);
    assert_eq!(code, Some(2), "{said}");
    let (code, _) = stepbox(&["--version"]);
    assert_eq!(code, Some(0));
}
