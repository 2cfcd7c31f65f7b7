//! Tasks: the handler of a module.

use serde_json::Value;

use crate::Failure;
use crate::data::Output;

/// A function marked with `#[task]`. The attribute implements it, for a type that has the
/// function's name.
pub trait Task {
    const NAME: &'static str;
    const DESCRIPTION: &'static str;
    /// The execution's deadline, from its start. `None`: no deadline.
    const TIMEOUT_MS: Option<u64>;
    type Output: Output;

    /// Calls the handler with a payload in JSON.
    fn run(payload: &str) -> Result<Self::Output, Failure>;
}

/// A task without its types.
#[doc(hidden)]
pub struct TaskDef {
    pub name: &'static str,
    pub description: &'static str,
    pub timeout_ms: Option<u64>,
    /// `None` where the handler takes no payload: anything goes.
    pub payload_schema: Option<fn() -> Value>,
    pub result_schema: fn() -> Value,
    pub run: fn(&str) -> Result<String, Failure>,
}

inventory::collect!(TaskDef);
