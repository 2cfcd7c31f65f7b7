//! The same repair for many executions, at a bounded rate.
//!
//! What to do next is for [`BulkPlan::next`] to say; a task for each bulk repair does it, in small
//! slices, so that whatever else the host does gets its turn in between. The store knows what is
//! done and what is not: a task begins again after a restart from there.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures_util::future::join_all;
use serde_json::json;
use stepbox_domain::{
    ExecutionId, Json,
    audit::{AuditAction, AuditEntry},
    bulk::{BulkAction, BulkId, BulkNext, BulkPlan, BulkProgress, BulkState},
};
use tokio::{sync::Notify, task::JoinHandle, time::Instant};

use super::{
    Engine, EngineError, Inner, Who, carried_through,
    grants::check_granted,
    repair::{self, ItemTrouble, Order},
    stopping::Phase,
};
use crate::store::{BulkView, FailedSelection, NewBulk, StoreError};

/// Executions that are repaired at the same time.
const SLICE_MAX: u32 = 32;

/// The pause between two slices, in which the rate allows the next few.
const TICK: Duration = Duration::from_millis(10);

/// How often the outcomes are looked at: while it repairs, and at first while it only waits.
const LOOK: Duration = Duration::from_millis(100);

/// How often the outcomes are looked at when none has come for long.
const LOOK_SELDOM: Duration = Duration::from_secs(2);

/// How soon a store that did not answer is asked again.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// Who ends a bulk repair of which too much failed again.
const THE_HOST: &str = "stepbox";

impl Engine {
    /// Starts a bulk repair over what `selection` matches now. It goes on by itself, also after a
    /// restart of the host.
    pub async fn start_bulk(
        &self,
        selection: FailedSelection,
        plan: BulkPlan,
    ) -> Result<BulkView, EngineError> {
        let engine = Arc::clone(&self.0);
        carried_through(async move { start(&engine, selection, plan).await }).await
    }

    /// Repairs nothing more; what is repaired already goes on.
    pub async fn cancel_bulk(&self, id: &BulkId, who: Who) -> Result<BulkView, EngineError> {
        let (engine, id) = (Arc::clone(&self.0), id.clone());
        carried_through(async move { cancel(&engine, &id, who).await }).await
    }
}

async fn start(
    engine: &Arc<Inner>,
    selection: FailedSelection,
    plan: BulkPlan,
) -> Result<BulkView, EngineError> {
    check(engine, &selection, &plan).await?;
    let matching = engine.store.count_selection(&selection).await?;
    if matching == 0 {
        return Err(EngineError::NothingSelected);
    }
    let id = BulkId::new(uuid::Uuid::new_v4().to_string());
    let now = engine.clock.now();
    let after = json!({ "plan": plan, "selection": selection, "executions": matching });
    let who = Who { by: plan.by.clone(), reason: plan.reason.clone() };
    let audit = AuditEntry {
        task: selection.task.clone(),
        target: Some(id.as_str().to_owned()),
        after: Json::from(after),
        ..who.entry(AuditAction::StartBulk, now)
    };
    let new = NewBulk { id: id.clone(), plan: plan.clone(), selection, now };
    engine.store.create_bulk(new, audit).await?;
    set_off(engine, &id, plan);
    view(engine, &id).await
}

async fn check(engine: &Inner, selection: &FailedSelection, plan: &BulkPlan) -> Result<(), EngineError> {
    let bad = |field, reason| Err(EngineError::BadBulk { field, reason });
    if plan.rate_per_s == 0 {
        return bad("the rate", "must be at least 1 execution a second");
    }
    if plan.failed_max_percent > 100 {
        return bad("the share that may fail again", "must be 0 to 100 percent");
    }
    if plan.action == BulkAction::Restart {
        if plan.version.is_some() {
            return bad("the version", "can be named for a retry only; a restart takes the active one");
        }
        if !plan.overrides.is_empty() {
            return bad("the overrides", "are for a retry only; a restart begins from nothing");
        }
    }
    // Without a task each item finds out for itself.
    if let (Some(task), Some(version)) = (&selection.task, plan.version) {
        match engine.store.version(task, version).await? {
            Some(view) => check_granted(engine, &view)?,
            None => return Err(EngineError::UnknownVersion { task: task.clone(), version }),
        }
    }
    Ok(())
}

async fn view(engine: &Inner, id: &BulkId) -> Result<BulkView, EngineError> {
    engine.store.bulk(id).await?.ok_or_else(|| EngineError::UnknownBulk(id.clone()))
}

async fn cancel(engine: &Inner, id: &BulkId, who: Who) -> Result<BulkView, EngineError> {
    let before = view(engine, id).await?;
    let course = engine.bulks.course(id);
    let cancelled = {
        // Waits for the slice under way; the next one sees that there is none.
        let mut may_repair = course.may_repair.lock().await;
        let now = engine.clock.now();
        let audit = AuditEntry {
            task: before.selection.task.clone(),
            target: Some(id.as_str().to_owned()),
            before: Json::from(json!({ "state": before.state.as_str() })),
            after: Json::from(json!({ "state": BulkState::Cancelled.as_str() })),
            ..who.entry(AuditAction::CancelBulk, now)
        };
        let why = who.reason.as_deref();
        let cancelled = engine.store.end_bulk(id, BulkState::Cancelled, why, now, Some(audit)).await;
        if matches!(cancelled, Ok(true)) {
            *may_repair = false;
        }
        cancelled
    };
    course.nudge.notify_one();
    drop(course);
    engine.bulks.forget_unused(id);
    let is_cancelled = cancelled?;
    let view = view(engine, id).await?;
    match is_cancelled {
        true => Ok(view),
        false => Err(EngineError::BulkOver { id: id.clone(), state: view.state }),
    }
}

/// The bulk repairs that are going on in this process.
#[derive(Default)]
pub(crate) struct Bulks {
    /// Entries exist only while somebody has one in hand.
    courses: Mutex<HashMap<BulkId, Arc<Course>>>,
    tasks: Mutex<Vec<JoinHandle<()>>>,
}

struct Course {
    /// Held while something is repaired, so that nothing is after the answer to a cancel.
    may_repair: tokio::sync::Mutex<bool>,
    nudge: Notify,
    has_task: AtomicBool,
}

impl Bulks {
    fn course(&self, id: &BulkId) -> Arc<Course> {
        let mut courses = self.courses.lock().unwrap_or_else(PoisonError::into_inner);
        let new = || {
            Arc::new(Course {
                may_repair: tokio::sync::Mutex::new(true),
                nudge: Notify::new(),
                has_task: AtomicBool::new(false),
            })
        };
        courses.entry(id.clone()).or_insert_with(new).clone()
    }

    fn forget_unused(&self, id: &BulkId) {
        let mut courses = self.courses.lock().unwrap_or_else(PoisonError::into_inner);
        if courses.get(id).is_some_and(|course| Arc::strong_count(course) == 1) {
            courses.remove(id);
        }
    }

    /// Comes back when nothing is repaired any more. The host is stopping, so none begins anew.
    pub async fn stopped(&self) {
        let tasks = std::mem::take(&mut *self.tasks.lock().unwrap_or_else(PoisonError::into_inner));
        for task in tasks {
            if let Err(error) = task.await {
                tracing::error!(%error, "a bulk repair broke off; it goes on after the next start");
            }
        }
    }
}

/// Goes on, after a start of the host, with the bulk repairs that are not over.
pub(crate) async fn resume(engine: Arc<Inner>) {
    loop {
        match engine.store.bulks().await {
            Ok(bulks) => {
                for bulk in bulks.into_iter().filter(|bulk| bulk.state == BulkState::Running) {
                    set_off(&engine, &bulk.id, bulk.plan);
                }
                return;
            }
            Err(error) => tracing::warn!(%error, "bulk repairs cannot be gone on with yet; trying again"),
        }
        tokio::select! {
            biased;
            () = tokio::time::sleep(TRY_AGAIN) => {}
            () = engine.stopping.reached(Phase::Draining) => return,
        }
    }
}

fn set_off(engine: &Arc<Inner>, id: &BulkId, plan: BulkPlan) {
    let course = engine.bulks.course(id);
    if course.has_task.swap(true, Ordering::AcqRel) {
        return;
    }
    let bulk = Bulk {
        allowance: Allowance::new(plan.rate_per_s, Instant::now()),
        engine: Arc::clone(engine),
        id: id.clone(),
        plan,
        progress: None,
        quiet: LOOK,
    };
    let mut tasks = engine.bulks.tasks.lock().unwrap_or_else(PoisonError::into_inner);
    tasks.retain(|task| !task.is_finished());
    tasks.push(tokio::spawn(async move {
        let (engine, id) = (bulk.engine.clone(), bulk.id.clone());
        bulk.run(&course).await;
        drop(course);
        engine.bulks.forget_unused(&id);
    }));
}

/// A bulk repair on its way.
struct Bulk {
    engine: Arc<Inner>,
    id: BulkId,
    plan: BulkPlan,
    allowance: Allowance,
    /// How far it was when the outcomes were last looked at, and what was repaired since.
    progress: Option<(BulkProgress, Instant)>,
    /// How long to wait for outcomes when nothing else is to be done.
    quiet: Duration,
}

enum Turn {
    Wait(Duration),
    Over,
}

impl Bulk {
    async fn run(mut self, course: &Course) {
        // It may have been cancelled between the look that found it running and now.
        let mut checked = false;
        while !self.engine.stopping.has_begun() {
            let turn = {
                let may_repair = course.may_repair.lock().await;
                match *may_repair {
                    false => Ok(Turn::Over),
                    true if !checked => match self.engine.store.bulk(&self.id).await {
                        Ok(Some(view)) if view.state == BulkState::Running => {
                            checked = true;
                            Ok(Turn::Wait(Duration::ZERO))
                        }
                        Ok(_) => Ok(Turn::Over),
                        Err(error) => Err(error),
                    },
                    true => self.turn().await,
                }
            };
            let wait = match turn {
                Ok(Turn::Over) => return,
                Ok(Turn::Wait(wait)) => wait,
                Err(error) => {
                    tracing::warn!(%error, bulk = self.id.as_str(), "a bulk repair cannot go on; trying again");
                    self.progress = None;
                    TRY_AGAIN
                }
            };
            tokio::select! {
                biased;
                () = tokio::time::sleep(wait) => {}
                () = course.nudge.notified() => {}
                () = self.engine.stopping.reached(Phase::Draining) => {}
            }
        }
    }

    async fn turn(&mut self) -> Result<Turn, StoreError> {
        let progress = self.progress().await?;
        match self.plan.next(&progress, self.allowance.left(Instant::now())) {
            BulkNext::Repair(more) => {
                self.repair(u32::try_from(more).unwrap_or(u32::MAX).min(SLICE_MAX)).await?;
                self.quiet = LOOK;
                Ok(Turn::Wait(TICK.min(self.allowance.next_in(Instant::now()))))
            }
            // What the rate forbids for now, or outcomes that have not come?
            BulkNext::Wait => match self.plan.next(&progress, 1) {
                BulkNext::Repair(_) => Ok(Turn::Wait(self.allowance.next_in(Instant::now()).max(TICK))),
                _ => Ok(Turn::Wait(self.wait_for_outcomes())),
            },
            BulkNext::Stop => {
                let (failed, ended) = (progress.failed, progress.failed + progress.completed);
                let why = format!(
                    "{failed} of {ended} that had come to an end had failed again, more than {} percent",
                    self.plan.failed_max_percent
                );
                self.end(BulkState::Stopped, Some(&why), &progress).await
            }
            BulkNext::Done => self.end(BulkState::Completed, None, &progress).await,
        }
    }

    /// How far it is. Looked up anew only now and then, since there may be many outcomes to look for.
    async fn progress(&mut self) -> Result<BulkProgress, StoreError> {
        match &self.progress {
            Some((progress, at)) if at.elapsed() < LOOK => Ok(*progress),
            _ => {
                let progress = self.engine.store.settle_bulk(&self.id).await?;
                self.progress = Some((progress, Instant::now()));
                Ok(progress)
            }
        }
    }

    /// The longer nothing has happened, the longer it waits: an execution may stand for days.
    fn wait_for_outcomes(&mut self) -> Duration {
        let wait = self.quiet;
        self.quiet = (wait * 3 / 2).min(LOOK_SELDOM);
        wait
    }

    async fn repair(&mut self, count: u32) -> Result<(), StoreError> {
        let items = self.engine.store.pending_bulk_items(&self.id, count).await?;
        self.allowance.spend(items.len() as u64);
        let repaired = join_all(items.iter().map(|item| self.repair_item(item))).await;
        for repaired in repaired {
            let repaired = repaired?;
            let Some((progress, _)) = &mut self.progress else { continue };
            progress.pending = progress.pending.saturating_sub(1);
            match repaired {
                true => progress.under_way += 1,
                false => progress.skipped += 1,
            }
        }
        Ok(())
    }

    /// Whether it could be repaired. Err: not now; it stays pending.
    async fn repair_item(&self, execution: &ExecutionId) -> Result<bool, StoreError> {
        let BulkPlan { overrides, version, by, reason, .. } = &self.plan;
        let who = Who { by: by.clone(), reason: reason.clone() };
        let order = Order { who, dry_run: false, bulk: Some(self.id.clone()) };
        let repaired = match self.plan.action {
            BulkAction::RetryStep => {
                repair::retry_failed(&self.engine, execution, overrides, *version, &order).await
            }
            BulkAction::Restart => repair::restart_failed(&self.engine, execution, &order).await,
        };
        let why = match repaired {
            Ok(()) => return Ok(true),
            Err(ItemTrouble::Engine(EngineError::Store(
                error @ (StoreError::Unavailable(_) | StoreError::ClaimLost),
            ))) => return Err(error),
            Err(ItemTrouble::Engine(error)) => error.to_string(),
            Err(ItemTrouble::Changed(why)) => why,
        };
        self.engine.store.skip_bulk_item(&self.id, execution, &why).await?;
        Ok(false)
    }

    async fn end(
        &self,
        state: BulkState,
        why: Option<&str>,
        progress: &BulkProgress,
    ) -> Result<Turn, StoreError> {
        let now = self.engine.clock.now();
        let audit = (state == BulkState::Stopped).then(|| {
            let host = Who { by: Some(THE_HOST.to_owned()), reason: why.map(str::to_owned) };
            let after = json!({
                "state": state.as_str(),
                "completed": progress.completed,
                "failed": progress.failed,
                "notTouched": progress.pending,
            });
            AuditEntry {
                target: Some(self.id.as_str().to_owned()),
                before: Json::from(json!({ "state": BulkState::Running.as_str() })),
                after: Json::from(after),
                ..host.entry(AuditAction::StopBulk, now)
            }
        });
        // False: somebody was faster. Over either way.
        self.engine.store.end_bulk(&self.id, state, why, now, audit).await?;
        Ok(Turn::Over)
    }
}

/// How many more a rate allows by now. What a late slice did not use is made up for, but not more
/// than half a second of it: a store that was away for a minute must not be met by a flood.
struct Allowance {
    rate_per_s: u64,
    begun: Instant,
    spent: u64,
}

impl Allowance {
    fn new(rate_per_s: u32, now: Instant) -> Self {
        Allowance { rate_per_s: u64::from(rate_per_s.max(1)), begun: now, spent: 0 }
    }

    /// One at the beginning, then one more with each part of a second.
    fn earned(&self, now: Instant) -> u64 {
        let micros = u64::try_from(now.duration_since(self.begun).as_micros()).unwrap_or(u64::MAX);
        1 + micros.saturating_mul(self.rate_per_s) / 1_000_000
    }

    fn left(&mut self, now: Instant) -> u64 {
        let left = self.earned(now).saturating_sub(self.spent);
        let most = (self.rate_per_s / 2).max(1);
        self.spent += left.saturating_sub(most);
        left.min(most)
    }

    fn spend(&mut self, count: u64) {
        self.spent += count;
    }

    /// When there will be one more.
    fn next_in(&self, now: Instant) -> Duration {
        // The one that is earned when `spent` of them are, not counting the first.
        let at = Duration::from_micros(self.spent.saturating_mul(1_000_000).div_ceil(self.rate_per_s));
        (self.begun + at).saturating_duration_since(now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rate_is_kept_over_time_also_when_a_slice_is_late() {
        let begun = Instant::now();
        let at = |ms| begun + Duration::from_millis(ms);
        let mut allowance = Allowance::new(500, begun);
        assert_eq!(allowance.left(at(0)), 1);
        allowance.spend(1);
        assert_eq!(allowance.left(at(0)), 0);
        assert_eq!(allowance.next_in(at(0)), Duration::from_millis(2));
        assert_eq!(allowance.left(at(20)), 10);
        allowance.spend(10);
        assert_eq!(allowance.left(at(120)), 50, "a late slice catches up");
        allowance.spend(50);
        assert_eq!(allowance.left(at(60_000)), 250, "but nothing is saved up for a flood");
        allowance.spend(250);
        assert_eq!(allowance.left(at(60_000)), 0);
        assert_eq!(allowance.left(at(60_100)), 50);
    }

    #[test]
    fn the_slowest_rate_lets_one_go_each_second() {
        let begun = Instant::now();
        let mut allowance = Allowance::new(1, begun);
        assert_eq!(allowance.left(begun), 1);
        allowance.spend(1);
        assert_eq!(allowance.next_in(begun), Duration::from_secs(1));
        assert_eq!(allowance.left(begun + Duration::from_millis(999)), 0);
        assert_eq!(allowance.left(begun + Duration::from_secs(1)), 1);
    }
}
