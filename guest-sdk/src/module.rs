//! What a module answers when it is called: its manifest, its task, one of its steps.
//!
//! Plain functions over JSON, the same natively and in a component; `exports.rs` gives them to
//! the host.

use serde_json::Value;

use crate::manifest::manifest;
use crate::step::StepDef;
use crate::task::TaskDef;
#[cfg(any(target_family = "wasm", test))]
use crate::{Failure, StepError};

/// The manifest of this module.
///
/// Panics where the module has no task or more than one: a component cannot be made from it, and
/// the upload is refused with this message.
pub(crate) fn describe() -> Value {
    manifest(the_task(), steps())
}

#[cfg(any(target_family = "wasm", test))]
pub(crate) fn run(payload: &str) -> Result<String, Failure> {
    (the_task().run)(payload)
}

#[cfg(any(target_family = "wasm", test))]
pub(crate) fn run_step(function: &str, input: &str, attempt: u32) -> Result<String, StepError> {
    let Some(step) = steps().into_iter().find(|step| step.function == function) else {
        return Err(StepError::fatal(format!(
            "this version of the module has no step function `{function}`"
        )));
    };
    crate::context::in_attempt(attempt, || (step.run)(input))
}

fn the_task() -> &'static TaskDef {
    let tasks: Vec<&TaskDef> = inventory::iter::<TaskDef>.into_iter().collect();
    match tasks[..] {
        [task] => task,
        [] => panic!("this module has no function with #[task]; a module has exactly one"),
        _ => {
            let names: Vec<&str> = tasks.iter().map(|task| task.name).collect();
            panic!(
                "this module has {} functions with #[task] ({}); a module has exactly one",
                names.len(),
                names.join(", ")
            )
        }
    }
}

/// All steps that are linked in, by name: the linker's order is anybody's guess.
fn steps() -> Vec<&'static StepDef> {
    let mut steps: Vec<&StepDef> = inventory::iter::<StepDef>.into_iter().collect();
    steps.sort_by_key(|step| step.function);
    steps
}
