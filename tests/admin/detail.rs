//! `GET …/detail` and `GET …/runs`: all that can be known of an execution.

use crate::harness::*;

const STEP_FIELDS: [&str; 11] = [
    "stepId",
    "name",
    "kind",
    "status",
    "retryAttempt",
    "result",
    "lastError",
    "retryable",
    "scheduledAt",
    "completedAt",
    "attempts",
];
const ATTEMPT_FIELDS: [&str; 6] = ["attemptNumber", "status", "result", "error", "startedAt", "completedAt"];
const RUN_FIELDS: [&str; 12] = [
    "runId",
    "executionId",
    "runIndex",
    "payload",
    "status",
    "result",
    "startedAt",
    "completedAt",
    "trigger",
    "error",
    "triggeredBy",
    "moduleVersion",
];

#[track_caller]
fn assert_has(object: &Value, fields: &[&str]) {
    for field in fields {
        assert!(object.get(field).is_some(), "{field} is missing in {object:#}");
    }
}

#[tokio::test]
async fn every_kind_of_step_is_shown_with_all_its_fields() {
    let server = Server::start().await;
    let lines = [
        step_with("charge", json!({ "failures": 1, "retry": { "attempts": 2 } })),
        sleep("nap", 20),
        json!({ "waitEvent": { "event": "late", "timeoutMs": 20 } }),
        wait_event("go"),
        json!({ "capture": { "name": "lot", "value": 7 } }),
        settle("refund", json!({ "failures": 1 })),
    ];
    server.run_script("o-1", &script(lines)).await;
    server.event("o-1", "go", &json!({ "by": "post" })).await.expect(202);
    let over = server.over("o-1").await;

    let detail = server.detail("o-1").await;

    assert_eq!(detail["execution"], over);
    assert_eq!(detail["stepsTotal"], 6);
    let told: Vec<_> = detail["steps"]
        .as_array()
        .unwrap()
        .iter()
        .map(|step| {
            assert_has(step, &STEP_FIELDS);
            for attempt in step["attempts"].as_array().unwrap() {
                assert_has(attempt, &ATTEMPT_FIELDS);
                assert!(time(&attempt["startedAt"]) <= time(&attempt["completedAt"]));
            }
            assert!(time(&step["scheduledAt"]) <= time(&step["completedAt"]));
            let word = |field: &str| step[field].as_str().unwrap();
            (word("name"), word("kind"), word("status"), step["result"].clone(), step["retryable"] == true)
        })
        .collect();
    let expected = [
        ("charge", "step", "completed", json!({ "attempt": 2 }), false),
        ("nap", "sleep", "completed", Value::Null, false),
        ("late", "wait_for_event", "completed", Value::Null, false),
        ("go", "wait_for_event", "completed", json!({ "by": "post" }), false),
        ("lot", "capture", "completed", json!(7), false),
        ("refund", "step", "dead", Value::Null, true),
    ];
    assert_eq!(told, expected);

    let charge = step_in(&detail, "charge");
    assert_eq!((&charge["retryAttempt"], &charge["lastError"]), (&json!(1), &Value::Null));
    let [failed, completed] = &charge["attempts"].as_array().unwrap()[..] else { panic!("{charge:#}") };
    assert_eq!((&failed["attemptNumber"], &failed["status"]), (&json!(1), &json!("failed")));
    assert!(failed["error"].as_str().unwrap().contains("attempt 1 fails"), "{failed}");
    assert_eq!((&completed["attemptNumber"], &completed["status"]), (&json!(2), &json!("completed")));
    assert_eq!((&completed["result"], &completed["error"]), (&json!({ "attempt": 2 }), &Value::Null));
    assert!(time(&failed["completedAt"]) <= time(&completed["startedAt"]));
    let late = step_in(&detail, "late");
    assert!(late["lastError"].as_str().unwrap().contains("late"), "{late:#}");
    assert!(step_in(&detail, "refund")["lastError"].as_str().unwrap().contains("attempt 1 fails"));
    let ids: std::collections::HashSet<_> =
        detail["steps"].as_array().unwrap().iter().map(|step| step["stepId"].as_str().unwrap()).collect();
    assert_eq!(ids.len(), 6);
}

#[tokio::test]
async fn what_is_under_way_is_shown_while_it_is() {
    let server = Server::start().await;
    let holds =
        json!({ "failures": 1, "retry": { "attempts": 2 }, "act": { "reallySleep": { "ms": 3_600_000 } } });
    server.run_script("steps", &script([step_with("charge", holds)])).await;
    server.run_script("sleeps", &script([sleep("nap", 3_600_000)])).await;
    server.run_script("waits", &script([wait_event("go")])).await;
    let waits = json!({ "failures": 1, "retry": { "attempts": 2, "delayMs": 3_600_000 } });
    server.run_script("retries", &script([step_with("charge", waits)])).await;

    let steps = server
        .until_detail("steps", "shows the second attempt", |d| {
            find_step(d, "charge").is_some_and(|step| step["attempts"][1]["status"] == "running")
        })
        .await;
    let charge = step_in(&steps, "charge");
    assert_eq!((&charge["status"], &charge["completedAt"]), (&json!("running"), &Value::Null));
    assert_eq!(attempts_in(&steps, "charge"), ["1 failed", "2 running"]);
    let under_way = &charge["attempts"][1];
    assert_eq!((&under_way["completedAt"], &under_way["result"]), (&Value::Null, &Value::Null));
    assert!(charge["lastError"].as_str().unwrap().contains("attempt 1 fails"));
    for (id, name) in [("sleeps", "nap"), ("waits", "go")] {
        let detail = server.until_detail(id, "shows it", |d| is_step(d, name, "running")).await;
        assert_eq!(step_in(&detail, name)["completedAt"], Value::Null);
    }
    let retries = server.until_detail("retries", "shows it", |d| is_step(d, "charge", "scheduled")).await;
    assert!(time(&step_in(&retries, "charge")["nextAttemptAt"]) > now());
    // What is cut off by a cancel is not under way any more.
    server.cancel("steps").await.expect_empty(204);
    assert_eq!(attempts_in(&server.detail("steps").await, "charge"), ["1 failed", "2 failed"]);
}

#[tokio::test]
async fn a_run_can_be_picked_and_the_current_one_is_shown_otherwise() {
    let server = Server::start().await;
    server.play("o-1", &script([step("charge")])).await;
    server.restart_run("o-1", &json!({ "payload": script([step("refund")]) })).await.expect(200);
    server.result("o-1").await;
    let runs = server.runs("o-1").await;
    assert_eq!(runs.len(), 2);
    for (n, (run, name)) in runs.iter().zip(["charge", "refund"]).enumerate() {
        assert_has(run, &RUN_FIELDS);
        let id = format!("o-1:run:{n}");
        assert_eq!(
            (&run["runIndex"], &run["runId"], &run["executionId"]),
            (&json!(n), &json!(id), &json!("o-1"))
        );
        let detail = server.detail_of_run("o-1", &id).await;
        assert_eq!((&detail["runId"], steps_in(&detail)), (&json!(id), vec![format!("{name} completed")]));
        assert_eq!(detail["runs"], json!(runs), "all runs are listed, whichever is picked");
    }
    assert_eq!(server.detail("o-1").await["runId"], "o-1:run:1");
}

#[tokio::test]
async fn what_is_not_there_is_404_and_what_is_not_known_400() {
    let server = Server::start().await;
    server.play("o-1", &script([])).await;
    server.play("o-2", &script([])).await;
    for verb in ["detail", "runs"] {
        let message = server.get(&admin_path("nobody", verb)).await.error(404, "unknown_execution");
        assert!(message.contains("nobody"), "{message}");
    }
    for run in ["o-1:run:1", "o-2:run:0", "nonsense", ""] {
        let path = admin_path("o-1", &format!("detail?runId={run}"));
        server.get(&path).await.error(404, "unknown_run");
    }
    for (query, named) in [
        ("run=o-1:run:0", "runId"),
        ("stepsLimit=-1", "stepsLimit"),
        ("stepsLimit=10001", "10000"),
        ("stepsOffset=many", "stepsOffset"),
    ] {
        let message = server.get(&admin_path("o-1", &format!("detail?{query}"))).await.any_error(400);
        assert!(message.contains(named), "{query}: {message}");
    }
    server.get(&admin_path("o-1", "runs?limit=1")).await.any_error(400);
}

/// Zart shows no error.
#[tokio::test]
async fn a_failure_says_which_step_which_attempt_why_where_and_what_was_printed_before() {
    let server = Server::start().await;
    let panics = json!({ "act": { "panic": { "message": "out of stock" } }, "retry": { "attempts": 2 } });
    server.play("o-1", &script([step("before"), step_with("charge", panics)])).await;
    let detail = server.detail("o-1").await;
    let error = &detail["execution"]["error"];
    assert_eq!((&error["step"], &error["attempt"]), (&json!("charge"), &json!(2)));
    assert_eq!(error["kind"], "exhausted");
    assert_eq!(detail["runs"][0]["error"], *error);
    let charge = step_in(&detail, "charge");
    for failure in
        [error, &charge["failure"], &charge["attempts"][0]["failure"], &charge["attempts"][1]["failure"]]
    {
        assert!(failure["message"].as_str().unwrap().contains("out of stock"), "{failure:#}");
        let backtrace =
            failure["backtrace"].as_str().unwrap_or_else(|| panic!("no backtrace in {failure:#}"));
        assert!(backtrace.contains("scenario") && backtrace.lines().count() > 2, "{backtrace}");
        let logs = failure["logs"].as_array().unwrap();
        let printed = logs.iter().any(|line| line.as_str().unwrap().contains("effect o-1 charge"));
        assert!(printed, "the last lines are missing in {failure:#}");
    }
    assert_eq!(charge["attempts"][0]["failure"]["attempt"], 1);
}

#[tokio::test]
async fn a_failure_of_the_handler_is_told_the_same_way() {
    let server = Server::start().await;
    let lines = [
        json!({ "print": { "text": "about to give up" } }),
        json!({ "do": { "panic": { "message": "no idea" } } }),
    ];
    server.play("o-1", &script(lines)).await;
    let detail = server.detail("o-1").await;
    let error = &detail["execution"]["error"];
    assert_eq!((&error["step"], &error["attempt"]), (&Value::Null, &Value::Null));
    assert!(error["message"].as_str().unwrap().contains("no idea"), "{error:#}");
    assert!(error["backtrace"].as_str().unwrap().contains("scenario"));
    let logs = error["logs"].as_array().unwrap();
    assert!(logs.iter().any(|line| line.as_str().unwrap().contains("about to give up")), "{error:#}");
}

#[tokio::test]
async fn ten_thousand_steps_are_answered_whole_or_page_by_page() {
    let server = Server::start().await;
    let capture = json!({ "capture": { "name": "n", "value": "some text" } });
    let lines = [json!({ "repeat": { "times": 10_000, "lines": [capture] } })];
    server.play("o-1", &script(lines)).await;

    let all = server.detail("o-1").await;
    let steps = all["steps"].as_array().unwrap();
    assert_eq!((steps.len(), &all["stepsTotal"]), (10_000, &json!(10_000)));
    assert_eq!((&steps[0]["name"], &steps[9_999]["name"]), (&json!("n"), &json!("n#10000")));

    let mut paged = Vec::new();
    for offset in (0..10_001).step_by(3_000) {
        let path = admin_path("o-1", &format!("detail?stepsLimit=3000&stepsOffset={offset}"));
        let page = server.get(&path).await.expect(200);
        assert_eq!(page["stepsTotal"], 10_000);
        paged.extend(page["steps"].as_array().unwrap().iter().cloned());
    }
    assert_eq!(json!(paged), all["steps"], "pages join without gap or overlap");
    for query in ["stepsLimit=0", "stepsOffset=10000", "stepsOffset=99999999"] {
        let page = server.get(&admin_path("o-1", &format!("detail?{query}"))).await.expect(200);
        assert_eq!((&page["steps"], &page["stepsTotal"]), (&json!([]), &json!(10_000)));
    }
}
