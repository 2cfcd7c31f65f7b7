//! What a handler prints, once, and when it is true.
//!
//! A handler that is called again prints its lines again, up to the place that it had reached. The
//! journal says where that is: until the last recorded call is answered, nothing it says is new. And
//! what it says after an answer that is not on disk yet is kept back until it is, or forgotten with it.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicU32, Ordering},
};

use stepbox_domain::RunId;

use crate::sandbox::{LogLevel, LogLine, LogSink};

/// The log of one leg's handler. Steps have the run's log itself: they are never replayed.
pub(crate) struct ReplayLogs {
    log: Arc<dyn LogSink>,
    /// Recorded calls that this leg has still to be answered.
    to_come: AtomicU32,
    held: Mutex<Held>,
}

/// Bounded by what the handler may print at all.
#[derive(Default)]
struct Held {
    holds: bool,
    lines: Vec<Line>,
}

struct Line {
    run: RunId,
    level: LogLevel,
    target: String,
    message: String,
}

impl ReplayLogs {
    /// For a leg in a run with `recorded` calls in its journal.
    pub fn new(log: Arc<dyn LogSink>, recorded: u32) -> Arc<Self> {
        Arc::new(ReplayLogs { log, to_come: AtomicU32::new(recorded), held: Mutex::default() })
    }

    /// `calls` calls of this leg have been answered, the last of them just now.
    pub fn answered(&self, recorded: u32, calls: u32) {
        self.to_come.store(recorded.saturating_sub(calls), Ordering::Relaxed);
    }

    /// What is printed from now on is kept back.
    pub fn hold(&self) {
        self.held().holds = true;
    }

    /// What was kept back may be seen, and so may what follows.
    pub fn let_out(&self) {
        let mut held = self.held();
        held.holds = false;
        for Line { run, level, target, message } in held.lines.drain(..) {
            self.log.line(LogLine { run: &run, step: None, level, target: &target, message: &message });
        }
    }

    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for ReplayLogs {
    fn line(&self, line: LogLine<'_>) {
        if self.to_come.load(Ordering::Relaxed) > 0 {
            return;
        }
        let mut held = self.held();
        match held.holds {
            true => held.lines.push(Line {
                run: line.run.clone(),
                level: line.level,
                target: line.target.to_owned(),
                message: line.message.to_owned(),
            }),
            false => self.log.line(line),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use stepbox_domain::ExecutionId;

    use super::*;

    #[derive(Default)]
    struct Kept(Mutex<Vec<String>>);

    impl LogSink for Kept {
        fn line(&self, line: LogLine<'_>) {
            self.0.lock().unwrap().push(line.message.to_owned());
        }
    }

    /// For a leg in a run with `recorded` calls.
    fn logs(recorded: u32) -> (Arc<Kept>, Arc<ReplayLogs>) {
        let kept = Arc::new(Kept::default());
        (kept.clone(), ReplayLogs::new(kept, recorded))
    }

    fn print(logs: &ReplayLogs, message: &str) {
        let run = RunId::new(&ExecutionId::parse("e").unwrap(), 0);
        logs.line(LogLine { run: &run, step: None, level: LogLevel::Info, target: "stdout", message });
    }

    #[test]
    fn a_line_is_kept_from_where_the_last_leg_stopped() {
        let (kept, logs) = logs(2);
        print(&logs, "before the first call");
        logs.answered(2, 1);
        print(&logs, "before the second call");
        logs.answered(2, 2);
        print(&logs, "after the last recorded call");
        logs.answered(2, 3);
        print(&logs, "after a new call");
        assert_eq!(*kept.0.lock().unwrap(), ["after the last recorded call", "after a new call"]);
    }

    #[test]
    fn a_line_is_kept_back_until_what_it_follows_from_is_on_disk() {
        let (kept, logs) = logs(0);
        print(&logs, "before");
        logs.hold();
        print(&logs, "one");
        print(&logs, "two");
        assert_eq!(*kept.0.lock().unwrap(), ["before"]);
        logs.let_out();
        logs.let_out();
        print(&logs, "after");
        assert_eq!(*kept.0.lock().unwrap(), ["before", "one", "two", "after"]);
    }
}
