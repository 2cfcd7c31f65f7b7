//! Bulk repairs: how fast, how careful, and what survives.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use stepbox_domain::{
    audit::AuditAction,
    bulk::{BulkAction, BulkId, BulkPlan, BulkProgress, BulkState},
    step::Overrides,
};

use super::{
    repair::{admin, breaks, broken, key},
    *,
};
use crate::store::{BulkView, FailedSelection};

fn plan(rate_per_s: u32) -> BulkPlan {
    BulkPlan {
        action: BulkAction::RetryStep,
        rate_per_s,
        canary: 0,
        failed_max_percent: 100,
        overrides: Overrides::default(),
        version: None,
        by: admin().by,
        reason: admin().reason,
    }
}

fn charge(broken: &Arc<AtomicBool>) -> Scripted {
    Scripted::new(|mut h| async move { h.step("charge", once()).await }).step("charge", breaks(broken))
}

/// A guest whose step fails the first time and then stands until it is let through.
fn held(gate: &Arc<tokio::sync::Semaphore>) -> Scripted {
    let gate = gate.clone();
    Scripted::new(|mut h| async move { h.step("charge", once()).await }).step("charge", move |attempt| {
        let gate = gate.clone();
        async move {
            if attempt == 1 {
                return fails("declined");
            }
            gate.acquire().await.unwrap().forget();
            StepExit::Completed(Json::null())
        }
    })
}

impl Host {
    fn fail_all(&self, count: usize) {
        (0..count).for_each(|n| _ = self.begin(&format!("e{n}")));
        for n in 0..count {
            assert_eq!(self.end_of(&format!("e{n}")).status, ExecutionStatus::Failed);
        }
    }

    fn bulk(&self, plan: BulkPlan) -> Result<BulkView, EngineError> {
        self.block_on(self.engine.start_bulk(FailedSelection::default(), plan))
    }

    fn bulk_when(&self, id: &BulkId, condition: impl Fn(&BulkView) -> bool) -> BulkView {
        for _ in 0..2_000 {
            let view = self.block_on(self.engine.0.store.bulk(id)).unwrap().unwrap();
            if condition(&view) {
                return view;
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        panic!("never came to it: {:?}", self.block_on(self.engine.0.store.bulk(id)));
    }
}

fn over(view: &BulkView) -> bool {
    view.state != BulkState::Running
}

#[test]
fn all_that_failed_are_retried_each_with_an_entry_in_the_audit_trail() {
    let broken = broken();
    let guest = charge(&broken);
    let host = Host::start(&store(None), &guest, config());
    host.fail_all(40);
    broken.store(false, Ordering::Release);
    let bulk = host.bulk(BulkPlan { canary: 3, ..plan(1_000) }).unwrap();
    let end = host.bulk_when(&bulk.id, over);
    assert_eq!((end.state, end.progress.completed), (BulkState::Completed, 40));
    (0..40).for_each(|n| assert_eq!(host.end_of(&format!("e{n}")).status, ExecutionStatus::Completed));
    assert_eq!(guest.attempts_of("charge").len(), 80);

    let retries = host.audit(AuditAction::RetryStep);
    assert_eq!(retries.len(), 40);
    for retry in retries {
        assert_eq!((retry.entry.actor, retry.entry.target.as_deref()), (admin().by, Some("charge")));
        assert_eq!(retry.entry.after.to_value().unwrap()["bulk"], json!(bulk.id.as_str()));
    }
    let [start] = &host.audit(AuditAction::StartBulk)[..] else { panic!("one entry") };
    assert_eq!(start.entry.after.to_value().unwrap()["executions"], json!(40));
}

#[test]
fn the_canaries_go_first_and_are_waited_for() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let guest = held(&gate);
    let host = Host::start(&store(None), &guest, config());
    host.fail_all(12);
    let bulk = host.bulk(BulkPlan { canary: 2, ..plan(1_000) }).unwrap();
    let waits = |view: &BulkView| view.progress.under_way == 2;
    let waiting = host.bulk_when(&bulk.id, waits);
    assert_eq!(waiting.progress, BulkProgress { pending: 10, under_way: 2, ..BulkProgress::default() });
    gate.add_permits(1);
    host.bulk_when(&bulk.id, |view| view.progress.completed == 1);
    assert_eq!(host.audit(AuditAction::RetryStep).len(), 2, "one has not come through yet");
    gate.add_permits(11);
    assert_eq!(host.bulk_when(&bulk.id, over).progress.completed, 12);
}

#[test]
fn it_stops_itself_when_too_much_fails_again() {
    let host = Host::start(&store(None), &charge(&broken()), config());
    host.fail_all(10);
    let bulk = host.bulk(BulkPlan { canary: 3, failed_max_percent: 50, ..plan(1_000) }).unwrap();
    let end = host.bulk_when(&bulk.id, over);
    assert_eq!(end.state, BulkState::Stopped);
    assert_eq!(end.progress.pending, 7, "only the canaries were tried: {:?}", end.progress);
    assert!(end.why.unwrap().contains("had failed again, more than 50 percent"));
    let [stop] = &host.audit(AuditAction::StopBulk)[..] else { panic!("one entry") };
    assert_eq!(stop.entry.target.as_deref(), Some(bulk.id.as_str()));
}

#[test]
fn nothing_is_repaired_after_the_answer_to_a_cancel() {
    let broken = broken();
    let host = Host::start(&store(None), &charge(&broken), config());
    host.fail_all(60);
    broken.store(false, Ordering::Release);
    let bulk = host.bulk(plan(100)).unwrap();
    host.bulk_when(&bulk.id, |view| view.progress.pending < 55);
    let cancelled = host.block_on(host.engine.cancel_bulk(&bulk.id, admin())).unwrap();
    let repaired = host.audit(AuditAction::RetryStep).len();
    assert_eq!(cancelled.state, BulkState::Cancelled);
    assert!(cancelled.progress.pending > 0);
    host.block_on(host.engine.0.bulks.stopped());
    assert_eq!(host.audit(AuditAction::RetryStep).len(), repaired);
    let again = host.block_on(host.engine.cancel_bulk(&bulk.id, admin()));
    assert!(matches!(again, Err(EngineError::BulkOver { state: BulkState::Cancelled, .. })));
    let unknown = host.block_on(host.engine.cancel_bulk(&BulkId::new("nothing"), admin()));
    assert!(matches!(unknown, Err(EngineError::UnknownBulk(_))));
}

#[test]
fn it_goes_on_after_a_restart_of_the_host() {
    let broken = broken();
    let guest = charge(&broken);
    let store = store(None);
    let host = Host::start(&store, &guest, config());
    host.fail_all(40);
    broken.store(false, Ordering::Release);
    let bulk = host.bulk(plan(50)).unwrap();
    host.bulk_when(&bulk.id, |view| view.progress.pending < 35);
    host.crash();

    let host = Host::start(&store, &guest, config());
    let pending = host.bulk_when(&bulk.id, |_| true).progress.pending;
    assert!(pending > 0, "it was in the middle");
    // In good order too.
    host.block_on(host.engine.stop(Duration::from_secs(5)));
    host.crash();
    let host = Host::start(&store, &guest, config());
    let end = host.bulk_when(&bulk.id, over);
    assert_eq!((end.state, end.progress.completed), (BulkState::Completed, 40));
    assert_eq!(host.audit(AuditAction::RetryStep).len(), 40, "each once");
}

#[test]
fn it_keeps_to_its_rate() {
    let broken = broken();
    let host = Host::start(&store(None), &charge(&broken), config());
    host.fail_all(50);
    broken.store(false, Ordering::Release);
    let begun = Instant::now();
    let bulk = host.bulk(plan(100)).unwrap();
    host.bulk_when(&bulk.id, |view| view.progress.pending == 0);
    // The first goes at once, the last of the 50 after 490 ms.
    assert!(begun.elapsed() >= Duration::from_millis(480), "{:?}", begun.elapsed());
    host.bulk_when(&bulk.id, over);
}

#[test]
fn what_has_changed_since_is_left_alone_and_it_says_why() {
    let gate = Arc::new(tokio::sync::Semaphore::new(0));
    let host = Host::start(&store(None), &held(&gate), config());
    host.fail_all(3);
    let bulk = host.bulk(BulkPlan { canary: 1, ..plan(1_000) }).unwrap();
    host.bulk_when(&bulk.id, |view| view.progress.under_way == 1);
    let by_hand = StepRetry { step: key("charge"), overrides: Overrides::default(), version: None };
    host.block_on(host.engine.retry_step(&execution("e2"), by_hand, admin(), false)).unwrap();
    gate.add_permits(3);
    let end = host.bulk_when(&bulk.id, over);
    assert_eq!((end.progress.completed, end.progress.skipped), (2, 1));
    let [(skipped, why)] = &end.examples[..] else { panic!("{:?}", end.examples) };
    assert_eq!(skipped, &execution("e2"));
    assert!(why.contains("no longer failed"), "{why}");
}

#[test]
fn what_has_no_dead_step_cannot_be_retried_but_restarted() {
    let broken = broken();
    let failing = broken.clone();
    let guest = Scripted::new(move |_| {
        let failing = failing.load(Ordering::Acquire);
        async move {
            match failing {
                true => Err(Ending::Failed(stepbox_domain::Failure::new(FailureKind::Error, "no"))),
                false => Ok(Json::null()),
            }
        }
    });
    let host = Host::start(&store(None), &guest, config());
    host.fail_all(3);
    let bulk = host.bulk(plan(1_000)).unwrap();
    let end = host.bulk_when(&bulk.id, over);
    assert_eq!((end.state, end.progress.skipped), (BulkState::Completed, 3));
    assert!(end.examples[0].1.contains("no dead step"), "{:?}", end.examples);

    broken.store(false, Ordering::Release);
    let bulk = host.bulk(BulkPlan { action: BulkAction::Restart, ..plan(1_000) }).unwrap();
    let end = host.bulk_when(&bulk.id, over);
    assert_eq!((end.state, end.progress.completed), (BulkState::Completed, 3));
    assert_eq!(host.end_of("e0").run.as_str(), "e0:run:1");
}

#[test]
fn a_plan_that_makes_no_sense_is_refused() {
    let host = Host::start(&store(None), &charge(&broken()), config());
    assert!(matches!(host.bulk(plan(1)), Err(EngineError::NothingSelected)));
    host.fail_all(1);
    let restart = BulkPlan { action: BulkAction::Restart, ..plan(1) };
    for bad in [
        plan(0),
        BulkPlan { failed_max_percent: 101, ..plan(1) },
        BulkPlan { version: Some(1), ..restart.clone() },
        BulkPlan { overrides: Overrides { attempts_max: Some(2), timeout_ms: None }, ..restart },
    ] {
        assert!(matches!(host.bulk(bad), Err(EngineError::BadBulk { .. })));
    }
    let selection = FailedSelection { task: Some(task()), ..FailedSelection::default() };
    let start = host.engine.start_bulk(selection, BulkPlan { version: Some(9), ..plan(1) });
    assert!(matches!(host.block_on(start), Err(EngineError::UnknownVersion { version: 9, .. })));
    assert!(host.audit(AuditAction::StartBulk).is_empty());
}
