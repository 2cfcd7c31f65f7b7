//! A guest below the SDK: says to the host what no SDK would say.
//!
//! Its manifest is a text that the harness overwrites; where that begins with `!`, `describe`
//! does something else than describe.

#![cfg(target_family = "wasm")]

use serde_json::Value;
use test_guests::{allocate, read, recurse, spin, variant};

use self::stepbox::task::{durable, types};

wit_bindgen::generate!({ path: "../../wit", world: "task" });

const MANIFEST_BYTES: usize = 4096;

/// Padded with spaces to its full size.
#[used]
static MANIFEST: [u8; MANIFEST_BYTES] = {
    let text = br#"{"stepbox":"0.1.0"}"#;
    let mut padded = [b' '; MANIFEST_BYTES];
    let mut n = 0;
    while n < text.len() {
        padded[n] = text[n];
        n += 1;
    }
    padded
};

struct Raw;

export!(Raw);

impl Guest for Raw {
    fn describe() -> String {
        let manifest = read(&MANIFEST);
        match manifest.as_str() {
            "!panic" => panic!("nothing to say"),
            "!spin" => spin(),
            "!recurse" => recurse(0).to_string(),
            "!allocate" => allocate(8 << 30).to_string(),
            "!context" => durable::context().execution_id,
            "!step" => format!("{:?}", step(&Value::Null)),
            "!huge" => "x".repeat(64 << 20),
            _ => manifest,
        }
    }

    /// `{"return": text}` returns that text, `{"fail": text}` a failure with these details,
    /// `{"claim": …}` a failure that claims to be another's, `{"calls": […]}` makes calls.
    fn run(payload: String) -> Result<String, Failure> {
        let payload: Value = serde_json::from_str(&payload).unwrap_or(Value::Null);
        if let Some(text) = payload["return"].as_str() {
            return Ok(text.to_owned());
        }
        if let Some(text) = payload["fail"].as_str() {
            return Err(failure(Some(text.to_owned()), None));
        }
        if let Some(step) = payload["claim"].as_str() {
            return Err(failure(None, Some(step.to_owned())));
        }
        if payload["spin"] == true {
            spin();
        }
        if let Some(ms) = payload["sleep"].as_u64() {
            durable::sleep("nap", ms);
        }
        let calls = payload["calls"].as_array().cloned().unwrap_or_default();
        let heard: Vec<Value> = calls.iter().map(|call| heard(made(call))).collect();
        Ok(serde_json::json!({ "variant": variant(), "heard": heard }).to_string())
    }

    fn run_step(function: String, input: String, attempt: u32) -> Result<String, StepError> {
        let input: Value = serde_json::from_str(&input).unwrap_or(Value::Null);
        match function.as_str() {
            // The text in the input, as it is.
            "verbatim" => Ok(input.as_str().unwrap_or_default().to_owned()),
            "bad-details" => Err(StepError {
                message: "with details that are no JSON".to_owned(),
                details: Some("{".to_owned()),
                retryable: false,
                retry_after_ms: None,
            }),
            "long-message" => Err(StepError {
                message: "very ".repeat(200_000),
                details: None,
                retryable: false,
                retry_after_ms: None,
            }),
            "spin" => spin(),
            "attempt" => Ok(attempt.to_string()),
            _ => Ok("null".to_owned()),
        }
    }

    fn on_failure(_: String, _: Failure) -> Result<String, Failure> {
        Ok("null".to_owned())
    }
}

/// One call of the host, with whatever texts `call` has.
fn made(call: &Value) -> Result<String, Failure> {
    let text = |field: &str| call[field].as_str().unwrap_or_default().to_owned();
    match text("call").as_str() {
        "step" => step(call),
        "capture" => durable::capture(&text("name"), &text("value")),
        "wait-event" => durable::wait_event(&text("name"), Some(1)),
        "wait-for-ever" => durable::wait_event(&text("name"), None),
        "sleep" => {
            durable::sleep(&text("name"), 1);
            Ok("null".to_owned())
        }
        "wait-all" => durable::wait_all(&[text("name")]).map(|_| "null".to_owned()),
        "wait-any" => durable::wait_any(&[text("name")]).map(|_| "null".to_owned()),
        "start-execution" => durable::start_execution(&text("name"), "another", None, "null"),
        "wait-execution" => durable::wait_execution(&text("name"), None),
        other => panic!("no call \"{other}\""),
    }
}

fn step(call: &Value) -> Result<String, Failure> {
    let text = |field: &str| call[field].as_str().unwrap_or_default().to_owned();
    let retry = call.get("attemptsMax").map(|attempts| types::RetryPolicy {
        attempts_max: attempts.as_u64().unwrap_or_default() as u32,
        delay_first_ms: 0,
        growth_percent: call["growthPercent"].as_u64().unwrap_or(100) as u32,
        delay_max_ms: 0,
        jitter: false,
    });
    let options =
        types::StepOptions { retry, timeout_ms: None, timeout_scope: types::TimeoutScope::AllAttempts };
    durable::step(&text("name"), &text("function"), &text("input"), options)
}

fn heard(outcome: Result<String, Failure>) -> Value {
    match outcome {
        Ok(text) => serde_json::json!({ "value": text }),
        Err(failure) => serde_json::json!({
            "failure": {
                "kind": format!("{:?}", failure.kind),
                "message": failure.message,
                "step": failure.step,
                "attempt": failure.attempt,
            }
        }),
    }
}

fn failure(details: Option<String>, step: Option<String>) -> Failure {
    Failure {
        kind: types::FailureKind::Cancelled,
        message: "it failed by itself".to_owned(),
        details,
        attempt: step.as_ref().map(|_| 7),
        step,
    }
}
