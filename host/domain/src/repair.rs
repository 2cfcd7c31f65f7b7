//! What an admin's repair of an execution comes to: plans over a run, made before anything is
//! changed.
//!
//! | repair | the run | its completed steps |
//! |---|---|---|
//! | retry a step, resolve a step | goes on, also after its end | stay; those after the step answer again when they are called with the same input |
//! | restart | is ended, a new one begins | run again |
//! | rerun | is ended, a new one begins | stay, but for the named ones |
//!
//! What is kept answers a call of its key, function and input; called with another input it runs
//! again ([`Step::replaced`] shows what it was). A retried step, and what had no outcome yet when
//! it was set aside, begins anew.

use std::collections::{BTreeSet, HashMap, HashSet};

use crate::{
    Failure, Json, Run, RunId, StepKey, Timestamp,
    journal::Record,
    lineage::{self, PartHash},
    run::{Call, RunOutcome, Step, StepState},
    step::{Overrides, StepKind, StepStatus},
};

/// Why a repair makes no sense for this run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepairError {
    /// The step that is to be mended.
    #[error("run {run} has no step \"{step}\"")]
    NoSuchStep { run: RunId, step: StepKey },
    /// Steps that are named for a rerun.
    #[error("run {run} has no step {}; its detail lists those that it has", quoted(.steps))]
    UnknownSteps { run: RunId, steps: Vec<StepKey> },
    #[error("step \"{step}\" is {}, and only a dead step can be mended this way", .status.as_str())]
    NotDead { step: StepKey, status: StepStatus },
    #[error("the execution was cancelled, which is final for its run; restart or rerun it instead")]
    Cancelled,
}

fn quoted(steps: &[StepKey]) -> String {
    steps.iter().map(|step| format!("\"{step}\"")).collect::<Vec<_>>().join(", ")
}

/// What a repair does to the steps that the run is known to have. What the handler calls beyond
/// them nobody knows before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Effects {
    /// Have no result yet, and run (on).
    pub runs: Vec<StepKey>,
    /// Keep their results.
    pub kept: Vec<StepKey>,
    /// Had completed, and run once more.
    pub repeated: Vec<StepKey>,
    /// Of those that are kept: completed after the step that is mended, or set aside before. The
    /// handler may go another way now and never call them again, but what they did is done.
    pub set_aside: Vec<StepKey>,
}

/// A repair within the run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Amendment {
    pub record: Record,
    /// The number that the next attempt of the step will have; none when there will be none.
    pub attempt: Option<u32>,
    pub effects: Effects,
}

/// A repair that ends the run and begins the next one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replacement {
    /// Ends the run, if it is still going.
    pub end: Option<Record>,
    /// The beginning of the new journal.
    pub records: Vec<Record>,
    pub effects: Effects,
}

/// A dead step is to be tried again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetryStep {
    pub step: StepKey,
    pub overrides: Overrides,
    /// The module version to go on with, where that is another one.
    pub version: Option<u32>,
    pub by: Option<String>,
}

/// The named steps are to run again, in a run of their own.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Rerun {
    pub steps: Vec<StepKey>,
    /// Completed ones among them are kept all the same.
    pub preserve: Vec<StepKey>,
    pub by: Option<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RerunPlan {
    pub replacement: Replacement,
    /// The named steps and all dead ones, without the preserved.
    pub effective: Vec<StepKey>,
    pub stale: Vec<Stale>,
}

/// A step that is kept although steps before it run again.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stale {
    pub step: StepKey,
    /// The steps that run again and had been called before it; the first [`NAMED_MAX`] of them.
    pub after: Vec<StepKey>,
    /// Those of them whose results, or what was made of them, stand in its input; at most
    /// [`NAMED_MAX`].
    pub by_input: Vec<StepKey>,
}

/// So many causes are named for one stale step: thousands for each of thousands would be an answer
/// that nobody can read, nor a host hold.
pub const NAMED_MAX: usize = 100;

/// A dead step that is to have its attempts and its time once more.
pub fn plan_retry(run: &Run, retry: &RetryStep, now: Timestamp) -> Result<Amendment, RepairError> {
    let step = dead(run, &retry.step)?;
    let record = Record::StepRetryAsked {
        key: step.key.clone(),
        overrides: retry.overrides.clone(),
        version: retry.version,
        by: retry.by.clone(),
        at: now,
    };
    let attempt = step.attempts.last().map_or(1, |last| last.number + 1);
    let mut effects = around(run, step);
    effects.runs.insert(0, step.key.clone());
    Ok(Amendment { record, attempt: Some(attempt), effects })
}

/// Puts in by hand what a dead step has come to.
pub fn plan_resolve(
    run: &Run,
    step: &StepKey,
    outcome: Result<Json, Failure>,
    by: Option<String>,
    now: Timestamp,
) -> Result<Amendment, RepairError> {
    let step = dead(run, step)?;
    let last = step.attempts.last().map_or(0, |last| last.number);
    let outcome = outcome.map_err(|failure| failure.of_step(step.key.clone(), last));
    let mut effects = around(run, step);
    effects.kept.insert(0, step.key.clone());
    let record = Record::StepResolved { key: step.key.clone(), outcome, by, at: now };
    Ok(Amendment { record, attempt: None, effects })
}

fn dead<'a>(run: &'a Run, key: &StepKey) -> Result<&'a Step, RepairError> {
    let Some(step) = run.step(key) else {
        return Err(RepairError::NoSuchStep { run: run.facts().run.clone(), step: key.clone() });
    };
    if step.status() != StepStatus::Dead {
        return Err(RepairError::NotDead { step: key.clone(), status: step.status() });
    }
    match run.end() {
        Some(end) if matches!(end.outcome, RunOutcome::Cancelled { .. }) => Err(RepairError::Cancelled),
        _ => Ok(step),
    }
}

/// How the others stand where only `mended` changes, and nothing runs twice.
fn around(run: &Run, mended: &Step) -> Effects {
    let mut effects = Effects::default();
    let mut is_later = false;
    for step in all(run) {
        is_later |= step.key == mended.key || run.aside().get(&step.key).is_some();
        match step.status() {
            StepStatus::Completed => {
                effects.kept.push(step.key.clone());
                if is_later {
                    effects.set_aside.push(step.key.clone());
                }
            }
            StepStatus::Scheduled | StepStatus::Running => effects.runs.push(step.key.clone()),
            StepStatus::Dead => {}
        }
    }
    effects
}

fn all(run: &Run) -> impl Iterator<Item = &Step> {
    run.steps().iter().chain(run.aside())
}

/// A new run from nothing.
pub fn plan_restart(run: &Run, by: Option<&str>, now: Timestamp) -> Replacement {
    let mut effects = Effects::default();
    for step in all(run) {
        match step.status() {
            StepStatus::Completed => effects.repeated.push(step.key.clone()),
            _ => effects.runs.push(step.key.clone()),
        }
    }
    Replacement { end: end(run, by, now), records: Vec::new(), effects }
}

/// A new run that keeps what is completed, but for the named steps.
pub fn plan_rerun(run: &Run, rerun: &Rerun, now: Timestamp) -> Result<RerunPlan, RepairError> {
    let known: HashSet<&StepKey> = all(run).map(|step| &step.key).collect();
    let unknown: BTreeSet<&StepKey> =
        rerun.steps.iter().chain(&rerun.preserve).filter(|key| !known.contains(key)).collect();
    if !unknown.is_empty() {
        let steps = unknown.into_iter().cloned().collect();
        return Err(RepairError::UnknownSteps { run: run.facts().run.clone(), steps });
    }
    let (wanted, preserved): (HashSet<&StepKey>, HashSet<&StepKey>) =
        (rerun.steps.iter().collect(), rerun.preserve.iter().collect());
    let (mut effects, mut records) = (Effects::default(), Vec::new());
    let mut effective = Vec::new();
    for step in all(run) {
        let completed = step.status() == StepStatus::Completed;
        let named = wanted.contains(&step.key) && !(completed && preserved.contains(&step.key));
        if named || step.status() == StepStatus::Dead {
            effective.push(step.key.clone());
        }
        match (completed, named) {
            (true, true) => effects.repeated.push(step.key.clone()),
            (true, false) => {
                effects.kept.push(step.key.clone());
                records.push(Record::StepKept { step: Box::new(kept(step, run)) });
            }
            (false, _) => effects.runs.push(step.key.clone()),
        }
    }
    let stale = stale(run, &effective, &effects.kept);
    let end = end(run, rerun.by.as_deref(), now);
    Ok(RerunPlan { replacement: Replacement { end, records, effects }, effective, stale })
}

/// `step` as the next run has it.
fn kept(step: &Step, run: &Run) -> Step {
    let mut kept = step.clone();
    kept.kept_from.get_or_insert_with(|| run.facts().run.clone());
    // What it stood in for was so in its own run.
    kept.replaced = None;
    kept
}

fn end(run: &Run, by: Option<&str>, now: Timestamp) -> Option<Record> {
    run.end().is_none().then(|| Record::RunCancelled { by: by.map(str::to_owned), at: now })
}

/// Which of the kept steps may not be what the new results would have led to.
fn stale(run: &Run, effective: &[StepKey], kept: &[StepKey]) -> Vec<Stale> {
    let (effective, kept): (HashSet<&StepKey>, HashSet<&StepKey>) =
        (effective.iter().collect(), kept.iter().collect());
    let mut sources = Sources::default();
    let mut after: Vec<StepKey> = Vec::new();
    let mut stale = Vec::new();
    for step in all(run) {
        if effective.contains(&step.key) {
            sources.note(step, std::slice::from_ref(&step.key));
            if after.len() < NAMED_MAX {
                after.push(step.key.clone());
            }
        }
        // A sleep has no result that could be another one.
        if after.is_empty() || !kept.contains(&step.key) || step.call.kind() == StepKind::Sleep {
            continue;
        }
        let by_input = sources.of_input(step);
        // With another input it will run again, and what was made of its result may change too.
        sources.note(step, &by_input);
        stale.push(Stale { step: step.key.clone(), after: after.clone(), by_input });
    }
    stale
}

/// For each part of a result that may change: the steps that run again which it comes from.
#[derive(Default)]
struct Sources(HashMap<PartHash, BTreeSet<StepKey>>);

impl Sources {
    /// The result of `step` comes from the steps `from`.
    fn note(&mut self, step: &Step, from: &[StepKey]) {
        let StepState::Completed(result) = &step.state else { return };
        if from.is_empty() {
            return;
        }
        for part in lineage::parts_of_result(result) {
            self.0.entry(part).or_default().extend(from.iter().cloned());
        }
    }

    fn of_input(&self, step: &Step) -> Vec<StepKey> {
        let Call::Step { parts, .. } = &step.call else { return Vec::new() };
        let found: BTreeSet<&StepKey> = parts.iter().filter_map(|part| self.0.get(part)).flatten().collect();
        found.into_iter().take(NAMED_MAX).cloned().collect()
    }
}
