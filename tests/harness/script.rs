//! Handlers as data: what the guest `scenario` is to do (see `tests/guests/examples/scenario.rs`).

use serde_json::{Value, json};

/// The payload that makes the guest `scenario` go through `lines`.
pub fn script(lines: impl Into<Vec<Value>>) -> Value {
    json!({ "script": lines.into() })
}

/// A step that succeeds; its value is `{"attempt": n}`.
pub fn step(name: &str) -> Value {
    json!({ "step": { "name": name } })
}

/// A step with more to it: `act`, `failures`, `retry`, `timeoutMs`, `perAttempt`, `tag`, `from`. If it
/// fails, the run does.
pub fn step_with(name: &str, more: Value) -> Value {
    json!({ "step": with(json!({ "name": name }), more) })
}

/// Like [`step_with`], but a failure is the line's result and the run goes on.
pub fn settle(name: &str, more: Value) -> Value {
    json!({ "settle": with(json!({ "name": name }), more) })
}

pub fn sleep(name: &str, ms: u64) -> Value {
    json!({ "sleep": { "name": name, "ms": ms } })
}

/// Waits for as long as it takes.
pub fn wait_event(event: &str) -> Value {
    json!({ "waitEvent": { "event": event } })
}

/// Goes on with `lines` if the [`settle`] that gave result number `of` failed, else with `otherwise`.
pub fn if_failed(of: usize, lines: impl Into<Vec<Value>>, otherwise: impl Into<Vec<Value>>) -> Value {
    json!({ "ifFailed": { "of": of, "lines": lines.into(), "otherwise": otherwise.into() } })
}

fn with(mut line: Value, more: Value) -> Value {
    if let (Some(line), Value::Object(more)) = (line.as_object_mut(), more) {
        line.extend(more);
    }
    line
}
