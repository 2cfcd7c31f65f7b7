//! Tasks: the handler of a module.

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::{Deserialize, Deserializer, IgnoredAny};
use serde_json::Value;

use crate::data::{Output, Payload};
use crate::{Failure, FailureKind};

/// A function marked with `#[task]`. The attribute implements it, for a type that has the
/// function's name.
pub trait Task {
    const NAME: &'static str;
    const DESCRIPTION: &'static str;
    /// The execution's deadline, from its start. `None`: no deadline.
    const TIMEOUT_MS: Option<u64>;
    type Payload: Payload;
    type Output: Output;

    /// Calls the handler.
    fn run(payload: Self::Payload) -> Result<Self::Output, Failure>;
}

/// The payload of a task that takes none: whatever was sent is passed over.
#[derive(Debug, Clone, Copy)]
pub struct NoPayload;

impl<'de> Deserialize<'de> for NoPayload {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        IgnoredAny::deserialize(deserializer)?;
        Ok(NoPayload)
    }
}

impl JsonSchema for NoPayload {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "NoPayload".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({ "description": "None: whatever is sent is passed over." })
    }
}

/// Calls the handler with a payload in JSON.
pub(crate) fn run<T: Task>(payload: &str) -> Result<T::Output, Failure> {
    let payload = T::Payload::read(payload).map_err(|error| {
        let wanted = std::any::type_name::<T::Payload>();
        Failure::new(FailureKind::Error, format!("the payload does not fit `{wanted}`: {error}"))
    })?;
    T::run(payload)
}

/// What the handler gave, as it crosses to the host.
pub(crate) fn written<T: Task>(output: &T::Output) -> Result<String, Failure> {
    output.write().map_err(|error| {
        Failure::new(FailureKind::Error, format!("the result cannot be written as JSON: {error}"))
    })
}

/// A task without its types.
#[doc(hidden)]
pub struct TaskDef {
    pub(crate) name: &'static str,
    pub(crate) description: &'static str,
    pub(crate) timeout_ms: Option<u64>,
    pub(crate) payload_schema: fn() -> Value,
    pub(crate) output_schema: fn() -> Value,
    #[cfg(any(target_family = "wasm", test))]
    pub(crate) run: fn(&str) -> Result<String, Failure>,
}

inventory::collect!(TaskDef);

impl TaskDef {
    pub const fn of<T: Task>() -> TaskDef {
        TaskDef {
            name: T::NAME,
            description: T::DESCRIPTION,
            timeout_ms: T::TIMEOUT_MS,
            payload_schema: T::Payload::schema,
            output_schema: T::Output::schema,
            #[cfg(any(target_family = "wasm", test))]
            run: |payload| written::<T>(&run::<T>(payload)?),
        }
    }
}
