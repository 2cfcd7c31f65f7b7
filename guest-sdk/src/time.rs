//! Durations in words, and what time it is for a handler.

use std::time::{Duration, SystemTime};

/// `seconds(90)` is a minute and a half.
pub const fn seconds(n: u64) -> Duration {
    Duration::from_secs(n)
}

pub const fn minutes(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(60))
}

pub const fn hours(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(3_600))
}

/// Days of 24 hours.
pub const fn days(n: u64) -> Duration {
    Duration::from_secs(n.saturating_mul(86_400))
}

/// What time it is.
///
/// In a handler this is the time of the last thing that the journal recorded, so that a replay
/// sees the same; it stands still between two calls of the host. In a step it is the real time.
/// In a unit test it is the virtual time of the test's journal. (In a component,
/// `SystemTime::now()` is the same clock; natively it is not.)
pub fn now() -> SystemTime {
    crate::host::now()
}

/// In whole milliseconds, rounded up: who sleeps for half of one does not sleep for none.
pub(crate) fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos().div_ceil(1_000_000)).unwrap_or(u64::MAX)
}

/// Milliseconds since 1970; a time before that is 1970.
pub(crate) fn since_1970_ms(time: SystemTime) -> u64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| {
        // Rounded down, so that a time that came from the host goes back to it unchanged.
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    })
}

pub(crate) fn at_ms(ms: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_millis(ms)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_a_millisecond_counts_as_one() {
        assert_eq!(millis(Duration::from_micros(500)), 1);
        assert_eq!(millis(Duration::from_micros(2_000)), 2);
        assert_eq!(millis(Duration::ZERO), 0);
        assert_eq!(millis(Duration::MAX), u64::MAX);
        assert_eq!(days(1), hours(24));
    }
}
