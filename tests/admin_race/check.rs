//! Looks for anything that must not be, in what the host tells, in its database, and in what the
//! world saw of it.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{
    found::{ExecutionRow, RunRow, Tables, Told},
    journal::{AttemptState, Journal, Kind as StepKind, State, Step},
    play::{Cancelled, Deed, Kind},
};
use crate::harness::{server::Effect, *};

/// Until a step that began just before the end of its run must have done so: what the world sees of
/// a run that is over is cut off, not recorded.
const CUT_OFF_MS: i64 = 3_000;

/// Who stops a bulk repair of which too much fails again.
const THE_HOST: &str = "stepbox";

/// Everything that is wrong, and how much was looked at.
#[derive(Default)]
pub struct Findings {
    pub wrong: Vec<String>,
    pub runs: usize,
    pub records: usize,
    pub steps: usize,
    pub kept: usize,
    pub resolved: usize,
    pub repairs_in_runs: usize,
    pub runs_after_the_first: usize,
    pub cancelled: usize,
    /// Repairs by bulk repairs.
    pub items: usize,
}

pub struct Evidence {
    pub told: HashMap<String, Told>,
    pub tables: Tables,
    pub effects: Vec<Effect>,
    pub audit: Vec<Value>,
    pub deeds: Vec<Deed>,
    pub cancelled: Vec<Cancelled>,
    /// All pause rules, the deleted ones too.
    pub rules: Vec<Value>,
    pub bulks: Vec<Value>,
}

impl Evidence {
    pub fn check(&self) -> Findings {
        let mut found = Findings::default();
        let mut effects: HashMap<&str, Vec<&Effect>> = HashMap::new();
        for effect in &self.effects {
            effects.entry(&effect.run).or_default().push(effect);
        }
        let mut consumed = HashMap::new();
        let mut done: HashMap<String, u32> = HashMap::new();
        for execution in &self.tables.executions {
            let Some(told) = self.told.get(&execution.id) else {
                found.wrong.push(format!("{} is there, and nobody started it", execution.id));
                continue;
            };
            found.current_run(execution, told);
            for run in &execution.runs {
                let id = format!("{}:run:{}", execution.id, run.index);
                let effects = effects.remove(id.as_str()).unwrap_or_default();
                let Some(journal) = found.journal(&id, run) else { continue };
                found.effects(&id, &journal, &effects);
                let at = usize::try_from(run.index).expect("an index");
                if let (Some(steps), Some(run)) = (told.steps.get(at), told.runs.get(at)) {
                    found.detail(&id, &journal, steps);
                    found.result(&id, &journal, &run["payload"]);
                }
                for event in journal.events {
                    if consumed.insert(event, run.key).is_some() {
                        found.wrong.push(format!("{id}: event {event} was consumed twice (invariant 5)"));
                    }
                }
                for repair in journal.repairs {
                    found.repairs_in_runs += 1;
                    found.resolved += usize::from(repair.resolved);
                    *done.entry(repair.by.unwrap_or_default()).or_default() += 1;
                }
            }
            for run in told.runs.iter().skip(1) {
                found.runs_after_the_first += 1;
                *done.entry(run["triggeredBy"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
            }
        }
        for run in effects.keys() {
            found.wrong.push(format!("{run}: steps of a run that is not there"));
        }
        for event in &self.tables.events {
            if event.consumed_by != consumed.get(&event.number).copied() {
                let (by, journal) = (event.consumed_by, consumed.get(&event.number));
                found.wrong.push(format!("event {}: consumed by {by:?}, says {journal:?}", event.number));
            }
        }
        for rule in &self.rules {
            *done.entry(rule["createdBy"].as_str().unwrap_or_default().to_owned()).or_default() += 1;
        }
        found.audit(&self.audit, &self.deeds, &done);
        found.cancelled(&self.cancelled, &self.told);
        found.bulks(&self.bulks, &self.audit);
        found
    }
}

/// Whether it may be about more than the one execution that the player had in mind.
fn is_about_more(kind: Kind) -> bool {
    matches!(kind, Kind::Pause | Kind::Resume | Kind::EndPause | Kind::Bulk | Kind::CancelBulk)
}

impl Findings {
    fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    /// Run indices have no gaps, the newest run is the current one and the only one that counts.
    fn current_run(&mut self, execution: &ExecutionRow, told: &Told) {
        let ExecutionRow { id, status, run_key, runs } = execution;
        let indices: Vec<i64> = runs.iter().map(|run| run.index).collect();
        let expected: Vec<i64> = (0..).take(runs.len()).collect();
        self.expect(indices == expected, || format!("{id}: its runs are {indices:?}"));
        let Some(last) = runs.last() else {
            self.wrong.push(format!("{id} has no run"));
            return;
        };
        self.expect(last.key == *run_key, || format!("{id}: the current run is not the newest"));
        self.expect(last.status == *status, || format!("{id} is {status}, and its run {}", last.status));
        for run in runs {
            let over = matches!(run.status.as_str(), "completed" | "failed" | "cancelled");
            self.expect(over, || format!("{id}: run {} is {} and should be over", run.index, run.status));
        }
        let (mine, theirs): (Vec<_>, Vec<_>) = (
            runs.iter().map(|run| run.status.as_str()).collect(),
            told.runs.iter().map(|run| &run["status"]).collect(),
        );
        self.expect(mine == theirs, || format!("{id}: its runs are {mine:?}, and told as {theirs:?}"));
        self.expect(told.execution["status"] == status.as_str(), || {
            format!("{id} is {status}, and told as {}", told.execution["status"])
        });
        for (index, run) in told.runs.iter().enumerate() {
            let first = run["trigger"] == "initial";
            self.expect(first == (index == 0), || format!("{id}: run {index} is {}", run["trigger"]));
        }
    }

    /// Invariants 3 and 4: numbers without gaps, what one writer can have written, nothing after
    /// the end.
    fn journal(&mut self, id: &str, run: &RunRow) -> Option<Journal> {
        self.runs += 1;
        self.records += run.bodies.len();
        let expected: Vec<i64> = (0..).take(run.numbers.len()).collect();
        self.expect(run.numbers == expected, || format!("{id}: records {:?} (invariant 3)", run.numbers));
        match Journal::read(&run.bodies) {
            Ok(journal) => {
                self.expect(journal.status() == run.status, || {
                    format!("{id} is {}, and its journal {}", run.status, journal.status())
                });
                Some(journal)
            }
            Err(why) => {
                self.wrong.push(format!("{id}: {why}; the journal:\n    {}", run.bodies.join("\n    ")));
                None
            }
        }
    }

    /// Invariant 2: what has a result did not begin again, and has the result of the attempt that
    /// began last; what was kept did not begin at all.
    fn effects(&mut self, id: &str, journal: &Journal, effects: &[&Effect]) {
        for pair in effects.windows(2).filter(|pair| pair[0].tag == pair[1].tag) {
            self.expect(pair[0].attempt <= pair[1].attempt, || {
                format!("{id}: {} began again after a later attempt: {effects:#?}", pair[0].tag)
            });
        }
        if let (Some(end), Some(last)) = (&journal.end, effects.iter().map(|effect| effect.at_ms).max()) {
            self.expect(last <= end.at + CUT_OFF_MS, || {
                format!("{id}: a step began {} ms after the run's end: {effects:#?}", last - end.at)
            });
        }
        let mut by_tag: BTreeMap<String, Vec<&Effect>> = BTreeMap::new();
        for effect in effects {
            by_tag.entry(effect.tag.clone()).or_default().push(effect);
        }
        for step in journal.all().filter(|step| step.kind == StepKind::Step) {
            self.steps += 1;
            let began = by_tag.remove(&step.key).unwrap_or_default();
            if step.kept {
                self.kept += 1;
                self.expect(began.is_empty(), || {
                    format!("{id}: {} was kept, and began: {began:#?} (invariant 2)", step.key)
                });
                continue;
            }
            self.attempts(id, step, &began);
        }
        // A step whose start was not on disk yet may have begun: just one, at which the run ended.
        let unrecorded: HashSet<&String> = by_tag.keys().collect();
        self.expect(unrecorded.len() <= 1, || format!("{id}: no record of {unrecorded:?}"));
    }

    fn attempts(&mut self, id: &str, step: &Step, began: &[&Effect]) {
        let key = &step.key;
        for attempt in &step.attempts {
            let told = matches!(attempt.state, AttemptState::Completed | AttemptState::Failed);
            let seen = began.iter().any(|effect| u64::from(effect.attempt) == attempt.number);
            self.expect(seen || !told, || format!("{id}: {key} never began attempt {}", attempt.number));
        }
        let (Some(ended_at), Some(last)) = (step.ended_at, began.last()) else { return };
        let attempt = step.attempts.last().map_or(0, |attempt| attempt.number);
        self.expect(last.at_ms <= ended_at && u64::from(last.attempt) <= attempt, || {
            format!("{id}: {key} was over at {ended_at}, and began again (invariant 2): {began:#?}")
        });
        if let (State::Completed(result), false) = (&step.state, step.resolved) {
            self.expect(result["nonce"] == last.nonce.as_str(), || {
                format!(
                    "{id}: {key} has {result}, which is not of the last attempt (invariant 2): {began:#?}"
                )
            });
        }
    }

    /// What the host tells of the run's steps is what its journal says.
    fn detail(&mut self, id: &str, journal: &Journal, told: &Value) {
        let told: BTreeMap<&str, &Value> = told
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|step| Some((step["name"].as_str()?, step)))
            .collect();
        let mine = journal.all().count();
        self.expect(told.len() == mine, || format!("{id}: {mine} steps, and told are {}", told.len()));
        for step in journal.all() {
            let Some(told) = told.get(step.key.as_str()) else {
                self.wrong.push(format!("{id}: nothing is told of {}", step.key));
                continue;
            };
            let (state, result) = match &step.state {
                State::Completed(result) => ("completed", result.clone()),
                State::TimedOut => ("completed", Value::Null),
                State::Dead => ("dead", Value::Null),
                State::Open | State::BetweenAttempts => ("scheduled", Value::Null),
            };
            let same = told["status"] == state
                && told["result"] == result
                && told["retryable"] == (state == "dead")
                && told["keptFromRun"].is_string() == step.kept
                && told["attempts"].as_array().map(Vec::len) == Some(step.attempts.len());
            self.expect(same, || format!("{id}: {step:#?} is told as {told:#}"));
        }
    }

    /// The result of a run that completed is what its steps came to.
    fn result(&mut self, id: &str, journal: &Journal, payload: &Value) {
        let Some(end) = journal.end.as_ref().filter(|end| end.status == "completed") else { return };
        let lines = payload["script"].as_array().expect("a script");
        let results = end.result.as_array().cloned().unwrap_or_default();
        self.expect(
            lines.len() == results.len() && lines.len() == journal.steps.len() && journal.aside.is_empty(),
            || format!("{id}: {} lines gave {results:#?} by {:#?}", lines.len(), journal.steps),
        );
        for ((line, result), step) in lines.iter().zip(&results).zip(&journal.steps) {
            let settled = line.get("settle").is_some() || line.get("waitEvent").is_some();
            let same = match (&step.state, settled) {
                (State::Completed(value), true) => result["value"] == *value,
                (State::Completed(value), false) => result == value,
                (State::Dead, true) => result["failure"].is_object(),
                _ => false,
            };
            self.expect(same, || format!("{id}: the handler got {result} of {step:#?}"));
        }
    }

    /// Every operation that was acknowledged is in the trail once and was done once; none that was
    /// refused; one without an answer was done and is there, or was not and is not.
    fn audit(&mut self, audit: &[Value], deeds: &[Deed], done: &HashMap<String, u32>) {
        let numbers: Vec<u64> = audit.iter().filter_map(|entry| entry["number"].as_u64()).collect();
        let expected: Vec<u64> = (1..).take(audit.len()).collect();
        self.expect(numbers == expected, || format!("the audit trail has the numbers {numbers:?}"));
        let mut entries: HashMap<&str, Vec<&Value>> = HashMap::new();
        for entry in audit {
            entries.entry(entry["actor"].as_str().unwrap_or_default()).or_default().push(entry);
        }
        for deed in deeds {
            let entries = entries.remove(deed.tag.as_str()).unwrap_or_default();
            let done = done.get(&deed.tag).copied().unwrap_or(0) as usize;
            let is =
                |entry: &&Value, actions: &[&str]| actions.iter().any(|action| entry["action"] == *action);
            // What the deed itself is called, and what it may have done to executions.
            let (itself, repairs): (&[&str], &[&str]) = match deed.kind {
                Kind::RetryStep => (&[], &["retry_step"]),
                Kind::Resolve => (&[], &["resolve_step"]),
                Kind::Restart => (&[], &["restart"]),
                Kind::Rerun => (&[], &["rerun"]),
                Kind::Pause => (&[], &["pause"]),
                Kind::Cancel => (&["cancel"], &[]),
                Kind::Resume | Kind::EndPause => (&["resume"], &[]),
                Kind::Bulk => (&["start_bulk"], &["retry_step", "restart"]),
                Kind::CancelBulk => (&["cancel_bulk"], &[]),
                Kind::DryRun | Kind::Event | Kind::StartAgain | Kind::Read => (&[], &[]),
            };
            let own = entries.iter().filter(|entry| is(entry, itself)).count();
            let repaired = entries.iter().filter(|entry| is(entry, repairs)).count();
            let about_it = entries
                .iter()
                .all(|entry| entry["executionId"] == deed.execution.as_str() || is_about_more(deed.kind));
            let times = match (deed.kind, deed.status) {
                (_, Some(status)) if status >= 300 => entries.is_empty(),
                (Kind::Resume, Some(_)) => deed.body["rulesDeleted"] == own,
                (Kind::Resume, None) => true,
                (Kind::Bulk, Some(_)) => own == 1,
                (Kind::Bulk, None) => own == 1 || entries.is_empty(),
                (_, Some(_)) => entries.len() == usize::from(!itself.is_empty() || !repairs.is_empty()),
                (_, None) => entries.len() <= 1,
            };
            let known = own + repaired == entries.len();
            self.expect(about_it && times && known && done == repaired, || {
                format!("{deed:#?} was done {done} times and is in the audit trail as {entries:#?}")
            });
        }
        for (actor, entries) in entries {
            let nobody = ["", super::MENDER, THE_HOST].contains(&actor);
            self.expect(nobody, || format!("{actor} did nothing of this: {entries:#?}"));
        }
    }

    /// Cancelled runs are as they were when the answer came (invariant 4).
    fn cancelled(&mut self, cancelled: &[Cancelled], told: &HashMap<String, Told>) {
        for Cancelled { execution, run, steps } in cancelled {
            self.cancelled += 1;
            let Some(told) = told.get(execution) else { continue };
            let place = told.runs.iter().position(|told| told["runId"] == run.as_str());
            let now = place.and_then(|place| told.steps.get(place));
            self.expect(now == Some(steps), || {
                format!("{run} was cancelled as {steps:#}, and now is {now:#?} (invariant 4)")
            });
        }
    }

    /// Bulk repairs count what they did, each execution once.
    fn bulks(&mut self, bulks: &[Value], audit: &[Value]) {
        for bulk in bulks {
            let of = |name: &str| bulk["progress"][name].as_u64().unwrap_or_default();
            let repaired = of("underWay") + of("completed") + of("failed");
            let sum = repaired + of("pending") + of("skipped") == of("total");
            let over = bulk["state"] != "running";
            let all = bulk["state"] != "completed" || of("pending") + of("underWay") == 0;
            let actor = &bulk["triggeredBy"];
            let entries = audit.iter().filter(|entry| {
                entry["actor"] == *actor && (entry["action"] == "retry_step" || entry["action"] == "restart")
            });
            let entries = entries.count() as u64;
            self.items += repaired as usize;
            self.expect(sum && over && all && entries == repaired, || {
                format!("in the audit trail are {entries} repairs of {bulk:#}")
            });
        }
    }
}
