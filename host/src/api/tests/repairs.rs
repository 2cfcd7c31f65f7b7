//! What the routes answer that show an execution whole and mend it, under both prefixes.

use serde_json::{Value, json};

use super::harness::*;

const PREFIXES: [&str; 2] = ["/admin/v1", "/zart/admin/v1"];

/// Has the execution `e`, which failed at its second step.
async fn with_a_dead_step() -> Host {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "order", "items": 2 })).await;
    let failed = host.get("/api/v1/executions/e/wait").await.json();
    assert_eq!(failed["status"], "failed");
    host
}

async fn detail(host: &Host, query: &str) -> Value {
    let answer = host.get(&format!("/admin/v1/executions/e/detail{query}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    answer.json()
}

fn names(detail: &Value) -> String {
    let steps = detail["steps"].as_array().unwrap().iter();
    steps
        .map(|step| format!("{} {}", step["name"], step["status"]))
        .collect::<Vec<_>>()
        .join(", ")
        .replace('"', "")
}

#[tokio::test]
async fn a_detail_has_execution_runs_and_steps() {
    let host = with_a_dead_step().await;
    for prefix in PREFIXES {
        let detail = host.get(&format!("{prefix}/executions/e/detail")).await.json();
        assert_eq!(detail["execution"], host.get("/api/v1/executions/e").await.json());
        assert_eq!(names(&detail), "reserve completed, charge dead");
        assert_eq!((&detail["stepsTotal"], &detail["runId"]), (&json!(2), &json!("e:run:0")));
        let runs = host.get(&format!("{prefix}/executions/e/runs")).await.json();
        assert_eq!(detail["runs"], runs);
        assert_eq!(runs.as_array().unwrap().len(), 1);
        let run = &runs[0];
        assert_eq!((&run["trigger"], &run["status"]), (&json!("initial"), &json!("failed")));
        assert_eq!((&run["startedAt"], &run["completedAt"]), (&json!(NOW), &json!(NOW)));
        assert_eq!(run["error"]["message"], "declined");
        for path in ["detail", "runs"] {
            let none = host.get(&format!("{prefix}/executions/none/{path}")).await;
            assert_eq!(none.refusal(), "404 unknown_execution: there is no execution \"none\"");
        }
    }
    assert_eq!(names(&detail(&host, "?stepsLimit=1").await), "reserve completed");
    assert_eq!(names(&detail(&host, "?stepsOffset=1&runId=e:run:0").await), "charge dead");
}

#[tokio::test]
async fn a_run_of_another_execution_is_404() {
    let host = with_a_dead_step().await;
    host.begin("other", json!(null)).await;
    for run in ["e:run:1", "other:run:0", ""] {
        let refusal = host.get(&format!("/admin/v1/executions/e/detail?runId={run}")).await.refusal();
        let expected = format!("404 unknown_run: the execution \"e\" has no run \"{run}\"; see GET");
        assert!(refusal.starts_with(&expected), "{refusal}");
    }
}

#[tokio::test]
async fn retry_step_tries_a_dead_step_again_in_its_run() {
    for prefix in PREFIXES {
        let host = with_a_dead_step().await;
        let path = format!("{prefix}/executions/e/retry-step");
        let body = r#"{"stepName":"charge","triggeredBy":"ann","reason":"mended"}"#;
        let answer = |dry_run| {
            json!({
                "newTaskId": "e:run:0:step:charge:attempt:2", "runId": "e:run:0", "stepName": "charge",
                "attempt": 2, "dryRun": dry_run, "wouldRun": ["charge"], "wouldKeep": ["reserve"],
                "wouldRepeat": [], "wouldSetAside": [],
            })
        };
        let dry = host.post(&format!("{path}?dryRun=true"), body).await;
        assert_eq!((dry.status, dry.json()), (200, answer(true)), "{}", dry.text);
        assert_eq!(host.get("/api/v1/executions/e").await.json()["status"], "failed", "nothing has changed");

        let done = host.post(&path, body).await;
        assert_eq!((done.status, done.json()), (200, answer(false)), "{}", done.text);
        let over = host.get("/api/v1/executions/e/wait").await.json();
        assert_eq!((&over["status"], &over["error"]), (&json!("completed"), &json!(null)));
        let detail = detail(&host, "").await;
        assert_eq!(names(&detail), "reserve completed, charge completed");
        assert_eq!(detail["steps"][1]["attempts"].as_array().unwrap().len(), 2);
        assert_eq!(detail["steps"][1]["retryAttempt"], 1);

        let again = host.post(&path, body).await;
        assert!(
            again.refusal().starts_with("409 step_not_dead: step \"charge\" is completed"),
            "{}",
            again.text
        );
        assert_eq!(again.json()["status"], "completed");
        let none = host.post(&path, r#"{"stepName":"none"}"#).await;
        assert!(
            none.refusal().starts_with("404 unknown_step: run e:run:0 has no step \"none\""),
            "{}",
            none.text
        );
    }
}

#[tokio::test]
async fn what_cannot_be_mended_says_why() {
    let host = Host::start().await;
    for path in ["retry-step", "steps/charge/resolve", "restart", "rerun"] {
        let body = r#"{"stepName":"charge","result":1}"#;
        let answer = host.post(&format!("/admin/v1/executions/none/{path}"), body).await;
        assert_eq!(answer.refusal(), "404 unknown_execution: there is no execution \"none\"", "{path}");
    }
    host.begin("e", json!({ "do": "wait" })).await;
    host.until("e", |execution| !execution["waitingFor"].is_null()).await;
    let waits = host.post("/admin/v1/executions/e/retry-step", r#"{"stepName":"approval"}"#).await;
    assert!(waits.refusal().starts_with("409 step_not_dead"), "{}", waits.text);
    assert_eq!(waits.json()["status"], "running");
}

#[tokio::test]
async fn resolve_puts_an_outcome_in_by_hand() {
    let host = with_a_dead_step().await;
    let path = "/admin/v1/executions/e/steps/charge/resolve";
    let dry = host.post(&format!("{path}?dryRun=true"), r#"{"result":null}"#).await;
    assert_eq!(dry.status, 200, "{}", dry.text);
    assert_eq!(dry.json()["dryRun"], true);
    let done = host.post(path, r#"{"result":{"receipt":7},"triggeredBy":"ann","reason":"seen"}"#).await;
    assert_eq!(
        (done.status, done.json()),
        (
            200,
            json!({
                "runId": "e:run:0", "stepName": "charge", "dryRun": false, "wouldRun": [],
                "wouldKeep": ["charge", "reserve"], "wouldRepeat": [], "wouldSetAside": [],
            })
        )
    );
    let over = host.get("/api/v1/executions/e/wait").await.json();
    assert_eq!((&over["status"], &over["result"]), (&json!("completed"), &json!({ "receipt": 7 })));
    let step = detail(&host, "").await["steps"][1].clone();
    assert_eq!((&step["resolvedBy"], &step["resolvedAt"]), (&json!("ann"), &json!(NOW)));
    assert!(host.post(path, r#"{"result":1}"#).await.refusal().starts_with("409 step_not_dead"));

    let host = with_a_dead_step().await;
    let failure = r#"{"failure":{"message":"refused for good","details":{"code":51}}}"#;
    assert_eq!(host.post(path, failure).await.status, 200);
    let over = host.get("/api/v1/executions/e/wait").await.json();
    assert_eq!((&over["status"], &over["error"]["message"]), (&json!("failed"), &json!("refused for good")));
    assert_eq!(over["error"]["details"], json!({ "code": 51 }));
}

#[tokio::test]
async fn restart_begins_from_nothing_with_the_payload_that_is_given() {
    for prefix in PREFIXES {
        let host = with_a_dead_step().await;
        let path = format!("{prefix}/executions/e/restart");
        let dry = host.post(&format!("{path}?dryRun=true"), r#"{"payload":null}"#).await;
        assert_eq!(
            (dry.status, dry.json()),
            (
                200,
                json!({
                    "newRunId": "e:run:1", "newRunNumber": 1, "moduleVersion": 1, "dryRun": true,
                    "wouldRun": ["charge"], "wouldKeep": [], "wouldRepeat": ["reserve"], "wouldSetAside": [],
                })
            )
        );
        let refused = host.post(&path, r#"{"payload":{"items":"two"}}"#).await;
        assert!(refused.refusal().starts_with("422 payload_refused"), "{}", refused.text);

        // Left out, in a body that is none at all: the payload stays.
        let done = host.get(&format!("POST {path}")).await;
        assert_eq!((done.status, &done.json()["newRunId"]), (200, &json!("e:run:1")), "{}", done.text);
        let over = host.get("/api/v1/executions/e/wait").await.json();
        assert_eq!((&over["status"], &over["payload"]["items"]), (&json!("failed"), &json!(2)));
        // So does it where it is `null`.
        let done = host.post(&path, r#"{"payload":null,"triggeredBy":"ann"}"#).await;
        assert_eq!((done.status, &done.json()["newRunNumber"]), (200, &json!(2)), "{}", done.text);
        let over = host.get("/api/v1/executions/e/wait").await.json();
        assert_eq!((&over["status"], &over["payload"]["items"]), (&json!("failed"), &json!(2)));

        let runs = host.get(&format!("{prefix}/executions/e/runs")).await.json();
        let shown =
            |field: &str| runs.as_array().unwrap().iter().map(|run| run[field].clone()).collect::<Vec<_>>();
        assert_eq!(shown("runIndex"), [0, 1, 2]);
        assert_eq!(shown("trigger"), ["initial", "restart", "restart"]);
        assert_eq!(shown("triggeredBy"), [json!(null), json!(null), json!("ann")]);
        assert_eq!(shown("status"), ["failed", "failed", "failed"]);
        assert_eq!(names(&detail(&host, "?runId=e:run:0").await), "reserve completed, charge dead");
    }
}

#[tokio::test]
async fn rerun_keeps_what_is_not_named_and_says_what_may_be_stale() {
    let host = with_a_dead_step().await;
    host.post("/admin/v1/executions/e/retry-step", r#"{"stepName":"charge"}"#).await;
    assert_eq!(host.get("/api/v1/executions/e/wait").await.json()["status"], "completed");
    for prefix in PREFIXES {
        let path = format!("{prefix}/executions/e/rerun");
        let unknown = host.post(&path, r#"{"rerunSteps":["none"],"preserveSteps":["nor this"]}"#).await;
        assert!(unknown.refusal().starts_with("422 unknown_steps"), "{}", unknown.text);
        assert_eq!(unknown.json()["steps"], json!(["none", "nor this"]));
        let body = r#"{"rerunSteps":["reserve"],"triggeredBy":"ann"}"#;
        let answer = host.post(&format!("{path}?dryRun=true"), body).await;
        assert_eq!(
            (answer.status, answer.json()),
            (
                200,
                json!({
                    "newRunId": "e:run:1", "newRunNumber": 1, "moduleVersion": 1,
                    "effectiveRerun": ["reserve"],
                    "potentiallyStale": [{
                        "preservedStep": "charge", "possiblyDependsOn": ["reserve"], "basis": "input",
                        "inputFrom": ["reserve"],
                    }],
                    "dryRun": true, "wouldRun": [], "wouldKeep": ["charge"], "wouldRepeat": ["reserve"], "wouldSetAside": [],
                })
            )
        );
    }
    let body = r#"{"rerunSteps":["reserve"],"preserveSteps":[],"triggeredBy":"ann"}"#;
    let done = host.post("/admin/v1/executions/e/rerun", body).await;
    assert_eq!((done.status, &done.json()["newRunNumber"]), (200, &json!(1)), "{}", done.text);
    assert_eq!(host.get("/api/v1/executions/e/wait").await.json()["status"], "completed");
    let detail = detail(&host, "").await;
    assert_eq!(detail["runs"][1]["trigger"], "selective_rerun");
    assert_eq!(detail["steps"][0]["keptFromRun"], json!(null));
    assert_eq!(detail["steps"][1]["keptFromRun"], "e:run:0");
    assert_eq!(detail["steps"][1]["attempts"].as_array().unwrap().len(), 2, "its history goes with it");

    let preserved = r#"{"rerunSteps":["reserve"],"preserveSteps":["reserve"]}"#;
    let nothing = host.post("/admin/v1/executions/e/rerun?dryRun=true", preserved).await.json();
    assert_eq!(nothing["effectiveRerun"], json!([]));
    // A body that is none at all reruns what is dead.
    assert_eq!(host.get("POST /admin/v1/executions/e/rerun?dryRun=true").await.status, 200);
}

#[tokio::test]
async fn every_admin_write_is_in_the_audit_trail() {
    let host = with_a_dead_step().await;
    let who = r#""triggeredBy":"ann","reason":"why not""#;
    host.post("/admin/v1/executions/e/retry-step?dryRun=true", &format!(r#"{{"stepName":"charge",{who}}}"#))
        .await;
    host.post("/admin/v1/executions/e/retry-step", &format!(r#"{{"stepName":"charge",{who}}}"#)).await;
    host.get("/api/v1/executions/e/wait").await;
    host.move_clock(1_000);
    host.begin("hangs", json!({ "do": "hang" })).await;
    let cancel = host.post("/api/v1/executions/hangs/cancel", &format!("{{{who}}}")).await;
    assert_eq!(cancel.status, 204);
    let upload = "/admin/v1/modules/order?triggeredBy=bob&reason=new%20one";
    assert_eq!(host.call("PUT", upload, WASM, "two").await.status, 201);
    let activate = "POST /admin/v1/modules/order/versions/1/activate?triggeredBy=bob";
    assert_eq!(host.get(activate).await.status, 200);

    let listed = async |query: &str| {
        let answer = host.get(&format!("/zart/admin/v1/audit{query}")).await;
        assert_eq!(answer.status, 200, "{query}: {}", answer.text);
        let list = answer.json();
        let actions: Vec<&str> =
            list.as_array().unwrap().iter().map(|entry| entry["action"].as_str().unwrap()).collect();
        (actions.join(" "), answer.header("x-total-count").to_owned())
    };
    let all = listed("").await;
    assert_eq!(
        all,
        ("activate_version upload_module cancel retry_step upload_module".to_owned(), "5".to_owned())
    );
    for (query, expected, total) in [
        ("?limit=2&offset=1", "upload_module cancel", "5"),
        ("?actor=ann", "cancel retry_step", "2"),
        ("?action=retry_step", "retry_step", "1"),
        ("?executionId=hangs", "cancel", "1"),
        ("?taskName=order&actor=bob", "activate_version upload_module", "2"),
        ("?to=2026-01-31T12:00:00Z", "retry_step upload_module", "2"),
        ("?from=2026-01-31T12:00:01Z&action=cancel", "cancel", "1"),
        ("?actor=nobody", "", "0"),
    ] {
        assert_eq!(listed(query).await, (expected.to_owned(), total.to_owned()), "{query}");
    }

    let entries = host.get("/admin/v1/audit?actor=ann").await.json();
    let entry = &entries[1];
    let fields: Vec<&String> = entry.as_object().unwrap().keys().collect();
    assert_eq!(
        fields,
        [
            "action",
            "actor",
            "after",
            "at",
            "before",
            "executionId",
            "hash",
            "number",
            "reason",
            "target",
            "taskName"
        ]
    );
    assert_eq!((&entry["target"], &entry["reason"]), (&json!("charge"), &json!("why not")));
    assert_eq!((&entry["executionId"], &entry["at"]), (&json!("e"), &json!(NOW)));
    assert_eq!(entry["hash"].as_str().unwrap().len(), 64);
    let uploads = host.get("/admin/v1/audit?actor=bob&action=upload_module").await.json();
    assert_eq!((&uploads[0]["reason"], &uploads[0]["target"]), (&json!("new one"), &json!("2")));
}
