//! A guest that wants to reach something: it answers with what it sees of its environment.

use std::env;

use serde_json::{Value, json};
use stepbox_guest::{StepError, TaskError, step, task, wait_event_forever, wants};
use test_guests::variant;

wants! {
    http "GET https://api.example.com",
    secret "API_KEY" for "api.example.com",
    env "REGION",
}

#[step]
fn look() -> Result<Value, StepError> {
    Ok(environment())
}

/// The whole environment, by name.
fn environment() -> Value {
    env::vars().map(|(name, value)| (name, Value::from(value))).collect()
}

/// Looks so many times, each time after the event `look`.
#[task]
fn wanting(times: u32) -> Result<Value, TaskError> {
    let mut seen = Vec::new();
    for _ in 0..times {
        let _: Value = wait_event_forever("look")?;
        seen.push(look()?);
    }
    Ok(json!({ "variant": variant(), "handler": environment(), "steps": seen }))
}
