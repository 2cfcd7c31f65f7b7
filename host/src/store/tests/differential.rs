//! The same random verbs through the reference model and through SQLite: equal answers, and equal
//! views, journals and events after each round.
//!
//! The verbs of a round are about different executions and go to SQLite all at once, so that they
//! meet in its batches; the model does them one after the other.

mod random;

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures_util::future::join_all;
use stepbox_domain::{ExecutionStatus, capability::SecretName};

use random::{Dice, any_verb, any_whole};

use super::given::{audit, *};
use crate::store::*;

/// A verb about one execution.
#[derive(Clone, Debug)]
enum Verb {
    /// Whether held from the start, and with what the run has come to.
    Create(Box<(NewExecution, Option<Option<Commit>>)>),
    /// By somebody who knows so many records.
    Claim(u64),
    /// Under the claim of that number, counted from the execution's first; whose run key is
    /// filled in for each store.
    Commit(usize, Commit),
    Cancel,
    /// Whether to take hold of the run, too, knowing so many records.
    Send(&'static str, bool, u64),
    /// Seizes it, and seizes it once more where `lost`, before the repair; none: lets it go.
    Repair {
        repair: Option<RepairChange>,
        bulk: Option<BulkId>,
        lost: bool,
    },
}

/// What the test knows of an execution, in one of the stores.
#[derive(Clone, Default)]
struct Seen {
    run: Option<RunKey>,
    claims: Vec<Claim>,
}

struct Side {
    store: Arc<dyn Store>,
    seen: HashMap<String, Seen>,
}

impl Side {
    fn new(store: Arc<dyn Store>) -> Self {
        Side { store, seen: HashMap::new() }
    }

    fn seen(&self, execution: &str) -> Seen {
        self.seen.get(execution).cloned().unwrap_or_default()
    }

    /// Does the verb; the answer as text, and what it taught.
    async fn perform(store: &Arc<dyn Store>, seen: Seen, execution: &str, verb: Verb) -> (String, Seen) {
        let mut seen = seen;
        let id = id(execution);
        let answer = match verb {
            Verb::Create(start) => {
                let (new, hold) = *start;
                let claim = hold.as_ref().map(|_| Claim::first(store.new_run()));
                let hold = claim.zip(hold).map(|(claim, commit)| HeldRun {
                    run: claim.run,
                    commit: commit.map(|commit| Commit { claim, ..commit }),
                });
                let created = store.create_execution(NewExecution { held: hold, ..new }).await;
                if let Ok(Creation::New { run, .. }) = &created {
                    seen.run = Some(*run);
                    seen.claims.extend(claim);
                }
                format!("{created:?}")
            }
            Verb::Claim(known) => {
                let claimed = store.claim_from(seen.run.unwrap_or(RunKey(0)), at(3_000), known).await;
                if let Ok(Some(claimed)) = &claimed {
                    seen.claims.push(claimed.claim);
                }
                format!("{claimed:?}")
            }
            Verb::Commit(nth, commit) => {
                let committed = store.commit(Commit { claim: seen.claims[nth], ..commit }).await;
                match committed {
                    // Each store says in its own way what is wrong.
                    Err(StoreError::Corrupt(_)) => "Corrupt".to_owned(),
                    other => format!("{other:?}"),
                }
            }
            Verb::Cancel => format!("{:?}", store.cancel(&id, Some("ann"), at(4_000), audit()).await),
            Verb::Repair { repair, bulk, lost } => repaired(store, &mut seen, &id, repair, bulk, lost).await,
            Verb::Send(name, claim, known) => {
                let claim = knowing(known).filter(|_| claim);
                let event = NewEvent { claim, ..new_event(id.as_str(), name, "[1]") };
                let added = store.add_event(event).await;
                match &added {
                    Ok(EventAdded::Added { taken: Taken::Held(claimed), .. }) => {
                        seen.claims.push(claimed.claim);
                        format!("{added:?} with its run")
                    }
                    _ => format!("{added:?}"),
                }
            }
        };
        (answer, seen)
    }

    /// How the execution stands, as text.
    async fn stands(&self, execution: &str) -> String {
        let view = self.store.execution(&id(execution)).await.unwrap();
        let Some(view) = view else { return "unknown".to_owned() };
        let journal = self.store.journal(&view.run).await.unwrap();
        let events = self.store.events_after(view.run_key, 0).await.unwrap();
        let runs = self.store.runs(&view.id).await.unwrap();
        self.with_names(&format!("{view:#?}\n{journal:?}\n{events:?}\n{runs:?}"))
    }

    /// The keys of runs differ between stores: each is replaced by its execution.
    fn with_names(&self, text: &str) -> String {
        let names: BTreeMap<String, &String> = self
            .seen
            .iter()
            .filter_map(|(execution, seen)| Some((seen.run?.0.to_string(), execution)))
            .collect();
        let mut parts = text.split("RunKey(");
        let mut named = parts.next().unwrap_or_default().to_owned();
        for part in parts {
            let (key, rest) = part.split_once(')').unwrap_or((part, ""));
            let key = key.trim().trim_end_matches(',');
            named.push_str(&format!("run of {:?}", names.get(key)));
            named.push_str(rest);
        }
        named
    }
}

async fn repaired(
    store: &Arc<dyn Store>,
    seen: &mut Seen,
    execution: &ExecutionId,
    repair: Option<RepairChange>,
    bulk: Option<BulkId>,
    lost: bool,
) -> String {
    let Some(seized) = store.seize(execution).await.unwrap() else { return "nothing to seize".to_owned() };
    if lost {
        store.seize(execution).await.unwrap();
    }
    let told = format!("{seized:?}");
    let Some(mut change) = repair else {
        return format!("{told} let go: {:?}", store.commit(Commit::let_go(seized.claim)).await);
    };
    if let RepairChange::Amend { first_number, .. } = &mut change {
        *first_number += seized.records.len() as u64;
    }
    let repaired = store.repair(Repair { claim: seized.claim, change, audit: audit(), bulk }).await;
    match repaired {
        Ok(run) => {
            seen.run = Some(run);
            format!("{told} repaired")
        }
        Err(StoreError::Corrupt(_)) => format!("{told} Corrupt"),
        Err(error) => {
            let let_go = store.commit(Commit::let_go(seized.claim)).await;
            format!("{told} not repaired: {error} {let_go:?}")
        }
    }
}

/// What concerns the whole store, done to one side.
#[derive(Clone, Debug)]
enum Whole {
    Recover,
    Upload(NewVersion),
    Activate(&'static str, u32),
    Remove(&'static str),
    PutSettings(&'static str, SettingsView, Option<u32>),
    Pause(PauseRule),
    Resume(Vec<PauseRuleId>),
    StartBulk(NewBulk),
    /// Settles it, skips the first item that is pending, and tells how it stands.
    Settle(BulkId),
    EndBulk(BulkId),
    SetSecret(NewSecret),
    DeleteSecret(SecretName),
}

async fn whole(side: &Side, verb: Whole) -> String {
    let store = &side.store;
    let answer = match verb {
        Whole::Recover => {
            let runs = store.recover().await.unwrap();
            // In the order of the repairs that made them, which come all at once.
            let mut told: Vec<String> = runs.iter().map(|run| side.with_names(&format!("{run:?}"))).collect();
            told.sort();
            told.join("\n")
        }
        Whole::Upload(new) => format!("{:?}", store.add_version(new, audit()).await),
        Whole::Activate(name, version) => {
            format!("{:?}", store.activate_version(&task(name), version, audit()).await)
        }
        Whole::PutSettings(name, settings, activate) => {
            let task = task(name);
            let activate = activate.map(|version| (version, audit()));
            let put = store
                .put_settings(SettingsChange { task, settings, audit: audit(), activate })
                .await
                .unwrap();
            format!("set, active: {:?}", put)
        }
        Whole::Remove(name) => format!("{:?}", store.remove_module(&task(name), audit()).await),
        // Each store says in its own way that a name is taken.
        Whole::Pause(rule) => format!("paused: {}", store.add_pause_rule(rule, audit()).await.is_ok()),
        Whole::Resume(ids) => {
            let audits = ids.iter().map(|_| audit()).collect();
            format!("resumed: {:?}", store.delete_pause_rules(&ids, Some("bob"), at(60), audits).await)
        }
        Whole::StartBulk(new) => format!("bulk: {:?}", store.create_bulk(new, audit()).await.ok()),
        Whole::Settle(id) => {
            let pending = store.pending_bulk_items(&id, 3).await.unwrap();
            if let Some(first) = pending.first() {
                store.skip_bulk_item(&id, first, "skipped").await.unwrap();
            }
            let settled = store.settle_bulk(&id).await;
            format!("{pending:?} settled: {settled:?} {:?}", store.bulk(&id).await)
        }
        Whole::SetSecret(new) => format!("secret is new: {:?}", store.set_secret(new, audit()).await),
        Whole::DeleteSecret(name) => {
            format!("secret was there: {:?}", store.delete_secret(&name, audit()).await)
        }
        Whole::EndBulk(id) => {
            let ended = store.end_bulk(&id, BulkState::Stopped, Some("why"), at(61), Some(audit())).await;
            format!("bulk ended: {ended:?}")
        }
    };
    side.with_names(&answer)
}

/// All lists, as text.
async fn lists(side: &Side, dice: &mut Dice) -> String {
    let filter = ExecutionFilter {
        status: dice.one_in(2).then(|| dice.of(&ExecutionStatus::ALL)),
        task: dice.one_in(3).then(|| "order".to_owned()),
        from: dice.one_in(3).then_some(at(1_002)),
        to: dice.one_in(3).then_some(at(1_003)),
        search: dice.one_in(3).then(|| dice.of(&["1", "E2", "RD", "%"]).to_owned()),
    };
    let page = Page {
        sort: dice.of(&[Sort::ScheduledAt, Sort::Status, Sort::TaskName]),
        descending: dice.one_in(2),
        limit: 1 + dice.below(20) as u32,
        offset: dice.below(4),
    };
    let executions = side.store.executions(&filter, page).await.unwrap();
    let selection = FailedSelection {
        task: filter.task.as_deref().map(task),
        from: filter.from,
        to: filter.to,
        search: filter.search.clone(),
        ..FailedSelection::default()
    };
    let counts = side.store.counts().await.unwrap();
    let modules = side.store.modules().await.unwrap();
    let versions = side.store.versions(&task("order")).await.unwrap();
    let settings = side.store.settings().await.unwrap();
    let troubles = side.store.troubles(&selection, 3, 3).await.unwrap();
    let rules = side.store.pause_rules(dice.one_in(2)).await.unwrap();
    let secrets = side.store.secrets().await.unwrap();
    let entries = side.store.audit(&AuditFilter::default(), 1, 0).await.unwrap().1;
    side.with_names(&format!(
        "{filter:?} {page:?}\n{executions:?}\n{counts:?}\n{modules:?}\n{versions:?}\n{settings:?}
         {troubles:?}\n{rules:?}\n{secrets:?}\n{entries}"
    ))
}

const ROUNDS_MIN: u64 = 600;
const ROUNDS_MAX: u64 = 8_000;

/// The outcomes that a run has to come across, or it proves little.
const OUTCOMES: &[&str] = &[
    "Ok(New {",
    "Ok(Replay(",
    "Ok(Clash {",
    "Err(Unavailable(",
    "Ok(Some(Claimed {",
    "Ok(None)",
    "Ok(())",
    "Err(ClaimLost)",
    "Corrupt",
    "Ok(Cancelled(",
    "Ok(AlreadyOver(",
    "Ok(NoSuchExecution)",
    "awaited: true",
    "awaited: false",
    "with its run",
    "crashes: 1",
    "waiting: true",
    "Ok(New(VersionView",
    "Ok(Same(",
    "waiting: true, digest",
    "set, active: None",
    "set, active: Some(",
    "Ok(Removed)",
    "Ok(NoSuchModule)",
    "Ok(InUse(",
    "let go: Ok(",
    "let go: Err(ClaimLost",
    " repaired",
    "not repaired: the claim",
    "has no version",
    "is not pending in bulk repair",
    "paused: true",
    "paused: false",
    "resumed: Ok([PauseRuleId",
    "bulk: Some(",
    "bulk: None",
    "under_way: 1",
    "bulk ended: Ok(true)",
    "bulk ended: Ok(false)",
    "secret is new: Ok(true)",
    "secret is new: Ok(false)",
    "secret was there: Ok(true)",
    "secret was there: Ok(false)",
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sqlite_does_what_the_model_does() {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_nanos();
    let seed = std::env::var("STEPBOX_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(now as u64);
    println!("STEPBOX_SEED={seed}");
    let mut dice = Dice(seed);
    let (sqlite, _directory) = sqlite().await;
    let (mut model, mut sqlite) = (Side::new(memory()), Side::new(sqlite));
    let mut missing: BTreeSet<&str> = OUTCOMES.iter().copied().collect();

    for round in 0.. {
        if round >= ROUNDS_MIN && missing.is_empty() {
            break;
        }
        assert!(round < ROUNDS_MAX, "never came across {missing:?} with STEPBOX_SEED={seed}");
        let mut note = |answer: &str| missing.retain(|outcome| !answer.contains(outcome));
        let about = format!("round {round} of STEPBOX_SEED={seed}");
        if dice.one_in(6) {
            let verb = any_whole(&mut dice, &model).await;
            let answer = whole(&model, verb.clone()).await;
            assert_eq!(answer, whole(&sqlite, verb.clone()).await, "{about}: {verb:?}");
            note(&answer);
        }
        let count = 1 + if dice.one_in(3) { 0 } else { dice.below(20) };
        let executions: BTreeSet<String> =
            (0..count).map(|_| format!("e{}", dice.below(10) + round / 6)).collect();
        let mut verbs = Vec::new();
        for execution in &executions {
            verbs.push((execution.clone(), any_verb(&mut dice, &model, execution, 2).await));
        }
        let at_once = verbs.iter().map(|(execution, verb)| {
            Side::perform(&sqlite.store, sqlite.seen(execution), execution, verb.clone())
        });
        let answers = join_all(at_once).await;
        for ((execution, verb), (answer, seen)) in verbs.iter().zip(answers) {
            sqlite.seen.insert(execution.clone(), seen);
            let (expected, seen) =
                Side::perform(&model.store, model.seen(execution), execution, verb.clone()).await;
            model.seen.insert(execution.clone(), seen);
            let (expected, answer) = (model.with_names(&expected), sqlite.with_names(&answer));
            assert_eq!(expected, answer, "{about}: {verb:?} of {execution}, all of {verbs:?}");
            note(&expected);
        }
        for execution in &executions {
            assert_eq!(model.stands(execution).await, sqlite.stands(execution).await, "{about}: {verbs:?}");
        }
        let (mut these, mut those) = (Dice(round), Dice(round));
        assert_eq!(lists(&model, &mut these).await, lists(&sqlite, &mut those).await, "{about}");
    }
}
