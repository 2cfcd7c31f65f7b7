//! A world that plays host, guest and admins: it calls a program from the top like a handler,
//! answers its steps, lets time pass, sends events, mends and pauses, and dies where the dice say
//! so, keeping only what a real host would have had on disk.

use std::collections::BTreeMap;

use stepbox_domain::{
    ExecutionId, Failure, FailureKind, Json, Run, RunId, StepKey, StepName, TaskName, Timestamp,
    decide::{Durability, Input, Reply, Until},
    event::Event,
    journal::{self, Record},
    leg::{Leg, Place},
    pause::{self, Hold, PauseRule},
    run::{Call, Policy, RunFacts, Wait},
    step::{AttemptFailure, AttemptOutcome, InputHash, StepInput},
};

use crate::{
    guest::Guest,
    program::{IfFails, Op, StepOp, event_name, name, options},
};

pub fn execution() -> ExecutionId {
    ExecutionId::parse("e-1").unwrap()
}

fn facts(deadline: Option<Timestamp>) -> RunFacts {
    let execution = execution();
    RunFacts {
        run: RunId::new(&execution, 0),
        execution,
        index: 0,
        task: TaskName::parse("order").unwrap(),
        version: 1,
        created_at: Timestamp::from_ms(0),
        deadline,
    }
}

/// How a leg of the handler came to its end.
#[derive(Debug, PartialEq)]
pub enum LegEnd {
    Over,
    Stands,
    Paused,
    Died,
}

/// Why a handler does not go on.
enum Ends {
    Leg(LegEnd),
    Returns(Failure),
}

impl From<LegEnd> for Ends {
    fn from(end: LegEnd) -> Self {
        Ends::Leg(end)
    }
}

/// How often what happened: a test that never saw a thing has not tested it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Seen {
    pub adopted: u32,
    pub replaced: u32,
    pub retried: u32,
    pub reopened: u32,
    pub resolved: u32,
    pub rerun: u32,
    pub restarted: u32,
    pub held_runs: u32,
    pub held_steps: u32,
    pub stood: u32,
    pub died: u32,
}

pub struct World {
    pub facts: RunFacts,
    pub policy: Policy,
    pub program: Vec<Op>,
    /// What a host would find on disk of the run.
    pub disk: Vec<Record>,
    /// Events on disk that nobody has consumed.
    events: Vec<Event>,
    pub events_sent: i64,
    pub now: Timestamp,
    pub dice: Vec<u8>,
    rolled: usize,
    /// Every attempt that was really run, in order.
    pub bodies_run: Vec<StepKey>,
    /// What the handler has heard, per call, in every leg since it was last mended.
    heard: Vec<(u32, Result<Json, Failure>, Timestamp)>,
    /// Law 2 from the outside: what must not run again, by key, with its input.
    pub done: BTreeMap<StepKey, InputHash>,
    pub rules: Vec<PauseRule>,
    pub seen: Seen,
}

impl World {
    pub fn new(program: Vec<Op>, deadline: Option<Timestamp>, dice: Vec<u8>) -> Self {
        World {
            facts: facts(deadline),
            policy: Policy { crashes_max: 1_000, ..Policy::default() },
            program,
            disk: Vec::new(),
            events: Vec::new(),
            events_sent: 0,
            now: Timestamp::from_ms(1),
            dice,
            rolled: 0,
            bodies_run: Vec::new(),
            heard: Vec::new(),
            done: BTreeMap::new(),
            rules: Vec::new(),
            seen: Seen::default(),
        }
    }

    /// One of `sides` numbers; once the dice are used up always the last, the kindest.
    pub fn roll(&mut self, sides: u8) -> u8 {
        self.rolled += 1;
        self.dice.get(self.rolled - 1).map_or(sides - 1, |die| die % sides)
    }

    fn dies(&mut self) -> bool {
        let dies = self.roll(12) == 0;
        self.seen.died += u32::from(dies);
        dies
    }

    pub fn claimed(&self) -> Run {
        let mut run = Run::fold(self.facts.clone(), self.policy.clone(), &self.disk);
        run.mailbox_mut().receive(self.events.clone());
        run
    }

    /// Puts `records` on disk; `run` has lived through them.
    pub fn write(&mut self, run: &Run, records: Vec<Record>) {
        for record in &records {
            self.learn(run, record);
        }
        self.seen.replaced += u32::from(run.steps().last().is_some_and(|step| step.replaced.is_some()));
        self.disk.extend(records);
        // Law 1: who reads the disk sees the run that lived through it.
        let read = self.claimed();
        assert_eq!((read.steps(), read.aside(), read.end()), (run.steps(), run.aside(), run.end()));
        assert_eq!((read.wait(), read.due(), read.deadline()), (run.wait(), run.due(), run.deadline()));
        assert_eq!((read.held(), read.clock_read()), (run.held(), run.clock_read()));
    }

    /// What the world outside can say once `record` is on disk.
    pub fn learn(&mut self, run: &Run, record: &Record) {
        match record {
            // The same key with another input: from now on that is the call.
            Record::StepStarted(start) => {
                let other = self.done.get(&start.key).filter(|input| **input != start.input).is_some();
                other.then(|| self.done.remove(&start.key));
            }
            Record::StepRan { start, .. } => {
                self.done.insert(start.key.clone(), start.input.clone());
            }
            Record::StepCompleted { step, .. } => {
                let step = &run.steps()[*step as usize];
                self.done.insert(step.key.clone(), input_of(&step.call).unwrap());
            }
            Record::StepResolved { key, outcome: Ok(_), .. } => {
                let step = run.step(key).unwrap();
                self.done.insert(key.clone(), input_of(&step.call).unwrap());
            }
            Record::StepKept { step } => {
                self.done.extend(input_of(&step.call).map(|input| (step.key.clone(), input)));
            }
            Record::EventConsumed { event, .. } => {
                let before = self.events.len();
                self.events.retain(|pending| pending.seq != *event);
                assert_eq!(self.events.len() + 1, before, "event {event} was consumed twice");
            }
            Record::SleepStarted { key, .. } | Record::Captured { key, .. } => {
                self.done.remove(key);
            }
            Record::StepAdopted { .. } => self.seen.adopted += 1,
            Record::ClockStood { .. } => self.seen.stood += 1,
            Record::StepHeld { .. } => self.seen.held_steps += 1,
            _ => {}
        }
    }

    fn maybe_send(&mut self, run: &mut Run) {
        if self.roll(3) == 0 {
            let which = self.roll(2);
            self.send(which);
            run.mailbox_mut().receive(self.events.last().cloned());
        }
    }

    fn send(&mut self, which: u8) {
        self.events_sent += 1;
        self.events.push(Event {
            seq: self.events_sent,
            name: event_name(which),
            payload: Json::from(serde_json::json!(self.events_sent)),
            received_at: self.now,
        });
    }

    pub fn hold(&self, step: Option<&StepKey>) -> Option<Hold> {
        pause::hold(&self.rules, &self.facts.execution, &self.facts.task, step, self.now)
    }

    /// Calls the handler from the top.
    fn leg(&mut self) -> LegEnd {
        if self.hold(None).is_some() {
            self.seen.held_runs += 1;
            return LegEnd::Paused;
        }
        let mut guest = Guest {
            run: self.claimed(),
            pending: Vec::new(),
            owes: false,
            leg: Leg::default(),
            clock: self.facts.created_at,
            results: Vec::new(),
        };
        let program = self.program.clone();
        let result = match self.calls(&mut guest, &program) {
            Ok(()) => Ok(Json::null()),
            Err(Ends::Returns(failure)) => Err(failure),
            Err(Ends::Leg(end)) => return end,
        };
        let input = Input::HandlerReturns { calls_made: guest.leg.calls_made(), result };
        match self.take(&mut guest, input) {
            None => LegEnd::Died,
            Some(_) => LegEnd::Over,
        }
    }

    fn calls(&mut self, guest: &mut Guest, ops: &[Op]) -> Result<(), Ends> {
        for op in ops {
            let name = match op {
                Op::Step(StepOp { name: n, .. })
                | Op::Sleep { name: n, .. }
                | Op::SleepUntil { name: n, .. }
                | Op::Capture { name: n } => name(*n),
                Op::Wait { event, .. } => StepName::parse(event_name(*event).as_str()).unwrap(),
            };
            let place = guest.leg.place(name);
            let outcome = self.call(guest, op, &place)?;
            guest.results.push(match &outcome {
                Ok(json) => json.clone(),
                Err(failure) => Json::from(serde_json::json!(failure.message)),
            });
            if let (Op::Step(StepOp { if_fails, .. }), Err(failure)) = (op, outcome) {
                match if_fails {
                    IfFails::GoOn => {}
                    IfFails::Fail => return Err(Ends::Returns(failure)),
                    IfFails::Instead(ops) => self.calls(guest, ops)?,
                }
            }
        }
        Ok(())
    }

    fn call(&mut self, guest: &mut Guest, op: &Op, place: &Place) -> Result<Result<Json, Failure>, LegEnd> {
        let options = options(op);
        let step_input = StepInput::of(&guest.input(op));
        // Another one in each leg: the first that is written counts.
        let captured = Json::from(serde_json::json!(self.now.as_ms()));
        loop {
            self.maybe_send(&mut guest.run);
            let event;
            let hold = self.hold(Some(&place.key));
            let input = match op {
                Op::Step(_) => Input::StepCalled {
                    place,
                    function: "f",
                    input: &step_input,
                    options: &options,
                    hold: hold.as_ref(),
                },
                Op::Sleep { ms, .. } => Input::Sleeps { place, until: Until::After(*ms) },
                Op::SleepUntil { ms, .. } => {
                    Input::Sleeps { place, until: Until::At(guest.clock.plus_ms(*ms)) }
                }
                Op::Wait { event: number, timeout_ms } => {
                    event = event_name(*number);
                    Input::WaitsForEvent { place, event: &event, timeout_ms: *timeout_ms }
                }
                Op::Capture { .. } => Input::Captures { place, value: &captured },
            };
            // One that can be seen outside waits for the disk, another may go ahead of it.
            let is_seen = matches!(op, Op::Step(_)) && self.roll(2) == 0;
            if is_seen && guest.owes && !self.pays(guest) {
                return Err(LegEnd::Died);
            }
            let mut reply = self.take(guest, input).ok_or(LegEnd::Died)?;
            if let Reply::Go { attempt, time_ms, .. } = reply {
                assert_eq!(hold, None, "{} began though it was held", place.key);
                let done = self.done.get(&place.key) == Some(&step_input.hash);
                assert!(!done, "{} was run again", place.key);
                self.bodies_run.push(place.key.clone());
                if self.roll(4) == 0 {
                    // It takes its time, so its start is written down meanwhile.
                    let pending = std::mem::take(&mut guest.pending);
                    self.write(&guest.run, pending);
                }
                if self.dies() {
                    return Err(LegEnd::Died);
                }
                let outcome = self.attempt(time_ms);
                let input = Input::AttemptEnded { place, attempt, outcome, receipt: None, options: &options };
                reply = self.take(guest, input).ok_or(LegEnd::Died)?;
            }
            match reply {
                Reply::Recorded { outcome, at } => {
                    guest.clock = guest.clock.max(at);
                    self.heard.push((place.index, outcome.clone(), at));
                    return Ok(outcome);
                }
                Reply::Wait(Wait::Pause { .. }) => return Err(self.lets_go(guest, LegEnd::Paused)),
                Reply::Wait(wait) => {
                    // Law 4: it says what it stands at, and until when.
                    assert_eq!(guest.run.wait().as_ref(), Some(&wait));
                    // Where only an event can help, the world outside has to move.
                    if guest.run.due().is_none() || self.roll(3) == 0 {
                        return Err(self.lets_go(guest, LegEnd::Stands));
                    }
                    // It stands still where everybody can see it.
                    if guest.owes && !self.pays(guest) {
                        return Err(LegEnd::Died);
                    }
                    self.pass_time(guest.run.due());
                }
                Reply::Stop => return Err(LegEnd::Over),
                other => panic!("{other:?} after {op:?}"),
            }
        }
    }

    /// The handler is dropped; what is pending is written with that, if the host lives.
    fn lets_go(&mut self, guest: &mut Guest, end: LegEnd) -> LegEnd {
        if self.dies() {
            return LegEnd::Died;
        }
        let pending = std::mem::take(&mut guest.pending);
        self.write(&guest.run, pending);
        end
    }

    fn attempt(&mut self, time_ms: u64) -> AttemptOutcome {
        let took_ms = u64::from(self.roll(50));
        self.now = self.now.plus_ms(took_ms);
        if took_ms >= time_ms {
            let failure = AttemptFailure::new(FailureKind::TimedOut, "time is up");
            return AttemptOutcome::Failed(failure);
        }
        match self.roll(8) {
            0 => AttemptOutcome::Failed(AttemptFailure::new(FailureKind::Error, "declined").not_retryable()),
            1 | 2 => AttemptOutcome::Failed(AttemptFailure::new(FailureKind::Trapped, "panicked")),
            3 => AttemptOutcome::Failed(AttemptFailure {
                retry_after_ms: Some(700),
                ..AttemptFailure::new(FailureKind::Error, "busy")
            }),
            _ => AttemptOutcome::Completed(Json::from(serde_json::json!(self.bodies_run.len()))),
        }
    }

    /// To the moment that is waited for, or at least a little on.
    fn pass_time(&mut self, until: Option<Timestamp>) {
        let target = until.unwrap_or(self.now.plus_ms(1_000));
        self.now = self.now.plus_ms(1).max(target);
    }

    /// decide, write, apply; none when the host died on the way.
    fn take(&mut self, guest: &mut Guest, input: Input<'_>) -> Option<Reply> {
        self.read_clock(guest);
        let decision = guest.run.decide(input.clone(), self.now);
        // Law 5.
        assert_eq!(decision, guest.run.decide(input, self.now));
        for record in &decision.records {
            guest.run.apply(record);
            journal::push(&mut guest.pending, record.clone());
        }
        let writes = match decision.durability {
            Durability::Now => !decision.records.is_empty(),
            Durability::BeforeEffects => {
                assert!(
                    matches!(decision.reply, Reply::Recorded { .. } | Reply::Wait(_)),
                    "more than an answer or a wait: {decision:?}"
                );
                guest.owes = true;
                self.roll(2) == 0
            }
            Durability::Eventually => false,
        };
        (!writes || self.pays(guest)).then_some(decision.reply)
    }

    /// Writes what is pending; false when the host died on the way.
    fn pays(&mut self, guest: &mut Guest) -> bool {
        if self.dies() {
            return false;
        }
        let pending = std::mem::take(&mut guest.pending);
        self.write(&guest.run, pending);
        guest.owes = false;
        !self.dies()
    }

    /// Takes in for how long the clocks have stood still.
    fn read_clock(&mut self, guest: &mut Guest) {
        let run = &mut guest.run;
        if run.end().is_some() {
            return;
        }
        let held = run.held().map(|held| (&held.key, held.since));
        let (execution, task) = (&self.facts.execution, &self.facts.task);
        let ms = pause::stood_ms(&self.rules, execution, task, held, run.clock_read(), self.now);
        if ms > 0 {
            let record = Record::ClockStood { ms, until: self.now };
            run.apply(&record);
            journal::push(&mut guest.pending, record);
        }
    }

    /// Calls the handler again and again until the run is over.
    pub fn play_out(&mut self) -> Run {
        self.play(|_| {})
    }

    /// The same, with `between` after each leg: it may open a run that was over again.
    pub fn play(&mut self, mut between: impl FnMut(&mut World)) -> Run {
        for _ in 0..10_000 {
            let end = self.leg();
            match end {
                LegEnd::Over => {}
                LegEnd::Died => self.now = self.now.plus_ms(1),
                LegEnd::Paused => {
                    let ends = self.rules.iter().filter_map(PauseRule::ends_at);
                    let next = ends.filter(|end| *end > self.now).min();
                    if next.is_none() || self.roll(2) == 0 {
                        let now = self.now.plus_ms(1);
                        self.rules.iter_mut().for_each(|rule| rule.deleted_at = Some(now));
                    }
                    self.pass_time(next);
                }
                LegEnd::Stands => {
                    let due = self.claimed().due();
                    self.pass_time(due);
                    if due.is_none() {
                        self.dice.clear(); // from here on kindly: the event must come
                        (0..2).for_each(|which| self.send(which));
                    }
                }
            }
            between(self);
            let run = self.claimed();
            if run.end().is_some() {
                return run;
            }
        }
        panic!("the run never ends: {:?}", self.disk);
    }

    /// What the handler heard it hears again in every leg. A wait that was answered without a
    /// durable record may be answered anew; whatever had consequences is heard the same way.
    pub fn check_heard(&mut self, run: &Run) {
        let mut first_heard = BTreeMap::new();
        for (index, outcome, at) in self.heard.drain(..) {
            let recorded = run.steps().get(index as usize).is_some_and(|step| step.ended_at == Some(at));
            if recorded {
                let first = first_heard.entry(index).or_insert((outcome.clone(), at));
                assert_eq!(*first, (outcome, at));
            }
        }
    }
}

fn input_of(call: &Call) -> Option<InputHash> {
    match call {
        Call::Step { input, .. } => Some(input.clone()),
        _ => None,
    }
}
