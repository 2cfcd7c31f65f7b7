//! An admin mends an execution: carries out the plans of the domain.

use stepbox_domain::{
    ExecutionId, Failure, Json, RunId, StepKey,
    repair::{Effects, Stale},
    step::Overrides,
};

use super::{Engine, EngineError, Who};
use crate::store::StoreError;

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

impl Engine {
    /// Tries a dead step again in its run. With `dry_run` nothing changes, and the answer says what
    /// would.
    pub async fn retry_step(
        &self,
        _execution: &ExecutionId,
        _retry: StepRetry,
        _who: Who,
        _dry_run: bool,
    ) -> Result<Retried, EngineError> {
        Err(not_built())
    }

    /// Puts in by hand what a dead step has come to.
    pub async fn resolve_step(
        &self,
        _execution: &ExecutionId,
        _step: StepKey,
        _outcome: Result<Json, Failure>,
        _who: Who,
        _dry_run: bool,
    ) -> Result<Resolved, EngineError> {
        Err(not_built())
    }

    /// Ends the current run, if it is still going, and begins a new one from nothing, on the active
    /// version.
    pub async fn restart(
        &self,
        _execution: &ExecutionId,
        _payload: Option<Json>,
        _who: Who,
        _dry_run: bool,
    ) -> Result<Restarted, EngineError> {
        Err(not_built())
    }

    /// Ends the current run, if it is still going, and begins a new one, on the active version, that
    /// keeps what is completed but for `steps`.
    pub async fn rerun(
        &self,
        _execution: &ExecutionId,
        _steps: Vec<StepKey>,
        _preserve: Vec<StepKey>,
        _who: Who,
        _dry_run: bool,
    ) -> Result<Rerun, EngineError> {
        Err(not_built())
    }
}

fn not_built() -> EngineError {
    EngineError::Store(StoreError::Unavailable("not built".to_owned()))
}
