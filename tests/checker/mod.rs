//! A checker that is not the engine: it reads the database that a campaign leaves behind, folds the
//! journals by rules of its own, and holds them against what the world saw and what clients were
//! told. It verifies the invariants 1 to 5 and 9 of ARCHITECTURE.md, and counts what it looked at.

pub mod journal;
pub mod rows;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    fmt,
};

use self::{
    journal::{AttemptState, Journal, Kind as StepKind, State, Step},
    rows::{ExecutionRow, RunRow, Tables},
};
use crate::harness::{campaign::tell, server::Effect, *};

/// Until a step that began just before the end of its run must have done so: what the world sees of
/// a run that is over is cut off, not recorded.
const CUT_OFF_MS: i64 = 3_000;

/// What clients have been told, and the wall clock may say.
#[derive(Default)]
pub struct Promises {
    /// Executions whose start was acknowledged.
    pub executions: HashSet<String>,
    /// Events that were acknowledged: execution, name, payload.
    pub events: Vec<(String, String, Value)>,
    /// The clock was set meanwhile: moments say nothing of what came before what.
    pub clock_was_set: bool,
}

/// Everything that is wrong, and how much was looked at.
#[derive(Default)]
pub struct Report {
    pub wrong: Vec<String>,
    pub executions: usize,
    pub runs: usize,
    pub unfinished: usize,
    pub records: usize,
    pub steps: usize,
    pub kept: usize,
    pub attempts: usize,
    pub effects: usize,
    pub events: usize,
    pub consumed: usize,
    clock_was_set: bool,
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} executions, {} runs ({} of them not over), {} records, {} steps ({} kept), {} attempts in \
             journals and {} seen outside, {} events ({} consumed), {} things wrong",
            self.executions,
            self.runs,
            self.unfinished,
            self.records,
            self.steps,
            self.kept,
            self.attempts,
            self.effects,
            self.events,
            self.consumed,
            self.wrong.len(),
        )
    }
}

/// Stops the host in good order, reads its database and looks at everything. What it found it tells
/// under the name of the `campaign`; the test fails with what is wrong.
pub async fn check_after(campaign: &str, server: &mut Server, promises: &Promises) {
    let status = server.terminate().await;
    assert!(status.success(), "{status}");
    let tables = rows::read(&server.data()).await.expect("the database can be read");
    let (report, _) = check(&tables, &server.effects(), promises);
    tell(&format!("{campaign}, checked from its rows: {report}"));
    report.assert_nothing_wrong();
}

/// Looks at everything. The journals by their run's id, those that make sense.
pub fn check(tables: &Tables, effects: &[Effect], promises: &Promises) -> (Report, HashMap<String, Journal>) {
    let clock_was_set = promises.clock_was_set;
    let mut report = Report { effects: effects.len(), clock_was_set, ..Report::default() };
    let mut seen: HashMap<&str, Vec<&Effect>> = HashMap::new();
    for effect in effects {
        seen.entry(&effect.run).or_default().push(effect);
    }
    let mut journals = HashMap::new();
    let mut consumed: HashMap<i64, i64> = HashMap::new();
    for execution in &tables.executions {
        report.execution(execution);
        for run in &execution.runs {
            let id = format!("{}:run:{}", execution.id, run.index);
            let effects = seen.remove(id.as_str()).unwrap_or_default();
            let Some(journal) = report.journal(&id, run) else { continue };
            report.steps(&id, &journal, &effects);
            report.moves_on(&id, run, &journal);
            for event in &journal.events {
                if consumed.insert(*event, run.key).is_some() {
                    report.wrong.push(format!("{id}: event {event} was consumed twice (invariant 5)"));
                }
            }
            journals.insert(id, journal);
        }
    }
    for run in seen.keys() {
        report.wrong.push(format!("{run}: steps of a run that is not there (invariant 1)"));
    }
    report.events(tables, &journals, &consumed);
    report.promises(tables, promises);
    (report, journals)
}

impl Report {
    pub fn assert_nothing_wrong(&self) {
        let shown = self.wrong.iter().take(20).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.wrong.is_empty(), "{} things are wrong:\n{shown}", self.wrong.len());
    }

    pub fn expect(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    /// Run indices have no gaps, the newest run is the current one and the only one that counts;
    /// those before it are over.
    fn execution(&mut self, ExecutionRow { id, status, run_key, runs }: &ExecutionRow) {
        self.executions += 1;
        let indices: Vec<i64> = runs.iter().map(|run| run.index).collect();
        let expected: Vec<i64> = (0..).take(runs.len()).collect();
        self.expect(indices == expected, || format!("{id}: its runs are {indices:?}"));
        let Some((last, earlier)) = runs.split_last() else {
            self.wrong.push(format!("{id} has no run"));
            return;
        };
        self.expect(last.key == *run_key, || format!("{id}: the current run is not the newest"));
        self.expect(last.status == *status, || format!("{id} is {status}, and its run {}", last.status));
        for run in earlier {
            self.expect(run.is_over(), || format!("{id}: run {} is {} (invariant 4)", run.index, run.status));
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
                let same = match run.is_over() {
                    true => journal.status() == run.status,
                    false => journal.end.is_none(),
                };
                self.expect(same, || {
                    format!("{id} is {}, and its journal {} (invariant 4)", run.status, journal.status())
                });
                Some(journal)
            }
            Err(why) => {
                let journal = run.bodies.join("\n    ");
                self.wrong.push(format!("{id}: {why} (invariant 3); the journal:\n    {journal}"));
                None
            }
        }
    }

    /// Invariant 2: what has a result did not begin again, and has the result of the attempt that
    /// began last; what was kept did not begin at all.
    fn steps(&mut self, id: &str, journal: &Journal, effects: &[&Effect]) {
        for pair in effects.windows(2).filter(|pair| pair[0].tag == pair[1].tag) {
            self.expect(pair[0].attempt <= pair[1].attempt, || {
                format!("{id}: {} began again after a later attempt (invariant 2): {effects:#?}", pair[0].tag)
            });
        }
        if let (Some(end), Some(last)) = (&journal.end, effects.iter().map(|effect| effect.at_ms).max()) {
            self.expect(self.clock_was_set || last <= end.at + CUT_OFF_MS, || {
                format!("{id}: a step began {} ms after the run's end: {effects:#?}", last - end.at)
            });
        }
        let mut by_tag: BTreeMap<String, Vec<&Effect>> = BTreeMap::new();
        for effect in effects {
            by_tag.entry(effect.tag.clone()).or_default().push(effect);
        }
        for step in journal.all().filter(|step| step.kind == StepKind::Step) {
            self.steps += 1;
            self.attempts += step.attempts.len();
            let began = by_tag.remove(&step.key).unwrap_or_default();
            if step.kept {
                self.kept += 1;
                self.expect(began.is_empty(), || {
                    format!("{id}: {} was kept, and began: {began:#?} (invariant 2)", step.key)
                });
                continue;
            }
            self.step(id, step, &began);
        }
        // A step whose start was not on disk yet may have begun: just one, at which the run ended.
        let unrecorded: HashSet<&String> = by_tag.keys().collect();
        self.expect(unrecorded.len() <= 1, || format!("{id}: no record of {unrecorded:?}"));
    }

    fn step(&mut self, id: &str, step: &Step, began: &[&Effect]) {
        let key = &step.key;
        for attempt in &step.attempts {
            let told = matches!(attempt.state, AttemptState::Completed | AttemptState::Failed);
            let seen = began.iter().any(|effect| u64::from(effect.attempt) == attempt.number);
            self.expect(seen || !told, || format!("{id}: {key} never began attempt {}", attempt.number));
        }
        let (Some(ended_at), Some(last)) = (step.ended_at, began.last()) else { return };
        let attempt = step.attempts.last().map_or(0, |attempt| attempt.number);
        let in_time = self.clock_was_set || last.at_ms <= ended_at;
        self.expect(in_time && u64::from(last.attempt) <= attempt, || {
            format!("{id}: {key} was over at {ended_at}, and began again (invariant 2): {began:#?}")
        });
        if let (State::Completed(result), false) = (&step.state, step.resolved) {
            // Not every step of the tests answers with it.
            let known = result["nonce"].is_string();
            self.expect(!known || result["nonce"] == last.nonce.as_str(), || {
                format!(
                    "{id}: {key} has {result}, which is not of the last attempt (invariant 2): {began:#?}"
                )
            });
        }
    }

    /// Invariant 9: what is not over is to be looked at, stands at something, or was let go of by
    /// nobody yet, which the next start finds.
    fn moves_on(&mut self, id: &str, run: &RunRow, journal: &Journal) {
        if run.is_over() {
            return;
        }
        self.unfinished += 1;
        let moves = run.due_ms.is_some() || run.waiting.is_some() || run.claim_state != "held";
        self.expect(moves, || {
            format!("{id} is {}, and nothing will ever move it on (invariant 9): {journal:#?}", run.status)
        });
    }

    /// Invariant 5: an event is consumed by the run that its row names, and of one name in the order
    /// of arrival.
    fn events(&mut self, tables: &Tables, journals: &HashMap<String, Journal>, consumed: &HashMap<i64, i64>) {
        let mut names = HashMap::new();
        for event in &tables.events {
            self.events += 1;
            self.consumed += usize::from(event.consumed_by.is_some());
            let journal = consumed.get(&event.number).copied();
            self.expect(event.consumed_by == journal, || {
                let row = event.consumed_by;
                format!("event {}: consumed by {row:?}, the journals say {journal:?}", event.number)
            });
            names.insert(event.number, event.name.as_str());
        }
        for (id, journal) in journals {
            let mut last: HashMap<&str, i64> = HashMap::new();
            for event in &journal.events {
                let Some(name) = names.get(event) else {
                    self.wrong.push(format!("{id} consumed event {event}, which never came (invariant 5)"));
                    continue;
                };
                let before = last.insert(name, *event);
                self.expect(before < Some(*event), || {
                    format!("{id} consumed event {event} after {before:?} (invariant 5)")
                });
            }
        }
    }

    /// Invariant 1: what was acknowledged is there.
    fn promises(&mut self, tables: &Tables, promises: &Promises) {
        let there: HashSet<&str> = tables.executions.iter().map(|execution| execution.id.as_str()).collect();
        for id in &promises.executions {
            let is_there = there.contains(id.as_str());
            self.expect(is_there, || format!("{id} was acknowledged and is lost (invariant 1)"));
        }
        let mut events: HashMap<(&str, &str), Vec<Value>> = HashMap::new();
        for event in &tables.events {
            let payload = serde_json::from_str(&event.payload).unwrap_or_default();
            events.entry((&event.execution, &event.name)).or_default().push(payload);
        }
        for (execution, name, payload) in &promises.events {
            let come = events.get(&(execution.as_str(), name.as_str()));
            let is_there = come.is_some_and(|come| come.contains(payload));
            self.expect(is_there, || {
                format!("{execution}: event {name} {payload} was acknowledged and is lost (invariant 1)")
            });
        }
    }
}

/// A checker that never finds anything checks nothing.
#[cfg(test)]
mod tests {
    use super::{rows::EventRow, *};

    fn effect(tag: &str, attempt: u32, nonce: &str) -> Effect {
        Effect {
            execution: "e".to_owned(),
            run: "e:run:0".to_owned(),
            tag: tag.to_owned(),
            attempt,
            nonce: nonce.to_owned(),
            at_ms: 1,
        }
    }

    /// An execution that ran one step and consumed one event, with nothing wrong about it.
    fn sound() -> (Tables, Vec<Effect>, Promises) {
        let bodies = [
            json!({ "step_ran": { "key": "a", "at": 1, "result": { "nonce": "n" }, "completed_at": 2 } }),
            json!({ "wait_started": { "key": "go", "at": 2 } }),
            json!({ "event_consumed": { "step": 1, "event": 7, "payload": 1, "at": 3 } }),
            json!({ "run_completed": { "result": null, "at": 4 } }),
        ];
        let run = RunRow {
            key: 3,
            index: 0,
            status: "completed".to_owned(),
            claim_state: "free".to_owned(),
            due_ms: None,
            waiting: None,
            numbers: (0..4).collect(),
            bodies: bodies.map(|body| body.to_string()).to_vec(),
        };
        let event = EventRow {
            number: 7,
            execution: "e".to_owned(),
            name: "go".to_owned(),
            payload: "1".to_owned(),
            consumed_by: Some(3),
        };
        let status = "completed".to_owned();
        let execution = ExecutionRow { id: "e".to_owned(), status, run_key: 3, runs: vec![run] };
        let promises = Promises {
            executions: HashSet::from(["e".to_owned()]),
            events: vec![("e".to_owned(), "go".to_owned(), json!(1))],
            clock_was_set: false,
        };
        (Tables { executions: vec![execution], events: vec![event] }, vec![effect("a", 1, "n")], promises)
    }

    fn wrong(spoil: impl FnOnce(&mut Tables, &mut Vec<Effect>, &mut Promises)) -> String {
        let (mut tables, mut effects, mut promises) = sound();
        spoil(&mut tables, &mut effects, &mut promises);
        check(&tables, &effects, &promises).0.wrong.join("; ")
    }

    #[test]
    fn what_is_sound_passes_and_is_counted() {
        assert_eq!(wrong(|_, _, _| {}), "");
        let (tables, effects, promises) = sound();
        let (report, _) = check(&tables, &effects, &promises);
        assert_eq!((report.records, report.steps, report.attempts, report.consumed), (4, 1, 1, 1));
    }

    #[test]
    fn each_broken_invariant_is_found() {
        let run = |tables: &mut Tables, spoil: fn(&mut RunRow)| spoil(&mut tables.executions[0].runs[0]);
        for (invariant, found) in [
            (1, wrong(|_, _, promises| _ = promises.executions.insert("lost".to_owned()))),
            (1, wrong(|_, _, promises| promises.events[0].2 = json!(2))),
            (1, wrong(|tables, _, _| tables.executions.clear())),
            (2, wrong(|_, effects, _| effects.push(effect("a", 1, "again")))),
            (2, wrong(|_, effects, _| effects.push(effect("a", 2, "n")))),
            (3, wrong(|tables, _, _| run(tables, |run| run.numbers[3] = 4))),
            (3, wrong(|tables, _, _| run(tables, |run| run.bodies.swap(0, 1)))),
            (4, wrong(|tables, _, _| run(tables, |run| run.status = "failed".to_owned()))),
            (5, wrong(|tables, _, _| tables.events.clear())),
            (
                9,
                wrong(|tables, _, _| {
                    tables.executions[0].status = "running".to_owned();
                    run(tables, |run| {
                        (run.status, run.claim_state) = ("running".to_owned(), "held".to_owned());
                        _ = (run.bodies.pop(), run.numbers.pop());
                    });
                }),
            ),
        ] {
            assert!(found.contains(&format!("(invariant {invariant})")), "{invariant}: {found:?}");
        }
        let twice = wrong(|tables, _, _| tables.events[0].consumed_by = None);
        assert!(twice.contains("event 7"), "{twice:?}");
    }
}
