//! What guests printed, as it is kept.
//!
//! A store of its own beside [`super::Store`], with another promise: what was added survives the end
//! of the process, however it ends, but perhaps not a loss of power, and it is bounded: of each run
//! the last lines are kept, and of all runs those that printed last.

pub mod memory;
mod queries;
pub mod sqlite;

use async_trait::async_trait;
use stepbox_domain::{ExecutionId, RunId, StepKey, Timestamp};

use super::StoreError;
use crate::sandbox::LogLevel;

#[async_trait]
pub trait LogStore: Send + Sync {
    /// Keeps all of `lines`, in their order, or none. What is over the bounds then is dropped.
    async fn add(&self, lines: &[LogEntry], now: Timestamp) -> Result<Added, StoreError>;

    /// The lines that `filter` matches.
    async fn lines(&self, filter: &LogFilter) -> Result<Vec<LogView>, StoreError>;

    /// Nothing may be added afterwards.
    async fn close(&self);
}

/// How much is kept.
#[derive(Clone, Copy, Debug)]
pub struct LogBounds {
    pub run_lines_max: u64,
    pub run_bytes_max: u64,
    /// Of all runs.
    pub bytes_max: u64,
}

impl LogBounds {
    /// So much in all. A run has at most a quarter of it.
    pub fn new(bytes_max: u64) -> Self {
        LogBounds { run_lines_max: 10_000, run_bytes_max: (4 << 20).min(bytes_max / 4), bytes_max }
    }

    /// Whether a run with so much has to lose some.
    fn exceeded(&self, lines: u64, bytes: u64) -> bool {
        lines > self.run_lines_max || bytes > self.run_bytes_max
    }

    /// How much of such a run stays: less than what is allowed, so that not every further line makes
    /// it lose one again.
    fn kept(&self) -> (u64, u64) {
        (self.run_lines_max / 10 * 9, self.run_bytes_max / 10 * 9)
    }

    /// The sentence that takes the place of what was dropped.
    fn dropped(&self, lines: u64) -> String {
        format!(
            "{lines} earlier lines of this run were dropped: of a run the last {} lines are kept, or {} bytes",
            self.run_lines_max, self.run_bytes_max
        )
    }
}

/// A line that a guest wrote.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogEntry {
    pub execution: ExecutionId,
    pub run: RunId,
    /// None for the handler.
    pub step: Option<(StepKey, u32)>,
    pub level: LogLevel,
    pub target: String,
    pub at: Timestamp,
    pub message: String,
}

impl LogEntry {
    /// What it counts for: its text, and what a row costs beside it.
    fn bytes(&self) -> u64 {
        let step = self.step.as_ref().map_or(0, |(step, _)| step.as_str().len());
        (self.message.len() + self.target.len() + step + ROW_BYTES) as u64
    }
}

/// A row and its place in the index, measured with short lines.
const ROW_BYTES: usize = 64;
/// What a run counts for beside its lines.
const RUN_BYTES: u64 = 256;

/// The target of the host's own lines.
pub(crate) const HOST: &str = "stepbox";

/// A line that is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LogView {
    /// Ascending in the order of writing, over all runs, with gaps. Never given twice, also when the
    /// lines that had it are lost.
    pub sequence: u64,
    pub entry: LogEntry,
}

/// What is set must match.
#[derive(Clone, Debug)]
pub struct LogFilter {
    pub execution: ExecutionId,
    pub run: Option<RunId>,
    pub step: Option<StepKey>,
    pub attempt: Option<u32>,
    /// This one, or a worse one.
    pub level: Option<LogLevel>,
    /// Somewhere in the message; ASCII letters whether large or small.
    pub search: Option<String>,
    /// Bounds of the time, both included.
    pub from: Option<Timestamp>,
    pub to: Option<Timestamp>,
    /// Those that come after this one, in the order that is asked for.
    pub after: Option<u64>,
    pub limit: u32,
    /// The newest first.
    pub descending: bool,
}

impl LogFilter {
    pub fn of(execution: ExecutionId, limit: u32) -> Self {
        LogFilter {
            execution,
            run: None,
            step: None,
            attempt: None,
            level: None,
            search: None,
            from: None,
            to: None,
            after: None,
            limit,
            descending: false,
        }
    }
}

/// What came of an addition.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Added {
    /// Lines that were dropped for it, of whichever run.
    pub dropped: u64,
    /// What all that is kept counts for.
    pub bytes: u64,
}
