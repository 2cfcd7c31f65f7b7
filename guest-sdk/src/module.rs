//! What a module answers when it is called: its manifest, its task, one of its steps.
//!
//! Plain functions over JSON, the same natively and in a component; `exports.rs` gives them to
//! the host.

use serde_json::Value;

use crate::manifest::manifest;
use crate::step::StepDef;
use crate::task::TaskDef;
use crate::wants::WantsDef;
#[cfg(any(target_family = "wasm", test))]
use crate::{Failure, StepError};

/// The manifest of this module.
///
/// Panics where the module has no task or more than one: a component cannot be made from it, and
/// the upload is refused with this message.
pub(crate) fn describe() -> Value {
    manifest(the_task(), steps(), inventory::iter::<WantsDef>)
}

#[cfg(any(target_family = "wasm", test))]
pub(crate) fn run(payload: &str) -> Result<String, Failure> {
    (the_task().run)(payload)
}

#[cfg(any(target_family = "wasm", test))]
pub(crate) fn run_step(function: &str, input: &str, attempt: u32) -> Result<String, StepError> {
    let Some(step) = inventory::iter::<StepDef>.into_iter().find(|step| step.function == function) else {
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{StepError, TaskError, attempt, step, task};
    use serde_json::json;

    /// Takes the money.
    ///
    /// All of it.
    #[step(retry = exponential(3, "2s", cap = "1m", multiplier = 1.5), timeout = "30s", timeout_scope = per_attempt)]
    fn charge(order_id: String, cents: Option<u64>) -> Result<u64, StepError> {
        match cents {
            Some(cents) => Ok(cents + u64::from(attempt())),
            None => Err(StepError::fatal(format!("nothing to charge for {order_id}")).with_details(json!(7))),
        }
    }

    #[step(retry = fixed(2, "500ms", jitter = true))]
    fn alert() -> Result<(), StepError> {
        Ok(())
    }

    /// One order.
    #[task(timeout = "30m")]
    fn order(cents: u64) -> Result<u64, TaskError> {
        if cents == 0 { Err("nothing was ordered".into()) } else { Ok(cents) }
    }

    #[test]
    fn the_manifest_says_what_the_attributes_say() {
        assert_eq!(
            crate::testing::manifest(),
            json!({
                "stepbox": "0.1.0",
                "sdk": "stepbox-guest 0.1.0",
                "description": "One order.",
                "task": {
                    "timeoutMs": 1_800_000,
                    "payload": {
                        "$schema": "https://json-schema.org/draft/2020-12/schema",
                        "title": "uint64", "type": "integer", "format": "uint64", "minimum": 0,
                    },
                    "result": {
                        "$schema": "https://json-schema.org/draft/2020-12/schema",
                        "title": "uint64", "type": "integer", "format": "uint64", "minimum": 0,
                    },
                },
                "steps": [
                    {
                        "function": "alert",
                        "retry": {
                            "attemptsMax": 2, "delayFirstMs": 500, "growthPercent": 100,
                            "delayMaxMs": 500, "jitter": true,
                        },
                        "input": {
                            "$schema": "https://json-schema.org/draft/2020-12/schema",
                            "type": "object", "properties": {}, "required": [],
                        },
                        "output": {
                            "$schema": "https://json-schema.org/draft/2020-12/schema",
                            "title": "null", "type": "null",
                        },
                    },
                    {
                        "function": "charge",
                        "description": "Takes the money.\n\nAll of it.",
                        "retry": {
                            "attemptsMax": 3, "delayFirstMs": 2_000, "growthPercent": 150,
                            "delayMaxMs": 60_000, "jitter": true,
                        },
                        "timeoutMs": 30_000,
                        "timeoutScope": "per-attempt",
                        "input": {
                            "$schema": "https://json-schema.org/draft/2020-12/schema",
                            "type": "object",
                            "properties": {
                                "order_id": { "type": "string" },
                                "cents": { "type": ["integer", "null"], "format": "uint64", "minimum": 0 },
                            },
                            "required": ["order_id"],
                        },
                        "output": {
                            "$schema": "https://json-schema.org/draft/2020-12/schema",
                            "title": "uint64", "type": "integer", "format": "uint64", "minimum": 0,
                        },
                    },
                ],
                "onFailure": false,
                "capabilities": {},
                "schedules": [],
            })
        );
    }

    #[test]
    fn a_payload_that_does_not_fit_is_told_and_not_run() {
        assert_eq!(run("5"), Ok("5".into()));
        assert_eq!(run("0").unwrap_err().message, "nothing was ordered");
        assert_eq!(
            run(r#"{"cents":5}"#).unwrap_err().message,
            "the payload does not fit `u64`: invalid type: map, expected u64 at line 1 column 0"
        );
    }

    #[test]
    fn a_step_is_run_by_name_with_its_input_and_attempt() {
        assert_eq!(run_step("charge", r#"{"order_id":"o","cents":5}"#, 3), Ok("8".into()));
        assert_eq!(run_step("alert", "{}", 1), Ok("null".into()));

        let failed = run_step("charge", r#"{"order_id":"o"}"#, 1).unwrap_err();
        assert_eq!(failed, StepError::fatal("nothing to charge for o").with_details(7));
    }

    #[test]
    fn a_step_that_cannot_run_says_why_and_is_not_retried() {
        let refused = |function, input| {
            let error = run_step(function, input, 1).unwrap_err();
            assert!(!error.is_retryable());
            error.message
        };

        assert_eq!(refused("ship", "{}"), "this version of the module has no step function `ship`");
        assert_eq!(refused("charge", "{}"), "step `charge` cannot run: its argument `order_id` is missing");
    }
}
