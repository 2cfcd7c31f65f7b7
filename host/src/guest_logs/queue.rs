//! Lines on their way to the store: never waited for, never more than so many.

use std::{
    collections::{BTreeMap, HashMap},
    mem,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stepbox_domain::RunId;
use tokio::sync::Notify;

use crate::{
    sandbox::LogLevel,
    store::logs::{HOST, LogEntry},
};

/// How much may be on its way.
#[derive(Clone, Copy, Debug)]
pub struct QueueBounds {
    pub bytes_max: usize,
    /// Of one run, so that one that floods does not take the room of the others.
    pub run_bytes_max: usize,
}

impl Default for QueueBounds {
    /// Some seconds of what SQLite writes, or a minute of many talkative guests while a disk is full.
    fn default() -> Self {
        QueueBounds { bytes_max: 16 << 20, run_bytes_max: 2 << 20 }
    }
}

/// What a line takes in memory beside its text.
const LINE_BYTES: usize = 128;

pub(super) struct Queue {
    bounds: QueueBounds,
    state: Mutex<State>,
    filled: Arc<Notify>,
}

#[derive(Default)]
struct State {
    lines: Vec<LogEntry>,
    bytes: usize,
    of_runs: HashMap<RunId, usize>,
    /// What was not taken: the last line of each run, and how many.
    lost: BTreeMap<RunId, (LogEntry, u64)>,
    /// Of runs that there is no room to remember.
    lost_besides: u64,
}

/// So many runs are told how much of them was lost.
const LOST_RUNS_MAX: usize = 1_000;

/// What had come.
#[derive(Default)]
pub(super) struct Taken {
    pub lines: Vec<LogEntry>,
    /// How many lines could not be taken.
    pub lost: u64,
}

impl Queue {
    pub fn new(bounds: QueueBounds) -> Self {
        Queue { bounds, state: Mutex::default(), filled: Arc::default() }
    }

    /// Told when there is something to take.
    pub fn filled(&self) -> Arc<Notify> {
        self.filled.clone()
    }

    pub fn push(&self, line: LogEntry) {
        let bytes = line.message.len() + line.target.len() + LINE_BYTES;
        let mut state = self.state();
        let of_run = state.of_runs.get(&line.run).copied().unwrap_or(0) + bytes;
        if state.bytes + bytes > self.bounds.bytes_max || of_run > self.bounds.run_bytes_max {
            state.lose(line);
            return;
        }
        state.bytes += bytes;
        state.of_runs.insert(line.run.clone(), of_run);
        state.lines.push(line);
        drop(state);
        self.filled.notify_one();
    }

    /// All that has come, and for each run of which lines were lost a line that says how many.
    pub fn take(&self) -> Taken {
        let state = mem::take(&mut *self.state());
        let lost_of_runs: u64 = state.lost.values().map(|(_, lost)| lost).sum();
        let mut lines = state.lines;
        lines.extend(state.lost.into_values().map(|(last, lost)| LogEntry {
            level: LogLevel::Warn,
            target: HOST.to_owned(),
            message: format!("{lost} lines that were printed before this could not be taken and are lost"),
            ..last
        }));
        Taken { lines, lost: lost_of_runs + state.lost_besides }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn lose(&mut self, line: LogEntry) {
        if !self.lost.contains_key(&line.run) && self.lost.len() >= LOST_RUNS_MAX {
            self.lost_besides += 1;
            return;
        }
        // Only its place and its time are looked at.
        let line = LogEntry { message: String::new(), ..line };
        let entry = self.lost.entry(line.run.clone()).or_insert_with(|| (line.clone(), 0));
        *entry = (line, entry.1 + 1);
    }
}
