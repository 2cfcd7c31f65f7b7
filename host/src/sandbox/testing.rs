//! What the sandbox's tests have in common.

use std::sync::Mutex;

use super::{LogLine, LogSink};

/// Keeps every line: `Level target: message`.
#[derive(Default)]
pub(super) struct Captured(Mutex<Vec<String>>);

impl Captured {
    pub(super) fn lines(&self) -> Vec<String> {
        self.0.lock().unwrap().clone()
    }
}

impl LogSink for Captured {
    fn line(&self, line: LogLine<'_>) {
        self.0.lock().unwrap().push(format!("{:?} {}: {}", line.level, line.target, line.message));
    }
}
