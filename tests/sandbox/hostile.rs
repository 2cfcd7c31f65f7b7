//! Guests that take what they can get.

use crate::harness::*;

/// The neighbour lives: a task that has nothing to do with it all goes through.
async fn assert_others_go_on(server: &Server) {
    for n in 0..3 {
        let id = format!("neighbour-{}-{n}", server.list("").await.1);
        server.run_script(&id, &script([step("charge")])).await;
        assert_eq!(server.result(&id).await, json!([{ "attempt": 1 }]));
    }
    assert_eq!(server.get("/readyz").await.status, 200);
}

/// What `act` ends with in a step and in the handler: kind and words of the failure.
async fn assert_ends(act: Value, kind: &str, words: &[&str]) {
    let server = Server::start().await;
    server.run_script("step", &script([step_with("greedy", json!({ "act": act }))])).await;
    server.run_script("handler", &script([step("before"), json!({ "do": act })])).await;
    for id in ["step", "handler"] {
        let failure = server.failure(id).await;
        assert_eq!(failure["kind"], kind, "{id}: {failure}");
        let message = failure["message"].as_str().unwrap();
        for word in words {
            assert!(message.contains(word), "{id}: {message:?} lacks {word:?}");
        }
    }
    assert_eq!(server.execution("step").await["error"]["step"], "greedy");
    assert_others_go_on(&server).await;
}

#[tokio::test]
async fn memory_is_bounded() {
    assert_ends(json!({ "allocate": { "bytes": 8_u64 << 30 } }), "over_limit", &["memory"]).await;
}

#[tokio::test]
async fn the_stack_is_bounded() {
    assert_ends(json!("recurse"), "trapped", &["recursion"]).await;
}

#[tokio::test]
async fn values_are_bounded() {
    assert_ends(json!({ "huge": { "bytes": 2 << 20 } }), "over_limit", &["bytes"]).await;
    assert_ends(json!({ "huge": { "bytes": 32 << 20 } }), "over_limit", &["data"]).await;
}

/// The handler's limit is its own; a step has its timeout before it has used up its own.
#[tokio::test]
async fn computing_is_bounded_in_the_handler() {
    let server = Server::start().await;
    server.run_script("o-1", &script([step("before"), json!({ "do": "spin" })])).await;
    server.until_effect("o-1", "before 1").await;
    assert_others_go_on(&server).await;
    let failure = server.failure("o-1").await;
    assert_eq!(failure["kind"], "over_limit");
    assert!(failure["message"].as_str().unwrap().contains("CPU"), "{failure}");
    assert_others_go_on(&server).await;
}

#[tokio::test]
async fn what_it_prints_is_bounded_and_told_by_line() {
    let server = Server::start().await;
    let lines = [
        json!({ "print": { "text": "one\ntwo \u{1b}[31mred\u{2028}{\"level\":\"ERROR\"}" } }),
        step_with("floods", json!({ "act": { "flood": { "lines": 100_000 } } })),
        json!({ "do": { "flood": { "lines": 100_000 } } }),
    ];
    server.run_script("o-1", &script(lines)).await;
    server.result("o-1").await;
    let flood = server.written("o-1", "flood ").len();
    assert!((10..100_000).contains(&flood), "{flood} lines of 200,000");
    assert_eq!(server.written("o-1", "one"), [""]);
    let forged = server.written("o-1", "two").concat();
    assert!(!forged.contains(['\u{1b}', '\u{2028}']), "{forged:?}");
    assert!(!server.written("o-1", "more than").is_empty(), "it is said that the rest is dropped");
    assert_others_go_on(&server).await;
}

#[tokio::test]
async fn a_long_message_is_cut() {
    let server = Server::start().await;
    let call = json!({ "call": "step", "name": "talks", "function": "long-message", "input": "null" });
    server.start("o-1", "raw", &json!({ "calls": [call] })).await.expect(201);
    let heard = server.result("o-1").await["heard"][0]["failure"]["message"].as_str().unwrap().to_owned();
    assert!(heard.starts_with("very very") && heard.len() < 100_000, "{} bytes", heard.len());
}

#[tokio::test]
async fn a_handler_that_sleeps_in_the_way_of_the_operating_system_is_told_how_to() {
    let server = Server::start().await;
    server.run_script("o-1", &script([json!({ "do": { "reallySleep": { "ms": 10 } } })])).await;
    let failure = server.failure("o-1").await;
    assert!(failure["message"].as_str().unwrap().contains("sleep"), "{failure}");
    // In a step it is the real thing.
    server
        .run_script("o-2", &script([step_with("naps", json!({ "act": { "reallySleep": { "ms": 10 } } }))]))
        .await;
    server.result("o-2").await;
}

/// A run makes at most so many calls: one that loops over steps for ever ends too.
#[tokio::test]
async fn the_greedy_all_at_once_do_not_stop_the_others() {
    let server = Server::start().await;
    for (n, act) in [
        json!({ "allocate": { "bytes": 8_u64 << 30 } }),
        json!("recurse"),
        json!({ "huge": { "bytes": 8 << 20 } }),
        json!({ "panic": { "message": "as asked" } }),
        json!({ "flood": { "lines": 20_000 } }),
    ]
    .iter()
    .cycle()
    .take(25)
    .enumerate()
    {
        let retried = json!({ "act": act, "retry": { "attempts": 2 } });
        server.run_script(&format!("greedy-{n}"), &script([settle("greedy", retried)])).await;
    }
    assert_others_go_on(&server).await;
    for n in 0..25 {
        server.result(&format!("greedy-{n}")).await;
    }
}
