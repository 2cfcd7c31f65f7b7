//! Which verb comes next, by dice.

use stepbox_domain::{
    Failure, FailureKind,
    bulk::{BulkAction, BulkPlan},
    capability::SecretName,
    journal::Record,
    limits::Limit,
    pause::PauseScope,
    run::Wait,
};

use super::{
    super::given::{trouble, *},
    Side, Verb, Whole,
};
use crate::store::*;

/// SplitMix64 (Steele, Lea, Flood 2014): enough to choose by, and the same everywhere.
pub(super) struct Dice(pub u64);

impl Dice {
    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }

    pub(super) fn one_in(&mut self, n: u64) -> bool {
        self.below(n) == 0
    }

    pub(super) fn of<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len() as u64) as usize].clone()
    }
}

async fn any_repair(dice: &mut Dice, model: &Side, versions: u32) -> Verb {
    let version = 1 + dice.below(u64::from(versions) + 1) as u32;
    let records = (0..dice.below(4)).map(|_| dice.of(&[step_ran("s"), captured("[]")])).collect();
    let repair = match dice.below(5) {
        0 => None,
        1..=2 => Some(RepairChange::Amend {
            first_number: u64::from(dice.one_in(20)),
            records,
            version: dice.one_in(3).then_some(version),
        }),
        _ => Some(RepairChange::Replace {
            end: dice.one_in(2).then(|| Record::RunCancelled { by: None, at: at(7_000) }),
            at: at(7_000),
            trigger: dice.of(&[Trigger::Restart, Trigger::SelectiveRerun]),
            triggered_by: dice.one_in(2).then(|| "ann".to_owned()),
            version,
            payload: dice.one_in(2).then(|| json("[7]")),
            deadline: dice.one_in(2).then_some(at(9_000)),
            records,
        }),
    };
    let bulk = if dice.one_in(2) { Some(any_bulk(dice, model).await) } else { None };
    Verb::Repair { repair, bulk, lost: dice.one_in(8) }
}

/// Mostly the newest that there is.
/// How many records somebody may know of a run: often none, and sometimes more than there are.
fn any_known(dice: &mut Dice) -> u64 {
    if dice.one_in(2) { 0 } else { dice.below(5) }
}

async fn any_bulk(dice: &mut Dice, model: &Side) -> BulkId {
    let bulks = model.store.bulks().await.unwrap();
    match bulks.first() {
        Some(bulk) if !dice.one_in(6) => bulk.id.clone(),
        _ => BulkId::new(format!("b{}", dice.below(100))),
    }
}

/// A random verb about `execution`.
pub(super) async fn any_verb(dice: &mut Dice, model: &Side, execution: &str, versions: u32) -> Verb {
    let seen = model.seen(execution);
    if let Some(bulk) = model.store.bulks().await.unwrap().first()
        && model.store.pending_bulk_items(&bulk.id, 1_000).await.unwrap().contains(&id(execution))
        && dice.one_in(2)
    {
        // Seldom enough to be helped along.
        let change = RepairChange::Amend { first_number: 0, records: vec![], version: None };
        return Verb::Repair { repair: Some(change), bulk: Some(bulk.id.clone()), lost: false };
    }
    match dice.below(12) {
        0..=1 => any_start(dice, execution, versions),
        2..=3 => Verb::Claim(any_known(dice)),
        4..=8 if !seen.claims.is_empty() => {
            let nth = match dice.one_in(6) {
                true => dice.below(seen.claims.len() as u64) as usize,
                false => seen.claims.len() - 1,
            };
            Verb::Commit(nth, any_commit(dice, model, execution, seen.claims[nth]).await)
        }
        9 if dice.one_in(3) => Verb::Cancel,
        9..=10 => any_repair(dice, model, versions).await,
        _ => Verb::Send(dice.of(&["x", "y"]), dice.one_in(2), any_known(dice)),
    }
}

/// In the place of one that is filled in for each store.
const NO_CLAIM: Claim = Claim { run: RunKey(0), epoch: Epoch(0) };

fn any_start(dice: &mut Dice, execution: &str, versions: u32) -> Verb {
    let payload = if dice.one_in(5) { "[2]" } else { "[1]" };
    let new = NewExecution {
        version: 1 + dice.below(u64::from(versions) + 1) as u32,
        now: at(1_000 + dice.below(5) as i64),
        deadline: dice.one_in(2).then_some(at(9_000)),
        ..start(execution, dice.of(&["order", "refund"]), payload)
    };
    let is_held = dice.one_in(2);
    let hold = is_held.then(|| dice.one_in(2).then(|| come_to(dice, commit(NO_CLAIM, 0))));
    Verb::Create(Box::new((new, hold)))
}

async fn any_commit(dice: &mut Dice, model: &Side, execution: &str, claim: Claim) -> Commit {
    let Some(view) = model.store.execution(&id(execution)).await.unwrap() else { return commit(claim, 0) };
    let length = model.store.journal(&view.run).await.unwrap().unwrap().1.len() as u64;
    let mut commit = come_to(dice, commit(claim, length));
    if dice.one_in(3) {
        let pending = model.store.events_after(view.run_key, 0).await.unwrap();
        commit.consumed = pending.iter().take(1).map(|event| event.seq).collect();
    }
    if dice.one_in(40) {
        commit.consumed = vec![dice.below(50) as i64];
    }
    if dice.one_in(40) && !commit.records.is_empty() && length > 0 {
        commit.first_number = dice.below(length);
    }
    commit
}

/// `commit` with what the run came to in it.
fn come_to(dice: &mut Dice, mut commit: Commit) -> Commit {
    commit.records = (0..dice.below(4)).map(|_| dice.of(&[step_ran("s"), captured("[]")])).collect();
    commit.standing = match dice.below(14) {
        0..=1 => Some(at_event(dice.of(&["x", "y"]), dice.one_in(2).then_some(2_500))),
        2 => {
            let wait = Wait::Sleep { step: key("nap"), until: at(5_000) };
            Some(Standing::Open { waiting: Some(wait), due: Some(at(5_000)) })
        }
        3 => Some(Standing::Open { waiting: None, due: None }),
        4 => Some(completed("[3]", 6_000)),
        5..=6 => {
            let failure = Failure::new(FailureKind::Trapped, "it's \"over\"");
            commit.records.push(Record::RunFailed { failure: failure.clone(), at: at(6_000) });
            Some(Standing::Failed { failure, trouble: trouble(), at: at(6_000) })
        }
        _ => None,
    };
    commit.release = dice.one_in(4);
    commit
}

pub(super) async fn any_whole(dice: &mut Dice, model: &Side) -> Whole {
    // Nothing is ever started of "spare", so it can be removed.
    let name = dice.of(&["order", "refund", "spare"]);
    let rule = dice.below(100).to_string();
    let rules = model.store.pause_rules(dice.one_in(4)).await.unwrap();
    let oldest = rules.first().map_or_else(|| PauseRuleId::new("none"), |rule| rule.id.clone());
    let secret = SecretName::parse(dice.of(&["a", "b", "c"])).unwrap();
    match dice.below(19) {
        16 => {
            let grants = dice.of(&["{}", r#"{"env":{"A":"1"}}"#, r#"{"http":[{"host":"a.com"}]}"#]);
            let limits = if dice.one_in(2) { vec![(Limit::StepsMax, dice.below(9))] } else { Vec::new() };
            let settings = SettingsView {
                grants: serde_json::from_str(grants).unwrap(),
                limits: limits.into_iter().collect(),
            };
            Whole::PutSettings(name, settings, dice.one_in(2).then(|| 1 + dice.below(4) as u32))
        }
        17 => {
            let (ciphertext, now) = (vec![dice.below(256) as u8; 3], at(dice.below(100) as i64));
            Whole::SetSecret(NewSecret { name: secret, ciphertext, now })
        }
        18 => Whole::DeleteSecret(secret),
        8 => Whole::Pause(PauseRule {
            id: PauseRuleId::new(rule),
            scope: PauseScope { task: Some(task(name)), ..PauseScope::default() },
            created_at: at(50),
            created_by: None,
            reason: Some("why".to_owned()),
            expires_at: None,
            deleted_at: None,
            deleted_by: None,
        }),
        9 => Whole::Resume(vec![PauseRuleId::new(rule), oldest]),
        10..=11 => Whole::StartBulk(NewBulk {
            id: BulkId::new(format!("b{}", dice.below(100))),
            plan: BulkPlan {
                action: BulkAction::Restart,
                rate_per_s: 1,
                canary: 0,
                failed_max_percent: 10,
                overrides: Default::default(),
                version: None,
                by: None,
                reason: None,
            },
            selection: FailedSelection {
                search: dice.one_in(2).then(|| "E1".to_owned()),
                ..FailedSelection::default()
            },
            now: at(50),
        }),
        12..=14 => Whole::Settle(any_bulk(dice, model).await),
        15 if dice.one_in(2) => Whole::EndBulk(any_bulk(dice, model).await),
        0..=2 => Whole::Recover,
        3..=4 => {
            let new = upload(name, dice.of(&[b"1" as &[u8], b"2", b"3"]));
            Whole::Upload(NewVersion { waits: dice.one_in(2), ..new })
        }
        5 => Whole::Activate(name, 1 + dice.below(4) as u32),
        _ => Whole::Remove(name),
    }
}
