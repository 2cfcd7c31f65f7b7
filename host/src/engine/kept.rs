//! Runs that stand still, as they were when they were let go of. Whoever takes one up again reads of its
//! journal only what has come since, where a long journal costs as much to read as to replay.
//!
//! Losing one loses nothing: then all of its journal is read.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Mutex, MutexGuard, PoisonError},
};

use stepbox_domain::{Run, journal::Record, run::RunFacts};

use crate::store::RunKey;

/// What all that are kept take at most, in bytes.
const BYTES_MAX: usize = 64 << 20;
/// Whose journal is shorter is read as quickly as it is found here.
pub(crate) const RECORDS_MIN: u64 = if cfg!(test) { 1 } else { 64 };

/// A run, and of how many records it is the fold.
#[derive(Debug)]
pub(crate) struct Kept {
    pub run: Run,
    pub records: u64,
}

impl Kept {
    /// What it has come to with the records that follow; none when it is not the same any more: a repair
    /// may have put it on another version.
    pub fn go_on(mut self, facts: &RunFacts, known: u64, records: &[Record]) -> Option<Run> {
        if self.records != known || self.run.facts() != facts {
            return None;
        }
        records.iter().for_each(|record| self.run.apply(record));
        // What has not been consumed comes again with the claim.
        *self.run.mailbox_mut() = Default::default();
        Some(self.run)
    }
}

pub(crate) struct KeptRuns {
    runs: Mutex<Runs>,
    bytes_max: usize,
}

#[derive(Default)]
struct Runs {
    /// With the place in the order in which they came, and what each takes.
    by_key: HashMap<RunKey, (u64, usize, Kept)>,
    oldest_first: BTreeMap<u64, RunKey>,
    bytes: usize,
    next: u64,
}

impl Runs {
    fn take(&mut self, run: RunKey) -> Option<Kept> {
        let (place, bytes, kept) = self.by_key.remove(&run)?;
        self.oldest_first.remove(&place);
        self.bytes -= bytes;
        Some(kept)
    }
}

impl Default for KeptRuns {
    fn default() -> Self {
        KeptRuns::of(BYTES_MAX)
    }
}

impl KeptRuns {
    fn of(bytes_max: usize) -> Self {
        KeptRuns { runs: Mutex::default(), bytes_max }
    }

    fn runs(&self) -> MutexGuard<'_, Runs> {
        self.runs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// To be called while nobody else can take it up. The oldest make room.
    pub fn keep(&self, key: RunKey, kept: Kept) {
        let bytes = kept.run.size_bytes();
        let mut runs = self.runs();
        runs.take(key);
        if bytes > self.bytes_max {
            return;
        }
        while runs.bytes + bytes > self.bytes_max {
            let Some((_, oldest)) = runs.oldest_first.pop_first() else { break };
            runs.take(oldest);
        }
        let place = runs.next;
        runs.next += 1;
        runs.bytes += bytes;
        runs.oldest_first.insert(place, key);
        runs.by_key.insert(key, (place, bytes, kept));
    }

    pub fn take(&self, run: RunKey) -> Option<Kept> {
        self.runs().take(run)
    }

    pub fn forget(&self, run: RunKey) {
        self.take(run);
    }

    #[cfg(test)]
    pub fn len(&self) -> usize {
        self.runs().by_key.len()
    }
}

#[cfg(test)]
mod tests {
    use stepbox_domain::{ExecutionId, Json, RunId, StepKey, TaskName, Timestamp, run::Policy};

    use super::*;

    fn facts(version: u32) -> RunFacts {
        let execution = ExecutionId::parse("e").unwrap();
        RunFacts {
            run: RunId::new(&execution, 0),
            execution,
            index: 0,
            task: TaskName::parse("t").unwrap(),
            version,
            created_at: Timestamp::from_ms(1),
            deadline: None,
        }
    }

    fn captured(key: &str, bytes: usize) -> Record {
        let value = Json::from(serde_json::json!("x".repeat(bytes)));
        Record::Captured { key: StepKey::parse(key).unwrap(), value, at: Timestamp::from_ms(2) }
    }

    /// One with a value of so many bytes.
    fn kept(bytes: usize) -> Kept {
        Kept { run: Run::fold(facts(1), Policy::default(), &[captured("a", bytes)]), records: 1 }
    }

    #[test]
    fn one_goes_on_with_what_is_new_and_only_as_what_it_was() {
        let all = [captured("a", 10), captured("b", 1)];
        let whole = Run::fold(facts(1), Policy::default(), &all);
        assert_eq!(kept(10).go_on(&facts(1), 1, &all[1..]), Some(whole));
        assert_eq!(kept(10).go_on(&facts(2), 1, &all[1..]), None, "it is on another version now");
        assert_eq!(kept(10).go_on(&facts(1), 0, &all), None, "all of it was read");
    }

    #[test]
    fn each_is_taken_once_and_the_oldest_make_room() {
        let runs = KeptRuns::of(12_000);
        for key in 1..=4 {
            runs.keep(RunKey(key), kept(3_000));
        }
        assert!(runs.take(RunKey(1)).is_none());
        assert!(runs.take(RunKey(2)).is_some() && runs.take(RunKey(2)).is_none());
        runs.keep(RunKey(5), kept(20_000));
        assert!(runs.take(RunKey(5)).is_none(), "it alone is too large");
        runs.keep(RunKey(3), kept(1_000));
        runs.forget(RunKey(3));
        assert!(runs.take(RunKey(4)).is_some());
        let runs = runs.runs();
        assert_eq!((runs.by_key.len(), runs.oldest_first.len(), runs.bytes), (0, 0, 0));
    }
}
