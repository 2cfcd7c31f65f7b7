//! The only place that asks the system for the time.

use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{SystemTime, UNIX_EPOCH},
};

use stepbox_domain::Timestamp;

/// Tells the time to whatever needs it. Everything else takes `now` as an argument.
#[derive(Clone, Debug, Default)]
pub struct Clock(Source);

#[derive(Clone, Debug, Default)]
enum Source {
    #[default]
    System,
    Manual(Arc<AtomicI64>),
    #[cfg(test)]
    Simulated {
        begun: tokio::time::Instant,
        at_begin: Arc<AtomicI64>,
    },
}

impl Clock {
    /// The wall clock of the machine. It may jump; nothing durable depends on it going forward.
    pub fn system() -> Self {
        Clock(Source::System)
    }

    /// A clock that stands until [`Clock::set`] moves it. For tests.
    pub fn manual(now: Timestamp) -> Self {
        Clock(Source::Manual(Arc::new(AtomicI64::new(now.as_ms()))))
    }

    /// A clock that starts at `now` and goes with tokio's, which may be paused and jump. For tests.
    #[cfg(test)]
    pub fn simulated(now: Timestamp) -> Self {
        let at_begin = Arc::new(AtomicI64::new(now.as_ms()));
        Clock(Source::Simulated { begun: tokio::time::Instant::now(), at_begin })
    }

    /// Sets a simulated clock forward or back.
    #[cfg(test)]
    pub fn jump(&self, by_ms: i64) {
        if let Source::Simulated { at_begin, .. } = &self.0 {
            at_begin.fetch_add(by_ms, Ordering::AcqRel);
        }
    }

    /// Moves a manual clock; does nothing to the system's.
    pub fn set(&self, now: Timestamp) {
        if let Source::Manual(at) = &self.0 {
            at.store(now.as_ms(), Ordering::Release);
        }
    }

    pub fn now(&self) -> Timestamp {
        match &self.0 {
            Source::System => {
                let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
                Timestamp::from_ms(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
            }
            Source::Manual(at) => Timestamp::from_ms(at.load(Ordering::Acquire)),
            #[cfg(test)]
            Source::Simulated { begun, at_begin } => {
                let since = i64::try_from(begun.elapsed().as_millis()).unwrap_or(i64::MAX);
                Timestamp::from_ms(at_begin.load(Ordering::Acquire).saturating_add(since))
            }
        }
    }
}
