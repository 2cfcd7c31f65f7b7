//! Guests' logs in plain memory: the reference, and what tests work with.

use std::{
    collections::BTreeMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

use async_trait::async_trait;
use stepbox_domain::{RunId, Timestamp};

use super::{Added, HOST, LogBounds, LogEntry, LogFilter, LogStore, LogView, RUN_BYTES};
use crate::{sandbox::LogLevel, store::StoreError};

pub struct MemoryLogs {
    bounds: LogBounds,
    logs: Mutex<Logs>,
}

#[derive(Default)]
struct Logs {
    last: u64,
    runs: BTreeMap<RunId, RunLog>,
    runs_seen: u64,
    /// Whether to refuse what is to be written.
    broken: bool,
}

struct RunLog {
    key: u64,
    lines: Vec<LogView>,
    dropped: u64,
    last: Timestamp,
}

impl RunLog {
    fn bytes(&self) -> u64 {
        self.lines.iter().map(|line| line.entry.bytes()).sum()
    }
}

impl MemoryLogs {
    pub fn new(bounds: LogBounds) -> Self {
        MemoryLogs { bounds, logs: Mutex::default() }
    }

    /// From now on it refuses what is to be written, or does not any more.
    pub fn set_broken(&self, broken: bool) {
        self.logs().broken = broken;
    }

    fn logs(&self) -> MutexGuard<'_, Logs> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Logs {
    fn add(&mut self, entry: &LogEntry) {
        self.last += 1;
        if !self.runs.contains_key(&entry.run) {
            self.runs_seen += 1;
        }
        let new = || RunLog { key: self.runs_seen, lines: Vec::new(), dropped: 0, last: entry.at };
        let run = self.runs.entry(entry.run.clone()).or_insert_with(new);
        run.lines.push(LogView { sequence: self.last, entry: entry.clone() });
        run.last = entry.at;
    }

    fn bytes(&self) -> u64 {
        self.runs.values().map(|run| run.bytes() + RUN_BYTES).sum()
    }
}

/// Drops the oldest lines of a run; how many.
fn shorten(run: &mut RunLog, bounds: &LogBounds) -> u64 {
    if !bounds.exceeded(run.lines.len() as u64, run.bytes()) {
        return 0;
    }
    let (lines_max, bytes_max) = bounds.kept();
    let (mut lines, mut bytes) = (0, 0);
    let kept = run.lines.iter().rev().take_while(|line| {
        lines += 1;
        bytes += line.entry.bytes();
        lines <= lines_max && bytes <= bytes_max
    });
    let gone = run.lines.len() - kept.count();
    let cut: Vec<LogView> = run.lines.drain(..gone).collect();
    let Some(last) = cut.last() else { return 0 };
    // The line that told of those before.
    let dropped = cut.len() as u64 - u64::from(run.dropped > 0);
    run.dropped += dropped;
    let entry = LogEntry {
        step: None,
        level: LogLevel::Warn,
        target: HOST.to_owned(),
        message: bounds.dropped(run.dropped),
        ..last.entry.clone()
    };
    run.lines.insert(0, LogView { sequence: last.sequence, entry });
    dropped
}

#[async_trait]
impl LogStore for MemoryLogs {
    async fn add(&self, lines: &[LogEntry], _: Timestamp) -> Result<Added, StoreError> {
        let mut logs = self.logs();
        if logs.broken {
            return Err(StoreError::Unavailable("it was told to be".to_owned()));
        }
        lines.iter().for_each(|line| logs.add(line));
        let mut dropped = 0;
        for run in
            logs.runs.values_mut().filter(|run| lines.iter().any(|line| line.run == run.lines[0].entry.run))
        {
            dropped += shorten(run, &self.bounds);
        }
        while logs.bytes() > self.bounds.bytes_max {
            let oldest = logs.runs.iter().min_by_key(|(_, run)| (run.last, run.key));
            let Some(oldest) = oldest.map(|(run, _)| run.clone()) else { break };
            let gone = logs.runs.remove(&oldest);
            dropped += gone.map_or(0, |run| run.lines.len() as u64 - u64::from(run.dropped > 0));
        }
        Ok(Added { dropped, bytes: logs.bytes() })
    }

    async fn lines(&self, filter: &LogFilter) -> Result<Vec<LogView>, StoreError> {
        let logs = self.logs();
        let mut found: Vec<&LogView> =
            logs.runs.values().flat_map(|run| &run.lines).filter(|line| matches(filter, line)).collect();
        found.sort_by_key(|line| line.sequence);
        if filter.descending {
            found.reverse();
        }
        Ok(found.into_iter().take(filter.limit as usize).cloned().collect())
    }

    async fn close(&self) {}
}

fn matches(filter: &LogFilter, line: &LogView) -> bool {
    let LogView { sequence, entry } = line;
    let (step, attempt) = entry.step.clone().unzip();
    let comes_after = |after: u64| if filter.descending { *sequence < after } else { *sequence > after };
    let lower = entry.message.to_ascii_lowercase();
    entry.execution == filter.execution
        && filter.run.as_ref().is_none_or(|run| entry.run == *run)
        && (filter.step.is_none() || filter.step == step)
        && (filter.attempt.is_none() || filter.attempt == attempt)
        && filter.level.is_none_or(|level| entry.level >= level)
        && filter.search.as_ref().is_none_or(|text| lower.contains(&text.to_ascii_lowercase()))
        && filter.from.is_none_or(|from| entry.at >= from)
        && filter.to.is_none_or(|to| entry.at <= to)
        && filter.after.is_none_or(comes_after)
}
