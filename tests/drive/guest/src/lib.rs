//! What the benchmark runs: so many steps, after a wait where one is asked for.

use std::time::{Duration, Instant, SystemTime};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepbox_guest::{
    StepError, TaskError, attempt, context, http, sleep, sleep_until, step, task, wait_event_forever,
};

/// What one execution does.
#[derive(Deserialize, Serialize, JsonSchema)]
pub struct Load {
    steps: u32,
    /// How long each step takes, in milliseconds.
    #[serde(default)]
    step_ms: u64,
    /// Wait for the event `go` first.
    #[serde(default)]
    wait: bool,
    /// Sleep until that moment first, in milliseconds since 1970.
    #[serde(default)]
    sleep_until_ms: Option<u64>,
    /// Sleep for a millisecond after every so many steps.
    #[serde(default)]
    sleep_every: Option<u32>,
    /// Say on stdout when a wait is over and when an attempt begins.
    #[serde(default)]
    tell: bool,
    /// The first step fails in its first attempt, and the execution with it until somebody retries
    /// it.
    #[serde(default)]
    fail_first: bool,
    /// Computes for so many rounds, in a step of its own.
    #[serde(default)]
    compute: u64,
    /// Asks the host so many times what time it is, in a step of its own.
    #[serde(default)]
    calls: u32,
    /// Gives the time, in microseconds since 1970, at which a step began that comes first after the
    /// waits; nothing else.
    #[serde(default)]
    clock: bool,
    /// Never comes to an end, in a step.
    #[serde(default)]
    endless: bool,
    /// Requests of one step, one after the other.
    fetch: Option<Fetch>,
}

/// So many requests to one URL.
#[derive(Clone, Deserialize, Serialize, JsonSchema)]
struct Fetch {
    url: String,
    times: u32,
}

#[step]
fn work(number: u32, step_ms: u64, tell: bool) -> Result<u32, StepError> {
    if tell {
        println!("begins {}", context().execution_id);
    }
    if step_ms > 0 {
        std::thread::sleep(Duration::from_millis(step_ms));
    }
    Ok(number)
}

#[step]
fn look_at_the_clock() -> Result<u64, StepError> {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    Ok(u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

#[step]
fn flaky(number: u32) -> Result<u32, StepError> {
    match attempt() {
        1 => Err(StepError::new("the first attempt fails")),
        _ => Ok(number),
    }
}

#[step]
fn compute(rounds: u64) -> Result<u64, StepError> {
    Ok((0..rounds).fold(0, |sum, n| std::hint::black_box(sum ^ n)))
}

#[step]
fn ask_the_time(times: u32) -> Result<u32, StepError> {
    for _ in 0..times {
        std::hint::black_box(Instant::now());
    }
    Ok(times)
}

#[step]
fn fetch(fetch: Fetch) -> Result<u32, StepError> {
    for _ in 0..fetch.times {
        http::get(&fetch.url).send()?.success()?;
    }
    Ok(fetch.times)
}

#[task]
fn bench(load: Load) -> Result<u64, TaskError> {
    if load.wait {
        let _: Option<bool> = wait_event_forever("go")?;
    }
    if let Some(ms) = load.sleep_until_ms {
        sleep_until("due", SystemTime::UNIX_EPOCH + Duration::from_millis(ms));
    }
    if load.tell && (load.wait || load.sleep_until_ms.is_some()) {
        println!("goes on {}", context().execution_id);
    }
    if load.clock {
        return Ok(look_at_the_clock()?);
    }
    if load.compute > 0 {
        compute(load.compute)?;
    }
    if load.calls > 0 {
        ask_the_time(load.calls)?;
    }
    if load.endless {
        compute(u64::MAX)?;
    }
    let mut sum = 0;
    if load.fail_first {
        sum += flaky(0)?;
    }
    if let Some(load) = load.fetch {
        sum += fetch(load)?;
    }
    for number in 0..load.steps {
        sum += work(number, load.step_ms, load.tell)?;
        if load.sleep_every.is_some_and(|every| (number + 1) % every == 0) {
            sleep("breath", Duration::from_millis(1));
        }
    }
    Ok(u64::from(sum))
}
