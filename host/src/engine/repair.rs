//! An admin mends an execution: carries out the plans of the domain.
//!
//! Every repair goes the same way ([`mend`]): planned on the run as everybody can read it, so that
//! what makes no sense changes nothing; then the run is seized, which ends whoever drives it; then
//! planned once more on what is there now, written, and made ready to go.

mod plan;

use std::{sync::Arc, time::Duration};

use serde_json::json;
use stepbox_domain::{
    ExecutionId, ExecutionStatus, Failure, Json, Run, RunId, StepKey,
    audit::AuditEntry,
    bulk::BulkId,
    repair::{self as plans, Effects, Stale},
    run::RunOutcome,
    step::{Overrides, StepStatus},
};
use tokio::sync::RwLockReadGuard;

use self::plan::{Plan, Seen, rerun, resolved, restarted, retried};
use super::{
    Engine, EngineError, Inner, Who, carried_through,
    grants::{check_granted, why_not_active},
    modules::{Active, Modules},
    settings::check_value,
    stopping::Phase,
    turns::Turn,
};
use crate::{
    fault::{self, Fault},
    store::{Claim, Commit, ExecutionView, Repair, RepairChange, StoreError},
};

/// How often a repair begins again because somebody else took the run meanwhile.
const LOOKS_MAX: u32 = 5;

/// How soon it is tried again to let go of a run.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// A dead step is to be tried again.
#[derive(Clone, Debug)]
pub struct StepRetry {
    pub step: StepKey,
    pub overrides: Overrides,
    /// The module version to go on with; none: the one that the run is pinned to.
    pub version: Option<u32>,
}

#[derive(Clone, Debug)]
pub struct Retried {
    pub run: RunId,
    pub step: StepKey,
    /// The number of the next attempt.
    pub attempt: u32,
    pub effects: Effects,
}

#[derive(Clone, Debug)]
pub struct Resolved {
    pub run: RunId,
    pub step: StepKey,
    pub effects: Effects,
}

#[derive(Clone, Debug)]
pub struct Restarted {
    /// The new run.
    pub run: RunId,
    pub index: u32,
    pub version: u32,
    pub effects: Effects,
}

#[derive(Clone, Debug)]
pub struct Rerun {
    /// The new run.
    pub run: RunId,
    pub index: u32,
    pub version: u32,
    pub effective: Vec<StepKey>,
    pub stale: Vec<Stale>,
    pub effects: Effects,
}

/// Whose repair it is, and within what.
#[derive(Clone, Debug, Default)]
pub(crate) struct Order {
    pub who: Who,
    pub dry_run: bool,
    /// The bulk repair that it is part of.
    pub bulk: Option<BulkId>,
}

impl Engine {
    /// Tries a dead step again in its run. With `dry_run` nothing changes, and the answer says what
    /// would.
    pub async fn retry_step(
        &self,
        execution: &ExecutionId,
        retry: StepRetry,
        who: Who,
        dry_run: bool,
    ) -> Result<Retried, EngineError> {
        let (engine, execution) = (self.0.clone(), execution.clone());
        let order = Order { who, dry_run, bulk: None };
        carried_through(async move {
            let floor = Floor::take(&engine, &execution).await?;
            mend(&engine, &floor, &order, |seen| Ok(retried(seen, &retry, &order)?)).await
        })
        .await
    }

    /// Puts in by hand what a dead step has come to.
    pub async fn resolve_step(
        &self,
        execution: &ExecutionId,
        step: StepKey,
        outcome: Result<Json, Failure>,
        who: Who,
        dry_run: bool,
    ) -> Result<Resolved, EngineError> {
        let (engine, execution) = (self.0.clone(), execution.clone());
        let order = Order { who, dry_run, bulk: None };
        carried_through(async move {
            let floor = Floor::take(&engine, &execution).await?;
            if let Ok(result) = &outcome {
                floor.check_value(&engine, "the result", result)?;
            }
            mend(&engine, &floor, &order, |seen| Ok(resolved(seen, &step, &outcome, &order)?)).await
        })
        .await
    }

    /// Ends the current run, if it is still going, and begins a new one from nothing, on the active
    /// version.
    pub async fn restart(
        &self,
        execution: &ExecutionId,
        payload: Option<Json>,
        who: Who,
        dry_run: bool,
    ) -> Result<Restarted, EngineError> {
        let (engine, execution) = (self.0.clone(), execution.clone());
        let order = Order { who, dry_run, bulk: None };
        carried_through(async move {
            let floor = Floor::take(&engine, &execution).await?;
            if let Some(payload) = &payload {
                floor.check_value(&engine, "the payload", payload)?;
            }
            let active = floor.active_for(&engine, payload.as_ref()).await?;
            mend(&engine, &floor, &order, |seen| Ok(restarted(seen, &active, payload.as_ref(), &order))).await
        })
        .await
    }

    /// Ends the current run, if it is still going, and begins a new one, on the active version, that
    /// keeps what is completed but for `steps`.
    pub async fn rerun(
        &self,
        execution: &ExecutionId,
        steps: Vec<StepKey>,
        preserve: Vec<StepKey>,
        who: Who,
        dry_run: bool,
    ) -> Result<Rerun, EngineError> {
        let (engine, execution) = (self.0.clone(), execution.clone());
        let wanted = plans::Rerun { steps, preserve, by: who.by.clone() };
        let order = Order { who, dry_run, bulk: None };
        carried_through(async move {
            let floor = Floor::take(&engine, &execution).await?;
            let active = floor.active_for(&engine, None).await?;
            mend(&engine, &floor, &order, |seen| Ok(rerun(seen, &active, &wanted)?)).await
        })
        .await
    }
}

/// Why an item of a bulk repair is not repaired.
pub(crate) enum ItemTrouble {
    /// It is no longer what was selected.
    Changed(String),
    Engine(EngineError),
}

impl From<EngineError> for ItemTrouble {
    fn from(error: EngineError) -> Self {
        ItemTrouble::Engine(error)
    }
}

/// Tries the dead step again that made a failed execution fail.
pub(crate) async fn retry_failed(
    engine: &Arc<Inner>,
    execution: &ExecutionId,
    overrides: &Overrides,
    version: Option<u32>,
    order: &Order,
) -> Result<(), ItemTrouble> {
    let floor = Floor::take(engine, execution).await?;
    still_failed(floor.view.status)?;
    mend(engine, &floor, order, |seen| {
        still_failed(seen.status)?;
        let Some(step) = step_to_blame(&seen.run) else {
            return Err(ItemTrouble::Changed("it has no dead step that could be tried again".to_owned()));
        };
        let retry = StepRetry { step, overrides: overrides.clone(), version };
        Ok(retried(seen, &retry, order).map_err(EngineError::from)?)
    })
    .await
    .map(|_| ())
}

/// Restarts a failed execution with the payload that it has.
pub(crate) async fn restart_failed(
    engine: &Arc<Inner>,
    execution: &ExecutionId,
    order: &Order,
) -> Result<(), ItemTrouble> {
    let floor = Floor::take(engine, execution).await?;
    still_failed(floor.view.status)?;
    let active = floor.active_for(engine, None).await?;
    mend(engine, &floor, order, |seen| {
        still_failed(seen.status)?;
        Ok::<_, ItemTrouble>(restarted(seen, &active, None, order))
    })
    .await
    .map(|_| ())
}

fn still_failed(status: ExecutionStatus) -> Result<(), ItemTrouble> {
    match status {
        ExecutionStatus::Failed => Ok(()),
        other => Err(ItemTrouble::Changed(format!("it is no longer failed but {}", other.as_str()))),
    }
}

/// The step that the failure names; else the last one that is dead.
fn step_to_blame(run: &Run) -> Option<StepKey> {
    let named = match run.end().map(|end| &end.outcome) {
        Some(RunOutcome::Failed(failure)) => failure.step.clone(),
        _ => None,
    };
    let dead = || run.steps().iter().rev().find(|step| step.status() == StepStatus::Dead);
    named.or_else(|| dead().map(|step| step.key.clone()))
}

/// What a repair stands on while it goes on: nobody else repairs the execution, and no version
/// comes or goes.
struct Floor<'a> {
    _turn: Turn<'a>,
    modules: RwLockReadGuard<'a, Modules>,
    view: ExecutionView,
}

impl<'a> Floor<'a> {
    async fn take(engine: &'a Inner, execution: &ExecutionId) -> Result<Self, EngineError> {
        let turn = engine.turns.take(execution).await;
        let modules = engine.modules.read().await;
        match engine.store.execution(execution).await? {
            None => Err(EngineError::UnknownExecution(execution.clone())),
            Some(view) => Ok(Floor { _turn: turn, modules, view }),
        }
    }

    /// Of what the repair brings along. What the execution has already it keeps, whatever the limit
    /// is by now.
    fn check_value(&self, engine: &Inner, what: &'static str, value: &Json) -> Result<(), EngineError> {
        let task = &self.view.task;
        check_value(&engine.settings.of(task).limits, task, what, value)
    }

    /// The version that a new run gets. It must take the payload: the new one, else the old one,
    /// which may have been made for another version.
    async fn active_for(&self, engine: &Inner, payload: Option<&Json>) -> Result<Arc<Active>, EngineError> {
        let Some(active) = self.modules.active(&self.view.task) else {
            return Err(why_not_active(engine, self.view.task.clone()).await);
        };
        active.accepts(payload.unwrap_or(&self.view.payload))?;
        Ok(active)
    }
}

/// Carries out a repair, or with a dry run finds out what it would come to.
async fn mend<A, E: From<EngineError>>(
    engine: &Arc<Inner>,
    floor: &Floor<'_>,
    order: &Order,
    plan: impl Fn(&Seen) -> Result<Plan<A>, E>,
) -> Result<A, E> {
    let execution = &floor.view.id;
    // An item of a bulk repair is over: there is nobody whom it would disturb to be seized.
    if order.bulk.is_none() {
        let seen = read(engine, &floor.view).await?;
        let plan = plan(&seen)?;
        check_version(engine, floor, &seen, &plan).await?;
        if order.dry_run {
            return Ok(plan.answer);
        }
    }
    let mut last = None;
    for _ in 0..LOOKS_MAX {
        let seized = engine.store.seize(execution).await.map_err(EngineError::from)?;
        let Some(seized) = seized else {
            return Err(EngineError::UnknownExecution(execution.clone()).into());
        };
        fault::point(Fault::Seized);
        let claim = seized.claim;
        last = Some(claim);
        engine.live.interrupt_before(claim.run, claim.epoch);
        // It may go on as another.
        engine.kept.forget(claim.run);
        let seen = Seen::new(engine, seized.facts, seized.status, &seized.records);
        let planned = match plan(&seen) {
            Ok(plan) => check_version(engine, floor, &seen, &plan).await.map(|()| plan).map_err(E::from),
            Err(error) => Err(error),
        };
        let plan = match planned {
            Ok(plan) => plan,
            Err(error) => {
                let_go(engine, claim).await;
                return Err(error);
            }
        };
        let audit = entry(floor, order, &seen, &plan);
        let repair = Repair { claim, change: plan.change, audit, bulk: order.bulk.clone() };
        match engine.store.repair(repair).await {
            Ok(run) => {
                fault::point(Fault::Repaired);
                engine.timers.forget(claim.run);
                engine.ready.push(run);
                engine.waiters.wake(execution, None);
                return Ok(plan.answer);
            }
            Err(StoreError::ClaimLost) => {}
            Err(error) => {
                let_go(engine, claim).await;
                return Err(EngineError::from(error).into());
            }
        }
    }
    if let Some(claim) = last {
        let_go(engine, claim).await;
    }
    let reason = format!("the execution was changed {LOOKS_MAX} times while it was to be repaired");
    Err(EngineError::from(StoreError::Unavailable(reason)).into())
}

async fn read(engine: &Inner, view: &ExecutionView) -> Result<Seen, EngineError> {
    let journal = engine.store.journal(&view.run).await?;
    let (facts, records) =
        journal.ok_or_else(|| StoreError::Corrupt(format!("run {} has no journal", view.run)))?;
    Ok(Seen::new(engine, facts, view.status, &records))
}

/// A run that goes on needs the version that it goes on with; its module may have been removed
/// since it was over. (A new run gets the active version, which is there.)
async fn check_version<A>(
    engine: &Inner,
    floor: &Floor<'_>,
    seen: &Seen,
    plan: &Plan<A>,
) -> Result<(), EngineError> {
    let RepairChange::Amend { version: asked, .. } = &plan.change else { return Ok(()) };
    let facts = seen.run.facts();
    let version = asked.unwrap_or(facts.version);
    let task = facts.task.clone();
    if floor.modules.active(&task).is_some_and(|active| active.version == version) {
        return Ok(());
    }
    match (engine.store.version(&task, version).await?, asked) {
        (Some(view), Some(_)) => check_granted(engine, &view),
        (Some(_), None) => Ok(()),
        (None, Some(_)) => Err(EngineError::UnknownVersion { task, version }),
        (None, None) => Err(EngineError::VersionRemoved { task, version }),
    }
}

fn entry<A>(floor: &Floor<'_>, order: &Order, seen: &Seen, plan: &Plan<A>) -> AuditEntry {
    let mut after = plan.after.clone();
    if let Some(bulk) = &order.bulk {
        after["bulk"] = json!(bulk.as_str());
    }
    let target = match &plan.step {
        Some(step) => step.to_string(),
        None => seen.run.facts().run.to_string(),
    };
    AuditEntry {
        execution: Some(floor.view.id.clone()),
        task: Some(floor.view.task.clone()),
        target: Some(target),
        before: Json::from(seen.shown(plan.step.as_ref())),
        after: Json::from(after),
        ..order.who.entry(plan.action, seen.now)
    }
}

/// Nothing came of it. Whoever had the run before cannot go on, so it is taken up anew.
async fn let_go(engine: &Arc<Inner>, claim: Claim) {
    if !try_let_go(engine, claim).await {
        let engine = Arc::clone(engine);
        tokio::spawn(async move {
            loop {
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    // The next start of the host finds it.
                    () = engine.stopping.reached(Phase::Expired) => return,
                }
                if try_let_go(&engine, claim).await {
                    return;
                }
            }
        });
    }
}

async fn try_let_go(engine: &Inner, claim: Claim) -> bool {
    match engine.store.commit(Commit::let_go(claim)).await {
        // Whether there is anything to go on with, the claim finds out.
        Ok(()) | Err(StoreError::ClaimLost) => {
            engine.ready.push(claim.run);
            true
        }
        Err(error) => {
            tracing::error!(%error, run = claim.run.0, "a run cannot be let go of yet; trying again");
            false
        }
    }
}
