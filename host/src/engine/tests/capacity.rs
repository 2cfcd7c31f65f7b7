//! Runs of one task at the same time: those beyond the limit stand in line, and hold up nobody else.

use std::sync::atomic::{AtomicUsize, Ordering};

use stepbox_domain::{Digest, Limit, audit::AuditAction, limits::LimitSettings};
use tokio::sync::watch;

use super::*;
use crate::store::{NewVersion, memory::Memory};

fn config_with(limits: &[(Limit, u64)]) -> EngineConfig {
    EngineConfig { limits: Limits::default().with(&settings(limits)), ..config() }
}

fn settings(limits: &[(Limit, u64)]) -> LimitSettings {
    limits.iter().copied().collect()
}

/// A guest whose step is under way until the gate opens, and how many are at most at the same time.
struct Gated {
    guest: Scripted,
    gate: watch::Sender<bool>,
    most: Arc<AtomicUsize>,
}

impl Gated {
    fn new() -> Self {
        let (gate, opened) = watch::channel(false);
        let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let most_seen = most.clone();
        let guest =
            Scripted::new(|mut h| async move { h.step("gated", once()).await }).step("gated", move |_| {
                let (mut opened, now, most) = (opened.clone(), now.clone(), most_seen.clone());
                async move {
                    most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    opened.wait_for(|opened| *opened).await.unwrap();
                    now.fetch_sub(1, Ordering::SeqCst);
                    StepExit::Completed(Json::null())
                }
            });
        Gated { guest, gate, most }
    }

    fn under_way(&self) -> usize {
        self.guest.attempts_of("gated").len()
    }

    fn until_under_way(&self, attempts: usize) {
        until_is("attempts", attempts, || self.under_way());
    }
}

fn until_is(what: &str, wanted: usize, count: impl Fn() -> usize) {
    for _ in 0..10_000 {
        if count() == wanted {
            return;
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    panic!("{} {what}, not {wanted}", count());
}

impl Host {
    fn set_limits(&self, limits: &[(Limit, u64)]) {
        self.engine.0.settings.set(task(), Default::default(), &settings(limits));
    }

    fn until_in_line(&self, runs: usize) {
        until_is("in line", runs, || self.engine.0.capacity.len());
    }

    /// Begins so many runs, of which one is under way and the others stand in line, in this order.
    fn begin_in_line(&self, gated: &Gated, runs: usize) -> Vec<String> {
        let ids = ids(runs);
        self.begin(&ids[0]);
        gated.until_under_way(1);
        ids[1..].iter().for_each(|id| _ = self.begin(id));
        self.until_in_line(runs - 1);
        ids
    }

    fn all_complete(&self, ids: &[String]) {
        for id in ids {
            assert_eq!(self.end_of(id).status, ExecutionStatus::Completed, "{id}");
        }
        self.block_on(self.engine.0.live.empty());
        assert_eq!(self.engine.0.capacity.len(), 0);
    }
}

fn ids(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("e{n}")).collect()
}

/// The same guest under another name.
fn add_task(store: &Memory, name: &str) -> TaskName {
    let other = TaskName::parse(name).unwrap();
    let new = NewVersion {
        task: other.clone(),
        digest: Digest::of(name.as_bytes()),
        component: name.as_bytes().to_vec(),
        manifest: Json::from(json!({ "stepbox": "0.1.0", "task": {}, "steps": [] })),
        compiled_in_ms: 0,
        now: Timestamp::from_ms(0),
        waits: false,
    };
    let audit = AuditEntry {
        task: Some(other.clone()),
        ..Who::default().entry(AuditAction::UploadModule, Timestamp::from_ms(0))
    };
    futures_util::FutureExt::now_or_never(store.add_version(new, audit)).unwrap().unwrap();
    other
}

#[test]
fn a_thousand_runs_of_a_capped_task_queue_and_another_task_goes_on() {
    let gated = Gated::new();
    let store = store(None);
    let other = add_task(&store, "other");
    let host = Host::start(&store, &gated.guest, config_with(&[]));
    host.set_limits(&[(Limit::LiveMax, 2)]);
    let ids = ids(1_000);
    ids.iter().for_each(|id| _ = host.begin(id));
    gated.until_under_way(2);
    host.until_in_line(998);
    assert!(host.engine.0.live.len() <= 2, "the others hold no place");
    let view = host.until("e999", |_| true);
    assert_eq!(host.engine.in_line(&view.run), Some(2), "and one can see why");

    // The other task has the same guest: its runs get as far as the gate.
    let begun = host.block_on(host.engine.start(execution("o"), other, Json::null())).unwrap();
    assert!(matches!(begun, Started::New(_)));
    gated.until_under_way(3);

    gated.gate.send_replace(true);
    host.all_complete(&ids);
    assert_eq!(gated.under_way(), 1_001, "each ran once");
    assert!(gated.most.load(Ordering::SeqCst) <= 3);
    assert_eq!(host.engine.in_line(&view.run), None);
}

#[test]
fn when_the_limit_rises_those_in_line_go_on() {
    let gated = Gated::new();
    let host = Host::start(&store(None), &gated.guest, config_with(&[(Limit::LiveMax, 1)]));
    let ids = host.begin_in_line(&gated, 5);
    host.set_limits(&[(Limit::LiveMax, 4)]);
    gated.until_under_way(4);
    host.until_in_line(1);
    gated.gate.send_replace(true);
    host.all_complete(&ids);
}

/// Who stands still makes room; who is woken stands in line again.
#[test]
fn runs_that_wait_for_events_share_one_place() {
    let guest = Scripted::new(|mut h| async move {
        h.event("go", None).await?;
        h.step("work", once()).await
    });
    let park_max = Duration::from_secs(60);
    let host =
        Host::start(&store(None), &guest, EngineConfig { park_max, ..config_with(&[(Limit::LiveMax, 1)]) });
    let ids = ids(30);
    ids.iter().for_each(|id| _ = host.begin(id));
    for id in &ids {
        host.until(id, |view| matches!(view.waiting, Some(Wait::Event { .. })));
    }
    ids.iter().for_each(|id| _ = host.send(id, "go", json!(null)).unwrap());
    host.all_complete(&ids);
    assert_eq!(guest.attempts_of("work").len(), 30);
}

#[test]
fn no_run_may_be_parked() {
    let guest = Scripted::new(|mut h| async move {
        h.sleep("nap", 20).await?;
        h.step("work", once()).await
    });
    let host = Host::start(&store(None), &guest, config_with(&[(Limit::ParkedMax, 0)]));
    host.begin("e");
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    assert_eq!(guest.legs.load(Ordering::Relaxed), 2, "it was suspended although the wait is short");
}

#[test]
fn a_run_in_line_can_be_cancelled_and_holds_up_nobody() {
    let gated = Gated::new();
    let host = Host::start(&store(None), &gated.guest, config_with(&[(Limit::LiveMax, 1)]));
    host.begin_in_line(&gated, 4);
    host.block_on(host.engine.cancel(&execution("e1"), Who::default())).unwrap();
    assert_eq!(host.engine.0.capacity.len(), 2);
    gated.gate.send_replace(true);
    assert_eq!(host.end_of("e1").status, ExecutionStatus::Cancelled);
    host.all_complete(&["e0", "e2", "e3"].map(str::to_owned));
}

#[test]
fn a_run_in_line_can_be_restarted() {
    let gated = Gated::new();
    let host = Host::start(&store(None), &gated.guest, config_with(&[(Limit::LiveMax, 1)]));
    let ids = host.begin_in_line(&gated, 3);
    let restarted =
        host.block_on(host.engine.restart(&execution("e1"), None, Who::default(), false)).unwrap();
    assert_eq!(restarted.index, 1);
    gated.gate.send_replace(true);
    host.all_complete(&ids);
}

#[test]
fn the_time_of_a_run_in_line_runs_out_like_any_other() {
    let gated = Gated::new();
    let store = store(Some(300));
    let host = Host::start(&store, &gated.guest, config_with(&[(Limit::LiveMax, 1)]));
    let ids = ids(3);
    ids.iter().for_each(|id| _ = host.begin(id));
    for id in &ids {
        let end = host.end_of(id);
        assert_eq!((end.status, end.error.unwrap().kind), (ExecutionStatus::Failed, FailureKind::TimedOut));
    }
    assert_eq!(host.engine.0.capacity.len(), 0);
}

#[test]
fn who_stood_in_line_when_the_host_died_stands_there_again() {
    let gated = Gated::new();
    let store = store(None);
    let host = Host::start(&store, &gated.guest, config_with(&[(Limit::LiveMax, 1)]));
    let ids = host.begin_in_line(&gated, 6);
    host.crash();
    let host = Host::start(&store, &gated.guest, config_with(&[(Limit::LiveMax, 1)]));
    gated.gate.send_replace(true);
    host.all_complete(&ids);
}

#[test]
fn a_rule_holds_a_run_in_line_and_it_comes_back_to_it() {
    let gated = Gated::new();
    let host = Host::start(&store(None), &gated.guest, config_with(&[(Limit::LiveMax, 1)]));
    let ids = host.begin_in_line(&gated, 3);
    let scope = stepbox_domain::pause::scope(Some("e1"), None, None).unwrap();
    host.block_on(host.engine.pause(scope.clone(), None, Who::default())).unwrap();
    gated.gate.send_replace(true);
    assert_eq!(host.end_of("e2").status, ExecutionStatus::Completed, "it is not behind the one that is held");
    host.until("e1", |view| matches!(view.waiting, Some(Wait::Pause { .. })));
    host.block_on(host.engine.resume(scope, Who::default())).unwrap();
    host.all_complete(&ids);
}

#[test]
fn an_attempt_ends_at_the_limit_of_its_task_where_that_comes_before_its_own_timeout() {
    for timeout_ms in [None, Some(60_000)] {
        let options = StepOptions { timeout_ms, ..retries(2, 1) };
        let guest = Scripted::new(move |mut h| {
            let options = options.clone();
            async move { h.step("slow", options).await }
        })
        .step("slow", |_| std::future::pending());
        let host = Host::start(&store(None), &guest, config_with(&[(Limit::AttemptWallMaxMs, 60)]));
        host.begin("e");
        let error = host.end_of("e").error.unwrap();
        assert_eq!(guest.attempts_of("slow"), [1, 2], "the step may be tried again");
        assert_eq!(error.kind, FailureKind::Exhausted);
        assert_eq!(
            error.message,
            "step \"slow\" was interrupted in attempt 2: it took more than 60 ms by the clock \
             (attemptWallMaxMs) (the last of 2 attempts)"
        );
    }
}

#[test]
fn a_run_makes_as_many_calls_as_its_task_may() {
    let guest = Scripted::new(|mut h| async move {
        for n in 0..10 {
            h.step(&format!("s{n}"), once()).await?;
        }
        Ok(Json::null())
    });
    let host = Host::start(&store(None), &guest, config_with(&[(Limit::StepsMax, 3)]));
    host.begin("e");
    let error = host.end_of("e").error.unwrap();
    assert_eq!(error.kind, FailureKind::OverLimit);
    assert_eq!(
        error.message,
        "the run made more than 3 durable calls, the limit of its task (stepsMax); \"s3\" was one too many"
    );
}

#[test]
fn what_comes_to_a_run_is_no_larger_than_a_value_of_its_task() {
    let guest = Scripted::new(|mut h| async move { h.event("go", None).await });
    let host = Host::start(&store(None), &guest, config_with(&[(Limit::ValueMaxBytes, 2_048)]));
    let text = |bytes: usize| json!("x".repeat(bytes - 2));
    let start =
        |bytes: usize| host.block_on(host.engine.start(execution("e"), task(), Json::from(text(bytes))));
    let too_large = |error: EngineError, what: &str| {
        assert_eq!(
            error.to_string(),
            format!(
                "{what} has 2049 bytes; a value of task \"t\" may have 2048 bytes (valueMaxBytes): keep \
                 large data elsewhere and pass a reference to it, or raise the limit with PUT \
                 /admin/v1/modules/t/limits"
            )
        );
    };
    too_large(start(2_049).unwrap_err(), "the payload");
    assert!(matches!(start(2_048), Ok(Started::New(_))));
    // What was let in once is known whatever the limit is now.
    host.set_limits(&[(Limit::ValueMaxBytes, 1_024)]);
    assert!(matches!(start(2_048), Ok(Started::Replay(_))));
    host.set_limits(&[(Limit::ValueMaxBytes, 2_048)]);

    too_large(host.send("e", "go", text(2_049)).unwrap_err(), "the event");
    assert!(matches!(host.send("none", "go", text(2_049)), Err(EngineError::UnknownExecution(_))));
    host.send("e", "go", text(2_048)).unwrap();
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);

    let restart = |payload: Option<serde_json::Value>| {
        let payload = payload.map(Json::from);
        host.block_on(host.engine.restart(&execution("e"), payload, Who::default(), true))
    };
    too_large(restart(Some(text(2_049))).unwrap_err(), "the payload");
    let result = Ok(Json::from(text(2_049)));
    let step = stepbox_domain::StepKey::parse("a").unwrap();
    let resolved =
        host.block_on(host.engine.resolve_step(&execution("e"), step, result, Who::default(), true));
    too_large(resolved.unwrap_err(), "the result");
    host.set_limits(&[(Limit::ValueMaxBytes, 1_024)]);
    restart(None).expect("the payload that it has it may keep");
}
