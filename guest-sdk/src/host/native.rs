//! Natively there is no host: the journal of the [`TestRun`](crate::testing::TestRun) on this
//! thread answers. Outside of one, `context` and `now` answer something sensible, so that the
//! body of a step can be called on its own; a durable call is refused.

use std::time::SystemTime;

use crate::context::TaskContext;
use crate::step::StepDef;
use crate::testing::session::{self, Session};
use crate::{Failure, FailureKind, StepOptions};

const NO_HOST: &str = "there is no host here: call a task within `stepbox_guest::testing::TestRun`, or the body of a step by `step::body(..)`";

fn session() -> Result<Session, Failure> {
    session::current().ok_or_else(|| Failure::misuse(NO_HOST))
}

pub(crate) fn step(name: &str, step: &StepDef, input: &str, options: StepOptions) -> Result<String, Failure> {
    session()?.step(name, step, input, options)
}

pub(crate) fn schedule(
    name: &str,
    _step: &StepDef,
    _input: &str,
    _options: StepOptions,
) -> Result<String, Failure> {
    session()?;
    Err(no_fan_out(&format!("step `{name}` was not scheduled")))
}

pub(crate) fn wait_all(_keys: &[String]) -> Result<Vec<Result<String, Failure>>, Failure> {
    session()?;
    Err(no_fan_out("there is nothing to wait for"))
}

pub(crate) fn wait_any(_keys: &[String]) -> Result<(usize, Result<String, Failure>), Failure> {
    session()?;
    Err(no_fan_out("there is nothing to wait for"))
}

/// As a host that does not offer it.
fn no_fan_out(what: &str) -> Failure {
    Failure::new(FailureKind::Unsupported, format!("this host runs one step after the other: {what}"))
}

pub(crate) fn sleep(name: &str, duration_ms: u64) {
    match session() {
        Ok(session) => session.sleep(name, duration_ms),
        Err(failure) => panic!("{failure}"),
    }
}

pub(crate) fn sleep_until(name: &str, at_ms: u64) {
    match session() {
        Ok(session) => session.sleep_until(name, at_ms),
        Err(failure) => panic!("{failure}"),
    }
}

pub(crate) fn wait_event(event: &str, timeout_ms: Option<u64>) -> Result<String, Failure> {
    session()?.wait_event(event, timeout_ms)
}

pub(crate) fn capture(name: &str, value: &str) -> Result<String, Failure> {
    session()?.capture(name, value)
}

pub(crate) fn context() -> TaskContext {
    session::current().map_or_else(
        || TaskContext {
            execution_id: "test".into(),
            run_id: "test:run:0".into(),
            run_index: 0,
            task_name: "test".into(),
            module_version: 1,
            started_at: SystemTime::UNIX_EPOCH,
        },
        |session| session.context(),
    )
}

pub(crate) fn now() -> SystemTime {
    session::current().map_or_else(SystemTime::now, |session| session.now())
}
