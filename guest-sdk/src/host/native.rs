//! Natively there is no host.

use std::time::SystemTime;

use crate::context::TaskContext;
use crate::{Failure, StepOptions};

const NO_HOST: &str = "there is no host here";

fn no_host<T>() -> Result<T, Failure> {
    Err(Failure::misuse(NO_HOST))
}

pub(crate) fn step(
    _name: &str,
    _function: &str,
    _input: String,
    _options: StepOptions,
) -> Result<String, Failure> {
    no_host()
}

pub(crate) fn schedule(
    _name: &str,
    _function: &str,
    _input: String,
    _options: StepOptions,
) -> Result<String, Failure> {
    no_host()
}

pub(crate) fn wait_all(_keys: &[String]) -> Result<Vec<Result<String, Failure>>, Failure> {
    no_host()
}

pub(crate) fn wait_any(_keys: &[String]) -> Result<(usize, Result<String, Failure>), Failure> {
    no_host()
}

pub(crate) fn sleep(_name: &str, _duration_ms: u64) {
    panic!("{NO_HOST}")
}

pub(crate) fn sleep_until(_name: &str, _at_ms: u64) {
    panic!("{NO_HOST}")
}

pub(crate) fn wait_event(_event: &str, _timeout_ms: Option<u64>) -> Result<String, Failure> {
    no_host()
}

pub(crate) fn capture(_name: &str, _value: String) -> Result<String, Failure> {
    no_host()
}

pub(crate) fn context() -> TaskContext {
    panic!("{NO_HOST}")
}

pub(crate) fn now() -> SystemTime {
    SystemTime::now()
}
