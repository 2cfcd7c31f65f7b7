//! What the tests are told in.

use std::sync::Arc;

use stepbox_domain::{
    Digest, EventName, ExecutionId, FailureKind, Fingerprint, Json, StepKey, TaskName, Timestamp,
    audit::AuditAction,
    event::Event,
    journal::{Record, StepStarted},
    run::Wait,
    step::InputHash,
};
use tempfile::TempDir;

use crate::store::{memory::Memory, sqlite::Sqlite, sqlite::StoreConfig, *};

/// Runs each of the named tests, which are told of a store, on every store.
macro_rules! on_every_store {
    ($($test:ident),* $(,)?) => {
        mod memory {
            $(#[tokio::test]
            async fn $test() {
                super::$test($crate::store::tests::given::memory()).await;
            })*
        }
        mod sqlite {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                let (store, _directory) = $crate::store::tests::given::sqlite().await;
                super::$test(store).await;
            })*
        }
    };
}
pub(super) use on_every_store;

pub(super) fn memory() -> Arc<dyn Store> {
    Arc::new(Memory::new())
}

pub(super) async fn sqlite() -> (Arc<dyn Store>, TempDir) {
    let directory = TempDir::new().unwrap();
    (Arc::new(open(&directory).await), directory)
}

pub(super) async fn open(directory: &TempDir) -> Sqlite {
    Sqlite::open(&config(directory)).await.unwrap()
}

/// Some more than the making of the database takes.
pub(super) const LOG_BYTES: u64 = 512 << 10;

pub(super) fn config(directory: &TempDir) -> StoreConfig {
    StoreConfig { data_dir: directory.path().to_owned(), readers: 3, log_bytes: LOG_BYTES }
}

pub(super) fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

pub(super) fn id(text: &str) -> ExecutionId {
    ExecutionId::parse(text).unwrap()
}

pub(super) fn task(name: &str) -> TaskName {
    TaskName::parse(name).unwrap()
}

pub(super) fn event_name(name: &str) -> EventName {
    EventName::parse(name).unwrap()
}

pub(super) fn key(name: &str) -> StepKey {
    StepKey::parse(name).unwrap()
}

pub(super) fn json(text: &str) -> Json {
    Json::parse(text).unwrap()
}

/// A start of version 1 of `task_name` at time 1,000.
pub(super) fn start(id_text: &str, task_name: &str, payload: &str) -> NewExecution {
    let (task, payload) = (task(task_name), json(payload));
    NewExecution {
        id: id(id_text),
        fingerprint: Fingerprint::of(&task, &payload),
        task,
        payload,
        version: 1,
        now: at(1_000),
        deadline: None,
        held: None,
    }
}

pub(super) fn upload(task_name: &str, component: &[u8]) -> NewVersion {
    NewVersion {
        task: task(task_name),
        digest: Digest::of(component),
        component: component.to_vec(),
        manifest: json(r#"{"description":"a test"}"#),
        compiled_in_ms: 12,
        now: at(500),
        waits: false,
    }
}

/// Version 1 of the task "order".
pub(super) async fn with_order(store: &Arc<dyn Store>) {
    store.add_version(upload("order", b"order 1"), audit()).await.unwrap();
}

/// A new execution of "order", not claimed yet.
pub(super) async fn scheduled(store: &Arc<dyn Store>, id: &str) -> RunKey {
    match store.create_execution(start(id, "order", "{}")).await.unwrap() {
        Creation::New { run, .. } => run,
        other => panic!("{other:?}"),
    }
}

/// A new execution of "order", claimed with its start.
pub(super) async fn claimed(store: &Arc<dyn Store>, id: &str) -> Claim {
    let run = store.new_run();
    match store.create_execution(held(start(id, "order", "{}"), run, None)).await.unwrap() {
        Creation::New { run: made, .. } => assert_eq!(made, run),
        other => panic!("{other:?}"),
    }
    Claim::first(run)
}

/// `new` with a run that is driven already, and has come to `commit`.
pub(super) fn held(new: NewExecution, run: RunKey, commit: Option<Commit>) -> NewExecution {
    NewExecution { held: Some(HeldRun { run, commit }), ..new }
}

/// A commit that does nothing yet.
pub(super) fn commit(claim: Claim, first_number: u64) -> Commit {
    Commit { claim, first_number, records: vec![], consumed: vec![], standing: None, release: false }
}

pub(super) fn recording(claim: Claim, first_number: u64, records: Vec<Record>) -> Commit {
    Commit { records, ..commit(claim, first_number) }
}

pub(super) fn standing(claim: Claim, first_number: u64, standing: Standing) -> Commit {
    Commit { standing: Some(standing), ..commit(claim, first_number) }
}

pub(super) fn releasing(claim: Claim, first_number: u64) -> Commit {
    Commit { release: true, ..commit(claim, first_number) }
}

pub(super) fn completed(result: &str, ms: i64) -> Standing {
    Standing::Completed { result: json(result), at: at(ms) }
}

/// Stands at a wait for `event`.
pub(super) fn at_event(event: &str, deadline: Option<i64>) -> Standing {
    let deadline = deadline.map(at);
    let wait = Wait::Event { step: key("approval"), event: event_name(event), deadline };
    Standing::Open { waiting: Some(wait), due: deadline }
}

pub(super) fn step_ran(name: &str) -> Record {
    let start = StepStarted {
        key: key(name),
        function: name.to_owned(),
        input: InputHash::of(&Json::null()),
        parts: Vec::new(),
        at: at(1_001),
        deadline: at(9_000),
        step_deadline: None,
    };
    Record::StepRan { start, result: json(r#"{"ok":true}"#), completed_at: at(1_002), receipt: None }
}

pub(super) fn captured(text: &str) -> Record {
    Record::Captured { key: key("c"), value: json(text), at: at(1_003) }
}

pub(super) async fn view(store: &Arc<dyn Store>, execution: &str) -> ExecutionView {
    store.execution(&id(execution)).await.unwrap().expect("an execution of that id")
}

pub(super) async fn journal(store: &Arc<dyn Store>, execution: &str) -> Vec<Record> {
    let run = view(store, execution).await.run;
    store.journal(&run).await.unwrap().expect("a run of that id").1
}

pub(super) async fn send(store: &Arc<dyn Store>, execution: &str, event: &str, payload: &str) -> EventAdded {
    store.add_event(new_event(execution, event, payload)).await.unwrap()
}

/// Comes at 2,000.
pub(super) fn new_event(execution: &str, event: &str, payload: &str) -> NewEvent {
    NewEvent {
        execution: id(execution),
        name: event_name(event),
        payload: json(payload),
        now: at(2_000),
        claim: None,
        coming: None,
    }
}

/// Somebody who knows so many records of any run.
pub(super) fn knowing(records: u64) -> Option<Known> {
    Some(Arc::new(move |_| records))
}

/// Events by number and payload.
pub(super) fn told(events: &[Event]) -> Vec<(i64, String)> {
    events.iter().map(|event| (event.seq, format!("{} {}", event.name, event.payload))).collect()
}

#[track_caller]
pub(super) fn assert_lost(result: Result<(), StoreError>) {
    assert!(matches!(result, Err(StoreError::ClaimLost)), "{result:?}");
}

#[track_caller]
pub(super) fn assert_corrupt(result: Result<(), StoreError>) {
    assert!(matches!(result, Err(StoreError::Corrupt(_))), "{result:?}");
}

/// Some entry of the audit trail.
pub(super) fn audit() -> AuditEntry {
    AuditEntry {
        at: at(1_000),
        actor: Some("ann".to_owned()),
        action: AuditAction::Cancel,
        execution: None,
        task: None,
        target: None,
        before: Json::null(),
        after: Json::null(),
        reason: None,
    }
}

pub(super) fn trouble() -> Trouble {
    Trouble::of(&task("order"), 1, &Failure::new(FailureKind::Error, "no"))
}
