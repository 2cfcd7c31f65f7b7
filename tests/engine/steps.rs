//! Steps: their order, their names, how they end.

use crate::harness::*;

/// Gives up the instance at every wait, however short: each leg is a replay.
async fn that_suspends_always() -> Server {
    Server::with("park-max-ms", 0).start().await
}

#[tokio::test]
async fn steps_run_in_order_and_their_values_come_back() {
    let server = Server::start().await;
    let lines = ["reserve", "charge", "ship"]
        .map(|name| step_with(name, json!({ "act": { "return": { "did": name } } })));
    server.run_script("o-1", &script(lines)).await;
    let expected = json!([{ "did": "reserve" }, { "did": "charge" }, { "did": "ship" }]);
    assert_eq!(server.result("o-1").await, expected);
    assert_eq!(server.effects_of("o-1"), ["reserve 1", "charge 1", "ship 1"]);
}

#[tokio::test]
async fn what_is_done_is_not_done_again_when_the_handler_is() {
    let server = that_suspends_always().await;
    let mut lines = Vec::new();
    for n in 1..=5 {
        lines.extend([step(&format!("step-{n}")), sleep(&format!("nap-{n}"), 5)]);
    }
    let over = server.play("o-1", &script(lines)).await;
    assert_eq!(over["status"], "completed");
    assert_eq!(server.effects_of("o-1"), ["step-1 1", "step-2 1", "step-3 1", "step-4 1", "step-5 1"]);
}

#[tokio::test]
async fn what_a_handler_prints_is_told_once_however_often_it_is_called() {
    let mut server = that_suspends_always().await;
    let print = |n: u32| json!({ "print": { "text": format!("line {n}") } });
    let lines = [print(1), step("charge"), print(2), sleep("nap", 5), print(3), wait_event("go"), print(4)];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;
    server.terminate().await;
    server.restart();
    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.result("o-1").await;
    assert_eq!(server.written("o-1", "line"), ["1", "2", "3", "4"]);
}

#[tokio::test]
async fn the_second_step_of_a_name_is_told_from_the_first() {
    let server = that_suspends_always().await;
    let charge =
        |n: u32| step_with("charge", json!({ "tag": format!("charge-{n}"), "act": { "return": n } }));
    let dies = settle("charge", json!({ "act": { "fail": { "message": "no", "fatal": true } } }));
    let lines = [charge(1), sleep("nap", 1), charge(2), sleep("nap", 1), dies, sleep("nap", 1), charge(4)];
    server.run_script("o-1", &script(lines)).await;
    let result = server.result("o-1").await;
    assert_eq!([&result[0], &result[2], &result[6]], [1, 2, 4]);
    assert_eq!(result[4]["failure"]["step"], "charge#3");
    assert_eq!(server.effects_of("o-1"), ["charge-1 1", "charge-2 1", "charge 1", "charge-4 1"]);
}

#[tokio::test]
async fn a_failed_step_is_the_handlers_to_deal_with() {
    let server = Server::start().await;
    let fails = json!({ "act": { "fail": { "message": "no stock", "fatal": true } } });
    server.run_script("o-1", &script([settle("reserve", fails), step("apologise")])).await;
    let result = server.result("o-1").await;
    let failure = &result[0]["failure"];
    assert_eq!((&failure["kind"], &failure["message"]), (&json!("error"), &json!("no stock")));
    assert_eq!((&failure["step"], &failure["attempt"]), (&json!("reserve"), &json!(1)));
    assert_eq!(server.effects_of("o-1"), ["reserve 1", "apologise 1"]);
}

/// The step's value, its own error as it was, or what the host has to say.
#[tokio::test]
async fn an_outcome_comes_in_three_ways_also_on_replay() {
    let server = that_suspends_always().await;
    let outcome = |name: &str, act: Value| json!({ "outcome": { "name": name, "act": act } });
    let lines = [
        outcome("value", json!({ "return": 1 })),
        outcome("error", json!({ "ownError": { "code": 42, "mayPass": false } })),
        outcome("panics", json!({ "panic": { "message": "oh" } })),
        sleep("nap", 1),
    ];
    server.run_script("o-1", &script(lines)).await;
    let result = server.result("o-1").await;
    assert_eq!(result[0], json!({ "value": 1 }));
    assert_eq!(result[1]["error"], json!({ "code": 42, "may_pass": false }));
    assert_eq!(result[1]["failure"]["message"], "own error 42");
    assert_eq!(result[2].get("error"), None);
    assert_eq!(result[2]["failure"]["kind"], "trapped");
    assert_eq!(server.effects_of("o-1"), ["value 1", "error 1", "panics 1"]);
}

#[tokio::test]
async fn a_panic_in_a_step_is_a_failed_attempt_with_its_message_and_backtrace() {
    let server = Server::start().await;
    let panics = json!({ "act": { "panic": { "message": "out of paper" } }, "retry": { "attempts": 2 } });
    server.run_script("o-1", &script([settle("other", panics.clone()), step_with("print", panics)])).await;
    let failure = server.failure("o-1").await;
    assert_eq!(
        (&failure["kind"], &failure["step"], &failure["attempt"]),
        (&json!("exhausted"), &json!("print"), &json!(2))
    );
    assert!(failure["message"].as_str().unwrap().contains("out of paper"), "{failure}");
    assert!(failure["backtrace"].as_str().unwrap().contains("scenario"), "{failure}");
    assert_eq!(server.effects_of("o-1"), ["other 1", "other 2", "print 1", "print 2"]);
}

#[tokio::test]
async fn a_panic_in_the_handler_fails_the_run_with_its_message_and_backtrace() {
    let server = Server::start().await;
    let panics = json!({ "do": { "panic": { "message": "index out of reach" } } });
    server.run_script("o-1", &script([step("before"), panics])).await;
    let failure = server.failure("o-1").await;
    assert_eq!((&failure["kind"], &failure["step"]), (&json!("trapped"), &Value::Null));
    assert!(failure["message"].as_str().unwrap().contains("index out of reach"), "{failure}");
    assert!(failure["backtrace"].as_str().unwrap().contains("scenario"), "{failure}");
}

#[tokio::test]
async fn an_exit_is_no_way_to_end_a_step_or_a_handler() {
    let server = Server::start().await;
    for code in [0, 3] {
        let exit = json!({ "exit": { "code": code } });
        let id = format!("o-{code}");
        server
            .run_script(&id, &script([settle("step", json!({ "act": exit })), json!({ "do": exit })]))
            .await;
        let failure = server.failure(&id).await;
        assert_eq!(failure["kind"], "trapped");
        assert!(failure["message"].as_str().unwrap().contains("exit"), "{failure}");
    }
}

#[tokio::test]
async fn a_call_that_makes_no_sense_is_told_and_changes_nothing() {
    let server = Server::start().await;
    let long = "x".repeat(201);
    let step = |name: &str, function: &str, input: &str| json!({ "call": "step", "name": name, "function": function, "input": input });
    let calls = [
        step("", "attempt", "null"),
        step(&long, "attempt", "null"),
        step("ends-in#2", "attempt", "null"),
        step("new\nline", "attempt", "null"),
        step("not-json", "attempt", "{"),
        step("no-function", "", "null"),
        json!({ "call": "step", "name": "no-attempts", "function": "attempt", "input": "1", "attemptsMax": 0 }),
        json!({ "call": "step", "name": "shrinks", "function": "attempt", "input": "1", "attemptsMax": 2, "growthPercent": 99 }),
        json!({ "call": "capture", "name": "not-json", "value": "nonsense" }),
        json!({ "call": "capture", "name": "", "value": "1" }),
        json!({ "call": "wait-event", "name": "" }),
    ];
    let refused = calls.len();
    let good = step("fine", "attempt", "null");
    let payload = json!({ "calls": calls.into_iter().chain([good]).collect::<Vec<_>>() });
    server.start("o-1", "raw", &payload).await.expect(201);
    let result = server.result("o-1").await;
    for heard in &result["heard"].as_array().unwrap()[..refused] {
        assert_eq!(heard["failure"]["kind"], "FailureKind::Misuse", "{heard}");
    }
    assert_eq!(result["heard"][refused], json!({ "value": "1" }));
}

#[tokio::test]
async fn a_durable_call_inside_of_a_step_ends_the_attempt_and_says_why() {
    let server = Server::start().await;
    server.run_script("o-1", &script([step_with("nested", json!({ "act": "callSleep" }))])).await;
    let failure = server.failure("o-1").await;
    assert_eq!((&failure["kind"], &failure["step"]), (&json!("misuse"), &json!("nested")));
    assert!(failure["message"].as_str().unwrap().contains("sleep"), "{failure}");
}

#[tokio::test]
async fn what_this_host_does_not_offer_is_told_as_a_failure_that_the_handler_can_read() {
    let server = Server::start().await;
    server.run_script("o-1", &script([json!({ "schedule": { "name": "later" } })])).await;
    assert_eq!(server.result("o-1").await[0]["failure"]["kind"], "unsupported");

    let calls: Vec<Value> = ["wait-all", "wait-any", "start-execution", "wait-execution"]
        .map(|call| json!({ "call": call, "name": "later" }))
        .into();
    server.start("o-2", "raw", &json!({ "calls": calls })).await.expect(201);
    for heard in server.result("o-2").await["heard"].as_array().unwrap() {
        assert_eq!(heard["failure"]["kind"], "FailureKind::Unsupported", "{heard}");
    }
}

#[tokio::test]
async fn texts_that_are_no_json_are_refused_wherever_they_come_from() {
    let server = Server::start().await;
    let step = |function: &str, input: &str| json!({ "call": "step", "name": function, "function": function, "input": input });
    let calls =
        [step("verbatim", "\"nonsense\""), step("verbatim", "\"[1,2]\""), step("bad-details", "null")];
    server.start("o-1", "raw", &json!({ "calls": calls })).await.expect(201);
    let heard = server.result("o-1").await["heard"].clone();
    assert!(heard[0]["failure"]["message"].as_str().unwrap().contains("JSON"), "{heard}");
    assert_eq!(heard[1], json!({ "value": "[1,2]" }));
    assert!(heard[2]["failure"].is_object(), "{heard}");

    for (id, payload) in [("o-2", json!({ "return": "nonsense" })), ("o-3", json!({ "return": "" }))] {
        server.start(id, "raw", &payload).await.expect(201);
        let failure = server.failure(id).await;
        assert!(failure["message"].as_str().unwrap().contains("JSON"), "{failure}");
    }
    server.start("o-4", "raw", &json!({ "fail": "{" })).await.expect(201);
    server.failure("o-4").await;
}

/// A handler may say what it likes of its failure; what the API shows of steps is the journal's.
#[tokio::test]
async fn a_handler_cannot_blame_a_step_that_did_not_fail() {
    let server = Server::start().await;
    server.start("o-1", "raw", &json!({ "claim": "charge" })).await.expect(201);
    let failure = server.failure("o-1").await;
    assert_eq!(
        (&failure["kind"], &failure["step"], &failure["attempt"]),
        (&json!("error"), &Value::Null, &Value::Null)
    );
    assert_eq!(failure["message"], "it failed by itself");
}
