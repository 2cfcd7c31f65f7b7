//! Whether and when a failed attempt is tried again.
//!
//! Pure: the caller brings the time, and jitter is a hash, so that a replay after a crash waits
//! for the same moment.

use serde::{Deserialize, Serialize};

use crate::{RunId, StepKey, Timestamp, ids::sha256};

/// How patiently a step is tried.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetryPolicy {
    /// Attempts in all, the first one counted. At least 1.
    pub attempts_max: u32,
    /// Nominal delay before the second attempt.
    pub delay_first_ms: u64,
    /// Growth per retry, in percent: 200 doubles, 100 keeps the delay as it is.
    pub growth_percent: u32,
    pub delay_max_ms: u64,
    /// Full jitter (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015): the
    /// delay is anything from zero to the nominal one.
    pub jitter: bool,
}

/// What is wrong with a policy.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RetryPolicyError {
    #[error("attempts-max must be at least 1: the first attempt counts")]
    NoAttempts,
    #[error("growth-percent must be from 100 (fixed) to 1000 (tenfold), got {0}")]
    Growth(u32),
}

impl RetryPolicy {
    /// One attempt and no more.
    pub const NONE: RetryPolicy = RetryPolicy {
        attempts_max: 1,
        delay_first_ms: 0,
        growth_percent: 100,
        delay_max_ms: 0,
        jitter: false,
    };

    pub fn check(&self) -> Result<(), RetryPolicyError> {
        if self.attempts_max == 0 {
            return Err(RetryPolicyError::NoAttempts);
        }
        if !(100..=1000).contains(&self.growth_percent) {
            return Err(RetryPolicyError::Growth(self.growth_percent));
        }
        Ok(())
    }

    /// When the attempt after try number `tried` (from 1) starts, given that this one failed at
    /// `now`; none when the policy allows no more.
    pub fn next_at(&self, tried: u32, seed: Seed, now: Timestamp) -> Option<Timestamp> {
        if tried >= self.attempts_max {
            return None;
        }
        let nominal = self.nominal_delay_ms(tried);
        let delay = if self.jitter { seed.below(nominal.saturating_add(1)) } else { nominal };
        Some(now.plus_ms(delay))
    }

    /// The delay after try number `tried` before jitter, in milliseconds.
    pub fn nominal_delay_ms(&self, tried: u32) -> u64 {
        let mut delay = u128::from(self.delay_first_ms);
        let cap = u128::from(self.delay_max_ms);
        for _ in 1..tried {
            // A fixed or a capped delay grows no further, so the loop ends after some 2,200
            // rounds at the slowest growth however many tries there were.
            let grown = delay * u128::from(self.growth_percent) / 100;
            if delay >= cap || grown == delay {
                break;
            }
            delay = grown;
        }
        u64::try_from(delay.min(cap)).unwrap_or(u64::MAX)
    }
}

/// Where jitter comes from: the same for the same run, step and attempt.
#[derive(Clone, Copy, Debug)]
pub struct Seed(u64);

impl Seed {
    pub fn of(run: &RunId, step: &StepKey, attempt: u32) -> Self {
        let hash = sha256(format!("{run}\n{step}\n{attempt}").as_bytes());
        Seed(hash[..8].iter().fold(0, |seed, byte| seed << 8 | u64::from(*byte)))
    }

    /// A number from 0 up to but not including `bound`, evenly spread.
    fn below(self, bound: u64) -> u64 {
        let scaled = u128::from(self.0) * u128::from(bound);
        (scaled >> 64) as u64
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::{ExecutionId, StepName};

    fn policy(attempts_max: u32, delay_first_ms: u64, growth_percent: u32, delay_max_ms: u64) -> RetryPolicy {
        RetryPolicy { attempts_max, delay_first_ms, growth_percent, delay_max_ms, jitter: false }
    }

    fn seed(attempt: u32) -> Seed {
        let run = RunId::new(&ExecutionId::parse("e").unwrap(), 0);
        Seed::of(&run, &StepKey::new(&StepName::parse("s").unwrap(), 1), attempt)
    }

    /// The delays between the attempts, in milliseconds.
    fn delays(policy: &RetryPolicy) -> Vec<u64> {
        let now = Timestamp::from_ms(1_000);
        (1..).map_while(|tried| policy.next_at(tried, seed(tried), now)).map(|at| at.ms_since(now)).collect()
    }

    #[test]
    fn delays_grow_up_to_their_cap() {
        assert_eq!(delays(&policy(5, 100, 200, 10_000)), [100, 200, 400, 800]);
        assert_eq!(delays(&policy(6, 100, 200, 500)), [100, 200, 400, 500, 500]);
        assert_eq!(delays(&policy(4, 100, 100, 10_000)), [100, 100, 100]);
        assert_eq!(delays(&policy(4, 100, 150, 10_000)), [100, 150, 225]);
        assert_eq!(delays(&policy(1, 100, 200, 10_000)), [0u64; 0]);
        assert_eq!(delays(&policy(3, 0, 200, 10_000)), [0, 0]);
    }

    #[test]
    fn a_policy_that_makes_no_sense_is_refused() {
        assert_eq!(policy(0, 1, 200, 1).check(), Err(RetryPolicyError::NoAttempts));
        assert_eq!(policy(1, 1, 99, 1).check(), Err(RetryPolicyError::Growth(99)));
        assert_eq!(RetryPolicy::NONE.check(), Ok(()));
    }

    proptest! {
        #[test]
        fn jitter_stays_between_zero_and_the_nominal_delay(
            first in 0u64..u64::MAX, growth in 100u32..=1000, cap in 0u64..u64::MAX, tried in 1u32..10_000,
        ) {
            let plain = policy(u32::MAX, first, growth, cap);
            let jittery = RetryPolicy { jitter: true, ..plain.clone() };
            let now = Timestamp::from_ms(5);
            prop_assert!(plain.nominal_delay_ms(tried) <= cap);
            prop_assert!(plain.nominal_delay_ms(tried) <= plain.nominal_delay_ms(tried + 1));
            let at = jittery.next_at(tried, seed(tried), now).unwrap();
            prop_assert!(now <= at && at <= plain.next_at(tried, seed(tried), now).unwrap());
            prop_assert_eq!(at, jittery.next_at(tried, seed(tried), now).unwrap());
        }
    }

    #[test]
    fn jitter_spreads() {
        let jittery = RetryPolicy { jitter: true, ..policy(1_001, 1_000, 100, 1_000) };
        let mean = delays(&jittery).iter().sum::<u64>() / 1_000;
        assert!((450..550).contains(&mean), "mean delay {mean} ms");
    }
}
