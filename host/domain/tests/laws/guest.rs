//! The handler of a program, as its host sees it.

use stepbox_domain::{Json, Run, Timestamp, journal::Record, leg::Leg};

use crate::program::{Op, StepOp, Uses};

/// The handler in one of its legs, with the host's memory of its run.
pub struct Guest {
    pub run: Run,
    /// Applied, not yet on disk.
    pub pending: Vec<Record>,
    /// The handler has heard of something that is pending.
    pub owes: bool,
    pub leg: Leg,
    pub clock: Timestamp,
    pub results: Vec<Json>,
}

impl Guest {
    /// What it gives to the step of `op`.
    pub fn input(&self, op: &Op) -> Json {
        match op {
            Op::Step(StepOp { uses: Uses::Heard(which), .. }) if !self.results.is_empty() => {
                self.results[usize::from(*which) % self.results.len()].clone()
            }
            Op::Step(StepOp { uses: Uses::Clock, .. }) => Json::from(serde_json::json!(self.clock.as_ms())),
            _ => Json::null(),
        }
    }
}
