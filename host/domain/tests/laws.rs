//! The laws of `decide` and `apply`, over random handlers, random outcomes and random crashes.
//!
//! A [`World`] plays host and guest: it calls a program from the top like a handler, answers its
//! steps, lets time pass, sends events, and dies where the dice say so, keeping only what a real
//! host would have had on disk.

use proptest::prelude::*;
use stepbox_domain::{
    EventName, ExecutionId, ExecutionStatus, Failure, FailureKind, Json, Run, RunId, StepKey, StepName,
    TaskName, Timestamp,
    decide::{Durability, Input, Reply, Until},
    event::Event,
    journal::{self, Record},
    leg::{Leg, Place},
    retry::RetryPolicy,
    run::{Policy, RunFacts, StepState},
    step::{AttemptFailure, AttemptOutcome, StepInput, StepOptions, TimeoutScope},
};

/// One durable call of the handler under test.
#[derive(Clone, Debug)]
enum Op {
    Step { name: u8, attempts_max: u32, timeout_ms: Option<u64>, per_attempt: bool },
    Sleep { name: u8, ms: u64 },
    Wait { event: u8, timeout_ms: Option<u64> },
    Capture { name: u8 },
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => (0..3u8, 1..4u32, proptest::option::of(1..5_000u64), any::<bool>())
            .prop_map(|(name, attempts_max, timeout_ms, per_attempt)| Op::Step { name, attempts_max, timeout_ms, per_attempt }),
        1 => (0..3u8, 0..10_000u64).prop_map(|(name, ms)| Op::Sleep { name, ms }),
        1 => (0..2u8, proptest::option::of(0..10_000u64)).prop_map(|(event, timeout_ms)| Op::Wait { event, timeout_ms }),
        1 => (0..3u8).prop_map(|name| Op::Capture { name }),
    ]
}

fn name(number: u8) -> StepName {
    StepName::parse(["charge", "ship", "notify"][usize::from(number) % 3]).unwrap()
}

fn event_name(number: u8) -> EventName {
    EventName::parse(["paid", "approved"][usize::from(number) % 2]).unwrap()
}

fn facts(deadline: Option<Timestamp>) -> RunFacts {
    let execution = ExecutionId::parse("e-1").unwrap();
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
enum LegEnd {
    Over,
    Stands,
    Died,
}

struct World {
    facts: RunFacts,
    policy: Policy,
    program: Vec<Op>,
    /// What a host would find on disk.
    disk: Vec<Record>,
    /// Events on disk that nobody has consumed.
    events: Vec<Event>,
    events_sent: i64,
    now: Timestamp,
    dice: Vec<u8>,
    rolled: usize,
    /// Every attempt that was really run, in order.
    bodies_run: Vec<StepKey>,
    /// What the handler has heard, per call, in every leg.
    heard: Vec<(u32, Result<Json, Failure>, Timestamp)>,
}

impl World {
    fn new(program: Vec<Op>, deadline: Option<Timestamp>, dice: Vec<u8>) -> Self {
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
        }
    }

    /// One of `sides` numbers; once the dice are used up always the last, the kindest.
    fn roll(&mut self, sides: u8) -> u8 {
        self.rolled += 1;
        self.dice.get(self.rolled - 1).map_or(sides - 1, |die| die % sides)
    }

    fn dies(&mut self) -> bool {
        self.roll(12) == 0
    }

    fn claimed(&self) -> Run {
        let mut run = Run::fold(self.facts.clone(), self.policy.clone(), &self.disk);
        run.mailbox_mut().receive(self.events.clone());
        run
    }

    fn maybe_send(&mut self, run: &mut Run) {
        if self.roll(3) == 0 {
            self.events_sent += 1;
            let which = self.roll(2);
            let event = Event {
                seq: self.events_sent,
                name: event_name(which),
                payload: Json::from(serde_json::json!(self.events_sent)),
                received_at: self.now,
            };
            self.events.push(event.clone());
            run.mailbox_mut().receive([event]);
        }
    }

    /// Calls the handler from the top.
    fn leg(&mut self) -> LegEnd {
        let mut run = self.claimed();
        let mut pending = Vec::new();
        let mut leg = Leg::default();
        for op in self.program.clone() {
            let name = match &op {
                Op::Step { name: n, .. } | Op::Sleep { name: n, .. } | Op::Capture { name: n } => name(*n),
                Op::Wait { event, .. } => StepName::parse(event_name(*event).as_str()).unwrap(),
            };
            let place = leg.place(name);
            match self.call(&mut run, &mut pending, &op, &place) {
                Ok(()) => {}
                Err(end) => return end,
            }
        }
        let input = Input::HandlerReturns { calls_made: leg.calls_made(), result: Ok(Json::null()) };
        match self.take(&mut run, &mut pending, input) {
            None => LegEnd::Died,
            Some(_) => LegEnd::Over,
        }
    }

    fn call(
        &mut self,
        run: &mut Run,
        pending: &mut Vec<Record>,
        op: &Op,
        place: &Place,
    ) -> Result<(), LegEnd> {
        let options = match op {
            Op::Step { attempts_max, timeout_ms, per_attempt, .. } => StepOptions {
                retry: RetryPolicy {
                    attempts_max: *attempts_max,
                    delay_first_ms: 100,
                    growth_percent: 200,
                    delay_max_ms: 1_000,
                    jitter: true,
                },
                timeout_ms: *timeout_ms,
                timeout_scope: if *per_attempt {
                    TimeoutScope::PerAttempt
                } else {
                    TimeoutScope::AllAttempts
                },
            },
            _ => StepOptions::default(),
        };
        let hash = StepInput::of(&Json::null());
        let captured = Json::from(serde_json::json!(place.index));
        loop {
            self.maybe_send(run);
            let event;
            let input = match op {
                Op::Step { .. } => {
                    Input::StepCalled { place, function: "f", input: &hash, options: &options, hold: None }
                }
                Op::Sleep { ms, .. } => Input::Sleeps { place, until: Until::After(*ms) },
                Op::Wait { event: number, timeout_ms } => {
                    event = event_name(*number);
                    Input::WaitsForEvent { place, event: &event, timeout_ms: *timeout_ms }
                }
                Op::Capture { .. } => Input::Captures { place, value: &captured },
            };
            let mut reply = self.take(run, pending, input).ok_or(LegEnd::Died)?;
            if let Reply::Go { attempt, deadline } = reply {
                // Law 2 from the outside: what the disk says is completed is not run again.
                let done = self.disk.iter().any(|record| match record {
                    Record::StepCompleted { step, .. } => *step == place.index,
                    Record::StepRan { start, .. } => start.key == place.key,
                    _ => false,
                });
                assert!(!done, "{} was run again", place.key);
                self.bodies_run.push(place.key.clone());
                if self.dies() {
                    return Err(LegEnd::Died);
                }
                let outcome = self.attempt(deadline);
                let input = Input::AttemptEnded { place, attempt, outcome, options: &options };
                reply = self.take(run, pending, input).ok_or(LegEnd::Died)?;
            }
            match reply {
                Reply::Recorded { outcome, at } => {
                    self.heard.push((place.index, outcome, at));
                    return Ok(());
                }
                Reply::Wait(wait) => {
                    // Law 4: it says what it stands at, and until when.
                    assert_eq!(run.wait().as_ref(), Some(&wait));
                    // Where only an event can help, the world outside has to move.
                    if run.due().is_none() || self.roll(3) == 0 {
                        return Err(LegEnd::Stands);
                    }
                    self.pass_time(run);
                }
                Reply::Stop => return Err(LegEnd::Over),
                other => panic!("{other:?} after {op:?}"),
            }
        }
    }

    fn attempt(&mut self, deadline: Timestamp) -> AttemptOutcome {
        self.now = self.now.plus_ms(u64::from(self.roll(50)));
        if self.now >= deadline {
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

    /// To the moment that the run waits for, or at least a little on.
    fn pass_time(&mut self, run: &Run) {
        let target = run.due().unwrap_or(self.now.plus_ms(1_000));
        self.now = self.now.plus_ms(1).max(target);
    }

    /// decide, write, apply; none when the host died on the way.
    fn take(&mut self, run: &mut Run, pending: &mut Vec<Record>, input: Input<'_>) -> Option<Reply> {
        let decision = run.decide(input.clone(), self.now);
        // Law 5.
        assert_eq!(decision, run.decide(input, self.now));
        for record in &decision.records {
            run.apply(record);
            journal::push(pending, record.clone());
        }
        if decision.durability == Durability::Now && !decision.records.is_empty() {
            if self.dies() {
                return None;
            }
            let written = std::mem::take(pending);
            for record in &written {
                if let Record::EventConsumed { event, .. } = record {
                    let before = self.events.len();
                    self.events.retain(|pending| pending.seq != *event);
                    assert_eq!(self.events.len() + 1, before, "event {event} was consumed twice");
                }
            }
            self.disk.extend(written);
            // Law 1: who reads the disk sees the run that lived through it.
            let read = self.claimed();
            assert_eq!((read.steps(), read.end(), read.due()), (run.steps(), run.end(), run.due()));
            if self.dies() {
                return None;
            }
        }
        Some(decision.reply)
    }

    /// Calls the handler again and again until the run is over.
    fn play_out(&mut self) -> Run {
        for _ in 0..10_000 {
            match self.leg() {
                LegEnd::Over => return self.claimed(),
                LegEnd::Died => self.now = self.now.plus_ms(1),
                LegEnd::Stands => {
                    let run = self.claimed();
                    self.pass_time(&run);
                    if run.due().is_none() {
                        self.dice.clear(); // from here on kindly: the event must come
                        for number in 0..2 {
                            self.events_sent += 1;
                            self.events.push(Event {
                                seq: self.events_sent,
                                name: event_name(number),
                                payload: Json::null(),
                                received_at: self.now,
                            });
                        }
                    }
                }
            }
        }
        panic!("the run never ends: {:?}", self.disk);
    }
}

fn program() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 0..8)
}

fn dice() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..300)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    /// Laws 1, 2, 4, 5 hold on the way (see [`World`]); here: it ends, once, and what the handler
    /// heard it hears again.
    #[test]
    fn a_run_ends_and_its_replay_hears_the_same(
        program in program(), dice in dice(), deadline in proptest::option::of(1..30_000i64),
    ) {
        let mut world = World::new(program, deadline.map(Timestamp::from_ms), dice);
        let run = world.play_out();
        prop_assert!(run.status().is_terminal());
        let terminal = |record: &&Record| matches!(record, Record::RunCompleted { .. } | Record::RunFailed { .. });
        prop_assert_eq!(world.disk.iter().filter(terminal).count(), 1);

        // A wait that was answered without a durable record may be answered anew; whatever had
        // consequences is heard the same way in every leg.
        let mut first_heard = std::collections::HashMap::new();
        for (index, outcome, at) in &world.heard {
            let recorded = run.steps().get(*index as usize).is_some_and(|step| step.ended_at == Some(*at));
            if recorded {
                let first = first_heard.entry(*index).or_insert((outcome, at));
                prop_assert_eq!(*first, (outcome, at));
            }
        }
    }

    /// Law 3.
    #[test]
    fn nothing_is_recorded_after_the_end(program in program(), dice in dice()) {
        let mut world = World::new(program.clone(), None, dice);
        let run = world.play_out();
        let place = Leg::default().place(name(0));
        let (hash, null) = (StepInput::of(&Json::null()), Json::null());
        for input in [
            Input::StepCalled { place: &place, function: "f", input: &hash, options: &StepOptions::default(), hold: None },
            Input::AttemptEnded {
                place: &place, attempt: 1, outcome: AttemptOutcome::Completed(Json::null()), options: &StepOptions::default(),
            },
            Input::Sleeps { place: &place, until: Until::After(1) },
            Input::WaitsForEvent { place: &place, event: &event_name(0), timeout_ms: None },
            Input::Captures { place: &place, value: &null },
            Input::TimePasses,
            Input::HandlerReturns { calls_made: 0, result: Ok(Json::null()) },
            Input::HandlerFails { failure: Failure::new(FailureKind::Trapped, "x") },
        ] {
            let decision = run.decide(input, world.now.plus_ms(1));
            prop_assert_eq!(decision.records, vec![]);
            prop_assert_eq!(decision.reply, Reply::Stop);
        }
    }

    /// Law 2, for every prefix: whatever part of the journal is left, going on from it ends, and
    /// runs nothing that the prefix has as completed (asserted in [`World::call`]).
    #[test]
    fn going_on_from_any_prefix_repeats_no_completed_step(
        program in program(), first in dice(), then in dice(), cut in any::<proptest::sample::Index>(),
    ) {
        let mut world = World::new(program.clone(), None, first);
        world.play_out();
        let mut again = World::new(program, None, then);
        again.now = world.now;
        again.events_sent = world.events_sent;
        again.disk = world.disk[..cut.index(world.disk.len())].to_vec();
        prop_assert!(again.play_out().status().is_terminal());
    }

    /// Law 6: a handler that takes another way is stopped at the first call that differs, and
    /// the failure names both.
    #[test]
    fn another_way_is_found_at_its_first_call(program in proptest::collection::vec(op(), 1..8), at in any::<proptest::sample::Index>()) {
        let mut world = World::new(program.clone(), None, vec![]);
        world.play_out();
        // The journal without its end is a run that still goes on; all its calls are recorded.
        world.disk.pop();
        let at = at.index(program.len());
        let steps_before = world.claimed().steps().len();
        prop_assume!(at < steps_before);
        world.program[at] = match program[at] {
            Op::Step { .. } => Op::Sleep { name: 0, ms: 1 },
            _ => Op::Step { name: 0, attempts_max: 1, timeout_ms: None, per_attempt: false },
        };
        let bodies = world.bodies_run.len();
        let run = world.play_out();
        prop_assert_eq!(run.status(), ExecutionStatus::Failed);
        let Some(Record::RunFailed { failure, .. }) = world.disk.last() else { panic!() };
        prop_assert_eq!(failure.kind, FailureKind::Diverged);
        prop_assert!(failure.message.contains(&format!("call {}", at + 1)), "{}", failure.message);
        prop_assert_eq!(world.bodies_run.len(), bodies, "nothing was run on the other way");
    }

    /// A handler that returns before it has made the calls of its journal has diverged too.
    #[test]
    fn an_early_end_is_divergence(program in proptest::collection::vec(op(), 1..8)) {
        let mut world = World::new(program, None, vec![]);
        world.play_out();
        world.disk.pop();
        prop_assume!(!world.claimed().steps().is_empty());
        world.program.clear();
        let run = world.play_out();
        prop_assert_eq!(run.status(), ExecutionStatus::Failed);
    }
}

#[test]
fn a_step_that_takes_the_host_down_is_given_up() {
    let op = Op::Step { name: 0, attempts_max: 1, timeout_ms: None, per_attempt: false };
    let mut world = World::new(vec![op], None, vec![]);
    world.policy.crashes_max = 3;
    let place = Leg::default().place(name(0));
    let hash = StepInput::of(&Json::null());
    for attempt in 1..=3 {
        let mut run = world.claimed();
        let options = StepOptions::default();
        let input =
            Input::StepCalled { place: &place, function: "f", input: &hash, options: &options, hold: None };
        let decision = run.decide(input, world.now);
        assert!(matches!(decision.reply, Reply::Go { attempt: a, .. } if a == attempt), "{decision:?}");
        decision.records.iter().for_each(|record| run.apply(record));
        world.disk.extend(decision.records); // flushed while the attempt went on; then the host died
    }
    world.play_out();
    let run = world.claimed();
    let StepState::Dead(failure) = &run.steps()[0].state else { panic!("{run:?}") };
    assert_eq!(failure.kind, FailureKind::HostCrashed);
    assert_eq!(run.steps()[0].attempts.len(), 3);
    assert!(world.bodies_run.is_empty());
}

/// Or the next call would look for its record where none will ever be.
#[test]
fn a_refused_call_takes_no_place_in_the_journal() {
    let world = World::new(vec![], None, vec![]);
    let run = world.claimed();
    let (hash, mut leg) = (StepInput::of(&Json::null()), Leg::default());
    let retry = RetryPolicy { attempts_max: 0, ..RetryPolicy::NONE };
    let options = StepOptions { retry, ..StepOptions::default() };
    let refused = leg.place(name(0));
    let input =
        Input::StepCalled { place: &refused, function: "f", input: &hash, options: &options, hold: None };
    let decision = run.decide(input, world.now);
    assert!(matches!(decision.reply, Reply::Refused(_)) && decision.records.is_empty(), "{decision:?}");

    leg.give_back(&name(0));

    assert_eq!(leg.calls_made(), 0);
    assert_eq!(leg.place(name(0)), refused);
}
