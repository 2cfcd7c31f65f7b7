//! When an outcome is on disk, and who hears of it.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    time::Duration,
};

use futures_util::FutureExt as _;
use serde_json::json;
use stepbox_domain::{
    ExecutionStatus, Json, RunId,
    run::{RunEnd, RunOutcome},
};

use super::scripted::*;
use crate::{
    engine::{
        Delivery, EngineConfig,
        live_run::{AHEAD_BYTES_MAX, AHEAD_RECORDS_MAX},
        waiters::Ended,
    },
    sandbox::{LogLine, LogSink, StepExit},
    store::{Views, memory::Memory},
};

fn completed(what: &str) -> StepExit {
    StepExit::Completed(Json::from(json!(what)))
}

/// Whether the journal of the run has `text`.
fn is_written(store: &Memory, id: &str, text: &str) -> bool {
    let journal = store.journal(&RunId::new(&execution(id), 0)).now_or_never().unwrap().unwrap();
    journal.is_some_and(|journal| format!("{:?}", journal.1).contains(text))
}

/// Two steps, the second of which says whether the outcome of the first is on disk.
fn second_looks_for_first(store: &Arc<Memory>) -> Scripted {
    let seen = store.clone();
    Scripted::new(|mut h| async move {
        h.step("first", Default::default()).await?;
        h.step("second", Default::default()).await
    })
    .step("first", |_| async { completed("of the first") })
    .step("second", move |_| {
        let written = is_written(&seen, "e", "of the first");
        async move { completed(if written { "after it" } else { "before it" }) }
    })
}

#[test]
fn what_a_step_came_to_is_on_disk_before_anything_of_the_next_one_is_seen() {
    let store = store(None);
    let guest = second_looks_for_first(&store);
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("after it"))));
}

#[test]
fn a_step_that_nothing_is_seen_of_goes_ahead_of_the_disk() {
    let store = store(None);
    let guest = second_looks_for_first(&store).silent();
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("before it"))));
    assert!(is_written(&store, "e", "of the first"));
}

/// What a crash may have done again is bounded, in steps and in bytes.
#[test]
fn a_run_goes_so_far_ahead_and_no_further() {
    for (length, ahead_max) in [(1, AHEAD_RECORDS_MAX), (AHEAD_BYTES_MAX / 4, 4)] {
        let store = store(None);
        let (seen, furthest) = (store.clone(), Arc::new(AtomicUsize::new(0)));
        let noted = furthest.clone();
        let done = Arc::new(AtomicUsize::new(0));
        let guest = Scripted::new(|mut h| async move {
            for _ in 0..300 {
                h.step("a", Default::default()).await?;
            }
            Ok(Json::null())
        })
        .step("a", move |_| {
            let journal = seen.journal(&RunId::new(&execution("e"), 0)).now_or_never().unwrap().unwrap();
            let ahead = done.fetch_add(1, SeqCst) - journal.map_or(0, |journal| journal.1.len());
            noted.fetch_max(ahead, SeqCst);
            async move { completed(&"x".repeat(length)) }
        })
        .silent();
        let host = Host::start(&store, &guest, config());
        host.begin("e");
        assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
        let furthest = furthest.load(SeqCst);
        assert!((2..ahead_max).contains(&furthest), "{furthest} of {ahead_max}");
    }
}

#[test]
fn what_a_handler_prints_is_seen_when_what_it_follows_from_is_on_disk() {
    let store = store(None);
    let log = Arc::new(SeesTheDisk { store: store.clone(), lines: Mutex::default() });
    let guest = Scripted::new(|mut h| async move {
        h.print("before");
        h.step("a", Default::default()).await?;
        h.print("after");
        Ok(Json::null())
    })
    .step("a", |_| async { completed("of a") })
    .silent();
    let host = Host::start_with_logs(&store, &guest, config(), log.clone());
    host.begin("e");
    host.end_of("e");
    let lines = std::mem::take(&mut *log.lines.lock().unwrap());
    let lines: Vec<_> = lines.iter().map(|(line, written)| (line.as_str(), *written)).collect();
    assert_eq!(lines, [("the handler is called", true), ("before", true), ("after", true)]);
}

/// Notes of each line whether the outcome of the step is on disk.
struct SeesTheDisk {
    store: Arc<Memory>,
    lines: Mutex<Vec<(String, bool)>>,
}

impl LogSink for SeesTheDisk {
    fn line(&self, line: LogLine<'_>) {
        let written = is_written(&self.store, "e", "of a");
        self.lines.lock().unwrap().push((line.message.to_owned(), written));
    }
}

#[test]
fn what_a_handler_has_heard_is_written_while_it_computes_on() {
    let store = store(None);
    let go_on = Arc::new(AtomicBool::new(false));
    let waits_for = go_on.clone();
    let guest = Scripted::new(move |mut h| {
        let go_on = waits_for.clone();
        async move {
            let heard = h.step("a", Default::default()).await?;
            while !go_on.load(SeqCst) {
                tokio::task::yield_now().await;
            }
            Ok(heard)
        }
    })
    .step("a", |_| async { completed("of a") });
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    for _ in 0..2_000 {
        if is_written(&store, "e", "of a") {
            break;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    assert!(is_written(&store, "e", "of a"), "it stays unwritten as long as the handler computes");
    assert!(!is_written(&store, "e", "RunCompleted"));
    go_on.store(true, SeqCst);
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("of a"))));
}

#[test]
fn who_waits_hears_of_the_end_as_the_store_has_it() {
    let ends = |exit: fn() -> StepExit| {
        Scripted::new(|mut h| async move { h.step("a", Default::default()).await })
            .step("a", move |_| async move { exit() })
    };
    let well = ends(|| completed("well"));
    let ill = ends(|| fails("declined"));
    for (guest, status) in [(well, ExecutionStatus::Completed), (ill, ExecutionStatus::Failed)] {
        let store = store(None);
        let host = Host::start(&store, &guest, config());
        host.begin("e");
        let told = host.end_of("e");
        assert_eq!(told.status, status);
        let stored = host.block_on(store.execution(&execution("e"))).unwrap().unwrap();
        assert_eq!(format!("{told:?}"), format!("{stored:?}"));
    }
}

#[test]
fn who_waits_before_and_after_a_crash_hears_the_same() {
    let store = store(None);
    let guest = Scripted::new(|mut h| async move {
        h.step("a", Default::default()).await?;
        h.event("go", None).await
    });
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    host.until("e", |view| view.waiting.is_some());
    // Its start is fresh no more.
    let patience = Duration::from_millis(1);
    let view = host.block_on(host.engine.wait(&execution("e"), patience)).unwrap();
    assert_eq!((view.status, view.waiting.is_some()), (ExecutionStatus::Running, true));
    host.crash();

    let host = Host::start(&store, &guest, config());
    host.send("e", "go", json!("went")).unwrap();
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("went"))));
    assert_eq!(guest.attempts_of("a"), [1]);
}

/// Whoever wrote the end may come to tell of it late, when an admin has mended the run.
#[test]
fn an_end_that_is_told_late_is_not_the_end_of_what_was_mended_since() {
    let go_on = Arc::new(AtomicBool::new(false));
    let waits_for = go_on.clone();
    let guest = Scripted::new(|mut h| async move { h.step("a", Default::default()).await }).step(
        "a",
        move |attempt| {
            let go_on = waits_for.clone();
            async move {
                if attempt == 1 {
                    return fails("declined");
                }
                while !go_on.load(SeqCst) {
                    tokio::task::yield_now().await;
                }
                completed("mended")
            }
        },
    );
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    let failed = host.end_of("e");
    assert_eq!(failed.status, ExecutionStatus::Failed);
    let end = RunEnd {
        at: failed.completed_at.unwrap(),
        outcome: RunOutcome::Failed(failed.error.clone().unwrap()),
    };
    host.retry("e", "a").unwrap();
    host.until("e", |view| view.status == ExecutionStatus::Running);

    let (engine, id) = (host.engine.clone(), execution("e"));
    let told = host.block_on(async {
        let wait = engine.wait(&id, Duration::from_secs(10));
        let late = async {
            // The one that waits has looked by now: the reference model answers at once.
            tokio::task::yield_now().await;
            let ended = Some(Ended { run: failed.run.clone(), end });
            engine.0.waiters.wake(&id, ended);
            tokio::task::yield_now().await;
            go_on.store(true, SeqCst);
        };
        tokio::join!(wait, late).0.unwrap()
    });
    assert_eq!(told.result, Some(Json::from(json!("mended"))), "{told:?}");
}

#[test]
fn an_event_for_a_run_whose_driver_has_not_left_yet_wakes_it_all_the_same() {
    let store = store(None);
    let guest = Scripted::new(|mut h| async move { h.event("go", None).await });
    let host = Host::start(&store, &guest, EngineConfig { park_max: Duration::ZERO, ..config() });
    host.begin("e");
    let view = host.until("e", |view| view.waiting.is_some());
    let inner = &host.engine.0;
    host.block_on(inner.live.empty());
    // As if it was on its way out.
    assert!(inner.live.enter(view.run_key).is_some());
    assert_eq!(host.send("e", "go", json!("went")).unwrap(), Delivery::Delivered);
    inner.live.leave(view.run_key, false, &inner.ready);
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("went"))));
}
