//! The same repair for many executions, at a bounded rate.

use stepbox_domain::bulk::{BulkId, BulkPlan};

use super::{Engine, EngineError, Who};
use crate::store::{BulkSelection, BulkView, StoreError};

impl Engine {
    /// Starts a bulk repair over what `selection` matches now. It goes on by itself, also after a
    /// restart of the host.
    pub async fn start_bulk(
        &self,
        _selection: BulkSelection,
        _plan: BulkPlan,
    ) -> Result<BulkView, EngineError> {
        Err(not_built())
    }

    /// Repairs nothing more; what is repaired already goes on.
    pub async fn cancel_bulk(&self, _id: &BulkId, _who: Who) -> Result<BulkView, EngineError> {
        Err(not_built())
    }
}

fn not_built() -> EngineError {
    EngineError::Store(StoreError::Unavailable("not built".to_owned()))
}
