//! How patiently a step is tried and for how long.
//!
//! Usually written as an attribute, `#[step(retry = exponential(3, "2s"), timeout = "30s")]`;
//! these types are for a call that wants other options than its step has.

use std::time::Duration;

use crate::time::millis;

/// The options of a step. Without any: one attempt, with the host's timeout for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct StepOptions {
    /// `None`: one attempt.
    pub retry: Option<Retry>,
    /// `None`: the host's default for one attempt.
    pub timeout_ms: Option<u64>,
    pub timeout_scope: TimeoutScope,
}

/// What a step's timeout is counted over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum TimeoutScope {
    /// One deadline for all attempts and the delays between them, from the first attempt's start.
    #[default]
    AllAttempts,
    /// Each attempt has a deadline of its own. A timeout is still not retried.
    PerAttempt,
}

/// How often a failed step is tried and how long to wait in between.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Retry {
    /// Attempts in all, the first one counted; at least 1.
    pub attempts_max: u32,
    /// Nominal delay before the second attempt.
    pub delay_first_ms: u64,
    /// Growth of the delay per retry: 100 keeps it fixed, 200 doubles it; 100 to 1000.
    pub growth_percent: u32,
    /// Cap of the nominal delay.
    pub delay_max_ms: u64,
    /// Full jitter: the delay is anything from zero to the nominal one.
    pub jitter: bool,
}

impl Retry {
    /// The delay doubles with each retry, up to an hour, with full jitter.
    pub fn exponential(attempts_max: u32, delay_first: Duration) -> Retry {
        Retry {
            attempts_max,
            delay_first_ms: millis(delay_first),
            growth_percent: 200,
            delay_max_ms: 3_600_000,
            jitter: true,
        }
    }

    /// The same delay each time, without jitter.
    pub fn fixed(attempts_max: u32, delay: Duration) -> Retry {
        let delay_ms = millis(delay);
        Retry {
            attempts_max,
            delay_first_ms: delay_ms,
            growth_percent: 100,
            delay_max_ms: delay_ms,
            jitter: false,
        }
    }

    /// No delay is longer than `delay_max`, before jitter.
    pub fn cap(mut self, delay_max: Duration) -> Retry {
        self.delay_max_ms = millis(delay_max);
        self
    }

    /// Growth of the delay per retry: 100 keeps it fixed, 200 doubles it; 100 to 1000.
    pub fn growth_percent(mut self, percent: u32) -> Retry {
        self.growth_percent = percent;
        self
    }

    /// Whether the delay is anything from zero to the nominal one, or the nominal one.
    pub fn jitter(mut self, jitter: bool) -> Retry {
        self.jitter = jitter;
        self
    }
}
