//! What a module says of itself: `docs/manifest.md`, written from the attributes.

use serde_json::{Map, Value, json};

use crate::step::StepDef;
use crate::task::TaskDef;
use crate::wants::{WantsDef, capabilities};
use crate::{Retry, TimeoutScope};

/// The version in the package line of `wit/task.wit`.
const CONTRACT: &str = "0.1.0";

/// The manifest of the module that has this task and these steps, and wants this.
pub(crate) fn manifest<'a>(
    task: &TaskDef,
    steps: impl IntoIterator<Item = &'a StepDef>,
    wants: impl IntoIterator<Item = &'a WantsDef>,
) -> Value {
    let mut described = json!({
        "stepbox": CONTRACT,
        "sdk": concat!("stepbox-guest ", env!("CARGO_PKG_VERSION")),
        "task": task_entry(task),
        "steps": steps.into_iter().map(step_entry).collect::<Vec<_>>(),
        "onFailure": false,
        "capabilities": capabilities(wants),
        "schedules": [],
    });
    if !task.description.is_empty() {
        described["description"] = task.description.into();
    }
    described
}

fn task_entry(task: &TaskDef) -> Value {
    let mut entry = Map::new();
    if let Some(timeout_ms) = task.timeout_ms {
        entry.insert("timeoutMs".into(), timeout_ms.into());
    }
    entry.insert("payload".into(), (task.payload_schema)());
    entry.insert("result".into(), (task.output_schema)());
    entry.into()
}

fn step_entry(step: &StepDef) -> Value {
    let mut entry = Map::new();
    entry.insert("function".into(), step.function.into());
    if !step.description.is_empty() {
        entry.insert("description".into(), step.description.into());
    }
    if let Some(retry) = step.options.retry {
        entry.insert("retry".into(), retry_entry(retry));
    }
    if let Some(timeout_ms) = step.options.timeout_ms {
        let scope = match step.options.timeout_scope {
            TimeoutScope::AllAttempts => "all-attempts",
            TimeoutScope::PerAttempt => "per-attempt",
        };
        entry.insert("timeoutMs".into(), timeout_ms.into());
        entry.insert("timeoutScope".into(), scope.into());
    }
    entry.insert("input".into(), (step.input_schema)());
    entry.insert("output".into(), (step.output_schema)());
    entry.into()
}

fn retry_entry(retry: Retry) -> Value {
    json!({
        "attemptsMax": retry.attempts_max,
        "delayFirstMs": retry.delay_first_ms,
        "growthPercent": retry.growth_percent,
        "delayMaxMs": retry.delay_max_ms,
        "jitter": retry.jitter,
    })
}
