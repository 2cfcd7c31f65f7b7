//! What a call of the guest, or the passing of time, leads to.
//!
//! [`Run::decide`] reads and never changes. The caller folds the records in, makes them durable when
//! [`Durability`] says, and gives the reply. A reply of [`Reply::Wait`] means: ask the same again, at
//! the latest when the wait is over; every question is a look at how things stand, so asking once too
//! often does no harm.
//!
//! | handler calls | journal has nothing there | an attempt under way | between attempts | an outcome |
//! |---|---|---|---|---|
//! | a step | start it | it was cut off: next attempt | wait, then next attempt | answer |
//! | a sleep, a wait | start it | wait, or end it | – | answer |
//! | another call than recorded | – | diverged | diverged | diverged |
//!
//! Where the journal has nothing, the call may be one that was kept or set aside
//! ([`Run::aside`]): if it is the same, it is adopted ([`Record::StepAdopted`]), and what follows
//! is as if it had always stood there.

mod step;

use crate::{
    EventName, Failure, FailureKind, Json, Receipt, Run, Timestamp,
    journal::Record,
    leg::Place,
    pause::Hold,
    run::{Call, Step, Wait, wait_timed_out},
    step::{AttemptOutcome, StepInput, StepKind, StepOptions},
};

/// All that can move a run.
#[derive(Clone, Debug)]
pub enum Input<'a> {
    /// The handler calls a step, or asks again after a wait.
    StepCalled {
        place: &'a Place,
        function: &'a str,
        input: &'a StepInput,
        options: &'a StepOptions,
        /// The pause rule that keeps attempts of this step from starting, if one does.
        hold: Option<&'a Hold>,
    },
    /// The attempt that a [`Reply::Go`] started is over.
    AttemptEnded {
        place: &'a Place,
        attempt: u32,
        outcome: AttemptOutcome,
        /// What it took of the host.
        receipt: Option<Box<Receipt>>,
        options: &'a StepOptions,
    },
    Sleeps {
        place: &'a Place,
        until: Until,
    },
    WaitsForEvent {
        place: &'a Place,
        event: &'a EventName,
        timeout_ms: Option<u64>,
    },
    Captures {
        place: &'a Place,
        value: &'a Json,
    },
    /// Nothing but time: is the execution's deadline past? [`Reply::Leave`] when it is not.
    TimePasses,
    /// `run` returned, having made `calls_made` durable calls.
    HandlerReturns {
        calls_made: u32,
        result: Result<Json, Failure>,
    },
    /// `run` came to an end that is not its own: a trap, a limit, or the host's despair.
    HandlerFails {
        failure: Failure,
    },
}

/// How long a sleep lasts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Until {
    /// So many milliseconds from the first call.
    After(u64),
    At(Timestamp),
}

/// What follows: the records are applied, become durable, and the reply is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    pub records: Vec<Record>,
    pub reply: Reply,
    pub durability: Durability,
}

/// When the records of a decision have to be on disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Before the reply.
    Now,
    /// Before anything comes of the reply, which is an answer to the handler or a wait: before anybody
    /// hears how the run stands, before it stands still, and before a step that the handler calls next is
    /// seen outside. Until then only instances know it that die with the host, and that nothing gets out
    /// of. So what a handler does without a rest is written at once, with the end of the run or the wait
    /// that it comes to, and with its being let go of there.
    BeforeEffects,
    /// Together with the next that must be, or soon: losing them repeats nothing and changes
    /// nothing that the handler has seen.
    Eventually,
}

/// What ends an attempt whose time is up.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bound {
    /// The step's own timeout.
    Timeout,
    /// The limit of the task, which comes first, or is all there is.
    Limit { max_ms: u64 },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// Run this attempt, and interrupt it when it has taken `time_ms`. Not at a moment: setting the
    /// wall clock makes no attempt longer or shorter.
    Go { attempt: u32, time_ms: u64, bound: Bound },
    /// The journal has the answer. `at` is the moment that the handler's clock shows from now on.
    Recorded { outcome: Result<Json, Failure>, at: Timestamp },
    /// Ask again when the wait is over, or when an event comes.
    Wait(Wait),
    /// The call makes no sense as made. Nothing is recorded; the handler hears why.
    Refused(Failure),
    /// The handler has nothing more to do: the run is over.
    Stop,
    /// Nothing follows here and now: let the handler go, the run is taken up again later.
    Leave,
}

impl Decision {
    fn reply(reply: Reply) -> Self {
        Decision { records: Vec::new(), reply, durability: Durability::Eventually }
    }

    fn now(records: Vec<Record>, reply: Reply) -> Self {
        Decision { records, reply, durability: Durability::Now }
    }

    fn before_effects(records: Vec<Record>, reply: Reply) -> Self {
        Decision { records, reply, durability: Durability::BeforeEffects }
    }

    fn eventually(records: Vec<Record>, reply: Reply) -> Self {
        Decision { records, reply, durability: Durability::Eventually }
    }

    fn fails(failure: Failure, now: Timestamp) -> Self {
        Decision::now(vec![Record::RunFailed { failure, at: now }], Reply::Stop)
    }
}

impl Run {
    /// What follows from `input` at `now`. See the module's table.
    pub fn decide(&self, input: Input<'_>, now: Timestamp) -> Decision {
        if self.end().is_some() {
            return Decision::reply(Reply::Stop);
        }
        if let Some(deadline) = self.deadline()
            && now >= deadline
            // What has happened by itself is still recorded; only further doing is cut off.
            && !matches!(
                input,
                Input::AttemptEnded { .. } | Input::HandlerReturns { .. } | Input::HandlerFails { .. }
            )
        {
            return self.out_of_time(deadline, now);
        }
        match input {
            Input::StepCalled { place, function, input, options, hold } => {
                self.step_called(place, function, input, options, hold, now)
            }
            Input::AttemptEnded { place, attempt, outcome, receipt, options } => {
                self.attempt_ended(place, attempt, outcome, receipt, options, now)
            }
            Input::Sleeps { place, until } => self.sleeps(place, until, now),
            Input::WaitsForEvent { place, event, timeout_ms } => {
                self.waits_for_event(place, event, timeout_ms, now)
            }
            Input::Captures { place, value } => self.captures(place, value, now),
            Input::TimePasses => Decision::reply(Reply::Leave),
            Input::HandlerReturns { calls_made, result } => self.handler_returns(calls_made, result, now),
            Input::HandlerFails { failure } => Decision::fails(failure, now),
        }
    }

    fn out_of_time(&self, deadline: Timestamp, now: Timestamp) -> Decision {
        let mut message = match self.facts().time_ms() {
            Some(ms) => {
                format!("the execution was not over within {ms} ms, which is the timeout of its task")
            }
            None => "the execution was not over within the timeout of its task".to_owned(),
        };
        if self.facts().deadline != Some(deadline) {
            message.push_str(" (counted from its last repair, and without the time that it was paused)");
        }
        let mut failure = Failure::new(FailureKind::TimedOut, message);
        if let Some(step) = self.steps().last().filter(|step| step.ended_at.is_none()) {
            failure.message =
                format!("{}; it stood at {} \"{}\"", failure.message, step.call.kind(), step.key);
            failure.step = Some(step.key.clone());
            failure.attempt = step.attempts.last().map(|attempt| attempt.number);
        }
        Decision::fails(failure, now)
    }

    /// What the journal has at `place`: none yet, or the record of just this call. A call that was
    /// kept or set aside and `is_same` is found too, and comes with the record that puts it there.
    ///
    /// Err: the decision to stop, because the journal has another call there (law 6), or because
    /// the run has made as many calls as it may.
    fn recorded(
        &self,
        place: &Place,
        kind: StepKind,
        is_same: impl Fn(&Step) -> bool,
        now: Timestamp,
    ) -> Result<Option<(&Step, Vec<Record>)>, Box<Decision>> {
        let Some(step) = self.steps().get(place.index as usize) else {
            if place.index >= self.policy().steps_max {
                let failure = Failure::new(
                    FailureKind::OverLimit,
                    format!(
                        "the run made more than {} durable calls, the limit of its task (stepsMax); \"{}\" was one too many",
                        self.policy().steps_max,
                        place.key
                    ),
                );
                return Err(Box::new(Decision::fails(failure, now)));
            }
            let same = self.aside().get(&place.key).filter(|step| is_same(step));
            let adopted = || vec![Record::StepAdopted { key: place.key.clone(), at: now }];
            return Ok(same.map(|step| (step, adopted())));
        };
        if step.key != place.key || step.call.kind() != kind {
            let got = format!("{kind} \"{}\"", place.key);
            return Err(Box::new(self.diverged(place.index, &got, now)));
        }
        Ok(Some((step, Vec::new())))
    }

    fn diverged(&self, index: u32, got: &str, now: Timestamp) -> Decision {
        let expected = match self.steps().get(index as usize) {
            Some(step) => format!("{} \"{}\"", step.call.kind(), step.key),
            None => "no further call".to_owned(),
        };
        Decision::fails(
            Failure::new(
                FailureKind::Diverged,
                format!(
                    "the handler took another way than the journal of its run: call {} was {expected}, \
                     this time it is {got}; a handler must make the same calls each time it is called, \
                     so keep everything that can differ inside of steps",
                    u64::from(index) + 1
                ),
            ),
            now,
        )
    }

    fn sleeps(&self, place: &Place, until: Until, now: Timestamp) -> Decision {
        let ends_then = |start: Timestamp| match until {
            Until::After(ms) => start.plus_ms(ms),
            Until::At(at) => at.min(Timestamp::MAX),
        };
        let is_same = |step: &Step| match step.call {
            Call::Sleep { until } => until == ends_then(step.started_at),
            _ => false,
        };
        let found = match self.recorded(place, StepKind::Sleep, is_same, now) {
            Ok(found) => found,
            Err(stop) => return *stop,
        };
        let answer = |at| Reply::Recorded { outcome: Ok(Json::null()), at };
        let Some((step, mut records)) = found else {
            let until = ends_then(now);
            let start = Record::SleepStarted { key: place.key.clone(), until, at: now };
            if until <= now {
                let end = Record::SleepEnded { step: place.index, at: now };
                return Decision::before_effects(vec![start, end], answer(now));
            }
            let wait = Wait::Sleep { step: place.key.clone(), until };
            return Decision::before_effects(vec![start], Reply::Wait(wait));
        };
        if let Some(at) = step.ended_at {
            return Decision::eventually(records, answer(at));
        }
        match step.call {
            Call::Sleep { until } if now < until => {
                let wait = Wait::Sleep { step: place.key.clone(), until };
                Decision::eventually(records, Reply::Wait(wait))
            }
            // That a time is past stays so, and the handler wakes at the moment it asked for
            // however late we are: losing this record changes nothing.
            Call::Sleep { until } => {
                records.push(Record::SleepEnded { step: place.index, at: until });
                Decision::eventually(records, answer(until))
            }
            _ => self.diverged(place.index, "a sleep", now),
        }
    }

    fn waits_for_event(
        &self,
        place: &Place,
        event: &EventName,
        timeout_ms: Option<u64>,
        now: Timestamp,
    ) -> Decision {
        // With another timeout too: the event that it consumed will not come again.
        let is_same = |step: &Step| matches!(&step.call, Call::WaitForEvent { event: recorded, .. } if recorded == event);
        let found = match self.recorded(place, StepKind::WaitForEvent, is_same, now) {
            Ok(found) => found,
            Err(stop) => return *stop,
        };
        let (deadline, mut records) = match found {
            None => {
                let deadline = timeout_ms.map(|ms| now.plus_ms(ms));
                let (key, event) = (place.key.clone(), event.clone());
                (deadline, vec![Record::WaitStarted { key, event, deadline, at: now }])
            }
            Some((step, records)) => {
                if let (Some(outcome), Some(at)) = (step.outcome(), step.ended_at) {
                    return Decision::eventually(records, Reply::Recorded { outcome, at });
                }
                match &step.call {
                    Call::WaitForEvent { event: recorded, deadline } if recorded == event => {
                        (*deadline, records)
                    }
                    _ => {
                        return self.diverged(place.index, &format!("a wait for the event \"{event}\""), now);
                    }
                }
            }
        };
        if let Some(found) = self.mailbox().first(event, deadline) {
            let payload = found.payload.clone();
            let reply = Reply::Recorded { outcome: Ok(payload.clone()), at: now };
            records.push(Record::EventConsumed { step: place.index, event: found.seq, payload, at: now });
            return Decision::before_effects(records, reply);
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            records.push(Record::WaitTimedOut { step: place.index, at: now });
            let outcome = Err(wait_timed_out(&place.key, event));
            return Decision::before_effects(records, Reply::Recorded { outcome, at: now });
        }
        let wait = Wait::Event { step: place.key.clone(), event: event.clone(), deadline };
        Decision::before_effects(records, Reply::Wait(wait))
    }

    fn captures(&self, place: &Place, value: &Json, now: Timestamp) -> Decision {
        // Whatever value it brings: a capture is there for values that differ each time.
        let is_same = |step: &Step| matches!(step.call, Call::Capture);
        match self.recorded(place, StepKind::Capture, is_same, now) {
            Err(stop) => *stop,
            Ok(Some((step, records))) => match (step.outcome(), step.ended_at) {
                (Some(outcome), Some(at)) => Decision::eventually(records, Reply::Recorded { outcome, at }),
                _ => self.diverged(place.index, "a capture", now),
            },
            Ok(None) => {
                let record = Record::Captured { key: place.key.clone(), value: value.clone(), at: now };
                let reply = Reply::Recorded { outcome: Ok(value.clone()), at: now };
                Decision::before_effects(vec![record], reply)
            }
        }
    }

    fn handler_returns(&self, calls_made: u32, result: Result<Json, Failure>, now: Timestamp) -> Decision {
        if (calls_made as usize) < self.steps().len() {
            return self.diverged(calls_made, "the end of the handler", now);
        }
        match result {
            Ok(result) => Decision::now(vec![Record::RunCompleted { result, at: now }], Reply::Stop),
            Err(failure) => Decision::fails(self.attributed(failure), now),
        }
    }

    /// The handler's failure as the journal can vouch for it: what it says of a step is kept
    /// only where that step did fail here.
    fn attributed(&self, said: Failure) -> Failure {
        let failed =
            said.step.as_ref().and_then(|key| self.steps().iter().rev().find(|step| step.key == *key));
        match failed.and_then(Step::outcome) {
            Some(Err(known)) => {
                Failure { message: said.message, details: said.details.or(known.details.clone()), ..known }
            }
            _ => {
                Failure::new(FailureKind::Error, said.message).with_details(said.details).with_logs(said.logs)
            }
        }
    }
}
