//! What a repair came to, or would come to.

use serde::Serialize;
use stepbox_domain::{RunId, StepKey, repair};

use crate::engine::{Rerun, Resolved, Restarted, Retried};

/// What a repair does to the steps that are known. The same in the answer to a dry run and to the
/// repair itself: what the handler calls beyond them nobody knows before.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Effects {
    /// Whether nothing was changed.
    dry_run: bool,
    /// Have no result yet, and run (on).
    would_run: Vec<StepKey>,
    /// Keep their results.
    would_keep: Vec<StepKey>,
    /// Had completed, and run once more.
    would_repeat: Vec<StepKey>,
    /// Of those that are kept: the handler may go another way and not call them again.
    would_set_aside: Vec<StepKey>,
}

impl Effects {
    fn new(effects: repair::Effects, dry_run: bool) -> Self {
        let repair::Effects { runs, kept, repeated, set_aside } = effects;
        Effects {
            dry_run,
            would_run: runs,
            would_keep: kept,
            would_repeat: repeated,
            would_set_aside: set_aside,
        }
    }
}

/// The answer to retry-step.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RetryAnswer {
    /// Zart's name for the next attempt.
    new_task_id: String,
    run_id: RunId,
    step_name: StepKey,
    attempt: u32,
    #[serde(flatten)]
    effects: Effects,
}

impl RetryAnswer {
    pub fn new(retried: Retried, dry_run: bool) -> Self {
        let Retried { run, step, attempt, effects } = retried;
        RetryAnswer {
            new_task_id: format!("{run}:step:{step}:attempt:{attempt}"),
            run_id: run,
            step_name: step,
            attempt,
            effects: Effects::new(effects, dry_run),
        }
    }
}

/// The answer to a resolve.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ResolveAnswer {
    run_id: RunId,
    step_name: StepKey,
    #[serde(flatten)]
    effects: Effects,
}

impl ResolveAnswer {
    pub fn new(resolved: Resolved, dry_run: bool) -> Self {
        let Resolved { run, step, effects } = resolved;
        ResolveAnswer { run_id: run, step_name: step, effects: Effects::new(effects, dry_run) }
    }
}

/// The answer to a restart.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RestartAnswer {
    new_run_id: RunId,
    new_run_number: u32,
    module_version: u32,
    #[serde(flatten)]
    effects: Effects,
}

impl RestartAnswer {
    pub fn new(restarted: Restarted, dry_run: bool) -> Self {
        let Restarted { run, index, version, effects } = restarted;
        RestartAnswer {
            new_run_id: run,
            new_run_number: index,
            module_version: version,
            effects: Effects::new(effects, dry_run),
        }
    }
}

/// The answer to a rerun.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RerunAnswer {
    new_run_id: RunId,
    new_run_number: u32,
    module_version: u32,
    effective_rerun: Vec<StepKey>,
    potentially_stale: Vec<Stale>,
    #[serde(flatten)]
    effects: Effects,
}

impl RerunAnswer {
    pub fn new(rerun: Rerun, dry_run: bool) -> Self {
        let Rerun { run, index, version, effective, stale, effects } = rerun;
        RerunAnswer {
            new_run_id: run,
            new_run_number: index,
            module_version: version,
            effective_rerun: effective,
            potentially_stale: stale.into_iter().map(Into::into).collect(),
            effects: Effects::new(effects, dry_run),
        }
    }
}

/// A step that is kept although steps before it run again.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Stale {
    preserved_step: StepKey,
    /// All that run again and had been called before it.
    possibly_depends_on: Vec<StepKey>,
    /// `input`: results that will be new stand in its input. `later`: it only came later.
    basis: &'static str,
    /// The steps whose results stand in its input.
    input_from: Vec<StepKey>,
}

impl From<repair::Stale> for Stale {
    fn from(stale: repair::Stale) -> Self {
        Stale {
            preserved_step: stale.step,
            possibly_depends_on: stale.after,
            basis: if stale.by_input.is_empty() { "later" } else { "input" },
            input_from: stale.by_input,
        }
    }
}
