//! The engine on its own: a scripted guest, the store's reference model.

mod ahead;
mod bulk;
mod capacity;
mod kept;
mod last_words;
mod opening;
mod outcomes;
mod pauses;
mod repair;
mod scripted;
mod simulation;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use stepbox_domain::{
    ExecutionStatus, FailureKind, Json, Timestamp,
    journal::Record,
    retry::RetryPolicy,
    run::Wait,
    step::{Interruption, StepOptions, TimeoutScope},
};
use tokio::sync::Notify;

use self::scripted::*;
use super::*;
use crate::{sandbox::StepExit, store::Views};

fn retries(attempts_max: u32, delay_first_ms: u64) -> StepOptions {
    let retry = RetryPolicy {
        attempts_max,
        delay_first_ms,
        growth_percent: 100,
        delay_max_ms: 60_000,
        jitter: false,
    };
    StepOptions { retry, ..StepOptions::default() }
}

fn once() -> StepOptions {
    StepOptions::default()
}

#[test]
fn a_handler_runs_its_steps_and_returns() {
    let guest = Scripted::new(|mut h| async move {
        h.step("a", once()).await?;
        h.step("b", once()).await?;
        Ok(Json::from(json!("done")))
    });
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    let end = host.end_of("e");
    assert_eq!(end.status, ExecutionStatus::Completed);
    assert_eq!(end.result, Some(Json::from(json!("done"))));
    assert_eq!(*guest.attempts.lock().unwrap(), [("a".to_owned(), 1), ("b".to_owned(), 1)]);
}

#[test]
fn failed_attempts_are_retried_parked_or_suspended() {
    for delay_ms in [1, 120] {
        let guest = Scripted::new(move |mut h| async move { h.step("flaky", retries(3, delay_ms)).await })
            .step("flaky", |attempt| async move {
                if attempt < 3 { fails("busy") } else { StepExit::Completed(Json::from(json!("ok"))) }
            });
        let host = Host::start(&store(None), &guest, config());
        host.begin("e");
        assert_eq!(host.end_of("e").status, ExecutionStatus::Completed, "delay {delay_ms}");
        assert_eq!(guest.attempts_of("flaky"), [1, 2, 3]);
    }
}

#[test]
fn a_dead_step_fails_the_run_with_its_step_and_attempt() {
    let guest = Scripted::new(|mut h| async move { h.step("charge", retries(2, 1)).await })
        .step("charge", |_| async { fails("declined") });
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    let error = host.end_of("e").error.unwrap();
    assert_eq!(error.kind, FailureKind::Exhausted);
    assert_eq!((error.step.unwrap().as_str(), error.attempt), ("charge", Some(2)));
    assert!(error.message.contains("declined"));
}

#[test]
fn a_step_that_outlives_its_timeout_is_interrupted() {
    for scope in [TimeoutScope::AllAttempts, TimeoutScope::PerAttempt] {
        let options = StepOptions { timeout_ms: Some(60), timeout_scope: scope, ..retries(5, 1) };
        let guest = Scripted::new(move |mut h| {
            let options = options.clone();
            async move { h.step("slow", options).await }
        })
        .step("slow", |_| std::future::pending());
        let host = Host::start(&store(None), &guest, config());
        host.begin("e");
        let error = host.end_of("e").error.unwrap();
        assert_eq!(error.kind, FailureKind::TimedOut);
        assert_eq!(guest.attempts_of("slow"), [1], "a timeout is not retried");
    }
}

#[test]
fn the_execution_deadline_interrupts_whatever_is_under_way() {
    let in_step = Scripted::new(|mut h| async move { h.step("slow", once()).await })
        .step("slow", |_| std::future::pending());
    let in_handler = Scripted::new(|_| std::future::pending());
    let asleep = Scripted::new(|mut h| async move {
        h.sleep("long", 3_600_000).await?;
        Ok(Json::null())
    });
    for guest in [in_step, in_handler, asleep] {
        let host = Host::start(&store(Some(100)), &guest, config());
        host.begin("e");
        let end = host.end_of("e");
        assert_eq!(end.status, ExecutionStatus::Failed);
        assert_eq!(end.error.unwrap().kind, FailureKind::TimedOut);
    }
}

#[test]
fn a_long_sleep_holds_no_instance_and_ends_after_a_crash_too() {
    let guest = Scripted::new(|mut h| async move {
        h.step("before", once()).await?;
        h.sleep("nap", 400).await?;
        h.step("after", once()).await
    });
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    let standing = host.until("e", |view| view.waiting.is_some());
    assert!(matches!(standing.waiting, Some(Wait::Sleep { .. })));
    host.block_on(host.engine.0.live.empty());
    assert_eq!(host.engine.0.live.len(), 0);
    host.crash();

    let host = Host::start(&store, &guest, config());
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    assert_eq!(guest.attempts_of("before"), [1]);
    assert_eq!(guest.attempts_of("after"), [1]);
}

#[test]
fn events_are_taken_in_order_before_during_and_after_the_wait() {
    let guest = Scripted::new(|mut h| async move {
        let mut got = Vec::new();
        for _ in 0..3 {
            got.push(h.event("paid", None).await?.to_value().unwrap());
            h.sleep("pause", 120).await?;
        }
        Ok(Json::from(json!(got)))
    });
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    host.send("e", "paid", json!(1)).unwrap();
    host.send("e", "paid", json!(2)).unwrap();
    assert_eq!(host.send("e", "other", json!("x")).unwrap(), Delivery::Buffered);
    host.until(
        "e",
        |view| matches!(&view.waiting, Some(Wait::Event { step, .. }) if step.as_str() == "paid#3"),
    );
    host.block_on(host.engine.0.live.empty());
    assert_eq!(host.send("e", "paid", json!(3)).unwrap(), Delivery::Delivered);
    assert_eq!(host.end_of("e").result, Some(Json::from(json!([1, 2, 3]))));
    assert!(matches!(host.send("e", "paid", json!(4)), Err(EngineError::AlreadyOver { .. })));
}

#[test]
fn a_wait_times_out_parked_and_suspended() {
    for timeout_ms in [20, 150] {
        let guest = Scripted::new(move |mut h| async move { h.event("paid", Some(timeout_ms)).await });
        let host = Host::start(&store(None), &guest, config());
        host.begin("e");
        let error = host.end_of("e").error.unwrap();
        assert_eq!(error.kind, FailureKind::TimedOut);
        assert!(error.message.contains("paid"));
    }
}

#[test]
fn a_completed_step_is_not_run_again_after_a_crash_and_one_under_way_is() {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let guest = Scripted::new(|mut h| async move {
        h.step("done", once()).await?;
        h.step("open", once()).await
    })
    .step("open", move |attempt| {
        let gate = opened.clone();
        async move {
            if attempt == 1 {
                gate.notify_one();
                std::future::pending::<()>().await;
            }
            StepExit::Completed(Json::from(json!(attempt)))
        }
    });
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    host.block_on(gate.notified());
    // Until it is on disk that the attempt is under way.
    let run = host.until("e", |_| true).run;
    for _ in 0..2_000 {
        let (_, records) = host.block_on(store.journal(&run)).unwrap().unwrap();
        if records.len() == 2 {
            break;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    host.crash();

    let host = Host::start(&store, &guest, config());
    let end = host.end_of("e");
    assert_eq!(end.result, Some(Json::from(json!(2))), "the attempt that was cut off is counted");
    assert_eq!(guest.attempts_of("done"), [1]);
    assert_eq!(guest.attempts_of("open"), [1, 2]);
}

#[test]
fn a_run_that_takes_the_host_down_before_it_records_anything_is_given_up() {
    let entered = Arc::new(Notify::new());
    let tell = entered.clone();
    let guest = Scripted::new(move |_| {
        let tell = tell.clone();
        async move {
            tell.notify_one();
            std::future::pending().await
        }
    });
    let store = store(None);
    let mut host = Host::start(&store, &guest, config());
    host.begin("e");
    for _ in 0..3 {
        host.block_on(entered.notified());
        host.crash();
        host = Host::start(&store, &guest, config());
    }
    let error = host.end_of("e").error.unwrap();
    assert_eq!(error.kind, FailureKind::HostCrashed);
}

#[test]
fn cancel_interrupts_and_is_final() {
    let guest = Scripted::new(|mut h| async move { h.step("slow", once()).await })
        .step("slow", |_| std::future::pending());
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    while guest.attempts_of("slow").is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    host.block_on(host.engine.cancel(&execution("e"), Who::default())).unwrap();
    let view = host.until("e", |_| true);
    assert_eq!(view.status, ExecutionStatus::Cancelled);
    let journal = |host: &Host| host.block_on(store.journal(&view.run)).unwrap().unwrap().1.len();
    let before = journal(&host);
    host.block_on(host.engine.0.live.empty());
    assert_eq!(journal(&host), before, "nothing is recorded after the answer");
    assert!(matches!(
        host.block_on(host.engine.cancel(&execution("e"), Who::default())),
        Err(EngineError::AlreadyOver { status: ExecutionStatus::Cancelled, .. })
    ));
}

#[test]
fn stopping_lets_steps_finish_and_suspends_the_rest() {
    let guest = Scripted::new(|mut h| async move {
        h.step("short", once()).await?;
        h.step("next", once()).await
    })
    .step("short", |_| async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        StepExit::Completed(Json::null())
    });
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    host.begin("e");
    while guest.attempts_of("short").is_empty() {
        std::thread::sleep(Duration::from_millis(1));
    }
    host.block_on(host.engine.stop(Duration::from_secs(5)));
    assert_eq!(guest.attempts_of("next"), [0u32; 0], "nothing new begins");
    host.crash();
    let host = Host::start(&store, &guest, config());
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    assert_eq!(guest.attempts_of("short"), [1], "it was let finish");
}

#[test]
fn an_attempt_that_outlives_the_patience_is_interrupted_and_costs_no_retry() {
    let guest = Scripted::new(|mut h| async move { h.step("slow", once()).await }).step(
        "slow",
        |attempt| async move {
            if attempt == 1 {
                std::future::pending::<()>().await;
            }
            StepExit::Completed(Json::null())
        },
    );
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    // Several, since it is a race that could be lost.
    let ids: Vec<String> = (0..8).map(|n| format!("e{n}")).collect();
    ids.iter().for_each(|id| _ = host.begin(id));
    while guest.attempts_of("slow").len() < ids.len() {
        std::thread::sleep(Duration::from_millis(1));
    }
    host.block_on(host.engine.stop(Duration::from_millis(50)));
    for id in &ids {
        let run = host.until(id, |_| true).run;
        let (_, records) = host.block_on(store.journal(&run)).unwrap().unwrap();
        let stopped = matches!(
            records.last(),
            Some(Record::AttemptInterrupted { step: 0, attempt: 1, cause: Interruption::Stopped, .. })
        );
        assert!(stopped, "a stop in good order is not taken for a crash: {records:?}");
    }
    host.crash();
    let host = Host::start(&store, &guest, config());
    for id in &ids {
        assert_eq!(host.end_of(id).status, ExecutionStatus::Completed);
    }
    let mut attempts = guest.attempts_of("slow");
    attempts.sort_unstable();
    assert_eq!(attempts, [[1; 8], [2; 8]].concat());
}

#[test]
fn more_runs_than_places_all_come_to_their_end() {
    let guest = Scripted::new(|mut h| async move {
        h.event("go", None).await?;
        h.sleep("nap", 20).await?;
        h.step("work", once()).await
    });
    let host = Host::start(&store(None), &guest, config());
    let ids: Vec<String> = (0..50).map(|n| format!("e{n}")).collect();
    ids.iter().for_each(|id| _ = host.begin(id));
    ids.iter().for_each(|id| _ = host.send(id, "go", json!(null)).unwrap());
    for id in &ids {
        assert_eq!(host.end_of(id).status, ExecutionStatus::Completed, "{id}");
    }
    assert_eq!(guest.attempts_of("work").len(), 50);
}

#[test]
fn the_same_start_again_answers_how_the_first_stands() {
    let guest = Scripted::new(|mut h| async move { h.step("a", once()).await });
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    host.end_of("e");
    let again = host.block_on(host.engine.start(execution("e"), task(), Json::null())).unwrap();
    assert!(matches!(again, Started::Replay(view) if view.status == ExecutionStatus::Completed));
    let other = host.block_on(host.engine.start(execution("e"), task(), Json::from(json!(1))));
    assert!(matches!(other, Err(EngineError::IdTaken { .. })));
    assert_eq!(guest.attempts_of("a"), [1]);
}
