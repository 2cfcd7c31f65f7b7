//! A task that does what its payload says, line by line, and answers with what each line gave.
//!
//! The tests write their handlers as data: `{"script": [{"step": {"name": "charge"}}, …]}`. Each
//! step writes a line `effect <execution> <tag> <attempt> <nonce>` to the log of its run when it
//! begins, which is how something outside of the host learns that it ran.

use std::collections::hash_map::RandomState;
use std::fmt;
use std::hash::{BuildHasher, Hasher};
use std::io::Write as _;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use stepbox_guest::{
    Call, Failure, Outcome, Retry, Step, StepError, TaskError, attempt, capture, context, sleep, sleep_until,
    step, task, wait_all_settled, wait_event, wait_event_forever,
};
use test_guests::{allocate, compute, recurse, spin, variant};

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Scenario {
    script: Vec<Line>,
}

/// What the handler does next.
#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Line {
    /// `charge(..)?`: a failure fails the run.
    Step(StepLine),
    /// The step's value or its failure is the line's result; the run goes on.
    Settle(StepLine),
    /// `charge::outcome(..)`: value, own error, failure.
    Outcome(StepLine),
    /// The lines so many times, one after the other.
    Repeat {
        times: u32,
        lines: Vec<Line>,
    },
    /// The way depends on whether an earlier `settle` (by its number among the results) failed.
    IfFailed {
        of: usize,
        lines: Vec<Line>,
        #[serde(default)]
        otherwise: Vec<Line>,
    },
    Sleep {
        name: String,
        ms: u64,
    },
    SleepUntil {
        name: String,
        at_ms: u64,
    },
    WaitEvent {
        event: String,
        timeout_ms: Option<u64>,
    },
    /// Waits for events until one has `"last": true`; the result has all of them.
    WaitUntilLast {
        event: String,
    },
    Capture {
        name: String,
        value: Value,
    },
    /// Captures a random number that is drawn anew on each call.
    CaptureRandom {
        name: String,
    },
    Schedule {
        name: String,
    },
    Now,
    Random,
    Elapsed,
    Context,
    /// The mark that tells versions of this guest apart.
    Variant,
    Print {
        text: String,
    },
    /// Tells a step what the handler sees of time and chance: the journal keeps it, and a handler
    /// that sees something else when it is called again has diverged.
    Tell {
        name: String,
    },
    Fail {
        message: String,
        details: Option<Value>,
    },
    Do(Do),
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct StepLine {
    name: String,
    /// In the effect line; the name if left out.
    tag: Option<String>,
    #[serde(default)]
    act: Option<Do>,
    /// It returns the result of an earlier line (by its number), which so stands in its input.
    from: Option<usize>,
    /// So many first attempts fail.
    #[serde(default)]
    failures: u32,
    retry: Option<RetryLine>,
    timeout_ms: Option<u64>,
    #[serde(default)]
    per_attempt: bool,
}

#[derive(Clone, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct RetryLine {
    attempts: u32,
    #[serde(default)]
    delay_ms: u64,
    #[serde(default)]
    exponential: bool,
}

/// What can be done in a step, and in a handler by one who does not know better.
#[derive(Clone, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
enum Do {
    Return(Value),
    /// Answers with the attempt and the nonce of the effect line, after `ms`.
    Effect {
        ms: u64,
    },
    Fail {
        message: String,
        fatal: bool,
        retry_after_ms: Option<u64>,
    },
    /// Fails in the runs of its execution before number `index`.
    FailBeforeRun {
        index: u32,
    },
    /// Takes `ms` in run number `index`, no time in others; answers like `effect`.
    HoldInRun {
        index: u32,
        ms: u64,
    },
    /// Fails in the version of this guest that has this mark.
    FailInVariant {
        mark: String,
    },
    /// In the step's own words: an error with a code.
    OwnError {
        code: u32,
        may_pass: bool,
    },
    Panic {
        message: String,
    },
    Spin,
    /// Computes for so long, which depends on the machine.
    Compute {
        rounds: u64,
    },
    Recurse,
    Allocate {
        bytes: u64,
    },
    Exit {
        code: i32,
    },
    /// Sleeps in the way of the operating system.
    ReallySleep {
        ms: u64,
    },
    /// A text of that length.
    Huge {
        bytes: u64,
    },
    Flood {
        lines: u32,
    },
    /// Says `text`: to `stdout` or `stderr` as it is and without a line end, or with a level.
    Say {
        how: String,
        target: Option<String>,
        text: String,
    },
    /// One after the other; the last one's answer.
    InTurn {
        acts: Vec<Do>,
    },
    /// A durable call.
    CallSleep,
    WhatTimeItIs,
    Random,
    Environment,
    ReadFile {
        path: String,
    },
    Connect {
        address: String,
    },
}

/// The step's own error, which the handler gets back as it was.
#[derive(Debug, Serialize, Deserialize)]
struct OwnError {
    code: u32,
    may_pass: bool,
}

impl fmt::Display for OwnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "own error {}", self.code)
    }
}

#[step]
fn act(tag: String, act: Option<Do>, failures: u32) -> Result<Value, StepError> {
    let nonce = effect(&tag);
    if attempt() <= failures {
        return Err(StepError::new(format!("attempt {} fails", attempt())).with_details(json!(attempt())));
    }
    act.map_or(Ok(json!({ "attempt": attempt() })), |act| act.done(&nonce))
}

#[step(retryable = OwnError::may_pass)]
fn deed(tag: String, act: Option<Do>, failures: u32) -> Result<Value, OwnError> {
    let nonce = effect(&tag);
    if attempt() <= failures {
        return Err(OwnError { code: attempt(), may_pass: true });
    }
    match act {
        Some(Do::OwnError { code, may_pass }) => Err(OwnError { code, may_pass }),
        Some(act) => act.done(&nonce).map_err(|_| OwnError { code: 0, may_pass: true }),
        None => Ok(json!({ "attempt": attempt() })),
    }
}

impl OwnError {
    fn may_pass(&self) -> bool {
        self.may_pass
    }
}

/// Lets the world know that an attempt has begun.
fn effect(tag: &str) -> String {
    let nonce = format!("{:016x}", random());
    log::info!("effect {} {tag} {} {nonce}", context().execution_id, attempt());
    nonce
}

fn say(how: &str, target: &str, text: &str) {
    match how {
        "stdout" => {
            print!("{text}");
            let _ = std::io::stdout().flush();
        }
        "stderr" => eprint!("{text}"),
        level => {
            log::set_max_level(log::LevelFilter::Trace);
            let level: log::Level = level.parse().expect("a level");
            log::log!(target: target, level, "{text}");
        }
    }
}

/// Does what the script says.
#[task(timeout = "2d")]
fn scenario(scenario: Scenario) -> Result<Vec<Value>, TaskError> {
    let begun = Instant::now();
    let mut results = Vec::new();
    play(&scenario.script, begun, &mut results)?;
    Ok(results)
}

fn play(lines: &[Line], begun: Instant, results: &mut Vec<Value>) -> Result<(), TaskError> {
    for line in lines {
        let result = match line.clone() {
            Line::Repeat { times, lines } => {
                for _ in 0..times {
                    play(&lines, begun, results)?;
                }
                continue;
            }
            Line::IfFailed { of, lines, otherwise } => {
                let failed = results.get(of).is_some_and(|result| !result["failure"].is_null());
                play(if failed { &lines } else { &otherwise }, begun, results)?;
                continue;
            }
            Line::Step(step) => step.call(results, act::call)?.result()?,
            Line::Settle(step) => settled(step.call(results, act::call)?.result()),
            Line::Outcome(step) => match step.call(results, deed::call)?.outcome() {
                Outcome::Value(value) => json!({ "value": value }),
                Outcome::Error(error, failure) => json!({ "error": error, "failure": failure }),
                Outcome::Failure(failure) => json!({ "failure": failure }),
            },
            Line::Sleep { name, ms } => {
                sleep(&name, Duration::from_millis(ms));
                Value::Null
            }
            Line::SleepUntil { name, at_ms } => {
                sleep_until(&name, UNIX_EPOCH + Duration::from_millis(at_ms));
                Value::Null
            }
            Line::WaitEvent { event, timeout_ms: Some(ms) } => {
                settled(wait_event(&event, Duration::from_millis(ms)))
            }
            Line::WaitEvent { event, timeout_ms: None } => settled(wait_event_forever(&event)),
            Line::WaitUntilLast { event } => {
                let mut all: Vec<Value> = Vec::new();
                while all.last().is_none_or(|event| event["last"] != json!(true)) {
                    all.push(wait_event_forever(&event)?);
                }
                json!(all)
            }
            Line::Capture { name, value } => capture(&name, || value)?,
            Line::CaptureRandom { name } => capture(&name, || json!(random()))?,
            Line::Schedule { name } => {
                let scheduled = act::schedule(name, None, 0);
                settled(wait_all_settled([scheduled]).map(|_| Value::Null))
            }
            Line::Now => json!(now_ms()),
            Line::Random => json!(random()),
            Line::Elapsed => json!(begun.elapsed().as_nanos() as u64),
            Line::Context => {
                let context = context();
                json!({
                    "executionId": context.execution_id,
                    "runId": context.run_id,
                    "runIndex": context.run_index,
                    "taskName": context.task_name,
                    "moduleVersion": context.module_version,
                    "startedAtMs": since_1970_ms(context.started_at),
                })
            }
            Line::Variant => json!(variant()),
            Line::Print { text } => {
                println!("{text}");
                Value::Null
            }
            Line::Tell { name } => {
                let seen = json!([now_ms(), random(), begun.elapsed().as_nanos() as u64]);
                let told = act::call("told".to_owned(), Some(Do::Return(seen.clone())), 0);
                json!({ "seen": seen, "recorded": told.named(name).result()? })
            }
            Line::Fail { message, details: Some(details) } => {
                return Err(TaskError::new(message).with_details(details));
            }
            Line::Fail { message, details: None } => return Err(TaskError::new(message)),
            Line::Do(act) => act.done("").map_err(|error| TaskError::new(error.message()))?,
        };
        results.push(result);
    }
    Ok(())
}

/// The arguments that `act` and `deed` take.
type Arguments = (String, Option<Do>, u32);

impl StepLine {
    fn call<S: Step<Input = Arguments>>(
        self,
        results: &[Value],
        call: impl FnOnce(String, Option<Do>, u32) -> Call<S>,
    ) -> Result<Call<S>, Failure> {
        let tag = self.tag.unwrap_or_else(|| self.name.clone());
        let taken = self.from.and_then(|line| results.get(line)).cloned();
        let mut call = call(tag, taken.map(Do::Return).or(self.act), self.failures).named(self.name);
        if let Some(retry) = self.retry {
            let delay = Duration::from_millis(retry.delay_ms);
            call = call.retry(if retry.exponential {
                Retry::exponential(retry.attempts, delay)
            } else {
                Retry::fixed(retry.attempts, delay)
            });
        }
        if let Some(timeout) = self.timeout_ms.map(Duration::from_millis) {
            call = if self.per_attempt { call.timeout_per_attempt(timeout) } else { call.timeout(timeout) };
        }
        Ok(call)
    }
}

impl Do {
    fn done(self, nonce: &str) -> Result<Value, StepError> {
        Ok(match self {
            Do::Return(value) => value,
            Do::Effect { ms } => {
                if ms > 0 {
                    std::thread::sleep(Duration::from_millis(ms));
                }
                json!({ "attempt": attempt(), "nonce": nonce })
            }
            Do::Fail { message, fatal, retry_after_ms } => {
                let mut error = if fatal { StepError::fatal(message) } else { StepError::new(message) };
                if let Some(ms) = retry_after_ms {
                    error = error.retry_after(Duration::from_millis(ms));
                }
                return Err(error);
            }
            Do::FailBeforeRun { index } => match context().run_index {
                run if run < index => return Err(StepError::new(format!("run {run} is too early"))),
                run => json!({ "attempt": attempt(), "run": run }),
            },
            Do::HoldInRun { index, ms } => {
                if context().run_index == index {
                    std::thread::sleep(Duration::from_millis(ms));
                }
                json!({ "attempt": attempt(), "nonce": nonce })
            }
            Do::FailInVariant { mark } if mark == variant() => {
                return Err(StepError::new(format!("variant {mark} cannot do it")));
            }
            Do::FailInVariant { .. } => json!({ "attempt": attempt(), "variant": variant() }),
            Do::OwnError { code, may_pass } => Err(OwnError { code, may_pass }.to_string())?,
            Do::Panic { message } => panic!("{message}"),
            Do::Spin => spin(),
            Do::Compute { rounds } => json!(compute(rounds)),
            Do::Recurse => json!(recurse(0)),
            Do::Allocate { bytes } => json!(allocate(bytes)),
            Do::Exit { code } => std::process::exit(code),
            Do::ReallySleep { ms } => {
                std::thread::sleep(Duration::from_millis(ms));
                Value::Null
            }
            Do::Huge { bytes } => json!("x".repeat(usize::try_from(bytes).unwrap_or(usize::MAX))),
            Do::Flood { lines } => {
                for line in 0..lines {
                    println!("flood {line}");
                }
                Value::Null
            }
            Do::Say { how, target, text } => {
                say(&how, target.as_deref().unwrap_or("scenario"), &text);
                Value::Null
            }
            Do::InTurn { acts } => {
                let mut last = Value::Null;
                for act in acts {
                    last = act.done(nonce)?;
                }
                last
            }
            Do::CallSleep => {
                sleep("in a step", Duration::from_millis(1));
                Value::Null
            }
            Do::WhatTimeItIs => json!(now_ms()),
            Do::Random => json!(random()),
            Do::Environment => json!({
                "variables": std::env::vars().collect::<Vec<_>>(),
                "arguments": std::env::args().collect::<Vec<_>>(),
            }),
            Do::ReadFile { path } => match std::fs::read(path) {
                Ok(bytes) => json!({ "bytes": bytes.len() }),
                Err(error) => json!({ "error": error.to_string() }),
            },
            Do::Connect { address } => match std::net::TcpStream::connect(address) {
                Ok(_) => json!("connected"),
                Err(error) => json!({ "error": error.to_string() }),
            },
        })
    }
}

fn settled(result: Result<Value, Failure>) -> Value {
    match result {
        Ok(value) => json!({ "value": value }),
        Err(failure) => json!({ "failure": failure }),
    }
}

/// From where std gets the keys of its hash maps.
fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

fn now_ms() -> u64 {
    since_1970_ms(SystemTime::now())
}

fn since_1970_ms(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
