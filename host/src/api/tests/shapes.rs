//! What a detail shows of each thing that can stand in a journal. Folded by hand, so that nothing
//! has to happen first.

use serde_json::{Value, json};
use stepbox_domain::{
    EventName, ExecutionId, ExecutionStatus, Failure, FailureKind, Fingerprint, Json, Run, RunId, StepKey,
    TaskName, Timestamp,
    journal::{Record, StepStarted},
    pause::{Hold, PauseRuleId},
    receipt::{Receipt, Request},
    run::{Policy, RunFacts, Wait},
    step::{InputHash, Interruption, Overrides},
};

use super::harness::NOW_MS;
use crate::{
    api::wire,
    store::{ExecutionView, RunKey, RunView, Trigger},
};

fn at(seconds: i64) -> Timestamp {
    Timestamp::from_ms(NOW_MS + seconds * 1_000)
}

/// How that moment is written; the minute has to be enough.
fn time(seconds: i64) -> Value {
    json!(format!("2026-01-31T12:00:{seconds:02}.000Z"))
}

fn key(text: &str) -> StepKey {
    StepKey::parse(text).unwrap()
}

fn id() -> ExecutionId {
    ExecutionId::parse("e").unwrap()
}

fn value(value: Value) -> Json {
    Json::from(value)
}

fn started(name: &str, seconds: i64) -> StepStarted {
    StepStarted {
        key: key(name),
        function: "charge".to_owned(),
        input: InputHash::of(&Json::null()),
        parts: Vec::new(),
        at: at(seconds),
        deadline: at(50),
        step_deadline: None,
    }
}

fn ran(name: &str, seconds: i64, result: Value) -> Record {
    Record::StepRan {
        start: started(name, seconds),
        result: value(result),
        completed_at: at(seconds + 1),
        receipt: None,
    }
}

fn declined() -> Failure {
    Failure::new(FailureKind::Error, "declined")
        .with_details(Some(value(json!({ "left": 3 }))))
        .of_step(key("charge"), 1)
}

fn view() -> ExecutionView {
    let (task, payload) = (TaskName::parse("order").unwrap(), Json::null());
    ExecutionView {
        id: id(),
        fingerprint: Fingerprint::of(&task, &payload),
        task,
        payload,
        status: ExecutionStatus::Running,
        scheduled_at: at(0),
        completed_at: None,
        version: 1,
        run: RunId::new(&id(), 0),
        run_key: RunKey(1),
        result: None,
        error: None,
        waiting: None,
    }
}

fn detail(records: &[Record], offset: usize, limit: usize) -> Value {
    let facts = RunFacts {
        run: RunId::new(&id(), 0),
        execution: id(),
        index: 0,
        task: TaskName::parse("order").unwrap(),
        version: 1,
        created_at: at(0),
        deadline: Some(at(59)),
    };
    let run = Run::fold(facts, Policy::default(), records);
    let execution = wire::Execution::new(view(), None);
    serde_json::to_value(wire::Detail::new(execution, Vec::new(), &run, offset, limit)).unwrap()
}

fn steps(records: &[Record]) -> Vec<Value> {
    detail(records, 0, 100)["steps"].as_array().unwrap().clone()
}

/// Whether `whole` has all that `part` has.
#[track_caller]
fn assert_has(whole: &Value, part: Value) {
    for (field, expected) in part.as_object().unwrap() {
        assert_eq!(&whole[field], expected, "{field} of {whole:#}");
    }
}

#[test]
fn a_step_has_all_fields_whatever_it_came_to() {
    let step = steps(&[ran("charge", 1, json!({ "ok": true }))]).remove(0);
    assert_eq!(
        step,
        json!({
            "stepId": "e:run:0:step:charge", "name": "charge", "kind": "step", "status": "completed",
            "retryAttempt": 0, "result": { "ok": true }, "lastError": null, "failure": null,
            "retryable": false, "scheduledAt": time(1), "completedAt": time(2),
            "attempts": [{
                "attemptNumber": 1, "status": "completed", "result": { "ok": true }, "error": null,
                "failure": null, "startedAt": time(1), "completedAt": time(2), "interrupted": null,
                "receipt": null,
            }],
            "function": "charge", "inputHash": InputHash::of(&Json::null()), "event": null,
            "deadline": null, "nextAttemptAt": null, "keptFromRun": null, "awaitingCall": false,
            "resolved": false, "resolvedBy": null, "resolvedAt": null, "inputChanged": false,
            "replaced": null,
        })
    );
}

#[test]
fn an_attempt_shows_what_it_took_and_whom_it_talked_to() {
    let request = Request {
        method: "POST".to_owned(),
        origin: "https://bank.example:8443".to_owned(),
        path: "/charges".to_owned(),
        status: Some(201),
        error: None,
        bytes_out: 20,
        bytes_in: 30,
        ms: 41,
    };
    let denied = Request { status: None, error: Some("denied: no".to_owned()), ..request.clone() };
    let receipt = Receipt {
        cpu_us: 1_250,
        wall_us: 42_000,
        memory_peak_bytes: 1 << 20,
        host_calls: 9,
        bytes_in: 32,
        bytes_out: 21,
        requests: vec![request, denied],
        requests_unlisted: 3,
    };
    let records = [
        Record::StepStarted(started("charge", 1)),
        Record::AttemptFailed {
            step: 0,
            attempt: 1,
            failure: declined(),
            at: at(2),
            retry_at: None,
            receipt: Some(Box::new(receipt)),
        },
    ];
    assert_eq!(
        steps(&records)[0]["attempts"][0]["receipt"],
        json!({
            "cpuMs": 1.25, "wallMs": 42.0, "memoryPeakBytes": 1_048_576, "hostCalls": 9, "bytesIn": 32,
            "bytesOut": 21,
            "requests": [
                {
                    "method": "POST", "origin": "https://bank.example:8443", "path": "/charges", "status": 201,
                    "error": null, "bytesOut": 20, "bytesIn": 30, "ms": 41,
                },
                {
                    "method": "POST", "origin": "https://bank.example:8443", "path": "/charges", "status": null,
                    "error": "denied: no", "bytesOut": 20, "bytesIn": 30, "ms": 41,
                },
            ],
            "requestsUnlisted": 3,
        })
    );
}

#[test]
fn attempts_show_how_they_ended_and_what_cut_them_off() {
    let failed = |attempt, seconds, retry_at| Record::AttemptFailed {
        step: 0,
        attempt,
        failure: declined(),
        at: at(seconds),
        retry_at,
        receipt: None,
    };
    let again = |attempt, seconds| Record::AttemptStarted {
        step: 0,
        attempt,
        at: at(seconds),
        deadline: at(50),
        step_deadline: None,
    };
    let crashed = |attempt, seconds| Record::AttemptInterrupted {
        step: 0,
        attempt,
        cause: Interruption::Crashed,
        at: at(seconds),
        receipt: None,
    };
    let mut records = vec![Record::StepStarted(started("charge", 1)), failed(1, 2, Some(at(4)))];
    assert_has(
        &steps(&records)[0],
        json!({
            "status": "scheduled", "retryAttempt": 0, "lastError": "declined", "retryable": false,
            "completedAt": null, "nextAttemptAt": time(4),
            "failure": {
                "kind": "error", "message": "declined", "step": "charge", "attempt": 1,
                "details": { "left": 3 }, "backtrace": null, "logs": [],
            },
        }),
    );
    records.extend([again(2, 4), crashed(2, 5), again(3, 6)]);
    let step = steps(&records).remove(0);
    assert_has(&step, json!({ "status": "running", "retryAttempt": 2, "lastError": "declined" }));
    let attempt = |number: usize| &step["attempts"][number - 1];
    assert_has(
        attempt(1),
        json!({ "attemptNumber": 1, "status": "failed", "error": "declined", "completedAt": time(2), "interrupted": null }),
    );
    assert_has(attempt(2), json!({ "status": "failed", "interrupted": "host_crashed", "failure": null }));
    assert_has(attempt(3), json!({ "status": "running", "error": null, "completedAt": null }));

    let mut cancelled = records.clone();
    cancelled.push(Record::RunCancelled { by: None, at: at(7) });
    let step = steps(&cancelled).remove(0);
    assert_has(&step, json!({ "status": "scheduled", "nextAttemptAt": null }));
    assert_has(
        &step["attempts"][2],
        json!({ "status": "failed", "interrupted": "run_over", "completedAt": time(7) }),
    );

    records.push(failed(3, 8, None));
    assert_has(
        &steps(&records)[0],
        json!({ "status": "dead", "retryable": true, "lastError": "declined", "completedAt": time(8) }),
    );
}

#[test]
fn every_kind_is_shown() {
    let go = EventName::parse("go").unwrap();
    let shown = steps(&[
        Record::SleepStarted { key: key("nap"), until: at(3), at: at(1) },
        Record::SleepEnded { step: 0, at: at(3) },
        Record::Captured { key: key("dice"), value: value(json!(4)), at: at(3) },
        Record::WaitStarted { key: key("go"), event: go.clone(), deadline: Some(at(5)), at: at(4) },
        Record::WaitTimedOut { step: 2, at: at(5) },
        Record::WaitStarted { key: key("go#2"), event: go, deadline: None, at: at(6) },
    ]);
    assert_has(
        &shown[0],
        json!({ "kind": "sleep", "status": "completed", "deadline": time(3), "result": null, "attempts": [] }),
    );
    assert_has(&shown[1], json!({ "kind": "capture", "result": 4, "completedAt": time(3) }));
    assert_has(
        &shown[2],
        json!({
            "kind": "wait_for_event", "status": "completed", "event": "go", "retryable": false,
            "lastError": "no event \"go\" came in time for \"go\"",
        }),
    );
    assert_has(
        &shown[3],
        json!({ "name": "go#2", "kind": "wait_for_event", "status": "running", "event": "go", "deadline": null }),
    );
}

#[test]
fn what_was_kept_is_told_from_what_was_called() {
    let earlier = |name: &str, seconds| {
        let mut run = Run::fold(
            RunFacts {
                run: RunId::new(&id(), 0),
                execution: id(),
                index: 0,
                task: TaskName::parse("order").unwrap(),
                version: 1,
                created_at: at(0),
                deadline: None,
            },
            Policy::default(),
            &[ran(name, seconds, json!(name))],
        )
        .steps()[0]
            .clone();
        run.kept_from = Some(RunId::new(&id(), 0));
        Record::StepKept { step: Box::new(run) }
    };
    let records =
        [earlier("a", 1), earlier("b", 2), earlier("c", 3), Record::StepAdopted { key: key("a"), at: at(9) }];
    let shown = steps(&records);
    assert_has(&shown[0], json!({ "name": "a", "keptFromRun": "e:run:0", "awaitingCall": false }));
    assert_has(
        &shown[1],
        json!({ "name": "b", "keptFromRun": "e:run:0", "awaitingCall": true, "result": "b" }),
    );
    assert_has(&shown[2], json!({ "name": "c", "awaitingCall": true }));

    let mut records = records.to_vec();
    records.push(ran("b", 10, json!("new")));
    let shown = steps(&records);
    assert_eq!(shown.len(), 3, "what was replaced is shown within what replaced it");
    assert_has(&shown[1], json!({ "name": "b", "inputChanged": true, "result": "new", "keptFromRun": null }));
    assert_has(&shown[1]["replaced"], json!({ "name": "b", "result": "b", "keptFromRun": "e:run:0" }));
    assert_eq!(shown[1]["replaced"]["attempts"].as_array().unwrap().len(), 1);
}

#[test]
fn a_step_that_was_mended_says_so() {
    let dead = [
        Record::StepStarted(started("charge", 1)),
        Record::AttemptFailed {
            step: 0,
            attempt: 1,
            failure: declined(),
            at: at(2),
            retry_at: None,
            receipt: None,
        },
        Record::RunFailed { failure: declined(), at: at(2) },
    ];
    let by = Some("ann".to_owned());
    let mut resolved = dead.to_vec();
    resolved.push(Record::StepResolved {
        key: key("charge"),
        outcome: Ok(value(json!("by hand"))),
        by: by.clone(),
        at: at(5),
    });
    let step = steps(&resolved).remove(0);
    assert_has(
        &step,
        json!({
            "status": "completed", "result": "by hand", "resolved": true, "resolvedBy": "ann",
            "resolvedAt": time(5), "lastError": null,
        }),
    );
    assert_has(&step["attempts"][0], json!({ "status": "failed", "result": null }));

    let mut asked = dead.to_vec();
    asked.push(Record::StepRetryAsked {
        key: key("charge"),
        overrides: Overrides::default(),
        version: None,
        by,
        at: at(5),
    });
    let shown = detail(&asked, 0, 10);
    assert_has(
        &shown["steps"][0],
        json!({ "status": "scheduled", "nextAttemptAt": time(5), "retryable": false }),
    );
    assert_eq!(shown["steps"][0]["attempts"].as_array().unwrap().len(), 1, "the earlier attempts stay");
}

#[test]
fn steps_are_paged_and_counted() {
    let records: Vec<Record> = (1..=7).map(|n| ran(&format!("s{n}"), n, json!(n))).collect();
    let page = |offset, limit| {
        let shown = detail(&records, offset, limit);
        assert_eq!(shown["stepsTotal"], 7);
        let steps = shown["steps"].as_array().unwrap();
        steps.iter().map(|step| step["name"].as_str().unwrap().to_owned()).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(page(0, 100), "s1 s2 s3 s4 s5 s6 s7");
    assert_eq!(page(2, 3), "s3 s4 s5");
    assert_eq!(page(6, 3), "s7");
    assert_eq!(page(usize::MAX, 3), "");
    assert_eq!(page(0, 0), "");
}

#[test]
fn a_detail_says_which_run_it_shows_and_when_its_time_is_up() {
    let shown = detail(&[], 0, 0);
    let fields: Vec<&String> = shown.as_object().unwrap().keys().collect();
    assert_eq!(fields, ["deadline", "execution", "runId", "runs", "steps", "stepsTotal"]);
    assert_has(&shown, json!({ "runId": "e:run:0", "deadline": time(59), "runs": [], "steps": [] }));
}

#[test]
fn a_run_has_all_fields() {
    let run = RunView {
        run: RunId::new(&id(), 1),
        index: 1,
        version: 2,
        payload: value(json!([1])),
        status: ExecutionStatus::Failed,
        result: None,
        error: Some(Failure::new(FailureKind::TimedOut, "too late")),
        created_at: at(1),
        started_at: Some(at(2)),
        completed_at: Some(at(3)),
        trigger: Trigger::SelectiveRerun,
        triggered_by: Some("ann".to_owned()),
    };
    assert_eq!(
        serde_json::to_value(wire::Run::new(&id(), run)).unwrap(),
        json!({
            "runId": "e:run:1", "executionId": "e", "runIndex": 1, "payload": [1], "status": "failed",
            "result": null, "startedAt": time(2), "completedAt": time(3), "createdAt": time(1),
            "trigger": "selective_rerun", "triggeredBy": "ann", "moduleVersion": 2,
            "error": {
                "kind": "timed_out", "message": "too late", "step": null, "attempt": null,
                "details": null, "backtrace": null, "logs": [],
            },
        })
    );
}

#[test]
fn an_execution_that_is_held_says_by_which_rule_and_what_comes_then() {
    let hold = || Some(Hold { rule: PauseRuleId::new("r"), until: Some(at(9)), by_step: false });
    let waiting_for = |status, waiting, hold| {
        let execution = wire::Execution::new(ExecutionView { status, waiting, ..view() }, hold);
        serde_json::to_value(execution).unwrap()["waitingFor"].clone()
    };
    let sleep = Wait::Sleep { step: key("nap"), until: at(5) };
    let sleeps = json!({ "type": "sleep", "step": "nap", "until": time(5) });
    let paused = |step: Value, then: Value| json!({ "type": "pause", "ruleId": "r", "step": step, "until": time(9), "then": then });
    let (scheduled, running) = (ExecutionStatus::Scheduled, ExecutionStatus::Running);
    assert_eq!(waiting_for(running, Some(sleep.clone()), None), sleeps);
    assert_eq!(waiting_for(running, Some(sleep), hold()), paused(json!(null), sleeps));
    assert_eq!(waiting_for(scheduled, None, hold()), paused(json!(null), json!(null)));
    assert_eq!(waiting_for(running, None, hold()), json!(null), "it still moves");
    let at_step = Wait::Pause { rule: PauseRuleId::new("old"), step: Some(key("charge")), until: None };
    assert_eq!(waiting_for(running, Some(at_step.clone()), hold()), paused(json!("charge"), json!(null)));
    assert_eq!(waiting_for(running, Some(at_step), None)["ruleId"], "old", "about to be woken");
}
