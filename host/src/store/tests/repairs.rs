//! Repairs: taking hold by force, amending a run, replacing it by a new one.

use std::sync::Arc;

use stepbox_domain::{ExecutionStatus, Failure, FailureKind, Json, journal::Record};

use super::given::*;
use super::given::{audit, trouble};
use crate::store::*;

on_every_store!(
    a_seizure_takes_the_run_from_whoever_holds_it,
    a_seizure_of_what_is_over_can_be_let_go_and_leaves_it_as_it_was,
    a_seizure_never_counts_as_a_crash,
    a_seized_run_that_was_never_claimed_can_be_claimed_and_runs,
    nobody_can_seize_what_is_not_there,
    an_amended_run_goes_on,
    a_run_that_goes_on_can_move_to_another_version,
    a_replaced_run_stays_to_be_seen_and_cannot_be_written,
    a_replacement_of_a_run_under_way_cancels_it,
    a_payload_lasts_until_another_is_given,
    a_long_journal_can_be_kept,
    a_repair_that_has_lost_its_claim_leaves_no_trace,
    a_repair_in_the_wrong_place_of_the_journal_is_refused,
    a_repair_to_a_version_that_is_not_there_is_refused,
    events_are_there_for_the_next_run,
);

fn amend(claim: Claim, first_number: u64, records: Vec<Record>) -> Repair {
    let change = RepairChange::Amend { first_number, records, version: None };
    Repair { claim, change, audit: audit(), bulk: None }
}

fn replace(claim: Claim, payload: Option<&str>, records: Vec<Record>) -> Repair {
    let change = RepairChange::Replace {
        end: None,
        at: at(5_000),
        trigger: Trigger::Restart,
        triggered_by: Some("ann".to_owned()),
        version: 1,
        payload: payload.map(json),
        deadline: Some(at(50_000)),
        records,
    };
    Repair { claim, change, audit: audit(), bulk: None }
}

/// A failed execution with one record.
async fn failed(store: &Arc<dyn Store>, name: &str) -> Claim {
    let claim = claimed(store, name).await;
    let failure = Failure::new(FailureKind::Error, "no");
    let end = Standing::Failed { failure, trouble: trouble(), at: at(3_000) };
    let commit = recording(claim, 0, vec![step_ran("s")]);
    store.commit(Commit { standing: Some(end), ..commit }).await.unwrap();
    claim
}

async fn seized(store: &Arc<dyn Store>, name: &str) -> Seized {
    store.seize(&id(name)).await.unwrap().expect("an execution of that id")
}

async fn runs(store: &Arc<dyn Store>, name: &str) -> Vec<RunView> {
    store.runs(&id(name)).await.unwrap().expect("an execution of that id")
}

#[track_caller]
fn assert_repair_lost(result: Result<RunKey, StoreError>) {
    assert!(matches!(result, Err(StoreError::ClaimLost)), "{result:?}");
}

async fn entries(store: &Arc<dyn Store>) -> u64 {
    store.audit(&AuditFilter::default(), 1, 0).await.unwrap().1
}

async fn a_seizure_takes_the_run_from_whoever_holds_it(store: Arc<dyn Store>) {
    with_order(&store).await;
    let old = claimed(&store, "a").await;
    store.commit(recording(old, 0, vec![step_ran("s")])).await.unwrap();
    let first = seized(&store, "a").await;
    assert!(first.claim.epoch > old.epoch);
    assert_eq!((first.status, first.records.len()), (ExecutionStatus::Running, 1));
    assert_eq!(first.facts.run, view(&store, "a").await.run);
    assert_lost(store.commit(recording(old, 1, vec![step_ran("t")])).await);
    assert_eq!(store.claim(old.run, at(1)).await.unwrap(), None);
    let second = seized(&store, "a").await;
    assert_lost(store.commit(Commit::let_go(first.claim)).await);
    store.commit(Commit::let_go(second.claim)).await.unwrap();
    assert!(store.claim(old.run, at(1)).await.unwrap().is_some());
}

async fn a_seizure_of_what_is_over_can_be_let_go_and_leaves_it_as_it_was(store: Arc<dyn Store>) {
    with_order(&store).await;
    failed(&store, "a").await;
    let before = (view(&store, "a").await, runs(&store, "a").await);
    let there = seized(&store, "a").await;
    assert_eq!(there.status, ExecutionStatus::Failed);
    assert_eq!((view(&store, "a").await, runs(&store, "a").await), before);
    assert_eq!(store.claim(there.claim.run, at(9)).await.unwrap(), None);
    // Left behind by a dead process: it is in nobody's way.
    assert_eq!(store.recover().await.unwrap(), []);
    let there = seized(&store, "a").await;
    store.commit(Commit::let_go(there.claim)).await.unwrap();
    assert_eq!((view(&store, "a").await, runs(&store, "a").await), before);
    assert_eq!(store.claim(there.claim.run, at(9)).await.unwrap(), None);
    let cancel = store.cancel(&id("a"), None, at(9), audit()).await.unwrap();
    assert_eq!(cancel, Cancel::AlreadyOver(ExecutionStatus::Failed));
}

async fn a_seizure_never_counts_as_a_crash(store: Arc<dyn Store>) {
    with_order(&store).await;
    let run = claimed(&store, "a").await.run;
    for _ in 0..3 {
        seized(&store, "a").await;
        assert!(!store.recover().await.unwrap()[0].waiting);
        let again = store.claim(run, at(1)).await.unwrap().unwrap();
        assert_eq!(again.crashes, 0);
    }
}

async fn a_seized_run_that_was_never_claimed_can_be_claimed_and_runs(store: Arc<dyn Store>) {
    with_order(&store).await;
    let run = scheduled(&store, "a").await;
    let there = seized(&store, "a").await;
    assert_eq!(there.status, ExecutionStatus::Scheduled);
    store.commit(Commit::let_go(there.claim)).await.unwrap();
    assert_eq!(view(&store, "a").await.status, ExecutionStatus::Scheduled);
    store.claim(run, at(7)).await.unwrap().unwrap();
    assert_eq!(view(&store, "a").await.status, ExecutionStatus::Running);
    assert_eq!(runs(&store, "a").await[0].started_at, Some(at(7)));
}

async fn nobody_can_seize_what_is_not_there(store: Arc<dyn Store>) {
    assert_eq!(store.seize(&id("a")).await.unwrap(), None);
    assert_eq!(store.runs(&id("a")).await.unwrap(), None);
}

async fn an_amended_run_goes_on(store: Arc<dyn Store>) {
    with_order(&store).await;
    failed(&store, "a").await;
    let there = seized(&store, "a").await;
    let run = store.repair(amend(there.claim, 1, vec![step_ran("t")])).await.unwrap();
    assert_eq!(run, there.claim.run);
    let shown = view(&store, "a").await;
    assert_eq!((shown.status, shown.completed_at), (ExecutionStatus::Running, None));
    assert_eq!((shown.result, shown.error, shown.waiting), (None, None, None));
    assert_eq!(journal(&store, "a").await, [step_ran("s"), step_ran("t")]);
    let shown = &runs(&store, "a").await[0];
    assert_eq!((shown.status, shown.completed_at), (ExecutionStatus::Running, None));
    assert_eq!(store.troubles(&FailedSelection::default(), 9, 9).await.unwrap(), []);
    // The claim has ended, and the run is free.
    assert_lost(store.commit(recording(there.claim, 2, vec![step_ran("u")])).await);
    assert_eq!(store.recover().await.unwrap()[0].due, Some(at(1_000)), "the time of the repair");
    let again = store.claim(run, at(6_000)).await.unwrap().unwrap();
    assert_eq!((again.records.len(), again.crashes), (2, 0));
    store.commit(standing(again.claim, 2, completed("1", 7_000))).await.unwrap();
    assert_eq!(view(&store, "a").await.result, Some(json("1")));
}

async fn a_run_that_goes_on_can_move_to_another_version(store: Arc<dyn Store>) {
    with_order(&store).await;
    store.add_version(upload("order", b"order 2"), audit()).await.unwrap();
    failed(&store, "a").await;
    let there = seized(&store, "a").await;
    let change = RepairChange::Amend { first_number: 1, records: vec![step_ran("t")], version: Some(2) };
    let run = store.repair(Repair { change, ..amend(there.claim, 1, vec![]) }).await.unwrap();
    assert_eq!((view(&store, "a").await.version, runs(&store, "a").await[0].version), (2, 2));
    let again = store.claim(run, at(6_000)).await.unwrap().unwrap();
    assert_eq!((again.facts.version, again.digest), (2, Digest::of(b"order 2")));
    assert_eq!(store.version(&task("order"), 2).await.unwrap().unwrap().unfinished, 1);
}

async fn a_replaced_run_stays_to_be_seen_and_cannot_be_written(store: Arc<dyn Store>) {
    with_order(&store).await;
    let old = failed(&store, "a").await;
    let first = view(&store, "a").await;
    let there = seized(&store, "a").await;
    let run = store.repair(replace(there.claim, Some("[7]"), vec![step_ran("kept")])).await.unwrap();
    assert!(run > old.run);
    for claim in [old, there.claim] {
        assert_lost(store.commit(recording(claim, 1, vec![step_ran("late")])).await);
        assert_lost(store.commit(standing(claim, 1, completed("\"late\"", 6_000))).await);
        assert_lost(store.commit(Commit::let_go(claim)).await);
    }
    assert_eq!(store.claim(old.run, at(5_500)).await.unwrap(), None);
    let shown = view(&store, "a").await;
    assert_eq!((shown.status, shown.completed_at), (ExecutionStatus::Scheduled, None));
    assert_eq!((shown.result, shown.error), (None, None));
    assert_eq!((shown.run_key, shown.payload, shown.fingerprint), (run, json("[7]"), first.fingerprint));
    assert_eq!(shown.scheduled_at, first.scheduled_at);

    let [before, now] = &runs(&store, "a").await[..] else { panic!("two runs") };
    assert_eq!((before.status, before.trigger), (ExecutionStatus::Failed, Trigger::Initial));
    assert_eq!((&before.error, before.completed_at), (&first.error, Some(at(3_000))));
    assert_eq!((&before.payload, &now.payload), (&json("{}"), &json("[7]")));
    assert_eq!((now.index, now.status, now.trigger), (1, ExecutionStatus::Scheduled, Trigger::Restart));
    assert_eq!((now.created_at, now.started_at, now.completed_at), (at(5_000), None, None));
    assert_eq!((now.triggered_by.as_deref(), &now.error), (Some("ann"), &None));
    assert_eq!(store.journal(&before.run).await.unwrap().unwrap().1, [step_ran("s")]);

    let again = store.claim(run, at(6_000)).await.unwrap().unwrap();
    assert_eq!((again.payload, again.records), (json("[7]"), vec![step_ran("kept")]));
    assert_eq!((again.facts.index, again.facts.deadline), (1, Some(at(50_000))));
    assert_eq!(view(&store, "a").await.status, ExecutionStatus::Running);
    store.commit(standing(again.claim, 1, completed("1", 7_000))).await.unwrap();
    let [before, now] = &runs(&store, "a").await[..] else { panic!("two runs") };
    assert_eq!((&before.result, &now.result), (&None, &Some(json("1"))));
}

async fn a_replacement_of_a_run_under_way_cancels_it(store: Arc<dyn Store>) {
    with_order(&store).await;
    claimed(&store, "a").await;
    let there = seized(&store, "a").await;
    let mut repair = replace(there.claim, None, vec![]);
    let last = Record::RunCancelled { by: Some("ann".to_owned()), at: at(5_000) };
    if let RepairChange::Replace { end, .. } = &mut repair.change {
        *end = Some(last.clone());
    }
    store.repair(repair).await.unwrap();
    let before = &runs(&store, "a").await[0];
    assert_eq!((before.status, before.completed_at), (ExecutionStatus::Cancelled, Some(at(5_000))));
    assert_eq!(store.journal(&before.run).await.unwrap().unwrap().1, [last]);
    assert_eq!(store.counts().await.unwrap(), Counts { scheduled: 1, ..Counts::default() });
    assert_eq!(store.recover().await.unwrap().len(), 1);
}

async fn a_payload_lasts_until_another_is_given(store: Arc<dyn Store>) {
    with_order(&store).await;
    failed(&store, "a").await;
    for (given, expected) in [(None, "{}"), (Some("1"), "1"), (None, "1"), (Some("null"), "null")] {
        let there = seized(&store, "a").await;
        store.repair(replace(there.claim, given, vec![])).await.unwrap();
        assert_eq!(view(&store, "a").await.payload, json(expected));
    }
    // A start again is compared with the first one.
    let replay = store.create_execution(start("a", "order", "{}")).await.unwrap();
    assert!(matches!(replay, Creation::Replay(view) if view.payload == Json::null()));
}

async fn a_long_journal_can_be_kept(store: Arc<dyn Store>) {
    with_order(&store).await;
    failed(&store, "a").await;
    let records: Vec<_> = (0..10_000).map(|n| captured(&n.to_string())).collect();
    let there = seized(&store, "a").await;
    store.repair(replace(there.claim, None, records.clone())).await.unwrap();
    assert_eq!(journal(&store, "a").await, records);
}

async fn a_repair_that_has_lost_its_claim_leaves_no_trace(store: Arc<dyn Store>) {
    with_order(&store).await;
    failed(&store, "a").await;
    claimed(&store, "b").await;
    let lost = [seized(&store, "a").await, seized(&store, "b").await];
    seized(&store, "a").await;
    store.cancel(&id("b"), None, at(9), audit()).await.unwrap();
    let before = entries(&store).await;
    for (name, lost) in ["a", "b"].into_iter().zip(lost) {
        let shown = (view(&store, name).await, runs(&store, name).await);
        let records = journal(&store, name).await;
        let number = records.len() as u64;
        assert_repair_lost(store.repair(amend(lost.claim, number, vec![step_ran("t")])).await);
        assert_repair_lost(store.repair(replace(lost.claim, None, vec![])).await);
        assert_eq!((view(&store, name).await, runs(&store, name).await), shown);
        assert_eq!(journal(&store, name).await, records);
    }
    assert_eq!(entries(&store).await, before);
}

async fn a_repair_in_the_wrong_place_of_the_journal_is_refused(store: Arc<dyn Store>) {
    with_order(&store).await;
    failed(&store, "a").await;
    let there = seized(&store, "a").await;
    for number in [0, 2] {
        let refused = store.repair(amend(there.claim, number, vec![step_ran("t")])).await;
        assert!(matches!(refused, Err(StoreError::Corrupt(_))), "{refused:?}");
    }
    assert_eq!(journal(&store, "a").await, [step_ran("s")]);
    store.repair(amend(there.claim, 1, vec![step_ran("t")])).await.unwrap();
}

async fn a_repair_to_a_version_that_is_not_there_is_refused(store: Arc<dyn Store>) {
    with_order(&store).await;
    failed(&store, "a").await;
    let there = seized(&store, "a").await;
    let change = RepairChange::Amend { first_number: 1, records: vec![], version: Some(2) };
    let refused = store.repair(Repair { change, ..amend(there.claim, 1, vec![]) }).await;
    assert!(
        matches!(&refused, Err(StoreError::Unavailable(why)) if why.contains("version 2")),
        "{refused:?}"
    );
    store.remove_module(&task("order"), audit()).await.unwrap();
    for repair in [amend(there.claim, 1, vec![]), replace(there.claim, None, vec![])] {
        let refused = store.repair(repair).await;
        assert!(matches!(refused, Err(StoreError::Unavailable(_))), "{refused:?}");
    }
    assert_eq!(view(&store, "a").await.status, ExecutionStatus::Failed);
}

async fn events_are_there_for_the_next_run(store: Arc<dyn Store>) {
    with_order(&store).await;
    claimed(&store, "a").await;
    send(&store, "a", "e", "1").await;
    let there = seized(&store, "a").await;
    let run = store.repair(replace(there.claim, None, vec![])).await.unwrap();
    send(&store, "a", "e", "2").await;
    assert_eq!(store.claim(run, at(1)).await.unwrap().unwrap().events.len(), 2);
}
