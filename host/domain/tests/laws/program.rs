//! Handlers as data: the calls that one makes, and how they are drawn.

use proptest::prelude::*;
use stepbox_domain::{
    EventName, StepName,
    retry::RetryPolicy,
    step::{StepOptions, TimeoutScope},
};

/// One durable call of the handler under test.
#[derive(Clone, Debug)]
pub enum Op {
    Step(StepOp),
    Sleep {
        name: u8,
        ms: u64,
    },
    /// Until so long after what the handler's clock shows.
    SleepUntil {
        name: u8,
        ms: u64,
    },
    Wait {
        event: u8,
        timeout_ms: Option<u64>,
    },
    Capture {
        name: u8,
    },
}

#[derive(Clone, Debug)]
pub struct StepOp {
    pub name: u8,
    pub attempts_max: u32,
    pub timeout_ms: Option<u64>,
    pub per_attempt: bool,
    pub uses: Uses,
    pub if_fails: IfFails,
}

/// What a step's input is made of.
#[derive(Clone, Debug)]
pub enum Uses {
    Nothing,
    /// What the handler has heard from one of its calls.
    Heard(u8),
    /// What its clock shows.
    Clock,
}

/// What the handler does about a dead step.
#[derive(Clone, Debug)]
pub enum IfFails {
    GoOn,
    Fail,
    Instead(Vec<Op>),
}

pub const PLAIN_STEP: Op = Op::Step(StepOp {
    name: 0,
    attempts_max: 1,
    timeout_ms: None,
    per_attempt: false,
    uses: Uses::Nothing,
    if_fails: IfFails::GoOn,
});

/// A call after which the handler goes on whatever comes of it.
pub fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        4 => step_op(Just(Uses::Nothing).boxed(), Just(IfFails::GoOn).boxed()),
        3 => other_op(),
    ]
}

/// A call that may be made of what came before, and lead to others.
pub fn wild_op() -> impl Strategy<Value = Op> {
    let uses = || {
        prop_oneof![3 => Just(Uses::Nothing), 5 => any::<u8>().prop_map(Uses::Heard), 1 => Just(Uses::Clock)]
            .boxed()
    };
    let ends = prop_oneof![2 => Just(IfFails::GoOn), 1 => Just(IfFails::Fail)].boxed();
    let inner = prop_oneof![3 => step_op(uses(), ends.clone()), 1 => other_op()];
    let instead = proptest::collection::vec(inner, 0..3).prop_map(IfFails::Instead);
    prop_oneof![6 => step_op(uses(), prop_oneof![2 => ends, 2 => instead].boxed()), 2 => other_op()]
}

fn step_op(uses: BoxedStrategy<Uses>, if_fails: BoxedStrategy<IfFails>) -> impl Strategy<Value = Op> {
    let timeout = proptest::option::of(1..5_000u64);
    (0..3u8, 1..4u32, timeout, any::<bool>(), uses, if_fails).prop_map(
        |(name, attempts_max, timeout_ms, per_attempt, uses, if_fails)| {
            Op::Step(StepOp { name, attempts_max, timeout_ms, per_attempt, uses, if_fails })
        },
    )
}

fn other_op() -> impl Strategy<Value = Op> {
    prop_oneof![
        (0..3u8, 0..10_000u64).prop_map(|(name, ms)| Op::Sleep { name, ms }),
        (0..3u8, 0..10_000u64).prop_map(|(name, ms)| Op::SleepUntil { name, ms }),
        (0..2u8, proptest::option::of(0..10_000u64))
            .prop_map(|(event, timeout_ms)| Op::Wait { event, timeout_ms }),
        (0..3u8).prop_map(|name| Op::Capture { name }),
    ]
}

pub fn name(number: u8) -> StepName {
    StepName::parse(["charge", "ship", "notify"][usize::from(number) % 3]).unwrap()
}

pub fn event_name(number: u8) -> EventName {
    EventName::parse(["paid", "approved"][usize::from(number) % 2]).unwrap()
}

/// What a step is called with; nothing of other calls.
pub fn options(op: &Op) -> StepOptions {
    let Op::Step(step) = op else { return StepOptions::default() };
    StepOptions {
        retry: RetryPolicy {
            attempts_max: step.attempts_max,
            delay_first_ms: 100,
            growth_percent: 200,
            delay_max_ms: 1_000,
            jitter: true,
        },
        timeout_ms: step.timeout_ms,
        timeout_scope: if step.per_attempt { TimeoutScope::PerAttempt } else { TimeoutScope::AllAttempts },
    }
}
