//! Looks for anything that must not be in what the host tells, beside what the checker finds in its
//! database (`tests/checker`).

use std::collections::{BTreeMap, HashMap};

use super::{
    found::Told,
    play::{Cancelled, Deed, Kind},
};
use crate::{
    checker::{
        self, Promises, Report,
        journal::{Journal, State},
        rows::{ExecutionRow, Tables},
    },
    harness::{server::Effect, *},
};

/// Who stops a bulk repair of which too much fails again.
const THE_HOST: &str = "stepbox";

/// Everything that is wrong, and how much was looked at.
#[derive(Default)]
pub struct Findings {
    pub rows: Report,
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
        let promises = Promises { executions: self.told.keys().cloned().collect(), ..Promises::default() };
        let (rows, mut journals) = checker::check(&self.tables, &self.effects, &promises);
        let mut found = Findings { rows, ..Findings::default() };
        let mut done: HashMap<String, u32> = HashMap::new();
        for execution in &self.tables.executions {
            let Some(told) = self.told.get(&execution.id) else {
                found.rows.wrong.push(format!("{} is there, and nobody started it", execution.id));
                continue;
            };
            found.current_run(execution, told);
            for run in &execution.runs {
                let id = format!("{}:run:{}", execution.id, run.index);
                let Some(journal) = journals.remove(&id) else { continue };
                let at = usize::try_from(run.index).expect("an index");
                if let (Some(steps), Some(run)) = (told.steps.get(at), told.runs.get(at)) {
                    found.detail(&id, &journal, steps);
                    found.result(&id, &journal, &run["payload"]);
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
        self.rows.expect(holds, what);
    }

    /// All is over, and told as it is.
    fn current_run(&mut self, ExecutionRow { id, status, runs, .. }: &ExecutionRow, told: &Told) {
        for run in runs {
            let (index, status) = (run.index, &run.status);
            self.expect(run.is_over(), || format!("{id}: run {index} is {status} and should be over"));
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
                self.rows.wrong.push(format!("{id}: nothing is told of {}", step.key));
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
