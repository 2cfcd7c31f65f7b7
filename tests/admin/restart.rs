//! `POST …/restart`: a new run from nothing.

use futures_util::future::join_all;

use crate::harness::*;

#[tokio::test]
async fn whatever_the_execution_has_come_to_it_begins_again_from_nothing() {
    let server = Server::start().await;
    let fails = step_with("charge", json!({ "act": { "failBeforeRun": { "index": 1 } } }));
    for (id, status, lines) in
        [("completed", "completed", vec![step("charge")]), ("failed", "failed", vec![step("before"), fails])]
    {
        assert_eq!(server.play(id, &script(lines)).await["status"], status);
    }
    server.run_script("cancelled", &script([step("charge"), wait_event("go")])).await;
    server.until_waiting("cancelled", "event").await;
    server.cancel("cancelled").await.expect_empty(204);

    for status in ["completed", "failed", "cancelled"] {
        let answer = server.restart_run(status, &json!({})).await.expect(200);
        assert_eq!(answer["newRunId"], format!("{status}:run:1"));
        server.event(status, "go", &Value::Null).await;
        server.result(status).await;
        let runs = server.runs(status).await;
        let told: Vec<_> =
            runs.iter().map(|run| (&run["runIndex"], &run["status"], &run["trigger"])).collect();
        let expected =
            [(json!(0), json!(status), json!("initial")), (json!(1), json!("completed"), json!("restart"))];
        assert_eq!(told, expected.iter().map(|(i, s, t)| (i, s, t)).collect::<Vec<_>>());
        let charges = server.effects_of(status).iter().filter(|effect| *effect == "charge 1").count();
        assert_eq!(charges, 2, "{status}: {:?}", server.effects_of(status));
    }
}

#[tokio::test]
async fn one_that_is_going_is_ended_as_cancelled_and_begins_again() {
    let server = Server::start().await;
    let lines = [json!("context"), step("charge"), wait_event("go")];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;

    let body = json!({ "triggeredBy": "ada", "reason": "from the top" });
    let answer = server.restart_run("o-1", &body).await.expect(200);

    assert_eq!((&answer["newRunId"], &answer["newRunNumber"]), (&json!("o-1:run:1"), &json!(1)));
    assert_eq!(answer["wouldRepeat"], json!(["charge"]));
    server.until_waiting("o-1", "event").await;
    server.event("o-1", "go", &json!(1)).await.expect(202);
    let result = server.result("o-1").await;
    assert_eq!((&result[0]["runIndex"], &result[0]["runId"]), (&json!(1), &json!("o-1:run:1")));
    assert_eq!(server.effects_of("o-1"), ["charge 1", "charge 1"]);

    let runs = server.runs("o-1").await;
    let (old, new) = (&runs[0], &runs[1]);
    assert_eq!(
        (&old["runId"], &old["status"], &old["result"]),
        (&json!("o-1:run:0"), &json!("cancelled"), &Value::Null)
    );
    assert!(time(&old["completedAt"]) <= time(&new["startedAt"]));
    assert_eq!((&new["status"], &new["triggeredBy"]), (&json!("completed"), &json!("ada")));
    for run in &runs {
        for field in ["executionId", "payload", "startedAt", "completedAt", "error", "moduleVersion"] {
            assert!(run.get(field).is_some(), "{field} is missing in {run:#}");
        }
    }
    let detail = server.detail_of_run("o-1", "o-1:run:0").await;
    assert_eq!(steps_in(&detail)[0], "charge completed", "the old run can be looked at: {detail:#}");
    assert_eq!(server.detail("o-1").await["runs"], json!(runs));
}

/// Zart lets a late body of the old run complete the new one.
#[tokio::test]
async fn what_a_guest_of_the_old_run_still_does_is_in_neither_run() {
    let mut server = Server::start().await;
    // Held for a while in the first run; longer, and begun later, in the second.
    let first = step_with("charge", json!({ "act": { "holdInRun": { "index": 0, "ms": 1_500 } } }));
    let second = step_with("second", json!({ "act": { "holdInRun": { "index": 1, "ms": 2_500 } } }));
    server.run_script("o-1", &script([first, second])).await;
    server.until_effect("o-1", "charge 1").await;
    server.until_detail("o-1", "shows the attempt", |detail| is_step(detail, "charge", "running")).await;

    server.restart_run("o-1", &json!({})).await.expect(200);

    let right_after = server.detail_of_run("o-1", "o-1:run:0").await;
    assert_eq!(right_after["runs"][0]["status"], "cancelled");
    assert_eq!(attempts_in(&right_after, "charge"), ["1 failed"]);
    let result = server.result("o-1").await;
    // Had the old guest come to its end, it would have by now.
    let old = server.detail_of_run("o-1", "o-1:run:0").await;
    assert_eq!((&old["steps"], &old["runs"][0]), (&right_after["steps"], &right_after["runs"][0]));
    assert_eq!(steps_in(&old).len(), 1, "{old:#}");
    let effects = server.effects();
    let charges: Vec<_> = effects.iter().filter(|effect| effect.tag == "charge").collect();
    assert_eq!(charges.len(), 2, "{effects:#?}");
    assert_eq!(result[0]["nonce"], charges[1].nonce, "what counts is the new run's own attempt");
    assert_eq!(attempts_in(&server.detail("o-1").await, "charge"), ["1 completed"]);
    server.kill_9().restart();
    assert_eq!(server.detail_of_run("o-1", "o-1:run:0").await["steps"], right_after["steps"]);
    assert_eq!(server.execution("o-1").await["result"], result);
}

#[tokio::test]
async fn a_guest_that_computes_without_end_is_interrupted_for_it() {
    let server = Server::with("live-max", 2).with("parked-max", 1).start().await;
    let spins = step_with("spins", json!({ "act": "spin" }));
    for id in ["o-1", "o-2"] {
        server.run_script(id, &script([spins.clone()])).await;
        server.until_effect(id, "spins 1").await;
    }
    // All places are taken. The new runs have another payload, which needs none for long.
    for id in ["o-1", "o-2"] {
        let payload = script([step("charge")]);
        server.restart_run(id, &json!({ "payload": payload })).await.expect(200);
    }
    for id in ["o-1", "o-2"] {
        server.result(id).await;
        assert_eq!(server.effects_of(id), ["spins 1", "charge 1"]);
    }
}

#[tokio::test]
async fn one_that_was_held_before_its_start_is_restarted_and_still_held() {
    let server = Server::start().await;
    let rule = server.pause(&json!({ "executionId": "o-1" })).await;
    server.run_script("o-1", &script([json!("context")])).await;
    server.until_held("o-1", &rule).await;
    server.restart_run("o-1", &json!({})).await.expect(200);
    server.until_held("o-1", &rule).await;
    server.end_pause(&rule).await;
    assert_eq!(server.result("o-1").await[0]["runIndex"], 1);
    let runs = server.runs("o-1").await;
    assert_eq!((&runs[0]["status"], &runs[0]["result"]), (&json!("cancelled"), &Value::Null));
}

#[tokio::test]
async fn a_new_payload_is_what_the_new_run_gets() {
    let server = Server::start().await;
    let (first, second) = (script([step("charge")]), script([step("refund")]));
    server.play("o-1", &first).await;
    server.restart_run("o-1", &json!({ "payload": second })).await.expect(200);
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["charge 1", "refund 1"]);
    let runs = server.runs("o-1").await;
    assert_eq!((&runs[0]["payload"], &runs[1]["payload"]), (&first, &second));
    // Without one, the new run has what the run before it had.
    server.restart_run("o-1", &json!({})).await.expect(200);
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["charge 1", "refund 1", "refund 1"]);

    // The start is known by what it was: the same one again is a replay of it, another one is not.
    let again = server.start("o-1", "scenario", &first).await.expect(200);
    assert_eq!((&again["status"], &again["taskId"]), (&json!("completed"), &json!("o-1:run:0")));
    server.start("o-1", "scenario", &second).await.error(409, "id_taken");
    assert_eq!(server.runs("o-1").await.len(), 3);
}

/// Clients of Zart write `null` for what they leave out.
#[tokio::test]
async fn a_null_payload_is_none() {
    let server = Server::start().await;
    server.start("o-1", "raw", &json!({ "return": "1" })).await.expect(201);
    assert_eq!(server.result("o-1").await, 1);
    server.restart_run("o-1", &json!({ "payload": null })).await.expect(200);
    assert_eq!(server.result("o-1").await, 1);
    assert_eq!(server.runs("o-1").await[1]["payload"], json!({ "return": "1" }));
}

#[tokio::test]
async fn a_payload_that_the_task_refuses_is_422_and_changes_nothing() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    let before = server.all_of("o-1").await;
    for payload in [json!({ "script": 7 }), json!("script"), json!([])] {
        let answer = server.restart_run("o-1", &json!({ "payload": payload })).await;
        answer.error(422, "payload_refused");
    }
    assert_eq!(server.all_of("o-1").await, before);
    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.result("o-1").await;
}

#[tokio::test]
async fn the_new_run_takes_the_active_version() {
    let server = Server::start().await;
    server.run_script("o-1", &script([json!("variant"), wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    server.upload("scenario", guests::scenario_marked("002")).await.expect(201);
    let answer = server.restart_run("o-1", &json!({})).await.expect(200);
    assert_eq!(answer["moduleVersion"], 2);
    server.event("o-1", "go", &Value::Null).await.expect(202);
    let over = server.over("o-1").await;
    assert_eq!((&over["version"], &over["result"][0]), (&json!(2), &json!("002")));
    let versions: Vec<_> = server.runs("o-1").await.iter().map(|run| run["moduleVersion"].clone()).collect();
    assert_eq!(versions, [json!(1), json!(2)]);
}

#[tokio::test]
async fn a_dry_run_says_what_would_be_and_changes_nothing() {
    let server = Server::start().await;
    let lines = [step("before"), settle("charge", json!({ "failures": 1 })), wait_event("go")];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;
    let before = server.all_of("o-1").await;
    let answer = server.dry_run("o-1", "restart", &json!({})).await.expect(200);
    assert_eq!((&answer["dryRun"], &answer["newRunId"]), (&json!(true), &json!("o-1:run:1")));
    assert_eq!(answer["wouldRepeat"], json!(["before"]));
    assert_eq!(answer["wouldRun"], json!(["charge", "go"]));
    assert_eq!(answer["wouldKeep"], json!([]));
    let refused = json!({ "payload": { "script": 7 } });
    server.dry_run("o-1", "restart", &refused).await.error(422, "payload_refused");
    assert_eq!(server.all_of("o-1").await, before);
}

#[tokio::test]
async fn an_unknown_execution_is_404_and_a_wrong_shape_422() {
    let server = Server::start().await;
    server.restart_run("nobody", &json!({})).await.error(404, "unknown_execution");
    server.play("o-1", &script([])).await;
    let answer = server.restart_run("o-1", &json!({ "triggeredBy": ["ada"] })).await;
    assert!(answer.error(422, "wrong_shape").contains("triggeredBy"));
    let answer = server.restart_run("o-1", &json!([])).await;
    answer.error(422, "wrong_shape");
    assert_eq!(server.runs("o-1").await.len(), 1);
    // A client that has nothing to say sends nothing.
    server.post(&admin_path("o-1", "restart")).await.expect(200);
}

#[tokio::test]
async fn it_survives_kill_9_right_after_the_answer() {
    let mut server = Server::start().await;
    for round in 0..3 {
        let id = format!("o-{round}");
        server.run_script(&id, &script([step("charge"), wait_event("go")])).await;
        server.until_waiting(&id, "event").await;
        server.restart_run(&id, &json!({})).await.expect(200);
        server.kill_9().restart();
        server.event(&id, "go", &Value::Null).await.expect(202);
        server.result(&id).await;
        let statuses: Vec<_> = server.runs(&id).await.iter().map(|run| run["status"].clone()).collect();
        assert_eq!(statuses, [json!("cancelled"), json!("completed")]);
    }
}

#[tokio::test]
async fn many_at_once_are_one_after_the_other() {
    let server = Server::start().await;
    server.run_script("o-1", &script([json!("context"), step("charge"), wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    let answers = join_all((0..10).map(|_| server.restart_run("o-1", &Value::Null))).await;
    let mut numbers: Vec<u64> =
        answers.iter().map(|answer| answer.expect(200)["newRunNumber"].as_u64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, (1..=10).collect::<Vec<_>>());
    server.event("o-1", "go", &Value::Null).await.expect(202);
    assert_eq!(server.result("o-1").await[0]["runIndex"], 10);
    let runs = server.runs("o-1").await;
    let statuses: Vec<_> = runs.iter().map(|run| run["status"].as_str().unwrap()).collect();
    assert_eq!(statuses, [vec!["cancelled"; 10], vec!["completed"]].concat());
    assert_eq!(server.audit("?action=restart").await.1, 10);
}

#[tokio::test]
async fn who_waits_for_the_end_waits_for_that_of_the_new_run() {
    let server = Server::start().await;
    server.run_script("o-1", &script([json!("context"), wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    let waiting = {
        let client = (*server).clone();
        tokio::spawn(async move { client.over("o-1").await })
    };
    for _ in 0..3 {
        server.restart_run("o-1", &json!({})).await.expect(200);
        server.until_waiting("o-1", "event").await;
    }
    server.event("o-1", "go", &Value::Null).await.expect(202);
    let over = waiting.await.expect("it does not panic");
    assert_eq!((&over["status"], &over["result"][0]["runIndex"]), (&json!("completed"), &json!(3)));
}

#[tokio::test]
async fn events_that_nobody_consumed_are_there_for_the_new_run() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("first"), wait_event("second")])).await;
    server.event("o-1", "first", &json!(1)).await.expect(202);
    server.until("o-1", "stands at the second", |e| e["waitingFor"]["event"] == "second").await;
    server.event("o-1", "third", &json!(3)).await.expect(202);
    let payload = script([wait_event("third"), wait_event("first")]);
    server.restart_run("o-1", &json!({ "payload": payload })).await.expect(200);
    server.until("o-1", "has the third", |e| e["waitingFor"]["event"] == "first").await;
    server.event("o-1", "first", &json!("anew")).await.expect(202);
    assert_eq!(server.result("o-1").await, json!([{ "value": 3 }, { "value": "anew" }]));
}

/// What the new run gets is what has to fit the version that it takes.
#[tokio::test]
async fn the_payload_of_the_last_run_is_checked_where_none_is_given() {
    let server = Server::start().await;
    server.start("o-1", "raw", &json!({ "return": "1" })).await.expect(201);
    server.result("o-1").await;
    server.restart_run("o-1", &json!({ "payload": [] })).await.expect(200);
    server.result("o-1").await;
    let manifest = json!({ "stepbox": "0.1.0", "task": { "payload": { "type": "array" } } });
    server.upload("raw", guests::raw_with_manifest(&manifest)).await.expect(201);
    assert_eq!(server.restart_run("o-1", &json!({})).await.expect(200)["moduleVersion"], 2);
    server.result("o-1").await;
    let manifest = json!({ "stepbox": "0.1.0", "task": { "payload": { "type": "object" } } });
    server.upload("raw", guests::raw_with_manifest(&manifest)).await.expect(201);
    for verb in ["restart", "rerun"] {
        let answer = server.post_json(&admin_path("o-1", verb), &json!({})).await;
        answer.error(422, "payload_refused");
    }
    assert_eq!(server.runs("o-1").await.len(), 3);
}
