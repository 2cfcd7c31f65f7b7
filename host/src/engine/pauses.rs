//! Pause rules in force, and the runs that they hold.

use stepbox_domain::{
    ExecutionId, StepKey, TaskName, Timestamp,
    pause::{Hold, PauseRule, PauseRuleId, PauseScope},
};

use super::{Engine, EngineError, Who};
use crate::store::StoreError;

impl Engine {
    /// Holds what `scope` matches, until `expires_at` or until somebody ends it.
    pub async fn pause(
        &self,
        _scope: PauseScope,
        _expires_at: Option<Timestamp>,
        _who: Who,
    ) -> Result<PauseRule, EngineError> {
        Err(not_built())
    }

    /// Ends a rule; what no other rule holds goes on at once.
    pub async fn end_pause(&self, _id: &PauseRuleId, _who: Who) -> Result<(), EngineError> {
        Err(not_built())
    }

    /// Ends the rules in force with just this scope; how many.
    pub async fn resume(&self, _scope: PauseScope, _who: Who) -> Result<u64, EngineError> {
        Err(not_built())
    }

    /// The rule that holds an execution now, as a whole or at `step`.
    pub fn hold(&self, _execution: &ExecutionId, _task: &TaskName, _step: Option<&StepKey>) -> Option<Hold> {
        None
    }
}

fn not_built() -> EngineError {
    EngineError::Store(StoreError::Unavailable("not built".to_owned()))
}
