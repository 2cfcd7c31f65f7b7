//! How often an instance may call the host.

use std::time::Instant;

use super::limits::LimitHit;

/// A bucket of calls that fills up again with time. It holds a second's worth, and the clock is
/// looked at only when it is empty, so that a call costs no more than a subtraction: who has made
/// few calls for a while may make two seconds' worth at once.
#[derive(Debug)]
pub(super) struct CallRate {
    per_second_max: u64,
    left: u64,
    filled: Instant,
}

impl CallRate {
    pub(super) fn new(per_second_max: u64) -> Self {
        CallRate { per_second_max, left: per_second_max, filled: Instant::now() }
    }

    pub(super) fn take(&mut self) -> Result<(), LimitHit> {
        if self.left == 0 {
            self.fill(Instant::now())?;
        }
        self.left -= 1;
        Ok(())
    }

    /// What was taken was no call.
    pub(super) fn give_back(&mut self) {
        self.left += 1;
    }

    #[cold]
    fn fill(&mut self, now: Instant) -> Result<(), LimitHit> {
        let passed_ns = now.saturating_duration_since(self.filled).as_nanos();
        let earned = passed_ns.saturating_mul(u128::from(self.per_second_max)) / 1_000_000_000;
        self.left = u64::try_from(earned).unwrap_or(u64::MAX).min(self.per_second_max);
        if self.left == 0 {
            return Err(LimitHit::HostCalls { per_second_max: self.per_second_max });
        }
        self.filled = now;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    /// Takes `calls` in bursts, each filled up at the given moment; how many were let through.
    fn through(rate: &mut CallRate, mut calls: u64, at: Duration) -> u64 {
        let now = rate.filled + at;
        let wanted = calls;
        while calls > 0 {
            if rate.left == 0 && rate.fill(now).is_err() {
                break;
            }
            let taken = rate.left.min(calls);
            rate.left -= taken;
            calls -= taken;
        }
        wanted - calls
    }

    #[test]
    fn a_second_of_calls_may_come_at_once_and_no_more() {
        let mut rate = CallRate::new(1_000);
        assert_eq!(through(&mut rate, 5_000, Duration::ZERO), 1_000);
        assert_eq!(
            rate.fill(rate.filled).unwrap_err().to_string(),
            "it called the host more than 1000 times in a second"
        );
    }

    #[test]
    fn with_time_it_may_call_again_but_time_is_not_saved_up() {
        let mut rate = CallRate::new(1_000);
        through(&mut rate, 1_000, Duration::ZERO);
        assert_eq!(through(&mut rate, 1_000, Duration::from_millis(250)), 250);
        assert_eq!(through(&mut rate, 5_000, Duration::from_secs(60)), 1_000);
    }

    #[test]
    fn a_flood_is_over_the_limit_within_about_two_seconds_worth() {
        let mut rate = CallRate::new(100_000);
        let taken = (0..10_000_000).take_while(|_| rate.take().is_ok()).count();
        assert!((100_000..1_000_000).contains(&taken), "{taken}");
    }

    #[test]
    fn what_was_no_call_is_given_back() {
        let mut rate = CallRate::new(1);
        for _ in 0..10 {
            rate.take().unwrap();
            rate.give_back();
        }
        rate.take().unwrap();
    }
}
