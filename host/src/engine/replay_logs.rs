//! What a handler prints, once.
//!
//! A handler that is called again prints its lines again, up to the place that it had reached. The
//! journal says where that is: until the last recorded call is answered, nothing it says is new.

use std::sync::{
    Arc,
    atomic::{AtomicU32, Ordering},
};

use crate::sandbox::{LogLine, LogSink};

/// The log of one leg's handler. Steps have the run's log itself: they are never replayed.
pub(crate) struct ReplayLogs {
    log: Arc<dyn LogSink>,
    /// Recorded calls that this leg has still to be answered.
    to_come: AtomicU32,
}

impl ReplayLogs {
    /// For a leg in a run with `recorded` calls in its journal.
    pub fn new(log: Arc<dyn LogSink>, recorded: u32) -> Arc<Self> {
        Arc::new(ReplayLogs { log, to_come: AtomicU32::new(recorded) })
    }

    /// `calls` calls of this leg have been answered, the last of them just now.
    pub fn answered(&self, recorded: u32, calls: u32) {
        self.to_come.store(recorded.saturating_sub(calls), Ordering::Relaxed);
    }
}

impl LogSink for ReplayLogs {
    fn line(&self, line: LogLine<'_>) {
        if self.to_come.load(Ordering::Relaxed) == 0 {
            self.log.line(line);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use stepbox_domain::{ExecutionId, RunId};

    use super::*;
    use crate::sandbox::LogLevel;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl LogSink for Kept {
        fn line(&self, line: LogLine<'_>) {
            self.0.lock().unwrap().push(line.message.to_owned());
        }
    }

    #[test]
    fn a_line_is_kept_from_where_the_last_leg_stopped() {
        let kept = Arc::new(Kept::default());
        let logs = ReplayLogs::new(kept.clone(), 2);
        let run = RunId::new(&ExecutionId::parse("e").unwrap(), 0);
        let print = |message| {
            logs.line(LogLine { run: &run, step: None, level: LogLevel::Info, target: "stdout", message });
        };
        print("before the first call");
        logs.answered(2, 1);
        print("before the second call");
        logs.answered(2, 2);
        print("after the last recorded call");
        logs.answered(2, 3);
        print("after a new call");
        assert_eq!(*kept.0.lock().unwrap(), ["after the last recorded call", "after a new call"]);
    }
}
