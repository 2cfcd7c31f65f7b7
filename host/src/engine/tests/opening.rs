//! Runs that are driven while their start is on its way to the disk.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::json;
use stepbox_domain::{ExecutionStatus, Json, RunId, audit::AuditAction};

use super::scripted::*;
use crate::{
    engine::{EngineConfig, EngineError, Started},
    sandbox::{LogLine, LogSink, StepExit},
    store::{Store as _, Views as _, memory::Memory},
};

fn completed(what: &str) -> StepExit {
    StepExit::Completed(Json::from(json!(what)))
}

/// Starts "e" with `payload`, which may not be for the first time.
fn start(host: &Host, payload: serde_json::Value) -> Result<Started, EngineError> {
    host.block_on(host.engine.start(execution("e"), task(), Json::from(payload)))
}

/// As if another host had removed the task's module.
fn remove(store: &Memory) {
    store.remove_module(&task(), audit(AuditAction::RemoveModule)).now_or_never().unwrap().unwrap();
}

/// Comes back when nothing is driven.
fn at_rest(host: &Host) {
    host.block_on(host.engine.0.live.empty());
}

#[test]
fn what_is_done_without_giving_way_is_done_when_the_start_is_answered() {
    let guest = Scripted::new(|mut h| async move {
        h.step("a", Default::default()).await?;
        h.step("b", Default::default()).await
    })
    .step("a", |_| async { completed("of a") })
    .step("b", |_| async { completed("of b") })
    .silent();
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    let Ok(Started::New(view)) = start(&host, json!(1)) else { panic!("it is new") };
    assert_eq!(view.status, ExecutionStatus::Completed);
    assert_eq!(view.result, Some(Json::from(json!("of b"))));
    let stored = host.block_on(store.execution(&execution("e"))).unwrap().unwrap();
    assert_eq!(format!("{view:?}"), format!("{stored:?}"));
    let metrics = host.engine.metrics();
    assert_eq!(metrics.started.get(), 1);
    at_rest(&host);
}

#[test]
fn a_start_waits_for_no_run_that_gives_way() {
    let go_on = Arc::new(AtomicBool::new(false));
    let waits_for = go_on.clone();
    let guest = Scripted::new(|mut h| async move {
        h.step("a", Default::default()).await?;
        h.step("slow", Default::default()).await
    })
    .step("a", |_| async { completed("of a") })
    .step("slow", move |_| {
        let go_on = waits_for.clone();
        async move {
            while !go_on.load(SeqCst) {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            completed("at last")
        }
    })
    .silent();
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    let Ok(Started::New(view)) = start(&host, json!(1)) else { panic!("it is new") };
    assert_eq!(view.status, ExecutionStatus::Running);
    // What had been done by then went with it.
    let journal = host.block_on(store.journal(&RunId::new(&execution("e"), 0))).unwrap().unwrap().1;
    assert!(format!("{journal:?}").contains("of a"), "{journal:?}");
    go_on.store(true, SeqCst);
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("at last"))));
}

#[test]
fn a_run_that_has_to_wait_waits_from_its_start_on() {
    let guest = Scripted::new(|mut h| async move { h.event("go", None).await });
    for park_max in [Duration::ZERO, Duration::from_secs(60)] {
        let store = store(None);
        let host = Host::start(&store, &guest, EngineConfig { park_max, ..config() });
        let Ok(Started::New(view)) = start(&host, json!(1)) else { panic!("it is new") };
        assert_eq!(view.status, ExecutionStatus::Running);
        assert!(view.waiting.is_some(), "{view:?}");
        host.send("e", "go", json!("went")).unwrap();
        assert_eq!(host.end_of("e").result, Some(Json::from(json!("went"))));
    }
}

/// A start that comes twice is made once, whatever has been done for the second one.
#[test]
fn of_a_start_that_was_made_before_nothing_is_seen() {
    struct Counts(Arc<AtomicUsize>);
    impl LogSink for Counts {
        fn line(&self, _: LogLine<'_>) {
            self.0.fetch_add(1, SeqCst);
        }
    }
    let lines = Arc::new(AtomicUsize::new(0));
    // The later ones do not come to an end by themselves.
    let legs = Arc::new(AtomicUsize::new(0));
    let counted = legs.clone();
    let guest = Scripted::new(move |mut h| {
        let leg = counted.fetch_add(1, SeqCst);
        async move {
            h.print("begins");
            let heard = h.step("a", Default::default()).await?;
            h.print("ends");
            match leg {
                0 => Ok(heard),
                _ => std::future::pending().await,
            }
        }
    })
    .step("a", |_| async { completed("of a") })
    .silent();
    let store = store(None);
    let host = Host::start_with_logs(&store, &guest, config(), Arc::new(Counts(lines.clone())));
    assert!(matches!(start(&host, json!(1)), Ok(Started::New(_))));
    let ended = host.end_of("e");
    let printed = lines.load(SeqCst);
    let counted = host.engine.metrics().started.get();

    assert!(matches!(start(&host, json!(1)), Ok(Started::Replay(view)) if view == ended));
    assert!(matches!(start(&host, json!(2)), Err(EngineError::IdTaken { .. })));
    at_rest(&host);
    assert_eq!(legs.load(SeqCst), 3, "they did compute");
    assert_eq!(lines.load(SeqCst), printed);
    assert_eq!(host.engine.metrics().started.get(), counted);
    assert_eq!(host.end_of("e"), ended);
    let (_, journal) = host.block_on(store.journal(&ended.run)).unwrap().unwrap();
    assert_eq!(format!("{journal:?}").matches("of a").count(), 2, "of the step and of the run: {journal:?}");
}

/// Its module is active, but the store has it no more: the start is refused, and all is as before.
#[test]
fn a_start_that_is_not_made_leaves_nothing_behind() {
    let guest = Scripted::new(|mut h| async move { h.step("a", Default::default()).await })
        .step("a", |_| async { completed("of a") })
        .silent();
    let store = store(None);
    let host = Host::start(&store, &guest, EngineConfig { live_max: 1, ..config() });
    remove(&store);
    assert!(matches!(start(&host, json!(1)), Err(EngineError::Store(_))));
    assert_eq!(guest.attempts_of("a"), [1], "it was tried");
    at_rest(&host);
    assert!(host.block_on(store.execution(&execution("e"))).unwrap().is_none());
    // The only place is free again.
    assert!(host.block_on(host.engine.0.places.acquire()).is_ok());
}

/// A run that takes the host down is given up after five times, for which it has to be there.
#[test]
fn after_a_host_that_was_killed_a_start_is_on_disk_before_its_run_begins() {
    let store = store(None);
    let (seen, id) = (store.clone(), Arc::new(Mutex::new("first")));
    let looks_for = id.clone();
    let guest = Scripted::new(|mut h| async move { h.step("a", Default::default()).await })
        .step("a", move |_| {
            let id = execution(&looks_for.lock().unwrap());
            let there = seen.execution(&id).now_or_never().unwrap().unwrap().is_some();
            async move { completed(if there { "after it" } else { "before it" }) }
        })
        .silent();
    let cautious = EngineConfig { caution: Duration::from_secs(60), ..config() };
    let host = Host::start(&store, &guest, cautious.clone());
    host.begin("first");
    assert_eq!(host.end_of("first").result, Some(Json::from(json!("before it"))));
    host.crash();

    *id.lock().unwrap() = "second";
    let host = Host::start(&store, &guest, cautious);
    assert_eq!(host.begin("second").status, ExecutionStatus::Scheduled);
    assert_eq!(host.end_of("second").result, Some(Json::from(json!("after it"))));
}

/// Without ever giving way, too.
#[test]
fn what_a_handler_prints_is_seen_when_its_start_is_on_disk() {
    struct Tells(Arc<AtomicBool>);
    impl LogSink for Tells {
        fn line(&self, line: LogLine<'_>) {
            self.0.fetch_or(line.message == "told", SeqCst);
        }
    }
    let told = Arc::new(AtomicBool::new(false));
    let waits_for = told.clone();
    let guest = Scripted::new(move |h| {
        let told = waits_for.clone();
        async move {
            h.print("told");
            while !told.load(SeqCst) {
                tokio::task::yield_now().await;
            }
            Ok(Json::null())
        }
    });
    let host = Host::start_with_logs(&store(None), &guest, config(), Arc::new(Tells(told)));
    host.begin("e");
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
}
