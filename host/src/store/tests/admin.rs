//! Pause rules, the audit trail, troubles and bulk repairs.

use std::sync::Arc;

use stepbox_domain::{
    Failure, FailureKind,
    audit::AuditAction,
    audit::{Broken, Chain},
    bulk::BulkAction,
    bulk::BulkPlan,
    pause::{self, PauseScope},
    step::Overrides,
};
use tempfile::TempDir;

use super::given::audit;
use super::given::*;
use crate::store::{audit_trail::AuditTrail, *};

on_every_store!(
    a_pause_rule_is_kept_and_deleted_once,
    what_changes_something_leaves_an_entry_and_what_does_not_leaves_none,
    the_trail_is_filtered_and_paged,
    the_trail_is_a_chain,
    the_same_trouble_is_counted_together,
    a_bulk_repair_has_the_failed_executions_that_match,
    a_bulk_repair_settles_by_how_its_executions_end,
    a_bulk_repair_ends_once_and_repairs_nothing_afterwards,
);

fn entry(action: AuditAction) -> AuditEntry {
    AuditEntry { action, ..audit() }
}

fn rule(name: &str, scope: PauseScope) -> PauseRule {
    PauseRule {
        id: PauseRuleId::new(name),
        scope,
        created_at: at(10),
        created_by: Some("ann".to_owned()),
        reason: None,
        expires_at: Some(at(99)),
        deleted_at: None,
        deleted_by: None,
    }
}

async fn trail(store: &Arc<dyn Store>) -> Vec<AuditView> {
    store.audit_after(0, 1_000).await.unwrap()
}

async fn fails(store: &Arc<dyn Store>, name: &str, message: &str, ms: i64) {
    end_failed(store, claimed(store, name).await, message, ms).await;
}

async fn end_failed(store: &Arc<dyn Store>, claim: Claim, message: &str, ms: i64) {
    let failure = Failure::new(FailureKind::Error, message);
    let trouble = Trouble::of(&task("order"), 1, &failure);
    store.commit(standing(claim, 0, Standing::Failed { failure, trouble, at: at(ms) })).await.unwrap();
}

fn bulk(name: &str, selection: FailedSelection) -> NewBulk {
    let plan = BulkPlan {
        action: BulkAction::RetryStep,
        rate_per_s: 10,
        canary: 1,
        failed_max_percent: 50,
        overrides: Overrides::default(),
        version: None,
        by: Some("ann".to_owned()),
        reason: None,
    };
    NewBulk { id: BulkId::new(name), plan, selection, now: at(8_000) }
}

async fn a_pause_rule_is_kept_and_deleted_once(store: Arc<dyn Store>) {
    let all = rule("1", pause::scope(Some("a"), Some("order"), Some("ch*")).unwrap());
    let other = rule("2", pause::scope(None, Some("order"), None).unwrap());
    for rule in [&all, &other] {
        store.add_pause_rule(rule.clone(), entry(AuditAction::Pause)).await.unwrap();
    }
    assert!(store.add_pause_rule(all.clone(), audit()).await.is_err());
    assert_eq!(store.pause_rules(false).await.unwrap(), [all.clone(), other.clone()]);
    let ids = [all.id.clone(), PauseRuleId::new("9")];
    let audits = || vec![entry(AuditAction::Resume), entry(AuditAction::Resume)];
    assert!(store.delete_pause_rules(&ids, None, at(50), vec![]).await.is_err());
    let deleted = store.delete_pause_rules(&ids, Some("bob"), at(50), audits()).await.unwrap();
    assert_eq!(deleted, std::slice::from_ref(&all.id));
    assert_eq!(store.delete_pause_rules(&ids, Some("cy"), at(51), audits()).await.unwrap(), []);
    assert_eq!(store.pause_rules(false).await.unwrap(), std::slice::from_ref(&other));
    let gone = PauseRule { deleted_at: Some(at(50)), deleted_by: Some("bob".to_owned()), ..all };
    assert_eq!(store.pause_rules(true).await.unwrap(), [gone, other]);
    let actions: Vec<_> = trail(&store).await.iter().map(|view| view.entry.action).collect();
    assert_eq!(actions, [AuditAction::Pause, AuditAction::Pause, AuditAction::Resume]);
}

async fn what_changes_something_leaves_an_entry_and_what_does_not_leaves_none(store: Arc<dyn Store>) {
    let name = task("order");
    for component in [b"1" as &[u8], b"1", b"2"] {
        store.add_version(upload("order", component), entry(AuditAction::UploadModule)).await.unwrap();
    }
    for version in [2, 1, 9] {
        store.activate_version(&name, version, entry(AuditAction::ActivateVersion)).await.unwrap();
    }
    scheduled(&store, "a").await;
    for _ in 0..2 {
        store.cancel(&id("a"), None, at(9), audit()).await.unwrap();
        store.cancel(&id("b"), None, at(9), audit()).await.unwrap();
    }
    for _ in 0..2 {
        store.remove_module(&name, entry(AuditAction::RemoveModule)).await.unwrap();
    }
    let told: Vec<_> = trail(&store)
        .await
        .iter()
        .map(|view| (view.number, view.entry.action.as_str(), view.entry.target.clone()))
        .collect();
    let expected = [
        (1, "upload_module", Some("1".to_owned())),
        (2, "upload_module", Some("2".to_owned())),
        (3, "activate_version", None),
        (4, "cancel", None),
        (5, "remove_module", None),
    ];
    assert_eq!(told, expected);
    let cancel = &trail(&store).await[3].entry;
    assert_eq!(cancel.task, Some(name));
    assert_eq!(cancel.before.as_str(), r#"{"status":"scheduled"}"#);
    assert_eq!(cancel.after.as_str(), r#"{"status":"cancelled"}"#);
}

async fn the_trail_is_filtered_and_paged(store: Arc<dyn Store>) {
    for n in 0..20_i64 {
        let written = AuditEntry {
            at: at(n),
            actor: (n % 2 == 0).then(|| "ann".to_owned()),
            action: AuditAction::ALL[n as usize % 3],
            execution: (n % 4 == 0).then(|| id("a")),
            task: (n % 5 == 0).then(|| task("order")),
            ..audit()
        };
        let name = n.to_string();
        store.add_pause_rule(rule(&name, PauseScope::default()), written).await.unwrap();
    }
    let all = AuditFilter::default();
    let filters = [
        (all.clone(), 20_u64),
        (AuditFilter { action: Some(AuditAction::ALL[0]), ..all.clone() }, 7),
        (AuditFilter { actor: Some("ann".to_owned()), ..all.clone() }, 10),
        (AuditFilter { execution: Some(id("a")), ..all.clone() }, 5),
        (AuditFilter { task: Some(task("order")), ..all.clone() }, 4),
        (AuditFilter { from: Some(at(5)), to: Some(at(9)), ..all.clone() }, 5),
        (AuditFilter { actor: Some("bob".to_owned()), ..all.clone() }, 0),
    ];
    for (filter, expected) in filters {
        let (views, total) = store.audit(&filter, 3, 1).await.unwrap();
        assert_eq!(
            (total, views.len()),
            (expected, expected.saturating_sub(1).min(3) as usize),
            "{filter:?}"
        );
        assert!(views.is_sorted_by(|newer, older| newer.number > older.number));
    }
    let numbers = |views: Vec<AuditView>| views.iter().map(|view| view.number).collect::<Vec<_>>();
    assert_eq!(numbers(store.audit_after(7, 3).await.unwrap()), [8, 9, 10]);
    assert_eq!(numbers(store.audit(&all, 2, 0).await.unwrap().0), [20, 19]);
}

async fn the_trail_is_a_chain(store: Arc<dyn Store>) {
    let rules = (0..50).map(|n| rule(&n.to_string(), PauseScope::default()));
    let added = rules.map(|rule| store.add_pause_rule(rule, audit()));
    futures_util::future::join_all(added).await.into_iter().for_each(|added| added.unwrap());
    // One that is refused takes no number.
    assert!(store.add_pause_rule(rule("7", PauseScope::default()), audit()).await.is_err());
    store.add_pause_rule(rule("new", PauseScope::default()), audit()).await.unwrap();
    let mut chain = Chain::default();
    for view in trail(&store).await {
        chain.follow(view.number, &view.entry, &view.hash).unwrap();
    }
    assert_eq!(chain.count, 51);
}

async fn the_same_trouble_is_counted_together(store: Arc<dyn Store>) {
    with_order(&store).await;
    for n in 0..7 {
        fails(&store, &format!("e{n}"), &format!("order {n} is lost"), 2_000 + n).await;
    }
    fails(&store, "x", "something else", 1_000).await;
    let all = FailedSelection::default();
    let [lost, other] = &store.troubles(&all, 9, 2).await.unwrap()[..] else { panic!("two troubles") };
    assert_eq!((lost.count, lost.first_at, lost.last_at), (7, at(2_000), at(2_006)));
    assert_eq!(lost.examples, [id("e6"), id("e5")]);
    assert_eq!(
        (lost.trouble.shape.as_str(), &lost.fingerprint),
        ("order # is lost", &lost.trouble.fingerprint())
    );
    assert_eq!((other.count, other.examples.len()), (1, 1));
    assert_eq!(store.troubles(&all, 1, 0).await.unwrap().len(), 1);
    let found = FailedSelection { search: Some("X".to_owned()), ..all.clone() };
    assert_eq!(store.troubles(&found, 9, 9).await.unwrap(), std::slice::from_ref(other));
    // By when they failed, both bounds included.
    let late = FailedSelection { from: Some(at(2_005)), to: Some(at(2_006)), ..all };
    let [late] = &store.troubles(&late, 9, 9).await.unwrap()[..] else { panic!("one trouble") };
    assert_eq!((late.count, late.first_at), (2, at(2_005)));
}

async fn a_bulk_repair_has_the_failed_executions_that_match(store: Arc<dyn Store>) {
    with_order(&store).await;
    for n in 0..5 {
        fails(&store, &format!("e{n}"), "lost", 2_000 - n).await;
    }
    fails(&store, "x", "something else", 1_000).await;
    claimed(&store, "running").await;
    let fingerprint = Trouble::of(&task("order"), 1, &Failure::new(FailureKind::Error, "lost")).fingerprint();
    let all = FailedSelection::default();
    let selections = [
        (all.clone(), 6),
        (FailedSelection { fingerprint: Some(fingerprint.clone()), ..all.clone() }, 5),
        (FailedSelection { task: Some(task("refund")), ..all.clone() }, 0),
        (FailedSelection { version: Some(1), ..all.clone() }, 6),
        (FailedSelection { from: Some(at(1_997)), to: Some(at(1_999)), ..all.clone() }, 3),
        (FailedSelection { search: Some("E".to_owned()), ..all.clone() }, 6),
        (FailedSelection { search: Some("E3".to_owned()), ..all.clone() }, 1),
    ];
    for (n, (selection, expected)) in selections.into_iter().enumerate() {
        assert_eq!(store.count_selection(&selection).await.unwrap(), expected, "{selection:?}");
        let new = bulk(&n.to_string(), selection);
        assert_eq!(store.create_bulk(new.clone(), entry(AuditAction::StartBulk)).await.unwrap(), expected);
        let shown = store.bulk(&new.id).await.unwrap().unwrap();
        assert_eq!((shown.plan, shown.selection, shown.state), (new.plan, new.selection, BulkState::Running));
        assert_eq!(shown.progress, BulkProgress { pending: expected, ..BulkProgress::default() });
    }
    let pending = store.pending_bulk_items(&BulkId::new("1"), 3).await.unwrap();
    assert_eq!(pending, [id("e4"), id("e3"), id("e2")], "oldest failure first");
    assert!(store.create_bulk(bulk("1", all), audit()).await.is_err());
    let newest_first: Vec<_> = store.bulks().await.unwrap().into_iter().map(|bulk| bulk.id).collect();
    assert_eq!((newest_first.len(), newest_first[0].as_str()), (7, "6"));
    assert_eq!(store.bulk(&BulkId::new("none")).await.unwrap(), None);
}

/// Reopens a failed execution, for a bulk repair or not; and takes it up.
async fn reopened(store: &Arc<dyn Store>, name: &str, bulk: Option<&BulkId>) -> Result<Claim, StoreError> {
    let seized = store.seize(&id(name)).await?.unwrap();
    let first_number = seized.records.len() as u64;
    let change = RepairChange::Amend { first_number, records: vec![], version: None };
    let repair = Repair { claim: seized.claim, change, audit: audit(), bulk: bulk.cloned() };
    let run = store.repair(repair).await?;
    Ok(store.claim(run, at(9_000)).await?.unwrap().claim)
}

async fn a_bulk_repair_settles_by_how_its_executions_end(store: Arc<dyn Store>) {
    with_order(&store).await;
    for n in 0..6 {
        fails(&store, &format!("e{n}"), "lost", 2_000 + n).await;
    }
    let new = bulk("b", FailedSelection::default());
    let of = &new.id.clone();
    store.create_bulk(new, audit()).await.unwrap();
    let well = reopened(&store, "e0", Some(of)).await.unwrap();
    let badly = reopened(&store, "e1", Some(of)).await.unwrap();
    reopened(&store, "e2", Some(of)).await.unwrap();
    reopened(&store, "e3", Some(of)).await.unwrap();
    store.skip_bulk_item(of, &id("e4"), "it is not dead").await.unwrap();
    store.skip_bulk_item(of, &id("e0"), "too late").await.unwrap();
    let before = BulkProgress { pending: 1, under_way: 4, skipped: 1, ..BulkProgress::default() };
    assert_eq!(store.settle_bulk(of).await.unwrap(), before);

    store.commit(standing(well, 0, completed("1", 9_001))).await.unwrap();
    end_failed(&store, badly, "lost \"again\"", 9_002).await;
    store.cancel(&id("e2"), None, at(9_003), audit()).await.unwrap();
    let after = BulkProgress { pending: 1, under_way: 1, completed: 1, failed: 2, skipped: 1 };
    assert_eq!(store.settle_bulk(of).await.unwrap(), after);
    assert_eq!(store.settle_bulk(of).await.unwrap(), after);
    // What is settled stays, whatever comes of the execution.
    reopened(&store, "e1", None).await.unwrap();
    assert_eq!(store.settle_bulk(of).await.unwrap(), after);
    let shown = store.bulk(of).await.unwrap().unwrap();
    let why = |name: &str, why: &str| (id(name), why.to_owned());
    let expected =
        [why("e1", "lost \"again\""), why("e2", "the execution was cancelled"), why("e4", "it is not dead")];
    assert_eq!((shown.progress, &shown.examples[..]), (after, &expected[..]));
    assert_eq!(store.pending_bulk_items(of, 9).await.unwrap(), [id("e5")]);
    // Each item once.
    let twice = reopened(&store, "e2", Some(of)).await;
    assert!(matches!(twice, Err(StoreError::Unavailable(_))), "{twice:?}");
    assert_eq!(store.settle_bulk(&BulkId::new("none")).await.unwrap(), BulkProgress::default());
}

async fn a_bulk_repair_ends_once_and_repairs_nothing_afterwards(store: Arc<dyn Store>) {
    with_order(&store).await;
    fails(&store, "a", "lost", 2_000).await;
    let new = bulk("b", FailedSelection::default());
    let of = &new.id.clone();
    store.create_bulk(new, audit()).await.unwrap();
    let before = trail(&store).await.len();
    let end = async |state| {
        let audit = Some(entry(AuditAction::CancelBulk));
        store.end_bulk(of, state, Some("enough"), at(9_000), audit).await.unwrap()
    };
    assert!(end(BulkState::Cancelled).await);
    assert!(!end(BulkState::Stopped).await);
    assert_eq!(trail(&store).await.len(), before + 1);
    let shown = store.bulk(of).await.unwrap().unwrap();
    assert_eq!((shown.state, shown.ended_at), (BulkState::Cancelled, Some(at(9_000))));
    assert_eq!(shown.why.as_deref(), Some("enough"));
    let late = reopened(&store, "a", Some(of)).await;
    assert!(matches!(late, Err(StoreError::Unavailable(_))), "{late:?}");
    assert_eq!(view(&store, "a").await.error.unwrap().message, "lost");
}

#[tokio::test]
async fn the_trail_can_only_be_added_to_and_what_is_altered_all_the_same_is_found() {
    let directory = TempDir::new().unwrap();
    let sqlite = Arc::new(open(&directory).await);
    let store: Arc<dyn Store> = sqlite.clone();
    for n in 0..4 {
        store.add_pause_rule(rule(&n.to_string(), PauseScope::default()), audit()).await.unwrap();
    }
    let broken = async || {
        let mut trail = AuditTrail::open(directory.path()).await.unwrap();
        let mut chain = Chain::default();
        for row in trail.after(0, 100).await.unwrap() {
            match row {
                AuditRow::Read(view) => chain.follow(view.number, &view.entry, &view.hash)?,
                AuditRow::Unreadable { number, .. } => return Err(Broken::Altered(number)),
            }
        }
        Ok(chain.count)
    };
    assert_eq!(broken().await, Ok(4));
    let alter = "drop trigger audit_is_not_altered; update audit set before = 'no json' where number = 3";
    sqlite.run_on_writer(alter).await;
    assert_eq!(broken().await, Err(Broken::Altered(3)));
    assert!(matches!(store.audit_after(0, 9).await, Err(StoreError::Corrupt(_))));
    sqlite.run_on_writer("update audit set actor = 'bob' where number = 2").await;
    assert_eq!(broken().await, Err(Broken::Altered(2)));
    sqlite.run_on_writer("drop trigger audit_is_not_shortened; delete from audit where number = 1").await;
    assert_eq!(broken().await, Err(Broken::Missing { expected: 1, found: 2 }));
}
