//! A handler under test meets the state machine: each call of the host becomes an input to
//! [`Run::decide`], and what it decides is applied at once.
//!
//! Ending a handler (its host crashed, its run is over, nothing more will come) is an unwinding
//! that no panic hook sees; natively there is no other way out of a function.

use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use std::time::SystemTime;

use stepbox_domain::decide::{Durability, Input, Reply, Until};
use stepbox_domain::event::Event;
use stepbox_domain::journal::Record;
use stepbox_domain::leg::{Leg, Place};
use stepbox_domain::run::Wait;
use stepbox_domain::step::{AttemptFailure, AttemptOutcome, StepInput, StepOptions};
use stepbox_domain::{EventName, Failure, FailureKind, Json, Run, StepName, Timestamp};

use super::{Setup, Stub};
use crate::context::{TaskContext, in_attempt};
use crate::http::native::Server;
use crate::step::StepDef;
use crate::time::{at_ms, millis};
use crate::{StepError, Task, task};

thread_local! {
    static CURRENT: RefCell<Option<Session>> = const { RefCell::new(None) };
}

/// The journal that answers on this thread, if a test runs a task on it.
pub(crate) fn current() -> Option<Session> {
    CURRENT.with_borrow(Clone::clone)
}

/// One run under test. Clones are the same run.
#[derive(Clone)]
pub(crate) struct Session(Rc<RefCell<State>>);

pub(crate) struct State {
    pub run: Run,
    pub records: Vec<Record>,
    /// How often the body of each step was run, by key.
    pub bodies_run: BTreeMap<String, u32>,
    /// What it stands at for ever, if it does.
    pub stuck_at: Option<Wait>,
    /// The world's time.
    pub clock: Timestamp,
    /// The time that the handler sees.
    handler_clock: Timestamp,
    leg: Leg,
    in_step: bool,
    events_to_come: VecDeque<Event>,
    setup: Setup,
}

/// Why a handler was ended from outside.
enum Ended {
    /// It is called again from the top.
    Crashed,
    /// The run is over, or stands for ever.
    AtRest,
}

/// A durable call inside of a step: the attempt ends.
struct Misuse(&'static str);

/// Calls the handler, again after each crash, until the run is over or stands for ever. The
/// output is that of the handler, if it returned one.
pub(crate) fn run_to_rest<T: Task>(setup: &Setup, journal: Vec<Record>) -> (Option<T::Output>, State) {
    let session = Session::new(setup, journal);
    let before = CURRENT.replace(Some(session.clone()));
    let output = loop {
        session.start_leg();
        match catch_unwind(AssertUnwindSafe(|| task::run::<T>(&setup.payload))) {
            Ok(Ok(output)) => {
                let json = task::written::<T>(&output).map_err(Failure::from);
                let result = json.and_then(|json| {
                    Json::parse(json).map_err(|error| Failure::new(FailureKind::Error, error.to_string()))
                });
                session.handler_returns(result);
                break Some(output);
            }
            Ok(Err(failure)) => {
                session.handler_returns(Err(failure.into()));
                break None;
            }
            Err(payload) => match payload.downcast::<Ended>() {
                Ok(ended) if matches!(*ended, Ended::Crashed) => {}
                Ok(_) => break None,
                Err(panic) => {
                    session.handler_fails(
                        FailureKind::Trapped,
                        format!("the handler panicked: {}", message(&*panic)),
                    );
                    break None;
                }
            },
        }
    };
    CURRENT.set(before);
    let state = session.0.replace(State::new(setup, Vec::new()));
    (output, state)
}

impl State {
    fn new(setup: &Setup, journal: Vec<Record>) -> State {
        let run = Run::fold(setup.facts.clone(), setup.policy.clone(), &journal);
        let started_at = setup.facts.created_at;
        let mut events: Vec<_> = setup.events.iter().collect();
        events.sort_by_key(|(after, ..)| *after);
        let events_to_come = (1..)
            .zip(events)
            .map(|(seq, (after, name, payload))| Event {
                seq,
                name: EventName::parse(name).unwrap_or_else(|error| panic!("event `{name}`: {error}")),
                payload: payload.clone(),
                received_at: started_at.plus_ms(millis(*after)),
            })
            .collect();
        State {
            run,
            records: journal,
            bodies_run: BTreeMap::new(),
            stuck_at: None,
            clock: started_at,
            handler_clock: started_at,
            leg: Leg::default(),
            in_step: false,
            events_to_come,
            setup: setup.clone(),
        }
    }

    fn deliver_events(&mut self) {
        while self.events_to_come.front().is_some_and(|event| event.received_at <= self.clock) {
            self.run.mailbox_mut().receive(self.events_to_come.pop_front());
        }
    }
}

/// What the handler asks; see `crate::host`.
impl Session {
    pub(crate) fn step(
        &self,
        name: &str,
        step: &StepDef,
        input: &str,
        options: crate::StepOptions,
    ) -> Result<String, crate::Failure> {
        let name = StepName::parse(name).map_err(misuse)?;
        let place = self.place_of(name.clone());
        let options = StepOptions::from(options);
        let hash = StepInput::of(&json(input)?);
        let call = Input::StepCalled {
            place: &place,
            function: step.function,
            input: &hash,
            options: &options,
            hold: None,
        };
        let mut next = call.clone();
        loop {
            next = match self.take(next) {
                Reply::Go { attempt, time_ms, .. } => {
                    let outcome = self.attempt(step, input, attempt, time_ms);
                    self.crash_during(step, attempt);
                    Input::AttemptEnded { place: &place, attempt, outcome, receipt: None, options: &options }
                }
                Reply::Refused(failure) => {
                    self.0.borrow_mut().leg.give_back(&name);
                    return Err(failure.into());
                }
                reply => match self.answer(reply) {
                    Some(answer) => return answer,
                    None => call.clone(),
                },
            };
        }
    }

    pub(crate) fn sleep(&self, name: &str, duration_ms: u64) {
        self.sleep_for(name, Until::After(duration_ms));
    }

    pub(crate) fn sleep_until(&self, name: &str, at_ms: u64) {
        let at = Timestamp::from_ms(i64::try_from(at_ms).unwrap_or(i64::MAX));
        self.sleep_for(name, Until::At(at));
    }

    fn sleep_for(&self, name: &str, until: Until) {
        let slept = self.place(name).and_then(|place| self.ask(&Input::Sleeps { place: &place, until }));
        // A sleep has no way to say that it makes no sense; the host ends the handler.
        if let Err(failure) = slept {
            panic!("{failure}");
        }
    }

    pub(crate) fn wait_event(&self, event: &str, timeout_ms: Option<u64>) -> Result<String, crate::Failure> {
        let event = EventName::parse(event).map_err(misuse)?;
        let place = self.place_of(StepName::from(&event));
        self.ask(&Input::WaitsForEvent { place: &place, event: &event, timeout_ms })
    }

    pub(crate) fn capture(&self, name: &str, value: &str) -> Result<String, crate::Failure> {
        let place = self.place(name)?;
        self.ask(&Input::Captures { place: &place, value: &json(value)? })
    }

    pub(crate) fn context(&self) -> TaskContext {
        let state = self.0.borrow();
        let facts = state.run.facts();
        TaskContext {
            execution_id: facts.execution.to_string(),
            run_id: facts.run.to_string(),
            run_index: facts.index,
            task_name: facts.task.to_string(),
            module_version: facts.version,
            started_at: system_time(facts.created_at),
        }
    }

    pub(crate) fn now(&self) -> SystemTime {
        let state = self.0.borrow();
        system_time(if state.in_step { state.clock } else { state.handler_clock })
    }

    pub(crate) fn take_time(&self, ms: u64) {
        let mut state = self.0.borrow_mut();
        state.clock = state.clock.plus_ms(ms);
        state.deliver_events();
    }

    /// Who answers HTTP requests in this run.
    ///
    /// Panics outside of a step, where a host ends the run.
    pub(crate) fn server(&self) -> Option<Server> {
        let state = self.0.borrow();
        assert!(state.in_step, "an HTTP request was to be sent outside of a step; send it inside of one");
        state.setup.server.clone()
    }

    fn place(&self, name: &str) -> Result<Place, crate::Failure> {
        Ok(self.place_of(StepName::parse(name).map_err(misuse)?))
    }

    /// The place of a durable call, which only a handler may make: inside of a step it ends the
    /// attempt.
    fn place_of(&self, name: StepName) -> Place {
        let mut state = self.0.borrow_mut();
        if state.in_step {
            drop(state);
            resume_unwind(Box::new(Misuse("a step made a durable call; only a handler may")));
        }
        state.leg.place(name)
    }

    /// Asks until there is an answer.
    fn ask(&self, call: &Input<'_>) -> Result<String, crate::Failure> {
        loop {
            let reply = self.take(call.clone());
            if let Some(answer) = self.answer(reply) {
                return answer;
            }
        }
    }
}

/// What becomes of it.
impl Session {
    fn new(setup: &Setup, journal: Vec<Record>) -> Session {
        Session(Rc::new(RefCell::new(State::new(setup, journal))))
    }

    fn start_leg(&self) {
        let mut state = self.0.borrow_mut();
        state.leg = Leg::default();
        state.handler_clock = state.run.facts().created_at;
        state.deliver_events();
    }

    /// A decision and its records, in the order that the host keeps: decide, write, apply, reply.
    fn take(&self, input: Input<'_>) -> Reply {
        let mut state = self.0.borrow_mut();
        let decision = state.run.decide(input, state.clock);
        for record in &decision.records {
            state.run.apply(record);
        }
        let wrote = decision.durability != Durability::Eventually && !decision.records.is_empty();
        state.records.extend(decision.records);
        if wrote && state.setup.crashes.after_each_record && state.run.end().is_none() {
            drop(state);
            end(Ended::Crashed);
        }
        decision.reply
    }

    /// What the handler hears; none when it is to ask again. Ends it where the run is over.
    fn answer(&self, reply: Reply) -> Option<Result<String, crate::Failure>> {
        match reply {
            Reply::Recorded { outcome, at } => {
                let mut state = self.0.borrow_mut();
                state.handler_clock = state.handler_clock.max(at);
                Some(outcome.map(|json| json.as_str().to_owned()).map_err(Into::into))
            }
            Reply::Wait(wait) => {
                self.wait(wait);
                None
            }
            Reply::Refused(failure) => Some(Err(failure.into())),
            // `Go` is answered by who called the step.
            Reply::Stop | Reply::Leave | Reply::Go { .. } => end(Ended::AtRest),
        }
    }

    /// Lets virtual time pass to the moment at which something happens next.
    fn wait(&self, wait: Wait) {
        let mut state = self.0.borrow_mut();
        let next_event = state.events_to_come.front().map(|event| event.received_at);
        let moments = [wait.until(), state.run.deadline(), next_event];
        match moments.into_iter().flatten().min() {
            Some(moment) => {
                state.clock = state.clock.max(moment);
                state.deliver_events();
            }
            None => {
                state.stuck_at = Some(wait);
                drop(state);
                end(Ended::AtRest);
            }
        }
    }

    fn attempt(&self, step: &StepDef, input: &str, attempt: u32, time_ms: u64) -> AttemptOutcome {
        let (stub, deadline): (Option<Stub>, _) = {
            let mut state = self.0.borrow_mut();
            state.in_step = true;
            if let Some(key) = state.run.steps().last().map(|step| step.key.to_string()) {
                *state.bodies_run.entry(key).or_default() += 1;
            }
            (state.setup.stubs.get(step.function).cloned(), state.clock.plus_ms(time_ms))
        };
        let body = || match &stub {
            Some(stub) => stub(input, attempt),
            None => (step.run)(input),
        };
        let ended = catch_unwind(AssertUnwindSafe(|| in_attempt(attempt, body)));
        let mut state = self.0.borrow_mut();
        state.in_step = false;
        if state.clock >= deadline {
            let failure = AttemptFailure::new(FailureKind::TimedOut, "the attempt ran out of its time");
            return AttemptOutcome::Failed(failure.not_retryable());
        }
        outcome(ended)
    }

    fn crash_during(&self, step: &StepDef, attempt: u32) {
        let crashes = attempt == 1 && self.0.borrow().setup.crashes.during.contains(&step.function);
        if crashes {
            end(Ended::Crashed);
        }
    }

    fn handler_returns(&self, result: Result<Json, Failure>) {
        let calls_made = self.0.borrow().leg.calls_made();
        self.take(Input::HandlerReturns { calls_made, result });
    }

    fn handler_fails(&self, kind: FailureKind, message: String) {
        self.take(Input::HandlerFails { failure: Failure::new(kind, message) });
    }
}

fn outcome(ended: Result<Result<String, StepError>, Box<dyn Any + Send>>) -> AttemptOutcome {
    let failure = match ended {
        Ok(Ok(result)) => match Json::parse(result) {
            Ok(result) => return AttemptOutcome::Completed(result),
            Err(error) => AttemptFailure::new(FailureKind::Error, error.to_string()).not_retryable(),
        },
        Ok(Err(error)) => error.into(),
        Err(payload) => match payload.downcast::<Misuse>() {
            Ok(misuse) => AttemptFailure::new(FailureKind::Misuse, misuse.0).not_retryable(),
            Err(panic) => {
                AttemptFailure::new(FailureKind::Trapped, format!("the step panicked: {}", message(&*panic)))
            }
        },
    };
    AttemptOutcome::Failed(failure)
}

fn end(how: Ended) -> ! {
    resume_unwind(Box::new(how))
}

fn misuse(error: impl ToString) -> crate::Failure {
    crate::Failure::misuse(error.to_string())
}

fn json(text: &str) -> Result<Json, crate::Failure> {
    Json::parse(text).map_err(misuse)
}

fn system_time(moment: Timestamp) -> SystemTime {
    at_ms(u64::try_from(moment.as_ms()).unwrap_or(0))
}

fn message(panic: &(dyn Any + Send)) -> &str {
    let text = panic.downcast_ref::<&str>().copied();
    text.or_else(|| panic.downcast_ref::<String>().map(String::as_str)).unwrap_or("no message")
}
