//! The last lines that a guest printed, for the failure that they may explain.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use crate::sandbox::{LogLine, LogSink};

const LINES_MAX: usize = 20;
const BYTES_MAX: usize = 4 * 1024;

/// Passes on what is printed, and keeps the end of it.
pub(crate) struct LogTail {
    log: Arc<dyn LogSink>,
    kept: Mutex<Kept>,
}

#[derive(Default)]
struct Kept {
    lines: VecDeque<String>,
    bytes: usize,
}

impl LogTail {
    pub fn new(log: Arc<dyn LogSink>) -> Arc<Self> {
        Arc::new(LogTail { log, kept: Mutex::default() })
    }

    /// The last lines since this was asked before, oldest first, each with its level and target.
    pub fn take(&self) -> Vec<String> {
        std::mem::take(&mut *self.kept()).lines.into()
    }

    fn kept(&self) -> MutexGuard<'_, Kept> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl LogSink for LogTail {
    fn line(&self, line: LogLine<'_>) {
        self.log.line(line);
        let mut text = format!("{} {}: {}", line.level.as_str(), line.target, line.message);
        text.truncate(text.floor_char_boundary(BYTES_MAX));
        let mut kept = self.kept();
        kept.bytes += text.len();
        kept.lines.push_back(text);
        while kept.lines.len() > LINES_MAX || kept.bytes > BYTES_MAX {
            let Some(first) = kept.lines.pop_front() else { break };
            kept.bytes -= first.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use stepbox_domain::{ExecutionId, RunId};

    use super::*;
    use crate::sandbox::LogLevel;

    struct Nowhere;

    impl LogSink for Nowhere {
        fn line(&self, _: LogLine<'_>) {}
    }

    fn print(tail: &LogTail, message: &str) {
        let run = RunId::new(&ExecutionId::parse("e").unwrap(), 0);
        tail.line(LogLine { run: &run, step: None, level: LogLevel::Warn, target: "stderr", message });
    }

    #[test]
    fn the_last_lines_are_kept_and_given_away_once() {
        let tail = LogTail::new(Arc::new(Nowhere));
        (0..30).for_each(|n| print(&tail, &n.to_string()));
        let lines = tail.take();
        assert_eq!(lines.len(), LINES_MAX);
        assert_eq!((lines[0].as_str(), lines[19].as_str()), ("warn stderr: 10", "warn stderr: 29"));
        assert!(tail.take().is_empty());
    }

    #[test]
    fn however_long_the_lines_are_so_many_bytes_are_kept() {
        let tail = LogTail::new(Arc::new(Nowhere));
        print(&tail, &"a".repeat(3_000));
        print(&tail, &"b".repeat(3_000));
        assert_eq!(tail.take().len(), 1);
        print(&tail, &"€".repeat(9_000));
        let lines = tail.take();
        assert_eq!(lines.len(), 1);
        assert!(lines[0].len() <= BYTES_MAX && lines[0].ends_with('€'));
    }
}
