//! The format on disk. What is written here has been written by somebody's host: it must be read
//! for ever, so a change of this file is a migration.

use stepbox_domain::{
    Failure, FailureKind, Receipt, RunId,
    journal::{Record, StepStarted},
    pause::PauseRuleId,
    receipt::Request,
    run::{Policy, Run, RunFacts, Step, Wait},
    step::{InputHash, Interruption, Overrides},
};

use super::given::{at, event_name, id, json, key, open, step_ran, task};
use crate::store::{Store, StoreError, codec};

fn failure() -> Failure {
    Failure::new(FailureKind::Exhausted, "gave up")
        .with_details(Some(json(r#"{"b":1.0}"#)))
        .of_step(key("s#2"), 3)
}

fn started(step_deadline: Option<i64>) -> StepStarted {
    StepStarted {
        key: key("charge"),
        function: "charge".to_owned(),
        input: InputHash::of(&json("null")),
        parts: Vec::new(),
        at: at(1),
        deadline: at(2),
        step_deadline: step_deadline.map(at),
    }
}

/// A step as a rerun keeps it: what the fold makes of a start and a completion.
fn kept() -> Step {
    let facts = RunFacts {
        run: RunId::new(&id("a"), 0),
        execution: id("a"),
        index: 0,
        task: task("order"),
        version: 1,
        created_at: at(1),
        deadline: None,
    };
    let mut run = Run::new(facts, Policy::default());
    run.apply(&Record::StepRan {
        start: started(Some(3)),
        result: json("[1]"),
        completed_at: at(4),
        receipt: None,
    });
    Step { kept_from: Some(RunId::new(&id("a"), 0)), ..run.steps()[0].clone() }
}

fn on_disk() -> Vec<(Record, &'static str)> {
    vec![
        (
            Record::StepStarted(started(Some(3))),
            r#"{"step_started":{"key":"charge","function":"charge","input":"74234e98afe7498fb5daf1f36ac2d78a","at":1,"deadline":2,"step_deadline":3}}"#,
        ),
        (
            Record::StepRan {
                start: started(None),
                result: json(r#"{"z":1, "a":1e2}"#),
                completed_at: at(4),
                receipt: None,
            },
            r#"{"step_ran":{"key":"charge","function":"charge","input":"74234e98afe7498fb5daf1f36ac2d78a","at":1,"deadline":2,"result":{"z":1, "a":1e2},"completed_at":4}}"#,
        ),
        (
            Record::AttemptStarted { step: 0, attempt: 2, at: at(1), deadline: at(2), step_deadline: None },
            r#"{"attempt_started":{"step":0,"attempt":2,"at":1,"deadline":2}}"#,
        ),
        (
            Record::StepCompleted { step: 7, attempt: 2, result: json("\"é\""), at: at(1), receipt: None },
            r#"{"step_completed":{"step":7,"attempt":2,"result":"é","at":1}}"#,
        ),
        (
            Record::AttemptFailed {
                step: 0,
                attempt: 1,
                failure: failure(),
                at: at(1),
                retry_at: Some(at(9)),
                receipt: None,
            },
            r#"{"attempt_failed":{"step":0,"attempt":1,"failure":{"kind":"exhausted","message":"gave up","details":{"b":1.0},"step":"s#2","attempt":3},"at":1,"retry_at":9}}"#,
        ),
        (
            Record::AttemptInterrupted {
                step: 0,
                attempt: 1,
                cause: Interruption::Crashed,
                at: at(1),
                receipt: None,
            },
            r#"{"attempt_interrupted":{"step":0,"attempt":1,"cause":"crashed","at":1}}"#,
        ),
        (
            Record::StepDied { step: 0, failure: failure(), at: at(1) },
            r#"{"step_died":{"step":0,"failure":{"kind":"exhausted","message":"gave up","details":{"b":1.0},"step":"s#2","attempt":3},"at":1}}"#,
        ),
        (
            Record::SleepStarted { key: key("nap"), until: at(5), at: at(1) },
            r#"{"sleep_started":{"key":"nap","until":5,"at":1}}"#,
        ),
        (Record::SleepEnded { step: 1, at: at(5) }, r#"{"sleep_ended":{"step":1,"at":5}}"#),
        (
            Record::WaitStarted { key: key("w"), event: event_name("go \"now\""), deadline: None, at: at(1) },
            r#"{"wait_started":{"key":"w","event":"go \"now\"","at":1}}"#,
        ),
        (
            Record::EventConsumed { step: 2, event: 77, payload: json("[]"), at: at(1) },
            r#"{"event_consumed":{"step":2,"event":77,"payload":[],"at":1}}"#,
        ),
        (Record::WaitTimedOut { step: 2, at: at(1) }, r#"{"wait_timed_out":{"step":2,"at":1}}"#),
        (
            Record::Captured { key: key("c"), value: json("12345678901234567890"), at: at(1) },
            r#"{"captured":{"key":"c","value":12345678901234567890,"at":1}}"#,
        ),
        (
            Record::RunCompleted { result: json("null"), at: at(1) },
            r#"{"run_completed":{"result":null,"at":1}}"#,
        ),
        (
            Record::RunFailed { failure: Failure::new(FailureKind::Diverged, "other"), at: at(1) },
            r#"{"run_failed":{"failure":{"kind":"diverged","message":"other"},"at":1}}"#,
        ),
        (
            Record::RunCancelled { by: Some("ann".to_owned()), at: at(1) },
            r#"{"run_cancelled":{"by":"ann","at":1}}"#,
        ),
        (Record::RunCancelled { by: None, at: at(1) }, r#"{"run_cancelled":{"at":1}}"#),
        (
            Record::AttemptStarted {
                step: 0,
                attempt: 2,
                at: at(1),
                deadline: at(2),
                step_deadline: Some(at(3)),
            },
            r#"{"attempt_started":{"step":0,"attempt":2,"at":1,"deadline":2,"step_deadline":3}}"#,
        ),
        (
            Record::StepKept { step: Box::new(kept()) },
            r#"{"step_kept":{"step":{"key":"charge","call":{"step":{"function":"charge","input":"74234e98afe7498fb5daf1f36ac2d78a","deadline":3}},"started_at":1,"ended_at":4,"state":{"completed":[1]},"attempts":[{"number":1,"started_at":1,"ended_at":4,"state":"completed"}],"kept_from":"a:run:0"}}}"#,
        ),
        (Record::StepAdopted { key: key("s"), at: at(1) }, r#"{"step_adopted":{"key":"s","at":1}}"#),
        (
            Record::StepRetryAsked {
                key: key("s"),
                overrides: Overrides { attempts_max: Some(5), timeout_ms: Some(100) },
                version: Some(2),
                by: Some("ann".to_owned()),
                at: at(1),
            },
            r#"{"step_retry_asked":{"key":"s","overrides":{"attempts_max":5,"timeout_ms":100},"version":2,"by":"ann","at":1}}"#,
        ),
        (
            Record::StepRetryAsked {
                key: key("s"),
                overrides: Overrides::default(),
                version: None,
                by: None,
                at: at(1),
            },
            r#"{"step_retry_asked":{"key":"s","at":1}}"#,
        ),
        (
            Record::StepResolved { key: key("s"), outcome: Ok(json("[1]")), by: None, at: at(1) },
            r#"{"step_resolved":{"key":"s","outcome":{"Ok":[1]},"at":1}}"#,
        ),
        (
            Record::StepResolved {
                key: key("s"),
                outcome: Err(Failure::new(FailureKind::Error, "no")),
                by: Some("ann".to_owned()),
                at: at(1),
            },
            r#"{"step_resolved":{"key":"s","outcome":{"Err":{"kind":"error","message":"no"}},"by":"ann","at":1}}"#,
        ),
        (Record::StepHeld { key: key("s"), at: at(1) }, r#"{"step_held":{"key":"s","at":1}}"#),
        (Record::ClockStood { ms: 7, until: at(9) }, r#"{"clock_stood":{"ms":7,"until":9}}"#),
    ]
}

/// What an attempt took, as it stands at the end of the record of each way to end.
fn receipt() -> Receipt {
    Receipt {
        cpu_us: 1,
        wall_us: 2,
        memory_peak_bytes: 3,
        host_calls: 4,
        bytes_in: 5,
        bytes_out: 6,
        requests: Vec::new(),
        requests_unlisted: 0,
    }
}

const RECEIPT: &str = r#""receipt":{"cpu":1,"wall":2,"mem":3,"calls":4,"in":5,"out":6}"#;

fn with_receipts() -> Vec<(Record, String)> {
    let receipt = Some(Box::new(receipt()));
    let requests = vec![
        Request {
            method: "POST".to_owned(),
            origin: "https://example.com:8443".to_owned(),
            path: "/a".to_owned(),
            status: Some(201),
            error: None,
            bytes_out: 7,
            bytes_in: 8,
            ms: 9,
        },
        Request { method: "GET".to_owned(), error: Some("denied".to_owned()), ..Request::default() },
    ];
    let with_requests =
        receipt.clone().map(|bill| Box::new(Receipt { requests, requests_unlisted: 10, ..*bill }));
    vec![
        (
            Record::StepRan {
                start: started(None),
                result: json("1"),
                completed_at: at(4),
                receipt: receipt.clone(),
            },
            format!(
                r#"{{"step_ran":{{"key":"charge","function":"charge","input":"74234e98afe7498fb5daf1f36ac2d78a","at":1,"deadline":2,"result":1,"completed_at":4,{RECEIPT}}}}}"#
            ),
        ),
        (
            Record::StepCompleted {
                step: 7,
                attempt: 2,
                result: json("1"),
                at: at(1),
                receipt: with_requests,
            },
            r#"{"step_completed":{"step":7,"attempt":2,"result":1,"at":1,"receipt":{"cpu":1,"wall":2,"mem":3,"calls":4,"in":5,"out":6,"req":[{"method":"POST","origin":"https://example.com:8443","path":"/a","status":201,"out":7,"in":8,"ms":9},{"method":"GET","origin":"","path":"","error":"denied","out":0,"in":0,"ms":0}],"more":10}}}"#
                .to_owned(),
        ),
        (
            Record::AttemptFailed {
                step: 0,
                attempt: 1,
                failure: Failure::new(FailureKind::OverLimit, "x"),
                at: at(1),
                retry_at: None,
                receipt: receipt.clone(),
            },
            format!(
                r#"{{"attempt_failed":{{"step":0,"attempt":1,"failure":{{"kind":"over_limit","message":"x"}},"at":1,{RECEIPT}}}}}"#
            ),
        ),
        (
            Record::AttemptInterrupted {
                step: 0,
                attempt: 1,
                cause: Interruption::Stopped,
                at: at(1),
                receipt,
            },
            format!(
                r#"{{"attempt_interrupted":{{"step":0,"attempt":1,"cause":"stopped","at":1,{RECEIPT}}}}}"#
            ),
        ),
    ]
}

#[test]
fn records_are_written_and_read_in_this_form() {
    let on_disk = on_disk().into_iter().map(|(record, body)| (record, body.to_owned()));
    for (record, body) in on_disk.chain(with_receipts()) {
        assert_eq!(&*codec::encode_record(&record).unwrap(), body);
        assert_eq!(codec::decode_record(&body).unwrap(), record);
    }
}

#[test]
fn every_kind_of_record_is_among_them() {
    let kinds: std::collections::BTreeSet<_> = on_disk().iter().map(|(record, _)| kind(record)).collect();
    assert_eq!(kinds.len(), 22);
}

/// A kind that is new does not compile here: give it a line above.
fn kind(record: &Record) -> u32 {
    match record {
        Record::StepStarted(_) => 0,
        Record::StepRan { .. } => 1,
        Record::AttemptStarted { .. } => 2,
        Record::StepCompleted { .. } => 3,
        Record::AttemptFailed { .. } => 4,
        Record::AttemptInterrupted { .. } => 5,
        Record::StepDied { .. } => 6,
        Record::SleepStarted { .. } => 7,
        Record::SleepEnded { .. } => 8,
        Record::WaitStarted { .. } => 9,
        Record::EventConsumed { .. } => 10,
        Record::WaitTimedOut { .. } => 11,
        Record::Captured { .. } => 12,
        Record::RunCompleted { .. } => 13,
        Record::RunFailed { .. } => 14,
        Record::RunCancelled { .. } => 15,
        Record::StepKept { .. } => 16,
        Record::StepAdopted { .. } => 17,
        Record::StepRetryAsked { .. } => 18,
        Record::StepResolved { .. } => 19,
        Record::StepHeld { .. } => 20,
        Record::ClockStood { .. } => 21,
    }
}

#[test]
fn waits_are_written_and_read_in_this_form() {
    let waits = [
        (Wait::Sleep { step: key("nap"), until: at(5) }, r#"{"sleep":{"step":"nap","until":5}}"#),
        (
            Wait::Event { step: key("w"), event: event_name("go"), deadline: None },
            r#"{"event":{"step":"w","event":"go","deadline":null}}"#,
        ),
        (
            Wait::Retry { step: key("s"), attempt: 2, at: at(5) },
            r#"{"retry":{"step":"s","attempt":2,"at":5}}"#,
        ),
        (
            Wait::Pause { rule: PauseRuleId::new("r"), step: Some(key("s")), until: Some(at(5)) },
            r#"{"pause":{"rule":"r","step":"s","until":5}}"#,
        ),
        (Wait::Pause { rule: PauseRuleId::new("r"), step: None, until: None }, r#"{"pause":{"rule":"r"}}"#),
    ];
    for (wait, text) in waits {
        assert_eq!(&*codec::encode("a wait", &wait).unwrap(), text);
        assert_eq!(codec::decode::<Wait>("a wait", text).unwrap(), wait);
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    for garbage in ["", "{}", "null", r#"{"unheard_of":{"at":1}}"#, r#"{"sleep_ended":{"step":-1,"at":5}}"#] {
        match codec::decode_record(garbage) {
            Err(StoreError::Corrupt(what)) => assert!(what.contains(garbage), "{what}"),
            other => panic!("{garbage}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn a_database_that_somebody_edited_is_reported_and_read_as_far_as_it_goes() {
    let directory = tempfile::TempDir::new().unwrap();
    let sqlite = std::sync::Arc::new(open(&directory).await);
    let store: std::sync::Arc<dyn Store> = sqlite.clone();
    super::given::with_order(&store).await;
    for id in ["a", "b", "c"] {
        let claim = super::given::claimed(&store, id).await;
        let records = vec![step_ran("s"), step_ran("t"), step_ran("u")];
        store.commit(super::given::recording(claim, 0, records)).await.unwrap();
    }
    let runs = [super::given::view(&store, "a").await.run, super::given::view(&store, "b").await.run];
    sqlite
        .run_on_writer(
            "update records set body = 'garbage' where run_key = 1 and number = 1;
             delete from records where run_key = 2 and number = 1;
             update runs set waiting = '[]' where run_key = 1;
             update executions set task_name = 'not a name!' where execution_key = 2",
        )
        .await;
    for run in &runs {
        assert!(matches!(store.journal(run).await, Err(StoreError::Corrupt(_))), "{run}");
    }
    assert!(matches!(store.execution(&super::given::id("a")).await, Err(StoreError::Corrupt(_))));
    assert!(matches!(store.execution(&super::given::id("b")).await, Err(StoreError::Corrupt(_))));
    assert_eq!(super::given::journal(&store, "c").await.len(), 3);
}
