//! Pause rules: which are in force, which runs they hold, for how long the clocks have stood.
//!
//! The rules are a copy of what the store has, with those that are over as long as a run may still
//! have to know that they were: a run that was suspended all the while learns of a pause when it
//! is next looked at. Who asks while no rule can matter pays for one look at a number.
//!
//! A run that is held is let go, standing at [`Wait::Pause`], and is entered here under the rule
//! that it stands at. It is pushed to `ready` when that rule ends; if another rule holds it still,
//! it is found out when it is taken up, and it then stands at that one.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::Duration,
};

use chrono::{DateTime, SecondsFormat};
use serde_json::json;
use stepbox_domain::{
    ExecutionId, ExecutionStatus, Json, Run, StepKey, TaskName, Timestamp,
    audit::{AuditAction, AuditEntry},
    pause::{self, Hold, PauseRule, PauseRuleId, PauseScope},
    run::{RunFacts, Wait},
};
use tokio::time::Instant;
use uuid::{NoContext, Uuid};

use super::{Engine, EngineError, Inner, Who, carried_through, changes::Changes, clock::Clock, ready::Ready};
use crate::store::{ExecutionFilter, Page, RunKey, Sort, Store, StoreError};

/// How long anybody here sleeps at most: the wall clock may jump, and a sleep of the process does
/// not notice.
const NAP_MAX: Duration = Duration::from_secs(1);

/// From how many rules on those are looked for that are over and can matter to no run.
const KEPT_UNSEEN: usize = 64;

impl Engine {
    /// Holds what `scope` matches, until `expires_at` or until somebody ends it: no attempt that it
    /// matches begins after the answer.
    pub async fn pause(
        &self,
        scope: PauseScope,
        expires_at: Option<Timestamp>,
        who: Who,
    ) -> Result<PauseRule, EngineError> {
        let engine = self.0.clone();
        carried_through(async move { add(&engine, scope, expires_at, who).await }).await
    }

    /// Ends a rule; what no other rule holds goes on at once.
    pub async fn end_pause(&self, id: &PauseRuleId, who: Who) -> Result<(), EngineError> {
        let (engine, id) = (self.0.clone(), id.clone());
        let ended = carried_through({
            let id = id.clone();
            async move { end(&engine, |rule| rule.id == id, who).await }
        });
        match ended.await? {
            0 => Err(EngineError::UnknownPauseRule(id)),
            _ => Ok(()),
        }
    }

    /// Ends the rules in force with just this scope; how many.
    pub async fn resume(&self, scope: PauseScope, who: Who) -> Result<u64, EngineError> {
        if scope.is_empty() {
            return Err(EngineError::EmptyScope);
        }
        let engine = self.0.clone();
        carried_through(async move { end(&engine, |rule| rule.scope == scope, who).await }).await
    }

    /// The rule that holds an execution now, as a whole or at `step`.
    pub fn hold(&self, execution: &ExecutionId, task: &TaskName, step: Option<&StepKey>) -> Option<Hold> {
        self.0.pauses.hold(execution, task, step, self.0.clock.now())
    }
}

async fn add(
    engine: &Inner,
    scope: PauseScope,
    expires_at: Option<Timestamp>,
    who: Who,
) -> Result<PauseRule, EngineError> {
    if scope.is_empty() {
        return Err(EngineError::EmptyScope);
    }
    let _writing = engine.pauses.writing.lock().await;
    let now = engine.clock.now();
    if expires_at.is_some_and(|expires_at| expires_at <= now) {
        return Err(EngineError::ExpiresInThePast);
    }
    let rule = PauseRule {
        id: new_id(now),
        scope,
        created_at: now,
        created_by: who.by.clone(),
        reason: who.reason.clone(),
        expires_at,
        deleted_at: None,
        deleted_by: None,
    };
    let audit = audit(AuditAction::Pause, None, &rule, &who, now);
    engine.store.add_pause_rule(rule.clone(), audit).await?;
    if engine.pauses.add(rule.clone()) >= KEPT_UNSEEN {
        // What is not pruned now is pruned with the next rule.
        match oldest_unfinished(engine.store.as_ref(), now).await {
            Ok(since) => engine.pauses.prune(since),
            Err(error) => tracing::warn!(%error, "pause rules that are over could not be looked through"),
        }
    }
    Ok(rule)
}

/// Ends the rules in force that are `wanted`; how many.
async fn end(engine: &Inner, wanted: impl Fn(&PauseRule) -> bool, who: Who) -> Result<u64, EngineError> {
    let _writing = engine.pauses.writing.lock().await;
    let now = engine.clock.now();
    let rules = engine.pauses.in_force(now, wanted);
    if rules.is_empty() {
        return Ok(0);
    }
    let ended =
        |rule: &PauseRule| PauseRule { deleted_at: Some(now), deleted_by: who.by.clone(), ..rule.clone() };
    let entries =
        rules.iter().map(|rule| audit(AuditAction::Resume, Some(rule), &ended(rule), &who, now)).collect();
    let ids: Vec<PauseRuleId> = rules.iter().map(|rule| rule.id.clone()).collect();
    let deleted = engine.store.delete_pause_rules(&ids, who.by.as_deref(), now, entries).await?;
    // Those that the store did not find in force were ended by a write whose answer got lost.
    engine.pauses.end(&rules.iter().map(ended).collect::<Vec<_>>());
    engine.pauses.look(&engine.clock, &engine.ready);
    Ok(deleted.len() as u64)
}

/// When the oldest execution was started that is not over; `now` when all are.
pub(super) async fn oldest_unfinished(store: &dyn Store, now: Timestamp) -> Result<Timestamp, StoreError> {
    let mut oldest = now;
    for status in [ExecutionStatus::Scheduled, ExecutionStatus::Running] {
        let filter = ExecutionFilter { status: Some(status), ..ExecutionFilter::default() };
        let first = Page { sort: Sort::ScheduledAt, descending: false, limit: 1, offset: 0 };
        let (found, _) = store.executions(&filter, first).await?;
        oldest = found.iter().map(|view| view.scheduled_at).fold(oldest, Timestamp::min);
    }
    Ok(oldest)
}

pub(crate) struct Pauses {
    /// When the last of the rules ends: from then on, and for a run whose clock was read since, no
    /// rule matters.
    last_end: AtomicI64,
    state: Mutex<State>,
    /// The size of [`State::shown`].
    shown: AtomicUsize,
    /// Told of whenever rules begin or end.
    changes: Changes,
    /// Held while rules are written, so that what is in force does not change under the writer.
    writing: tokio::sync::Mutex<()>,
}

#[derive(Default)]
struct State {
    rules: Vec<PauseRule>,
    /// Runs that were let go of because a rule held them, and which.
    held: HashMap<RunKey, PauseRuleId>,
    /// Runs of which the store shows that they stand at a rule.
    shown: HashSet<RunKey>,
    /// Up to when it is known which rules have expired.
    looked_at: Option<Timestamp>,
}

impl Default for Pauses {
    fn default() -> Self {
        Pauses {
            last_end: AtomicI64::new(i64::MIN),
            state: Mutex::default(),
            shown: AtomicUsize::new(0),
            changes: Changes::default(),
            writing: tokio::sync::Mutex::default(),
        }
    }
}

impl State {
    fn in_force(&self, now: Timestamp) -> impl Iterator<Item = &PauseRule> {
        // A wall clock that was set back since does not undo a rule.
        self.rules.iter().filter(move |rule| rule.in_force(now.max(rule.created_at)))
    }
}

impl Pauses {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called when rules have come, gone or ended.
    fn note(&self, state: &State) {
        let end = |rule: &PauseRule| rule.ends_at().unwrap_or(Timestamp::MAX).as_ms();
        let last = state.rules.iter().map(end).max().unwrap_or(i64::MIN);
        self.last_end.store(last, Ordering::Release);
        self.changes.tell();
    }

    /// Whether a rule can have held anything after `from`.
    fn may_matter(&self, from: Timestamp) -> bool {
        self.last_end.load(Ordering::Acquire) > from.as_ms()
    }

    /// Takes over what the store has. Rules that ended before `since` matter to no run.
    pub fn load(&self, rules: Vec<PauseRule>, since: Timestamp) {
        self.state().rules = rules;
        self.prune(since);
    }

    fn prune(&self, since: Timestamp) {
        let mut state = self.state();
        state.rules.retain(|rule| rule.ends_at().is_none_or(|end| end > since));
        self.note(&state);
    }

    /// How many rules there are now, those that are over included.
    fn add(&self, rule: PauseRule) -> usize {
        let mut state = self.state();
        state.rules.push(rule);
        self.note(&state);
        state.rules.len()
    }

    fn in_force(&self, now: Timestamp, wanted: impl Fn(&PauseRule) -> bool) -> Vec<PauseRule> {
        let state = self.state();
        state.in_force(now).filter(|rule| wanted(rule)).cloned().collect()
    }

    fn end(&self, ended: &[PauseRule]) {
        let mut state = self.state();
        for rule in &mut state.rules {
            if let Some(ended) = ended.iter().find(|ended| ended.id == rule.id) {
                *rule = ended.clone();
            }
        }
        self.note(&state);
    }

    /// The rule that holds an execution at `now`, as a whole or at `step`.
    pub fn hold(
        &self,
        execution: &ExecutionId,
        task: &TaskName,
        step: Option<&StepKey>,
        now: Timestamp,
    ) -> Option<Hold> {
        if !self.may_matter(now) {
            return None;
        }
        let state = self.state();
        // None, unless the wall clock was set back.
        let early: Vec<PauseRule> = state
            .in_force(now)
            .filter(|rule| rule.created_at > now)
            .map(|rule| PauseRule { created_at: now, ..rule.clone() })
            .collect();
        pause::hold(state.rules.iter().chain(&early), execution, task, step, now)
    }

    /// The rule that holds the run as a whole at `now`, as what the run stands at.
    pub fn hold_of_run(&self, facts: &RunFacts, now: Timestamp) -> Option<Wait> {
        let hold = self.hold(&facts.execution, &facts.task, None, now)?;
        Some(Wait::Pause { rule: hold.rule, step: None, until: hold.until })
    }

    /// For how long the clocks of `run` have stood since they were last read; none when they have
    /// not.
    pub fn stood_ms(&self, run: &Run, now: Timestamp) -> Option<u64> {
        let from = run.clock_read();
        if !self.may_matter(from) || run.end().is_some() {
            return None;
        }
        let held = run.held().map(|held| (&held.key, held.since));
        let facts = run.facts();
        let ms = pause::stood_ms(&self.state().rules, &facts.execution, &facts.task, held, from, now);
        (ms > 0).then_some(ms)
    }

    /// Comes back when `deadline` has passed, which is known as of `from`, not counting the time in
    /// which a rule holds the run as a whole; never without one.
    pub async fn out_of_time(
        &self,
        clock: &Clock,
        facts: &RunFacts,
        from: Timestamp,
        deadline: Option<Timestamp>,
    ) {
        let Some(deadline) = deadline else { return std::future::pending().await };
        let mut changes = self.changes.seen();
        loop {
            let now = clock.now();
            let stands = self.hold(&facts.execution, &facts.task, None, now).is_some();
            let stood_ms = match self.may_matter(from) {
                false => 0,
                true => {
                    let rules = &self.state().rules;
                    pause::stood_ms(rules, &facts.execution, &facts.task, None, from, now)
                }
            };
            let left = Duration::from_millis(deadline.plus_ms(stood_ms).ms_since(now));
            if left.is_zero() && !stands {
                return;
            }
            // In naps, since the wall clock may be set while we sleep.
            let nap = if stands { NAP_MAX } else { left.min(NAP_MAX) };
            tokio::select! {
                biased;
                () = tokio::time::sleep(nap) => {}
                () = changes.changed() => {}
            }
        }
    }

    /// Comes back when `time` has gone by, not counting that in which a rule holds the run as a
    /// whole. Nothing to do with the wall clock: setting it makes no attempt longer or shorter.
    pub async fn spent(&self, clock: &Clock, facts: &RunFacts, time: Duration) {
        let mut changes = self.changes.seen();
        let mut left = time;
        while !left.is_zero() {
            if self.hold(&facts.execution, &facts.task, None, clock.now()).is_some() {
                changes.changed().await;
                continue;
            }
            let begun = Instant::now();
            tokio::select! {
                biased;
                () = tokio::time::sleep(left) => return,
                () = changes.changed() => left = left.saturating_sub(begun.elapsed()),
            }
        }
    }

    /// `run` will stand at a rule when it is next let go of: whoever takes it up has to know that
    /// the store shows so.
    pub fn will_show(&self, run: RunKey) {
        let mut state = self.state();
        state.shown.insert(run);
        self.shown.store(state.shown.len(), Ordering::Release);
    }

    /// `run` has been taken up, or is over. Whether the store may show that it stands at a rule.
    pub fn taken_up(&self, run: RunKey) -> bool {
        if self.shown.load(Ordering::Acquire) == 0 {
            return false;
        }
        let mut state = self.state();
        state.held.remove(&run);
        let was_shown = state.shown.remove(&run);
        self.shown.store(state.shown.len(), Ordering::Release);
        was_shown
    }

    /// Remembers that `run` stands at `rule`, to be called when it has been let go of. If the rule
    /// has ended in the meantime the run goes straight back to `ready`: nobody else could know of
    /// it.
    pub fn keep(&self, run: RunKey, rule: PauseRuleId, clock: &Clock, ready: &Ready) {
        let mut state = self.state();
        if state.in_force(clock.now()).any(|there| there.id == rule) {
            state.held.insert(run, rule);
        } else {
            drop(state);
            ready.push(run);
        }
    }

    /// Wakes the runs whose rule is over by now. When the next rule expires.
    pub fn look(&self, clock: &Clock, ready: &Ready) -> Option<Timestamp> {
        let mut state = self.state();
        let now = clock.now();
        let in_force: HashSet<PauseRuleId> = state.in_force(now).map(|rule| rule.id.clone()).collect();
        let mut free: Vec<RunKey> =
            state.held.extract_if(|_, rule| !in_force.contains(rule)).map(|(run, _)| run).collect();
        // The oldest first.
        free.sort_unstable();
        let since = state.looked_at.replace(now);
        let has_expired = |rule: &PauseRule| {
            rule.expires_at.is_some_and(|end| end <= now && since.is_none_or(|since| since < end))
        };
        let expired = state.rules.iter().any(has_expired);
        let next = state.in_force(now).filter_map(PauseRule::ends_at).min();
        drop(state);
        if expired {
            self.changes.tell();
        }
        if !free.is_empty() {
            ready.push_all(free);
        }
        next
    }

    /// Wakes what was held when its rule expires, for ever.
    pub async fn run(&self, clock: &Clock, ready: &Ready) {
        let mut changes = self.changes.seen();
        loop {
            changes.catch_up();
            let next = self.look(clock, ready);
            let expiry = async {
                let Some(next) = next else { return std::future::pending().await };
                let left = Duration::from_millis(next.ms_since(clock.now()));
                tokio::time::sleep(left.min(NAP_MAX)).await;
            };
            tokio::select! {
                biased;
                () = expiry => {}
                () = changes.changed() => {}
            }
        }
    }

    #[cfg(test)]
    pub fn held(&self) -> usize {
        self.state().held.len()
    }
}

/// UUIDs of version 7 ascend with time.
fn new_id(now: Timestamp) -> PauseRuleId {
    let ms = u64::try_from(now.as_ms()).unwrap_or(0);
    let nanos = u32::try_from(ms % 1_000 * 1_000_000).unwrap_or(0);
    PauseRuleId::new(Uuid::new_v7(uuid::Timestamp::from_unix(NoContext, ms / 1_000, nanos)).to_string())
}

fn audit(
    action: AuditAction,
    before: Option<&PauseRule>,
    after: &PauseRule,
    who: &Who,
    now: Timestamp,
) -> AuditEntry {
    AuditEntry {
        at: now,
        actor: who.by.clone(),
        action,
        execution: after.scope.execution.clone(),
        task: after.scope.task.clone(),
        target: Some(after.id.as_str().to_owned()),
        before: before.map_or_else(Json::null, as_json),
        after: as_json(after),
        reason: who.reason.clone(),
    }
}

/// A rule as the audit trail shows it.
fn as_json(rule: &PauseRule) -> Json {
    let time = |at: Option<Timestamp>| {
        at.and_then(|at| DateTime::from_timestamp_millis(at.as_ms()))
            .map(|at| at.to_rfc3339_opts(SecondsFormat::Millis, true))
    };
    Json::from(json!({
        "ruleId": rule.id.as_str(),
        "executionId": rule.scope.execution.as_ref().map(ExecutionId::as_str),
        "taskName": rule.scope.task.as_ref().map(TaskName::as_str),
        "stepPattern": rule.scope.step.as_ref().map(pause::StepPattern::as_str),
        "createdAt": time(Some(rule.created_at)),
        "createdBy": rule.created_by,
        "reason": rule.reason,
        "expiresAt": time(rule.expires_at),
        "deletedAt": time(rule.deleted_at),
        "deletedBy": rule.deleted_by,
    }))
}
