//! Repairs: what changes, what stays, and who wins a race.

use std::sync::{
    Mutex,
    atomic::{AtomicBool, AtomicU32, Ordering},
    mpsc,
};

use stepbox_domain::{
    Failure, RunId, StepKey,
    audit::AuditAction,
    repair::RepairError,
    step::{Overrides, StepStatus},
};

use super::*;
use crate::store::{AuditFilter, AuditView, RunView, Trigger};

pub(super) fn key(step: &str) -> StepKey {
    StepKey::parse(step).unwrap()
}

fn retry(step: &str) -> StepRetry {
    StepRetry { step: key(step), overrides: Overrides::default(), version: None }
}

pub(super) fn admin() -> Who {
    Who { by: Some("ada".to_owned()), reason: Some("the bank is back".to_owned()) }
}

/// What a step does that fails for as long as `broken` is set.
pub(super) fn breaks(
    broken: &Arc<AtomicBool>,
) -> impl Fn(u32) -> futures_util::future::Ready<StepExit> + Send + Sync + 'static {
    let broken = broken.clone();
    move |attempt| {
        futures_util::future::ready(match broken.load(Ordering::Acquire) {
            true => fails("declined"),
            false => StepExit::Completed(Json::from(json!(attempt))),
        })
    }
}

pub(super) fn broken() -> Arc<AtomicBool> {
    Arc::new(AtomicBool::new(true))
}

/// Two steps, the second of which is broken.
fn order(broken: &Arc<AtomicBool>) -> Scripted {
    Scripted::new(|mut h| async move {
        h.step("reserve", once()).await?;
        h.step("charge", retries(2, 1)).await
    })
    .step("charge", breaks(broken))
}

impl Host {
    pub(super) fn retry(&self, id: &str, step: &str) -> Result<Retried, EngineError> {
        self.block_on(self.engine.retry_step(&execution(id), retry(step), admin(), false))
    }

    fn restart(&self, id: &str) -> Result<Restarted, EngineError> {
        self.block_on(self.engine.restart(&execution(id), None, admin(), false))
    }

    pub(super) fn journal(&self, run: &RunId) -> Vec<Record> {
        self.block_on(self.engine.0.store.journal(run)).unwrap().unwrap().1
    }

    fn runs(&self, id: &str) -> Vec<RunView> {
        self.block_on(self.engine.0.store.runs(&execution(id))).unwrap().unwrap()
    }

    pub(super) fn audit(&self, action: AuditAction) -> Vec<AuditView> {
        let filter = AuditFilter { action: Some(action), ..AuditFilter::default() };
        self.block_on(self.engine.0.store.audit(&filter, 1_000, 0)).unwrap().0
    }

    /// All that the store says of an execution, and the length of the audit trail.
    fn dump(&self, id: &str) -> String {
        let view = self.until(id, |_| true);
        let (_, audited) = self.block_on(self.engine.0.store.audit(&AuditFilter::default(), 1, 0)).unwrap();
        let runs = self.runs(id);
        let journals: Vec<_> = runs.iter().map(|run| self.journal(&run.run)).collect();
        format!("{view:#?} {runs:#?} {journals:#?} {audited}")
    }
}

#[test]
fn a_dead_step_is_tried_again_in_its_run_after_the_run_failed() {
    let broken = broken();
    let guest = order(&broken);
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    let failed = host.end_of("e");
    assert_eq!(failed.status, ExecutionStatus::Failed);

    broken.store(false, Ordering::Release);
    let retried = host.retry("e", "charge").unwrap();
    assert_eq!((retried.run.clone(), retried.attempt), (failed.run.clone(), 3));
    assert_eq!((retried.effects.runs, retried.effects.kept), (vec![key("charge")], vec![key("reserve")]));

    let end = host.end_of("e");
    assert_eq!((end.status, end.result), (ExecutionStatus::Completed, Some(Json::from(json!(3)))));
    assert_eq!((end.run, end.error), (failed.run, None));
    assert_eq!(guest.attempts_of("reserve"), [1], "what is completed stays");
    assert_eq!(guest.attempts_of("charge"), [1, 2, 3], "and the attempts before are counted on");
}

#[test]
fn a_retry_is_kept_in_the_audit_trail_with_what_was_before_and_after() {
    let broken = broken();
    let host = Host::start(&store(None), &order(&broken), config());
    host.begin("e");
    host.end_of("e");
    broken.store(false, Ordering::Release);
    let overrides = Overrides { attempts_max: Some(7), timeout_ms: None };
    let retry = StepRetry { overrides, ..retry("charge") };
    host.block_on(host.engine.retry_step(&execution("e"), retry, admin(), false)).unwrap();

    let [audit] = &host.audit(AuditAction::RetryStep)[..] else { panic!("one entry") };
    let entry = &audit.entry;
    assert_eq!((entry.actor.as_deref(), entry.reason.as_deref()), (Some("ada"), Some("the bank is back")));
    assert_eq!((entry.execution.as_ref(), entry.task.as_ref()), (Some(&execution("e")), Some(&task())));
    assert_eq!(entry.target.as_deref(), Some("charge"));
    let before = json!({ "status": "failed", "run": "e:run:0", "version": 1, "step": "dead", "attempts": 2 });
    assert_eq!(entry.before.to_value(), Some(before));
    let after = json!({
        "status": "running", "run": "e:run:0", "version": 1, "attempt": 3, "overrides": { "attempts_max": 7 }
    });
    assert_eq!(entry.after.to_value(), Some(after));
}

#[test]
fn a_dead_step_is_tried_again_while_its_run_goes_another_way() {
    // Parked with its instance, and suspended without.
    for park_max_ms in [60_000, 1] {
        let broken = broken();
        let guest = Scripted::new(|mut h| async move {
            match h.step("charge", once()).await {
                Ok(paid) => Ok(paid),
                Err(Ending::Host) => Err(Ending::Host),
                Err(Ending::Failed(_)) => h.event("paid-by-hand", None).await,
            }
        })
        .step("charge", breaks(&broken));
        let config = EngineConfig { park_max: Duration::from_millis(park_max_ms), ..config() };
        let host = Host::start(&store(None), &guest, config);
        host.begin("e");
        host.until("e", |view| matches!(view.waiting, Some(Wait::Event { .. })));
        if park_max_ms == 1 {
            host.block_on(host.engine.0.live.empty());
        }
        broken.store(false, Ordering::Release);
        host.retry("e", "charge").unwrap();
        let end = host.end_of("e");
        assert_eq!(end.result, Some(Json::from(json!(2))), "parked for {park_max_ms} ms");
        assert_eq!(guest.attempts_of("charge"), [1, 2]);
    }
}

#[test]
fn of_many_retries_at_once_one_wins_and_the_others_hear_that_the_step_is_not_dead() {
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let guest =
        Scripted::new(|mut h| async move { h.step("charge", once()).await }).step("charge", move |attempt| {
            let gate = opened.clone();
            async move {
                if attempt == 1 {
                    return fails("declined");
                }
                gate.notified().await;
                StepExit::Completed(Json::null())
            }
        });
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    host.end_of("e");
    let id = execution("e");
    let all = (0..16).map(|_| host.engine.retry_step(&id, retry("charge"), admin(), false));
    let answers = host.block_on(futures_util::future::join_all(all));
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    let not_dead = |answer: &&Result<_, _>| {
        matches!(answer, Err(EngineError::Repair(RepairError::NotDead { status, .. }))
            if *status != StepStatus::Dead)
    };
    assert_eq!(answers.iter().filter(not_dead).count(), 15);
    gate.notify_one();
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    assert_eq!(guest.attempts_of("charge"), [1, 2]);
    assert_eq!(host.audit(AuditAction::RetryStep).len(), 1);
}

#[test]
fn what_a_dead_step_has_come_to_is_put_in_by_hand() {
    let host = Host::start(&store(None), &order(&broken()), config());
    for (id, outcome) in [
        ("good", Ok(Json::from(json!("by hand")))),
        ("bad", Err(Failure::new(FailureKind::Error, "written off"))),
    ] {
        host.begin(id);
        host.end_of(id);
        let execution = execution(id);
        let resolve = host.engine.resolve_step(&execution, key("charge"), outcome, admin(), false);
        let resolved = host.block_on(resolve).unwrap();
        assert_eq!(resolved.step, key("charge"));
    }
    assert_eq!(host.end_of("good").result, Some(Json::from(json!("by hand"))));
    let bad = host.end_of("bad");
    assert_eq!((bad.status, bad.error.unwrap().message), (ExecutionStatus::Failed, "written off".to_owned()));
    assert_eq!(host.audit(AuditAction::ResolveStep).len(), 2);
}

#[test]
fn a_late_write_of_the_old_run_is_refused_after_a_restart() {
    let (release, held) = mpsc::channel::<()>();
    let (held, reached) = (Arc::new(Mutex::new(held)), Arc::new(Notify::new()));
    let (tell, calls) = (reached.clone(), Arc::new(AtomicU32::new(0)));
    let guest = Scripted::new(|mut h| async move { h.step("work", once()).await }).step("work", move |_| {
        let (held, tell, call) = (held.clone(), tell.clone(), calls.fetch_add(1, Ordering::AcqRel));
        async move {
            if call == 0 {
                tell.notify_one();
                // Not to be interrupted: it does not yield.
                tokio::task::block_in_place(|| held.lock().unwrap().recv()).unwrap();
            }
            StepExit::Completed(Json::from(json!({ "call": call })))
        }
    });
    let host = Host::start(&store(None), &guest, config());
    let old = host.begin("e").run;
    host.block_on(reached.notified());
    let restarted = host.restart("e").unwrap();
    assert_eq!((restarted.index, restarted.version), (1, 1));
    let journal = host.journal(&old);
    release.send(()).unwrap();

    let end = host.end_of("e");
    assert_eq!((&end.run, end.result), (&restarted.run, Some(Json::from(json!({ "call": 1 })))));
    host.block_on(host.engine.0.live.empty());
    assert_eq!(host.journal(&old), journal, "nothing of the old run came after its end");
    assert!(matches!(journal.last(), Some(Record::RunCancelled { by: Some(by), .. }) if by == "ada"));
    let [first, second] = &host.runs("e")[..] else { panic!("two runs") };
    assert_eq!((first.status, &first.result), (ExecutionStatus::Cancelled, &None));
    assert_eq!((second.trigger, second.triggered_by.as_deref()), (Trigger::Restart, Some("ada")));
}

#[test]
fn a_restart_interrupts_the_old_guest_and_who_waits_hears_of_the_new_run() {
    let calls = Arc::new(AtomicU32::new(0));
    let guest = Scripted::new(move |_| {
        let call = calls.fetch_add(1, Ordering::AcqRel);
        async move {
            if call == 0 {
                std::future::pending::<()>().await;
            }
            Ok(Json::from(json!(call)))
        }
    });
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    host.until("e", |view| view.status == ExecutionStatus::Running);
    let end = host.block_on(async {
        let id = execution("e");
        let wait = host.engine.wait(&id, Duration::from_secs(10));
        let (end, restarted) = tokio::join!(wait, host.engine.restart(&id, None, admin(), false));
        restarted.unwrap();
        host.engine.0.live.empty().await;
        end.unwrap()
    });
    assert_eq!((end.status, end.result), (ExecutionStatus::Completed, Some(Json::from(json!(1)))));
}

#[test]
fn a_rerun_keeps_results_and_runs_the_named_steps_again() {
    let guest = Scripted::new(|mut h| async move {
        h.step("a", once()).await?;
        let b = h.step("b", once()).await?;
        h.step_with("uses-b", b, once()).await?;
        h.step("c", once()).await
    });
    let calls = Arc::new(AtomicU32::new(0));
    let guest = guest.step("b", move |_| {
        let call = calls.fetch_add(1, Ordering::AcqRel);
        async move { StepExit::Completed(Json::from(json!({ "reference": format!("booking-{call}") }))) }
    });
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    host.end_of("e");
    let id = execution("e");
    let rerun = host.engine.rerun(&id, vec![key("b")], Vec::new(), admin(), false);
    let rerun = host.block_on(rerun).unwrap();
    assert_eq!((rerun.index, rerun.effective), (1, vec![key("b")]));
    assert_eq!(rerun.effects.kept, [key("a"), key("uses-b"), key("c")]);
    let end = host.end_of("e");
    assert_eq!((end.status, &end.run), (ExecutionStatus::Completed, &rerun.run));
    assert_eq!((guest.attempts_of("a").len(), guest.attempts_of("c").len()), (1, 1), "kept");
    assert_eq!(guest.attempts_of("b").len(), 2, "named");
    assert_eq!(
        guest.attempts_of("uses-b").len(),
        2,
        "called with another input, so not answered from the past"
    );
    assert_eq!(host.runs("e")[1].trigger, Trigger::SelectiveRerun);

    let unknown = host.engine.rerun(&id, vec![key("z")], Vec::new(), admin(), false);
    let unknown = host.block_on(unknown);
    assert!(matches!(unknown, Err(EngineError::Repair(RepairError::UnknownSteps { .. }))));
}

#[test]
fn a_dry_run_changes_nothing_and_says_what_would_be() {
    let host = Host::start(&store(None), &order(&broken()), config());
    host.begin("e");
    host.end_of("e");
    let (id, before) = (execution("e"), host.dump("e"));
    host.block_on(async {
        let engine = &host.engine;
        let retried = engine.retry_step(&id, retry("charge"), admin(), true).await.unwrap();
        assert_eq!(retried.attempt, 3);
        let outcome = Ok(Json::null());
        engine.resolve_step(&id, key("charge"), outcome, admin(), true).await.unwrap();
        let restarted = engine.restart(&id, None, admin(), true).await.unwrap();
        assert_eq!(restarted.effects.repeated, [key("reserve")]);
        let rerun = engine.rerun(&id, Vec::new(), Vec::new(), admin(), true).await.unwrap();
        assert_eq!((rerun.effective, rerun.effects.kept), (vec![key("charge")], vec![key("reserve")]));
        let wrong = engine.retry_step(&id, retry("reserve"), admin(), true).await;
        assert!(matches!(wrong, Err(EngineError::Repair(RepairError::NotDead { .. }))));
    });
    assert_eq!(host.dump("e"), before);
}

#[test]
fn what_makes_no_sense_is_refused_and_changes_nothing() {
    let store = store(None);
    let host = Host::start(&store, &order(&broken()), config());
    host.begin("e");
    host.end_of("e");
    let before = host.dump("e");
    let unknown = host.retry("nobody", "charge");
    assert!(matches!(unknown, Err(EngineError::UnknownExecution(_))));
    assert!(matches!(host.retry("e", "nothing"), Err(EngineError::Repair(RepairError::NoSuchStep { .. }))));
    let with_version = StepRetry { version: Some(9), ..retry("charge") };
    let answer = host.block_on(host.engine.retry_step(&execution("e"), with_version, admin(), false));
    assert!(matches!(answer, Err(EngineError::UnknownVersion { version: 9, .. })));
    assert_eq!(host.dump("e"), before);

    host.block_on(host.engine.remove_module(&task(), admin())).unwrap();
    assert!(matches!(host.retry("e", "charge"), Err(EngineError::VersionRemoved { version: 1, .. })));
    assert!(matches!(host.restart("e"), Err(EngineError::UnknownTask(_))));
    let [removal] = &host.audit(AuditAction::RemoveModule)[..] else { panic!("one entry") };
    assert_eq!(removal.entry.before.to_value().unwrap()["activeVersion"], json!(1));
}

#[test]
fn a_retry_can_go_on_with_another_version_and_a_restart_takes_the_active_one() {
    let (store, broken) = (store(None), broken());
    let host = Host::start(&store, &order(&broken), config());
    ["retried", "restarted"].iter().for_each(|id| _ = host.begin(id));
    ["retried", "restarted"].iter().for_each(|id| _ = host.end_of(id));
    let schema = json!({ "type": "object", "required": ["order"] });
    add_version(&store, "second", json!({ "timeoutMs": 60_000, "payload": schema }));
    host.block_on(host.engine.activate(&task(), 2, admin())).unwrap();
    broken.store(false, Ordering::Release);

    let with_version = StepRetry { version: Some(2), ..retry("charge") };
    host.block_on(host.engine.retry_step(&execution("retried"), with_version, admin(), false)).unwrap();
    let end = host.end_of("retried");
    assert_eq!((end.status, end.version), (ExecutionStatus::Completed, 2));

    // The payload that it had was made for version 1.
    let pointer = |answer: Result<Restarted, _>| match answer {
        Err(EngineError::PayloadRefused { pointer, .. }) => pointer,
        other => panic!("{other:?}"),
    };
    assert_eq!(pointer(host.restart("restarted")), "");
    let payload = Json::from(json!({ "order": 7 }));
    let id = execution("restarted");
    let restart = host.engine.restart(&id, Some(payload.clone()), admin(), false);
    assert_eq!(host.block_on(restart).unwrap().version, 2);
    let end = host.end_of("restarted");
    assert_eq!((end.status, end.version, end.payload), (ExecutionStatus::Completed, 2, payload));
    let (facts, _) = host.block_on(store.journal(&end.run)).unwrap().unwrap();
    assert_eq!(facts.deadline, Some(facts.created_at.plus_ms(60_000)), "its time begins anew");
}

#[test]
fn a_cancelled_run_is_not_retried_but_can_be_restarted() {
    let broken = broken();
    let guest = Scripted::new(|mut h| async move {
        match h.step("charge", once()).await {
            Err(Ending::Failed(_)) => h.event("paid-by-hand", None).await,
            other => other,
        }
    })
    .step("charge", breaks(&broken));
    let host = Host::start(&store(None), &guest, config());
    host.begin("e");
    host.until("e", |view| view.waiting.is_some());
    host.block_on(host.engine.cancel(&execution("e"), admin())).unwrap();
    let [cancel] = &host.audit(AuditAction::Cancel)[..] else { panic!("one entry") };
    assert_eq!(cancel.entry.before.to_value().unwrap()["status"], json!("running"));
    assert_eq!(cancel.entry.after.to_value().unwrap()["status"], json!("cancelled"));

    assert!(matches!(host.retry("e", "charge"), Err(EngineError::Repair(RepairError::Cancelled))));
    broken.store(false, Ordering::Release);
    host.restart("e").unwrap();
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
}

/// Whatever comes at once, nothing answers but as it should, and everything comes to its end.
#[test]
fn repairs_race_with_cancels_events_and_each_other() {
    const ROUNDS: usize = 60;
    let flips = Arc::new(AtomicU32::new(0));
    let guest = Scripted::new(|mut h| async move {
        h.step("reserve", once()).await?;
        if let Err(Ending::Host) = h.step("charge", once()).await {
            return Err(Ending::Host);
        }
        h.event("go", Some(30)).await
    })
    .step("charge", move |_| {
        let fine = flips.fetch_add(1, Ordering::AcqRel).is_multiple_of(3);
        async move { if fine { StepExit::Completed(Json::null()) } else { fails("declined") } }
    });
    let host = Host::start(&store(None), &guest, config());
    let honest =
        |error: &EngineError| matches!(error, EngineError::Repair(_) | EngineError::AlreadyOver { .. });
    for round in 0..ROUNDS {
        let id = format!("e{round}");
        host.begin(&id);
        let (id, go) = (execution(&id), stepbox_domain::EventName::parse("go").unwrap());
        let errors: Vec<EngineError> = host.block_on(async {
            let engine = &host.engine;
            if round % 2 == 0 {
                engine.wait(&id, Duration::from_millis(5)).await.unwrap();
            }
            let null = Json::null();
            let (retried, again, restarted, rerun, sent, cancelled) = tokio::join!(
                engine.retry_step(&id, retry("charge"), admin(), false),
                engine.retry_step(&id, retry("charge"), admin(), false),
                engine.restart(&id, None, admin(), false),
                engine.rerun(&id, Vec::new(), Vec::new(), admin(), false),
                engine.send_event(&id, &go, &null),
                async { if round % 5 == 0 { engine.cancel(&id, admin()).await } else { Ok(()) } },
            );
            [retried.err(), again.err(), restarted.err(), rerun.err(), sent.err(), cancelled.err()]
                .into_iter()
                .flatten()
                .collect()
        });
        assert!(errors.iter().all(honest), "round {round}: {errors:?}");
    }
    for round in 0..ROUNDS {
        let id = format!("e{round}");
        assert!(host.end_of(&id).status.is_terminal(), "{:?}", host.until(&id, |_| true));
        for run in host.runs(&id) {
            assert!(run.status.is_terminal());
            let mut ended = false;
            for record in host.journal(&run.run) {
                let reopened = matches!(record, Record::StepRetryAsked { .. });
                assert!(!ended || reopened, "{}: {record:?} after its end", run.run);
                ended = match record {
                    Record::RunCompleted { .. } | Record::RunFailed { .. } | Record::RunCancelled { .. } => {
                        true
                    }
                    _ => ended && !reopened,
                };
            }
            assert!(ended);
        }
    }
    host.block_on(host.engine.0.live.empty());
    assert_eq!(host.engine.0.timers.len(), 0);
}
