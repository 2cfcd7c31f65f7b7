//! `POST …/rerun`: a new run that keeps what is completed, but for the named steps.

use crate::harness::*;

fn runs_of(answer: &Value) -> [&Value; 2] {
    [&answer["effectiveRerun"], &answer["potentiallyStale"]]
}

/// `before` and `charge` and `after`, each with an answer that is another each time it runs.
fn order() -> Value {
    let effect = || json!({ "act": { "effect": { "ms": 0 } } });
    script(["before", "charge", "after"].map(|name| step_with(name, effect())))
}

#[tokio::test]
async fn the_named_step_runs_again_and_the_others_keep_results_and_attempts() {
    let server = Server::start().await;
    let before = server.play("o-1", &order()).await["result"].clone();
    let old = server.detail("o-1").await;

    let body = json!({ "rerunSteps": ["charge"], "preserveSteps": [], "triggeredBy": "ada" });
    let answer = server.rerun("o-1", &body).await.expect(200);

    assert_eq!((&answer["newRunNumber"], &answer["newRunId"]), (&json!(1), &json!("o-1:run:1")));
    assert_eq!(answer["effectiveRerun"], json!(["charge"]));
    assert_eq!(answer["wouldKeep"], json!(["before", "after"]));
    assert_eq!(answer["wouldRepeat"], json!(["charge"]));
    let after = server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["before 1", "charge 1", "after 1", "charge 1"]);
    assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
    assert_ne!(after[1], before[1]);

    let new = server.detail("o-1").await;
    assert_eq!(new["runId"], "o-1:run:1");
    assert_eq!(steps_in(&new), ["before completed", "charge completed", "after completed"]);
    for name in ["before", "after"] {
        let (was, is) = (step_in(&old, name), step_in(&new, name));
        assert_eq!((&is["attempts"], &is["result"]), (&was["attempts"], &was["result"]));
        assert_eq!(is["keptFromRun"], "o-1:run:0");
    }
    assert_eq!(step_in(&new, "charge")["keptFromRun"], Value::Null);
    let runs = server.runs("o-1").await;
    assert_eq!(
        (&runs[0]["status"], &runs[0]["result"]),
        (&json!("completed"), &before),
        "it had ended by itself"
    );
    assert_eq!((&runs[1]["trigger"], &runs[1]["triggeredBy"]), (&json!("selective_rerun"), &json!("ada")));
    assert_eq!(server.detail_of_run("o-1", "o-1:run:0").await["steps"], old["steps"]);
}

#[tokio::test]
async fn dead_steps_run_again_without_being_named_and_all_attempts_of_kept_ones_stay() {
    let server = Server::start().await;
    let tried = json!({ "failures": 2, "retry": { "attempts": 3 } });
    let dies = json!({ "act": { "failBeforeRun": { "index": 1 } } });
    let lines = [step_with("tried", tried), step_with("dies", dies), step("after")];
    server.play("o-1", &script(lines)).await;
    let answer = server.rerun("o-1", &json!({ "rerunSteps": [], "preserveSteps": [] })).await.expect(200);
    assert_eq!(runs_of(&answer), [&json!(["dies"]), &json!([])]);
    assert_eq!(server.result("o-1").await[1], json!({ "attempt": 1, "run": 1 }));
    assert_eq!(server.effects_of("o-1"), ["tried 1", "tried 2", "tried 3", "dies 1", "dies 1", "after 1"]);
    let detail = server.detail("o-1").await;
    assert_eq!(attempts_in(&detail, "tried"), ["1 failed", "2 failed", "3 completed"]);
    assert_eq!(attempts_in(&detail, "dies"), ["1 completed"]);
    let old = server.detail_of_run("o-1", "o-1:run:0").await;
    assert_eq!(attempts_in(&old, "dies"), ["1 failed"], "the old run stays as it was");
}

#[tokio::test]
async fn a_completed_step_that_is_to_be_preserved_is_kept_even_if_named() {
    let server = Server::start().await;
    server.play("o-1", &order()).await;
    let body = json!({ "rerunSteps": ["before", "charge"], "preserveSteps": ["charge"] });
    let answer = server.rerun("o-1", &body).await.expect(200);
    assert_eq!(answer["effectiveRerun"], json!(["before"]));
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["before 1", "charge 1", "after 1", "before 1"]);
}

#[tokio::test]
async fn a_dead_step_cannot_be_preserved() {
    let server = Server::start().await;
    let dies = json!({ "act": { "failBeforeRun": { "index": 1 } } });
    server.play("o-1", &script([step_with("dies", dies)])).await;
    let answer = server.rerun("o-1", &json!({ "preserveSteps": ["dies"] })).await.expect(200);
    assert_eq!(answer["effectiveRerun"], json!(["dies"]));
    server.result("o-1").await;
}

#[tokio::test]
async fn steps_that_the_run_does_not_have_are_422_and_named_and_nothing_changes() {
    let server = Server::start().await;
    server.run_script("o-1", &script([step("charge"), wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    let before = server.all_of("o-1").await;
    for (body, named) in [
        (json!({ "rerunSteps": ["charge", "refund"] }), json!(["refund"])),
        (json!({ "rerunSteps": ["charge"], "preserveSteps": ["ship", "refund"] }), json!(["refund", "ship"])),
        (json!({ "rerunSteps": ["charge#2"] }), json!(["charge#2"])),
    ] {
        let answer = server.rerun("o-1", &body).await;
        let message = answer.error(422, "unknown_steps");
        for name in named.as_array().unwrap() {
            assert!(message.contains(name.as_str().unwrap()), "{message}");
        }
        assert_eq!(answer.json()["steps"], named);
    }
    for (body, field) in [
        (json!({ "rerunSteps": "charge" }), "rerunSteps"),
        (json!({ "rerunSteps": [7] }), "rerunSteps"),
        (json!({ "rerunSteps": [], "preserveSteps": { "charge": true } }), "preserveSteps"),
    ] {
        let answer = server.rerun("o-1", &body).await;
        assert!(answer.error(422, "wrong_shape").contains(field));
    }
    assert_eq!(server.all_of("o-1").await, before);
    server.rerun("nobody", &json!({ "rerunSteps": [] })).await.error(404, "unknown_execution");
}

/// Zart looks at timestamps only.
#[tokio::test]
async fn what_may_be_stale_is_told_apart_by_its_input() {
    let server = Server::start().await;
    let effect = json!({ "act": { "effect": { "ms": 0 } } });
    let lines = [
        step("first"),
        step_with("price", effect.clone()),
        step_with("invoice", json!({ "from": 1 })),
        step("notify"),
    ];
    server.play("o-1", &script(lines)).await;
    let body = json!({ "rerunSteps": ["price"] });

    let dry = server.dry_run("o-1", "rerun", &body).await.expect(200);

    let stale = json!([
        { "preservedStep": "invoice", "possiblyDependsOn": ["price"], "basis": "input", "inputFrom": ["price"] },
        { "preservedStep": "notify", "possiblyDependsOn": ["price"], "basis": "later", "inputFrom": [] },
    ]);
    assert_eq!(dry["potentiallyStale"], stale, "`first` came before and is not named");
    assert_eq!(server.rerun("o-1", &body).await.expect(200)["potentiallyStale"], stale);

    // The price is another now, so the invoice is called with another input: it is not answered
    // from the past. What merely came later is.
    let result = server.result("o-1").await;
    assert_eq!(
        server.effects_of("o-1"),
        ["first 1", "price 1", "invoice 1", "notify 1", "price 1", "invoice 1"]
    );
    assert_eq!(result[2], result[1], "it was made of the new price");
    let detail = server.detail("o-1").await;
    let invoice = step_in(&detail, "invoice");
    assert_eq!((&invoice["inputChanged"], &invoice["keptFromRun"]), (&json!(true), &Value::Null));
    assert_eq!(attempts_in(&detail, "invoice"), ["1 completed"]);
    let replaced = &invoice["replaced"];
    assert_eq!((&replaced["name"], &replaced["keptFromRun"]), (&json!("invoice"), &json!("o-1:run:0")));
    assert_ne!(replaced["result"], invoice["result"]);
    let notify = step_in(&detail, "notify");
    assert_eq!((&notify["inputChanged"], &notify["keptFromRun"]), (&json!(false), &json!("o-1:run:0")));
}

#[tokio::test]
async fn a_preserved_step_whose_input_turns_out_the_same_is_answered_from_the_past() {
    let server = Server::start().await;
    let lines = [
        step_with("price", json!({ "act": { "return": { "cents": 123_456 } } })),
        step_with("invoice", json!({ "from": 0 })),
    ];
    server.play("o-1", &script(lines)).await;
    let answer = server.rerun("o-1", &json!({ "rerunSteps": ["price"] })).await.expect(200);
    assert_eq!(answer["potentiallyStale"][0]["basis"], "input", "{answer}");
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["price 1", "invoice 1", "price 1"]);
    assert_eq!(step_in(&server.detail("o-1").await, "invoice")["inputChanged"], false);
}

#[tokio::test]
async fn a_rerun_of_a_rerun_keeps_what_was_kept() {
    let server = Server::start().await;
    let first = server.play("o-1", &order()).await["result"].clone();
    server.rerun("o-1", &json!({ "rerunSteps": ["charge"] })).await.expect(200);
    let second = server.result("o-1").await;
    let answer = server.rerun("o-1", &json!({ "rerunSteps": ["after"] })).await.expect(200);
    assert_eq!(answer["newRunNumber"], 2);
    let third = server.result("o-1").await;
    assert_eq!((&third[0], &third[1]), (&first[0], &second[1]));
    assert_eq!(server.effects_of("o-1").len(), 5);
    let detail = server.detail("o-1").await;
    assert_eq!(step_in(&detail, "before")["keptFromRun"], "o-1:run:0", "the run that made the call");
    assert_eq!(step_in(&detail, "charge")["keptFromRun"], "o-1:run:1");
    assert_eq!(server.runs("o-1").await.len(), 3);
}

#[tokio::test]
async fn without_names_and_without_dead_steps_everything_is_kept() {
    let server = Server::start().await;
    let before = server.play("o-1", &order()).await;
    let answer = server.rerun("o-1", &json!({ "rerunSteps": [], "preserveSteps": [] })).await.expect(200);
    assert_eq!(runs_of(&answer), [&json!([]), &json!([])]);
    assert_eq!(server.result("o-1").await, before["result"]);
    assert_eq!(server.effects_of("o-1").len(), 3);
    // And so for who leaves the lists out.
    assert_eq!(server.rerun("o-1", &json!({})).await.expect(200)["newRunNumber"], 2);
}

#[tokio::test]
async fn sleeps_waits_and_captures_that_are_kept_are_not_gone_through_again() {
    let server = Server::start().await;
    let lines = [
        json!({ "captureRandom": { "name": "lot" } }),
        sleep("nap", 30),
        wait_event("go"),
        step("charge"),
        wait_event("end"),
    ];
    server.run_script("o-1", &script(lines)).await;
    server.event("o-1", "go", &json!("once")).await.expect(202);
    server.until("o-1", "stands at the end", |e| e["waitingFor"]["step"] == "end").await;

    let answer = server.rerun("o-1", &json!({ "rerunSteps": ["charge"] })).await.expect(200);

    assert_eq!(answer["wouldKeep"], json!(["lot", "nap", "go"]));
    assert_eq!(answer["wouldRun"], json!(["end"]));
    server.event("o-1", "end", &Value::Null).await.expect(202);
    let result = server.result("o-1").await;
    assert_eq!(result[2], json!({ "value": "once" }), "a consumed event does not come again");
    assert_eq!(server.effects_of("o-1"), ["charge 1", "charge 1"]);
    let old = server.detail_of_run("o-1", "o-1:run:0").await;
    assert_eq!(step_in(&old, "lot")["result"], result[0]);
    assert_eq!(old["runs"][0]["status"], "cancelled", "it was still going");
}

#[tokio::test]
async fn the_new_run_takes_the_active_version() {
    let server = Server::start().await;
    server.play("o-1", &script([json!("variant"), step("charge"), step("after")])).await;
    server.upload("scenario", guests::scenario_marked("002")).await.expect(201);
    let answer = server.rerun("o-1", &json!({ "rerunSteps": ["after"] })).await.expect(200);
    assert_eq!(answer["moduleVersion"], 2);
    let over = server.over("o-1").await;
    assert_eq!((&over["version"], &over["result"][0]), (&json!(2), &json!("002")));
    assert_eq!(server.effects_of("o-1"), ["charge 1", "after 1", "after 1"]);
}

#[tokio::test]
async fn a_cancelled_run_can_be_gone_on_with() {
    let server = Server::start().await;
    server.run_script("o-1", &script([step("charge"), wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    server.cancel("o-1").await.expect_empty(204);
    server.rerun("o-1", &json!({ "rerunSteps": [] })).await.expect(200);
    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["charge 1"]);
}

#[tokio::test]
async fn a_step_of_the_same_name_is_named_by_its_key() {
    let server = Server::start().await;
    server.play("o-1", &script([step("charge"), step("charge"), step("charge")])).await;
    let answer = server.rerun("o-1", &json!({ "rerunSteps": ["charge#2"] })).await.expect(200);
    assert_eq!(answer["wouldKeep"], json!(["charge", "charge#3"]));
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1").len(), 4);
}

#[tokio::test]
async fn a_dry_run_changes_nothing() {
    let server = Server::start().await;
    server.run_script("o-1", &script([step("charge"), wait_event("go")])).await;
    server.until_waiting("o-1", "event").await;
    let before = server.all_of("o-1").await;
    let dry = server.dry_run("o-1", "rerun", &json!({ "rerunSteps": ["charge"] })).await.expect(200);
    assert_eq!((&dry["dryRun"], &dry["newRunNumber"]), (&json!(true), &json!(1)));
    let unknown = json!({ "rerunSteps": ["refund"] });
    server.dry_run("o-1", "rerun", &unknown).await.error(422, "unknown_steps");
    assert_eq!(server.all_of("o-1").await, before);
    assert_eq!(server.effects_of("o-1"), ["charge 1"]);
}

#[tokio::test]
async fn it_survives_kill_9_right_after_the_answer() {
    let mut server = Server::start().await;
    for round in 0..3 {
        let id = format!("o-{round}");
        let before = server.play(&id, &order()).await["result"].clone();
        server.rerun(&id, &json!({ "rerunSteps": ["charge"] })).await.expect(200);
        server.kill_9().restart();
        let after = server.result(&id).await;
        assert_eq!((&after[0], &after[2]), (&before[0], &before[2]));
        assert_eq!(server.runs(&id).await.len(), 2);
        let kept = server.effects_of(&id).iter().filter(|effect| !effect.starts_with("charge")).count();
        assert_eq!(kept, 2, "{:?}", server.effects_of(&id));
    }
}

#[tokio::test]
async fn a_step_that_is_under_way_is_interrupted_and_begun_anew() {
    let server = Server::start().await;
    let slow = step_with("slow", json!({ "act": { "holdInRun": { "index": 0, "ms": 3_600_000 } } }));
    server.run_script("o-1", &script([step("before"), slow])).await;
    server.until_effect("o-1", "slow 1").await;
    // An attempt is written down while it runs already, but not at once.
    server.until_detail("o-1", "the attempt", |detail| find_step(detail, "slow").is_some()).await;
    let answer = server.rerun("o-1", &json!({ "rerunSteps": [] })).await.expect(200);
    assert_eq!((&answer["wouldKeep"], &answer["effectiveRerun"]), (&json!(["before"]), &json!([])));
    server.result("o-1").await;
    assert_eq!(server.effects_of("o-1"), ["before 1", "slow 1", "slow 1"]);
    assert_eq!(attempts_in(&server.detail("o-1").await, "slow"), ["1 completed"]);
    let old = server.detail_of_run("o-1", "o-1:run:0").await;
    assert_eq!(attempts_in(&old, "slow"), ["1 failed"]);
}

#[tokio::test]
async fn a_step_that_dies_in_the_new_run_can_be_retried_there() {
    let server = Server::start().await;
    let dies = json!({ "failures": 2 });
    server.play("o-1", &script([step("before"), step_with("dies", dies), step("after")])).await;
    server.retried("o-1", "dies").await;
    assert_eq!(server.failure("o-1").await["attempt"], 2);
    server.rerun("o-1", &json!({ "rerunSteps": [] })).await.expect(200);
    assert_eq!(server.failure("o-1").await["attempt"], 1, "it begins anew");
    server.retry_step("o-1", &json!({ "stepName": "dies", "attemptsMax": 2 })).await.expect(200);
    assert_eq!(server.result("o-1").await[1], json!({ "attempt": 3 }));
    let effects = server.effects_of("o-1");
    assert_eq!(effects, ["before 1", "dies 1", "dies 2", "dies 1", "dies 2", "dies 3", "after 1"]);
    assert_eq!(step_in(&server.detail("o-1").await, "before")["keptFromRun"], "o-1:run:0");
}
