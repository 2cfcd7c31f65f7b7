//! Why a guest came to an end that is not its own, in words for whoever wrote it.

use stepbox_domain::{Failure, FailureKind, Limit, step::AttemptFailure};
use wasmtime::{OutOfMemory, PoolConcurrencyLimitError, Trap, WasmBacktrace};
use wasmtime_wasi::I32Exit;
use wasmtime_wasi_http::FieldMapError;

use super::{
    bounds::Bounds,
    limits::LimitHit,
    output::{Output, cut, printable},
    state::State,
    values,
};

/// What a host call answers to end the guest there and then; found again in the error that
/// comes out of the guest.
#[derive(Debug, thiserror::Error)]
pub(super) enum Stop {
    #[error("the handler is to be ended")]
    EndHandler,
    #[error("{0}")]
    Failed(Failure),
}

impl Stop {
    pub(super) fn end_handler() -> wasmtime::Error {
        wasmtime::Error::new(Stop::EndHandler)
    }

    pub(super) fn failed(failure: Failure) -> wasmtime::Error {
        wasmtime::Error::new(Stop::Failed(failure))
    }

    pub(super) fn misuse(message: impl Into<String>) -> wasmtime::Error {
        Stop::failed(Failure::new(FailureKind::Misuse, message))
    }
}

/// What the end of a guest means to the engine.
#[derive(Debug)]
pub(super) enum Ending {
    /// The host wanted it so.
    Ended,
    /// There is no room now; not the guest's fault.
    Unavailable(String),
    Failed(Failure),
}

/// What the guest was at, for the first words of a message.
#[derive(Clone, Copy, Debug)]
pub(super) enum Doing<'a> {
    Describe,
    Handler,
    Step(&'a str),
}

impl std::fmt::Display for Doing<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Doing::Describe => f.write_str("`describe`"),
            Doing::Handler => f.write_str("the handler"),
            Doing::Step(function) => write!(f, "the step function `{}`", printable(cut(function, 200))),
        }
    }
}

/// An error of wasmtime, and whether anything had been asked of the guest by then.
#[derive(Debug)]
pub(super) struct Fault {
    error: wasmtime::Error,
    called: bool,
}

impl Fault {
    /// It came out of making the instance. Code of the guest may have run nevertheless.
    pub(super) fn in_making(error: wasmtime::Error) -> Self {
        Fault { error, called: false }
    }

    pub(super) fn in_call(error: wasmtime::Error) -> Self {
        Fault { error, called: true }
    }
}

/// What a fault means, in words for whoever wrote the guest.
pub(super) fn ending(Fault { error, called }: &Fault, doing: Doing<'_>, state: &State) -> Ending {
    let output = &state.output;
    if let Some(stop) = error.downcast_ref::<Stop>() {
        return match stop {
            Stop::EndHandler => Ending::Ended,
            Stop::Failed(failure) => Ending::Failed(failure.clone().with_backtrace(backtrace(error))),
        };
    }
    if let Some(hit) = error.downcast_ref::<LimitHit>() {
        if let LimitHit::HostMemory { .. } = hit {
            return Ending::Unavailable(format!("{doing} has no room now: {hit}"));
        }
        let name = name_of(hit, doing).map_or(String::new(), |limit| format!(" ({limit})"));
        let hint = match (hit, doing) {
            (LimitHit::Cpu { .. }, Doing::Handler) => {
                "; put computing into steps, and note that a handler's clock stands still between two calls"
            }
            _ => "",
        };
        return over_limit(format!("{doing} was stopped: {hit}{name}{hint}"), error);
    }
    if let Some(limit) = limit_of_wasmtime(error, &state.bounds) {
        return over_limit(format!("{doing} was stopped: {limit}"), error);
    }
    if let Some(FieldMapError::TotalSizeTooBig | FieldMapError::TooManyFields) = error.downcast_ref() {
        let what = "it put more into the headers of a request than the 64 KiB that they may have";
        return over_limit(format!("{doing} was stopped: {what}"), error);
    }
    if let Some(trap) = error.downcast_ref::<Trap>() {
        return trapped(format!("{doing} {}", describe(*trap, output)), error);
    }
    if error.downcast_ref::<I32Exit>().is_some() {
        return trapped(format!("{doing} called exit instead of returning{}", said(output)), error);
    }
    let no_room =
        error.is::<PoolConcurrencyLimitError>() || error.is::<OutOfMemory>() || error.is::<std::io::Error>();
    if no_room && !called {
        return Ending::Unavailable(format!("no instance could be made: {error:#}"));
    }
    let cause = error.root_cause().to_string();
    if cause.starts_with("invalid utf-8 sequence") || cause.starts_with("incomplete utf-8") {
        let message = format!("{doing} passed a text that is not UTF-8: {cause}");
        return Ending::Failed(values::misuse(message).with_backtrace(backtrace(error)));
    }
    trapped(format!("{doing} trapped: {}", printable(&cause)), error)
}

/// Under which name it can be set for the task.
fn name_of(hit: &LimitHit, doing: Doing<'_>) -> Option<Limit> {
    match (hit, doing) {
        (LimitHit::HostMemory { .. }, _) | (LimitHit::Cpu { .. }, Doing::Describe) => None,
        (LimitHit::Memory { .. }, _) => Some(Limit::MemoryMaxBytes),
        (LimitHit::Tables { .. }, _) => Some(Limit::TableMaxElements),
        (LimitHit::Cpu { .. }, Doing::Handler) => Some(Limit::HandlerCpuMaxMs),
        (LimitHit::Cpu { .. }, Doing::Step(_)) => Some(Limit::AttemptCpuMaxMs),
        (LimitHit::Wall { .. }, _) => Some(Limit::HandlerWallMaxMs),
        (LimitHit::HostCalls { .. }, _) => Some(Limit::HostCallsPerSecondMax),
    }
}

fn over_limit(message: String, error: &wasmtime::Error) -> Ending {
    Ending::Failed(Failure::new(FailureKind::OverLimit, message).with_backtrace(backtrace(error)))
}

fn trapped(message: String, error: &wasmtime::Error) -> Ending {
    Ending::Failed(Failure::new(FailureKind::Trapped, message).with_backtrace(backtrace(error)))
}

/// Limits that wasmtime keeps for us without a type of their own for the error.
fn limit_of_wasmtime(error: &wasmtime::Error, bounds: &Bounds) -> Option<String> {
    let text = error.root_cause().to_string();
    if text.contains("fuel allocated for hostcalls has been exhausted") {
        let max_bytes = bounds.value_max_bytes();
        return Some(format!(
            "it passed far more data in one call than the {max_bytes} bytes of one value (valueMaxBytes)"
        ));
    }
    if text.contains("handle limit exceeded") {
        let max = bounds.host.handles_max;
        return Some(format!(
            "it holds more host resources (streams, pollables, …) than the {max} that an instance may have"
        ));
    }
    let known = [
        "memory minimum size of",
        "table minimum size of",
        "resource limit exceeded",
        "requested len", // random bytes asked for at once
    ];
    known.iter().any(|part| text.contains(part)).then(|| printable(&text))
}

fn describe(trap: Trap, output: &Output) -> String {
    match trap {
        Trap::UnreachableCodeReached => match panic_message(output) {
            Some(panic) => format!("panicked: {panic}"),
            None => format!("trapped: it reached `unreachable` (a panic, an abort){}", said(output)),
        },
        Trap::StackOverflow => "trapped: its call stack is used up (endless recursion?)".to_owned(),
        Trap::MemoryOutOfBounds => {
            "trapped: it reached out of the bounds of its memory (so does a stack that overflows: endless \
             recursion with large locals)"
                .to_owned()
        }
        other => {
            let text = other.to_string();
            format!("trapped: {}{}", text.strip_prefix("wasm trap: ").unwrap_or(&text), said(output))
        }
    }
}

/// What a Rust panic wrote: from "panicked at" on, without the note on backtraces.
fn panic_message(output: &Output) -> Option<String> {
    let words = output.last_words();
    let start = words.iter().rposition(|line| line.contains("panicked at"))?;
    let lines: Vec<&str> = words[start..]
        .iter()
        .map(|line| line.split_once("panicked at ").map_or(line.as_str(), |(_, rest)| rest))
        .filter(|line| !line.starts_with("note: "))
        .collect();
    Some(lines.join(" "))
}

/// The end of stderr, for whatever it is worth.
fn said(output: &Output) -> String {
    let words = output.last_words();
    match &words[words.len().saturating_sub(3)..] {
        [] => String::new(),
        last => format!("; its last words: {}", last.join(" / ")),
    }
}

/// The guest's own stack, one frame a line: `function (file:line)` where the component says so.
fn backtrace(error: &wasmtime::Error) -> Option<String> {
    let frames: Vec<String> = error
        .downcast_ref::<WasmBacktrace>()?
        .frames()
        .iter()
        .map(|frame| {
            let name = frame.func_name().map_or_else(
                || format!("function {}", frame.func_index()),
                |name| format!("{:#}", rustc_demangle::demangle(cut(name, 1_000))),
            );
            let place = frame.symbols().first().and_then(|symbol| Some((symbol.file()?, symbol.line()?)));
            match place {
                Some((file, line)) => format!("{} ({}:{line})", printable(&name), printable(cut(file, 300))),
                None => printable(&name),
            }
        })
        .collect();
    let frames = without_panic_machinery(&frames);
    (!frames.is_empty()).then(|| folded(frames).join("\n"))
}

/// Rust's way from `panic!` to the abort is the same for every panic, and long.
fn without_panic_machinery(frames: &[String]) -> &[String] {
    let is_machinery = |frame: &String| {
        let prefixes =
            ["std::panicking::", "core::panicking::", "std::process::abort", "std::sys::", "__rustc::"];
        frame == "abort" || prefixes.iter().any(|prefix| frame.starts_with(prefix))
    };
    let start = frames.iter().position(|frame| !is_machinery(frame)).unwrap_or(0);
    &frames[start..]
}

/// Says of a frame that is there many times in a row how many.
fn folded(frames: &[String]) -> Vec<String> {
    frames
        .chunk_by(|one, next| one == next)
        .map(|same| match same.len() {
            1 => same[0].clone(),
            times => format!("{} ({times} times)", same[0]),
        })
        .collect()
}

/// The host's failure, as the outcome of an attempt.
pub(super) fn attempt_failure(failure: Failure) -> AttemptFailure {
    let retryable = !matches!(failure.kind, FailureKind::Misuse | FailureKind::Unsupported);
    AttemptFailure {
        kind: failure.kind,
        message: failure.message,
        details: failure.details,
        backtrace: failure.backtrace,
        logs: failure.logs,
        retryable,
        retry_after_ms: None,
    }
}
