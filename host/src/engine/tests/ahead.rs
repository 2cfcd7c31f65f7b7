//! Runs that go on with an event while that is on its way to the disk.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::json;
use stepbox_domain::{EventName, ExecutionStatus, Json, RunId};
use tokio::task::JoinHandle;

use super::scripted::*;
use crate::{
    engine::{Delivery, EngineConfig, EngineError},
    sandbox::{LogLine, LogSink, StepExit},
    store::{Views as _, memory::Memory},
};

/// Counts the lines "told".
#[derive(Default)]
struct Tells(AtomicUsize);

impl LogSink for Tells {
    fn line(&self, line: LogLine<'_>) {
        self.0.fetch_add(usize::from(line.message == "told"), SeqCst);
    }
}

/// Waits for "go", prints "told", does the step "a", and returns what was sent and whether that had been
/// written when the step began.
fn guest(heard: &Arc<AtomicBool>, store: &Arc<Memory>) -> Scripted {
    let (heard, store) = (heard.clone(), store.clone());
    Scripted::new(move |mut h| {
        let heard = heard.clone();
        async move {
            let payload = h.event("go", None).await?;
            heard.store(true, SeqCst);
            h.print("told");
            let written = h.step("a", Default::default()).await?;
            Ok(Json::from(json!([payload, written])))
        }
    })
    .step("a", move |_| {
        let written = journal(&store).contains("EventConsumed");
        async move { StepExit::Completed(Json::from(json!(written))) }
    })
}

/// That of "e".
fn journal(store: &Memory) -> String {
    let run = RunId::new(&execution("e"), 0);
    format!("{:?}", store.journal(&run).now_or_never().unwrap().unwrap().unwrap().1)
}

/// A host with "e" parked at its wait.
fn parked(store: &Arc<Memory>, guest: &Scripted, logs: &Arc<Tells>) -> Host {
    let config = EngineConfig { park_max: Duration::from_secs(60), ..config() };
    let host = Host::start_with_logs(store, guest, config, logs.clone());
    host.begin("e");
    until(|| host.engine.0.parking.len() == 1);
    host
}

fn until(condition: impl Fn() -> bool) {
    for _ in 0..10_000 {
        if condition() {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("never came to it");
}

fn sending(host: &Host, payload: serde_json::Value) -> JoinHandle<Result<Delivery, EngineError>> {
    let (engine, name) = (host.engine.clone(), EventName::parse("go").unwrap());
    host.spawn(async move { engine.send_event(&execution("e"), &name, &Json::from(payload)).await })
}

#[test]
fn a_parked_run_goes_on_before_its_event_is_on_disk_and_nothing_is_seen_of_that() {
    for silent in [true, false] {
        let (store, heard, logs) = (store(None), Arc::default(), Arc::<Tells>::default());
        let guest = guest(&heard, &store);
        let guest = if silent { guest.silent() } else { guest };
        let host = parked(&store, &guest, &logs);
        let on_its_way = store.event_gets_lost.try_lock().unwrap();
        let sent = sending(&host, json!("now"));
        until(|| heard.load(SeqCst));
        if silent {
            until(|| guest.attempts_of("a") == [1]);
        }
        let view = host.block_on(store.execution(&execution("e"))).unwrap().unwrap();
        assert!(view.waiting.is_some(), "{view:?}");
        assert_eq!(logs.0.load(SeqCst), 0);
        assert!(!journal(&store).contains("EventConsumed"));
        assert!(!sent.is_finished(), "an answer means that it is on disk");

        drop(on_its_way);
        assert_eq!(host.block_on(sent).unwrap().unwrap(), Delivery::Delivered);
        // A step that may be seen comes after it.
        assert_eq!(host.end_of("e").result, Some(Json::from(json!(["now", !silent]))));
        assert_eq!((logs.0.load(SeqCst), guest.attempts_of("a")), (1, vec![1]));
        assert_eq!(host.engine.metrics().events.get(), 1);
    }
}

/// Told of an event, "e" has done its step by now; then the event gets lost.
fn told_of_one_that_gets_lost(host: &Host, store: &Memory, guest: &Scripted, meanwhile: impl FnOnce()) {
    let mut gets_lost = store.event_gets_lost.try_lock().unwrap();
    let sent = sending(host, json!("lost"));
    until(|| guest.attempts_of("a") == [1]);
    meanwhile();
    *gets_lost = true;
    drop(gets_lost);
    assert!(matches!(host.block_on(sent).unwrap(), Err(EngineError::Store(_))));
}

#[test]
fn a_run_that_was_told_of_an_event_that_did_not_come_waits_for_the_next() {
    let (store, heard, logs) = (store(None), Arc::default(), Arc::<Tells>::default());
    let guest = guest(&heard, &store).silent();
    let host = parked(&store, &guest, &logs);
    told_of_one_that_gets_lost(&host, &store, &guest, || ());

    // It has been forgotten, and so has all that came of it.
    until(|| host.engine.0.parking.len() == 1 && guest.legs.load(SeqCst) == 2);
    let view = host.block_on(store.execution(&execution("e"))).unwrap().unwrap();
    assert_eq!((view.status, logs.0.load(SeqCst)), (ExecutionStatus::Running, 0));
    assert!(!journal(&store).contains("EventConsumed"), "the wait, and nothing else");

    assert_eq!(host.send("e", "go", json!("came")).unwrap(), Delivery::Delivered);
    assert_eq!(host.end_of("e").result, Some(Json::from(json!(["came", false]))));
    assert_eq!(logs.0.load(SeqCst), 1);
}

/// Which has its number then.
#[test]
fn what_a_run_was_told_of_an_event_is_not_taken_for_the_one_that_came_instead() {
    let (store, heard, logs) = (store(None), Arc::default(), Arc::<Tells>::default());
    let guest = guest(&heard, &store).silent();
    let host = parked(&store, &guest, &logs);
    let mut instead = None;
    told_of_one_that_gets_lost(&host, &store, &guest, || instead = Some(sending(&host, json!("came"))));
    assert_eq!(host.block_on(instead.unwrap()).unwrap().unwrap(), Delivery::Delivered);
    assert_eq!(host.end_of("e").result, Some(Json::from(json!(["came", false]))));
}

/// It would have to wait in its middle.
#[test]
fn after_a_step_that_was_seen_the_next_begins_when_that_is_on_disk() {
    for silent in [true, false] {
        let guest = Scripted::new(|mut h| async move {
            h.event("go", None).await?;
            h.step("a", Default::default()).await?;
            h.step("b", Default::default()).await?;
            h.step("c", Default::default()).await
        });
        let guest = if silent { guest.silent() } else { guest };
        let host = parked(&store(None), &guest, &Arc::default());
        host.send("e", "go", json!(null)).unwrap();
        assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
        assert_eq!(*guest.gate_was_open.lock().unwrap(), [false, !silent, !silent]);
    }
}
