//! The laws of `decide` and `apply`, over random handlers, random outcomes and random crashes.
//!
//! `program.rs` makes up handlers; `world.rs` plays host and guest; `admins.rs` lets admins loose on them.

mod admins;
mod guest;
mod program;
mod world;

use program::{Op, PLAIN_STEP, event_name, name, op};
use proptest::prelude::*;
use stepbox_domain::{
    ExecutionStatus, Failure, FailureKind, Json, Timestamp,
    decide::{Input, Reply, Until},
    journal::Record,
    leg::Leg,
    retry::RetryPolicy,
    run::StepState,
    step::{AttemptOutcome, StepInput, StepOptions},
};
use world::World;

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

        world.check_heard(&run);
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
                place: &place, attempt: 1, outcome: AttemptOutcome::Completed(Json::null()), receipt: None,
                options: &StepOptions::default(),
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
        let mut run = again.claimed();
        for record in &world.disk[..cut.index(world.disk.len())] {
            run.apply(record);
            if !matches!(record, Record::EventConsumed { .. }) {
                again.learn(&run, record);
            }
            again.disk.push(record.clone());
        }
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
            Op::Step(_) => Op::Sleep { name: 0, ms: 1 },
            _ => PLAIN_STEP,
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
    let mut world = World::new(vec![PLAIN_STEP], None, vec![]);
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
