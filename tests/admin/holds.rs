//! What a pause rule holds, where, and when it lets go. Zart's rules are stored and hold nothing.

use crate::harness::*;

#[tokio::test]
async fn a_new_start_that_is_held_is_accepted_and_nothing_of_it_runs() {
    let server = Server::start().await;
    let rule = server.pause(&json!({ "taskName": "scenario" })).await;
    server.run_script("o-1", &script([wait_event("go"), step("charge")])).await;
    let held = server.until_held("o-1", &rule).await;
    assert_eq!((&held["completedAt"], &held["waitingFor"]["until"]), (&Value::Null, &Value::Null));
    // Events are stored meanwhile.
    server.event("o-1", "go", &json!("early")).await.expect(202);
    // What the rule does not match goes on, and is later than the start that is held.
    server.start("o-2", "raw", &Value::Null).await.expect(201);
    server.result("o-2").await;
    assert!(server.effects_of("o-1").is_empty());
    assert_eq!(server.detail("o-1").await["steps"], json!([]));

    server.end_pause(&rule).await;

    assert_eq!(server.result("o-1").await, json!([{ "value": "early" }, { "attempt": 1 }]));
}

#[tokio::test]
async fn a_run_under_way_stops_at_its_next_step_and_the_attempt_under_way_finishes() {
    let server = Server::start().await;
    let slow = step_with("slow", json!({ "act": { "effect": { "ms": 800 } } }));
    server.run_script("o-1", &script([slow, step("next")])).await;
    server.until_effect("o-1", "slow 1").await;
    let rule = server.pause(&json!({ "executionId": "o-1" })).await;
    // The rule is shown from the first moment on; that it has stopped, when it stands at the step.
    let held = server.until("o-1", "stands at the next step", |e| e["waitingFor"]["step"] == "next").await;
    assert_eq!((&held["status"], &held["waitingFor"]["ruleId"]), (&json!("running"), &rule["ruleId"]));
    assert_eq!(steps_in(&server.detail("o-1").await), ["slow completed"]);
    assert_eq!(server.effects_of("o-1"), ["slow 1"]);
    server.end_pause(&rule).await;
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["slow 1", "next 1"]);
}

#[tokio::test]
async fn the_next_attempt_is_held_like_the_first() {
    let server = Server::start().await;
    let charge = step_with("charge", json!({ "failures": 3, "retry": { "attempts": 9, "delayMs": 500 } }));
    server.run_script("o-1", &script([charge])).await;
    server.until_effect("o-1", "charge 1").await;
    let rule = server.pause(&json!({ "stepPattern": "charge" })).await;
    let held = server.until_held("o-1", &rule).await;
    assert_eq!(held["waitingFor"]["step"], "charge");
    let begun = server.effects_of("o-1");
    assert!(begun.len() < 4, "{begun:?}");
    // Twice the delay is gone, and nothing has begun.
    until_past(now() + chrono::TimeDelta::milliseconds(1_000)).await;
    assert_eq!(server.effects_of("o-1"), begun);
    server.end_pause(&rule).await;
    assert_eq!(server.result("o-1").await, json!([{ "attempt": 4 }]));
}

/// The scopes in all combinations, over two executions of one task and one of another.
#[tokio::test]
async fn a_rule_holds_what_matches_all_that_it_sets() {
    let server = Server::start().await;
    server.upload("second", guests::scenario_marked("002")).await.expect(201);
    let all = ["a", "b", "c"];
    for (n, (scope, held, at)) in [
        (json!({ "executionId": "a" }), "a", None),
        (json!({ "taskName": "scenario" }), "a b", None),
        (json!({ "taskName": "second" }), "c", None),
        (json!({ "stepPattern": "ship" }), "a b c", Some("ship")),
        (json!({ "stepPattern": "[a-c]h?r*" }), "a b c", Some("charge")),
        (json!({ "stepPattern": "{refund,ship}" }), "a b c", Some("ship")),
        (json!({ "stepPattern": "charge#2" }), "a b c", Some("charge#2")),
        (json!({ "stepPattern": "Charge" }), "", None),
        (json!({ "stepPattern": "charg" }), "", None),
        (json!({ "executionId": "a", "taskName": "scenario" }), "a", None),
        (json!({ "executionId": "a", "taskName": "second" }), "", None),
        (json!({ "executionId": "b", "stepPattern": "sh*" }), "b", Some("ship")),
        (json!({ "taskName": "second", "stepPattern": "*" }), "c", Some("charge")),
        (json!({ "executionId": "c", "taskName": "second", "stepPattern": "ship" }), "c", Some("ship")),
        (json!({ "executionId": "c", "taskName": "scenario", "stepPattern": "ship" }), "", None),
    ]
    .into_iter()
    .enumerate()
    {
        let id = |name: &str| format!("{n}-{name}");
        let mut rule = scope.clone();
        if let Some(execution) = scope["executionId"].as_str() {
            rule["executionId"] = json!(id(execution));
        }
        let rule = server.pause(&rule).await;
        let payload = script([step("charge"), step("charge"), step("ship")]);
        for name in all {
            let task = if name == "c" { "second" } else { "scenario" };
            server.start(&id(name), task, &payload).await.expect(201);
        }
        for name in all {
            if held.split(' ').any(|held| held == name) {
                let execution = server.until_held(&id(name), &rule).await;
                let execution = match at {
                    None => execution,
                    Some(at) => server.until(&id(name), "is at it", |e| e["waitingFor"]["step"] == at).await,
                };
                assert_eq!(execution["waitingFor"]["step"], json!(at), "{scope}: {execution:#}");
                let before: &[&str] = match at {
                    Some("ship") => &["charge 1", "charge 1"],
                    Some("charge#2") => &["charge 1"],
                    _ => &[],
                };
                assert_eq!(server.effects_of(&id(name)), before, "{scope}");
            } else {
                server.result(&id(name)).await;
            }
        }
        server.end_pause(&rule).await;
        for name in all {
            server.result(&id(name)).await;
        }
    }
}

#[tokio::test]
async fn the_end_of_the_last_of_several_rules_wakes_what_they_held() {
    let server = Server::start().await;
    let by_task = server.pause(&json!({ "taskName": "scenario" })).await;
    let by_step = server.pause(&json!({ "stepPattern": "charge" })).await;
    let by_id = server.pause(&json!({ "executionId": "o-1" })).await;
    server.run_script("o-1", &script([step("charge")])).await;
    server.until("o-1", "is held", |e| e["waitingFor"]["type"] == "pause").await;
    server.end_pause(&by_task).await;
    server.until_held("o-1", &by_id).await;
    server.end_pause(&by_id).await;
    let held = server.until_held("o-1", &by_step).await;
    assert_eq!((&held["status"], &held["waitingFor"]["step"]), (&json!("running"), &json!("charge")));
    assert!(server.effects_of("o-1").is_empty());
    server.end_pause(&by_step).await;
    server.result("o-1").await;
}

#[tokio::test]
async fn expiry_wakes_what_was_held() {
    let server = Server::start().await;
    for (n, scope) in
        [json!({ "taskName": "scenario" }), json!({ "stepPattern": "charge" })].into_iter().enumerate()
    {
        let id = format!("o-{n}");
        let mut rule = scope;
        rule["expiresAt"] = json!(in_ms(2_000));
        let rule = server.pause(&rule).await;
        server.run_script(&id, &script([step("charge")])).await;
        let held = server.until_held(&id, &rule).await;
        assert_eq!(held["waitingFor"]["until"], rule["expiresAt"]);
        server.result(&id).await;
        let begun = server.detail(&id).await["steps"][0]["scheduledAt"].clone();
        assert!(time(&begun) >= time(&rule["expiresAt"]), "{begun} is before the rule's end");
    }
}

#[tokio::test]
async fn resume_wakes_what_was_held() {
    let server = Server::start().await;
    let scope = json!({ "taskName": "scenario", "stepPattern": "c*" });
    let rule = server.pause(&scope).await;
    server.run_script("o-1", &script([step("charge")])).await;
    server.until_held("o-1", &rule).await;
    assert_eq!(server.resume(&scope).await, 1);
    server.result("o-1").await;
}

#[tokio::test]
async fn what_is_held_stays_held_when_the_host_comes_back() {
    let mut server = Server::start().await;
    let slow = step_with("slow", json!({ "act": { "effect": { "ms": 300 } } }));
    server.run_script("under-way", &script([slow, step("next")])).await;
    server.until_effect("under-way", "slow 1").await;
    let whole = server.pause(&json!({ "taskName": "scenario" })).await;
    let by_step = server.pause(&json!({ "taskName": "second", "stepPattern": "charge" })).await;
    server.upload("second", guests::scenario_marked("002")).await.expect(201);
    server.run_script("new", &script([step("charge")])).await;
    server.start("at-step", "second", &script([step("before"), step("charge")])).await.expect(201);
    server.until("under-way", "stands at the next step", |e| e["waitingFor"]["step"] == "next").await;
    server.until("at-step", "stands at its step", |e| e["waitingFor"]["step"] == "charge").await;
    server.until_held("new", &whole).await;

    server.kill_9().restart();

    for (id, rule) in [("under-way", &whole), ("new", &whole), ("at-step", &by_step)] {
        server.until_held(id, rule).await;
    }
    // Something that nothing holds comes through, later.
    server.start("free", "raw", &Value::Null).await.expect(201);
    server.result("free").await;
    let effects = ["under-way", "new", "at-step"].map(|id| server.effects_of(id));
    assert_eq!(effects, [vec!["slow 1"], vec![], vec!["before 1"]]);
    server.end_pause(&whole).await;
    server.end_pause(&by_step).await;
    for id in ["under-way", "new", "at-step"] {
        server.result(id).await;
    }
    assert_eq!(server.effects_of("under-way"), ["slow 1", "next 1"]);
    assert_eq!(server.effects_of("at-step"), ["before 1", "charge 1"]);
}

#[tokio::test]
async fn what_waits_is_shown_as_held_with_what_it_waits_for_behind() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go"), step("charge")])).await;
    server.until_waiting("o-1", "event").await;
    let rule = server.pause(&json!({ "executionId": "o-1" })).await;
    let held = server.until_held("o-1", &rule).await;
    assert_eq!((&held["status"], &held["waitingFor"]["then"]["type"]), (&json!("running"), &json!("event")));
    assert_eq!(held["waitingFor"]["then"]["event"], "go");
    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.until_held("o-1", &rule).await;
    assert!(server.effects_of("o-1").is_empty());
    server.end_pause(&rule).await;
    server.result("o-1").await;
}

#[tokio::test]
async fn what_is_held_can_be_cancelled() {
    let server = Server::start().await;
    let rule = server.pause(&json!({ "stepPattern": "charge" })).await;
    server.run_script("o-1", &script([step("charge")])).await;
    server.until_held("o-1", &rule).await;
    server.cancel("o-1").await.expect_empty(204);
    let cancelled = server.execution("o-1").await;
    assert_eq!((&cancelled["status"], &cancelled["waitingFor"]), (&json!("cancelled"), &Value::Null));
    server.end_pause(&rule).await;
    server.play("o-2", &script([step("charge")])).await;
    assert_eq!(server.execution("o-1").await, cancelled);
    assert!(server.effects_of("o-1").is_empty());
}

#[tokio::test]
async fn a_retried_step_is_held_like_any_other() {
    let server = Server::start().await;
    server.play("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    let rule = server.pause(&json!({ "stepPattern": "charge" })).await;
    server.retried("o-1", "charge").await;
    server.until_held("o-1", &rule).await;
    assert_eq!(server.effects_of("o-1"), ["charge 1"]);
    server.end_pause(&rule).await;
    server.result("o-1").await;
}

#[tokio::test]
async fn no_attempt_begins_after_the_answer() {
    let server = Server::start().await;
    let ids: Vec<String> = (0..12).map(|n| format!("o-{n}")).collect();
    let lines = script([json!({ "repeat": { "times": 10_000, "lines": [step("tick")] } })]);
    for id in &ids {
        server.run_script(id, &lines).await;
    }
    server.until_effect("o-11", "tick 1").await;
    for scope in [json!({ "taskName": "scenario" }), json!({ "stepPattern": "t?ck" })] {
        let rule = server.pause(&scope).await;
        let answered = now();
        for id in &ids {
            server.until_held(id, &rule).await;
            let detail = server.detail(id).await;
            let last = detail["steps"].as_array().unwrap().last().expect("it has begun");
            let begun = time(&last["attempts"][0]["startedAt"]);
            assert!(begun <= answered, "{id} began {begun}, the answer came {answered}");
        }
        let begun = server.effects().len();
        let attempts = async || {
            let mut count = 0;
            for id in &ids {
                count += server.detail(id).await["stepsTotal"].as_u64().unwrap();
            }
            count
        };
        let recorded = attempts().await;
        server.start(&format!("other-{recorded}"), "raw", &Value::Null).await.expect(201);
        server.result(&format!("other-{recorded}")).await;
        assert_eq!((attempts().await, server.effects().len()), (recorded, begun));
        server.end_pause(&rule).await;
        let goes_on = async || server.effects().len();
        until("they go on", goes_on, |count| *count > begun + 20).await;
    }
}

#[tokio::test]
async fn what_is_recorded_is_answered_although_a_rule_names_its_step() {
    let mut server = Server::start().await;
    server.run_script("o-1", &script([step("charge"), wait_event("go"), step("ship")])).await;
    server.until_waiting("o-1", "event").await;
    let rule = server.pause(&json!({ "stepPattern": "charge" })).await;
    server.kill_9().restart();
    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.result("o-1").await;
    // Neither does it hold a step that is kept from another run.
    server.rerun("o-1", &json!({ "rerunSteps": ["ship"] })).await.expect(200);
    server.result("o-1").await;
    server.rerun("o-1", &json!({ "rerunSteps": ["charge"] })).await.expect(200);
    server.until_held("o-1", &rule).await;
    assert_eq!(server.effects_of("o-1"), ["charge 1", "ship 1", "ship 1"]);
}
