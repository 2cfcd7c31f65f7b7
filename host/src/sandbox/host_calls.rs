//! The calls of `wit/task.wit`, checked and handed on to [`HostCalls`](super::HostCalls).
//!
//! What the guest gets wrong it hears as a failure of kind `misuse`, where the call can answer
//! with one; where it cannot, the handler ends with that failure. A step that makes a call of
//! the handler's ends its attempt.

use stepbox_domain::{EventName, Failure, FailureKind, Json, StepName, Timestamp, decide::Until};
use wasmtime::Result;

use super::{
    Answer, EndHandler, HostCalls, LogLevel, StepCall,
    bindings::stepbox::task::{durable, types},
    ending::Stop,
    limits::CpuMeter,
    output::{cut, forges, printable},
    state::{Role, State},
    values::{self, domain_options, json_from_guest, wit_failure},
};

/// What a guest hears: a JSON text or a failure.
type Heard = std::result::Result<String, types::Failure>;

impl types::Host for State {}

impl durable::Host for State {
    async fn step(
        &mut self,
        name: String,
        function: String,
        input: String,
        options: types::StepOptions,
    ) -> Result<Heard> {
        let handler = self.only_handler("step")?;
        let call = match step_call(&handler, &name, function, input, options) {
            Ok(call) => call,
            Err(failure) => return Ok(Err(wit_failure(failure))),
        };
        let answer = handler.cpu.not_counted(handler.calls.step(call)).await;
        handler.heard(answer)
    }

    async fn schedule(&mut self, _: String, _: String, _: String, _: types::StepOptions) -> Result<Heard> {
        self.only_handler("schedule")?;
        Ok(Err(not_offered("schedule", "call steps one after the other with `step`")))
    }

    async fn wait_all(&mut self, _: Vec<String>) -> Result<std::result::Result<Vec<Heard>, types::Failure>> {
        self.only_handler("wait-all")?;
        Ok(Err(not_offered("wait-all", "call steps one after the other with `step`")))
    }

    async fn wait_any(
        &mut self,
        _: Vec<String>,
    ) -> Result<std::result::Result<(u32, Heard), types::Failure>> {
        self.only_handler("wait-any")?;
        Ok(Err(not_offered("wait-any", "call steps one after the other with `step`")))
    }

    async fn sleep(&mut self, name: String, duration_ms: u64) -> Result<()> {
        self.only_handler("sleep")?.sleep(&name, Until::After(duration_ms)).await
    }

    async fn sleep_until(&mut self, name: String, at_ms: u64) -> Result<()> {
        let at = Timestamp::from_ms(i64::try_from(at_ms).unwrap_or(i64::MAX)).min(Timestamp::MAX);
        self.only_handler("sleep-until")?.sleep(&name, Until::At(at)).await
    }

    async fn wait_event(&mut self, event: String, timeout_ms: Option<u64>) -> Result<Heard> {
        let handler = self.only_handler("wait-event")?;
        let event = match EventName::parse(&event) {
            Ok(event) => event,
            Err(error) => return Ok(Err(wit_failure(values::misuse(format!("`wait-event`: {error}"))))),
        };
        let answer = handler.cpu.not_counted(handler.calls.wait_event(event, timeout_ms)).await;
        handler.heard(answer)
    }

    async fn capture(&mut self, name: String, value: String) -> Result<Heard> {
        let handler = self.only_handler("capture")?;
        let (name, value) = match capture_call(&handler, &name, value) {
            Ok(call) => call,
            Err(failure) => return Ok(Err(wit_failure(failure))),
        };
        let answer = handler.cpu.not_counted(handler.calls.capture(name, value)).await;
        handler.heard(answer)
    }

    async fn start_execution(&mut self, _: String, _: String, _: Option<String>, _: String) -> Result<Heard> {
        self.only_handler("start-execution")?;
        Ok(Err(not_offered("start-execution", "start it from outside, through the API")))
    }

    async fn wait_execution(&mut self, _: String, _: Option<u64>) -> Result<Heard> {
        self.only_handler("wait-execution")?;
        Ok(Err(not_offered("wait-execution", "have the other execution send an event, and wait for that")))
    }

    async fn context(&mut self) -> Result<types::TaskContext> {
        match &self.role {
            Role::Handler { context, .. } | Role::Step { context } => Ok(context.clone()),
            Role::Describe => Err(called_in_describe("context")),
        }
    }

    async fn log(&mut self, level: types::LogLevel, target: String, message: String) -> Result<()> {
        if let Role::Describe = self.role {
            return Err(called_in_describe("log"));
        }
        let level = match level {
            types::LogLevel::Trace => LogLevel::Trace,
            types::LogLevel::Debug => LogLevel::Debug,
            types::LogLevel::Info => LogLevel::Info,
            types::LogLevel::Warn => LogLevel::Warn,
            types::LogLevel::Error => LogLevel::Error,
        };
        self.output.log(level, &target, &message).await;
        Ok(())
    }
}

/// The parts of a handler instance that a call needs.
struct Handler<'a> {
    calls: &'a mut Box<dyn HostCalls>,
    cpu: &'a CpuMeter,
    time: &'a super::virtual_wasi::VirtualTime,
    value_max_bytes: usize,
}

impl State {
    /// Only the handler makes durable calls; anybody else is ended, and told what it called.
    fn only_handler(&mut self, call: &str) -> Result<Handler<'_>> {
        match &mut self.role {
            Role::Handler { calls, .. } => Ok(Handler {
                calls,
                cpu: &self.cpu,
                time: &self.time,
                value_max_bytes: self.bounds.value_max_bytes(),
            }),
            Role::Step { .. } => Err(Stop::misuse(format!(
                "`{call}` was called inside of a step; only the handler may call it: return from the step \
                 first, and call `{call}` where the handler calls its steps"
            ))),
            Role::Describe => Err(called_in_describe(call)),
        }
    }
}

fn called_in_describe(call: &str) -> wasmtime::Error {
    Stop::misuse(format!("`{call}` was called inside of `describe`, which may call nothing of the host"))
}

impl Handler<'_> {
    fn heard(&self, answer: std::result::Result<Answer, EndHandler>) -> Result<Heard> {
        let answer = answer.map_err(|EndHandler| Stop::end_handler())?;
        self.time.advance_to(answer.now);
        Ok(answer.outcome.map(|json| json.as_str().to_owned()).map_err(wit_failure))
    }

    /// A sleep cannot answer with a failure: one ends the handler.
    async fn sleep(&mut self, name: &str, until: Until) -> Result<()> {
        let name = step_name(name).map_err(Stop::failed)?;
        let answer = self.cpu.not_counted(self.calls.sleep(name, until)).await;
        let answer = answer.map_err(|EndHandler| Stop::end_handler())?;
        self.time.advance_to(answer.now);
        answer.outcome.map(drop).map_err(Stop::failed)
    }
}

fn step_call(
    handler: &Handler<'_>,
    name: &str,
    function: String,
    input: String,
    options: types::StepOptions,
) -> std::result::Result<StepCall, Failure> {
    let name = step_name(name)?;
    // Its name stands in messages, and in the journal.
    if function.is_empty() || function.chars().count() > 200 || function.contains(forges) {
        let said = printable(cut(&function, 40));
        return Err(values::misuse(format!(
            "step \"{name}\": the function \"{said}\" must have 1 to 200 printable characters"
        )));
    }
    let input =
        json_from_guest(input, format_args!("the input of step \"{name}\""), handler.value_max_bytes)?;
    Ok(StepCall { name, function, input, options: domain_options(options) })
}

fn capture_call(
    handler: &Handler<'_>,
    name: &str,
    value: String,
) -> std::result::Result<(StepName, Json), Failure> {
    let name = step_name(name)?;
    let value =
        json_from_guest(value, format_args!("the value of capture \"{name}\""), handler.value_max_bytes)?;
    Ok((name, value))
}

fn step_name(name: &str) -> std::result::Result<StepName, Failure> {
    StepName::parse(name).map_err(|error| values::misuse(error.to_string()))
}

fn not_offered(call: &str, instead: &str) -> types::Failure {
    let message = format!("`{call}` is part of the contract, but this host does not offer it yet; {instead}");
    wit_failure(Failure::new(FailureKind::Unsupported, message))
}
