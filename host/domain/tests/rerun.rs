//! Which steps a rerun keeps, which it repeats and which of the kept ones may be stale, held
//! against a model that knows how each input was made; and what the handler then meets.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;
use stepbox_domain::{
    EventName, ExecutionId, Failure, FailureKind, Json, Run, RunId, StepKey, StepName, TaskName, Timestamp,
    decide::{Input, Reply, Until},
    journal::{Record, StepStarted},
    leg::Place,
    repair::{RepairError, Rerun, Stale, plan_rerun},
    run::{Policy, RunFacts, Step},
    step::{StepInput, StepOptions, StepStatus},
};

/// One call of the old run.
#[derive(Clone, Debug)]
struct Called {
    what: What,
    /// Its input is made of the results of these, counted back from it; of the whole of one, or of
    /// a field in it.
    uses: Vec<(u8, bool)>,
    /// Failed attempts before the outcome.
    failed: u8,
    /// Kept from a run before the old one, and called again by it or not.
    kept: Option<bool>,
    wanted: bool,
    preserved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum What {
    Completed,
    Dead,
    Open,
    Sleep,
    Event,
    TimedOut,
    Capture,
}

fn called() -> impl Strategy<Value = Called> {
    let what = prop_oneof![
        8 => Just(What::Completed), 2 => Just(What::Dead), 1 => Just(What::Open), 1 => Just(What::Sleep),
        1 => Just(What::Event), 1 => Just(What::TimedOut), 1 => Just(What::Capture),
    ];
    let uses = proptest::collection::vec((1..6u8, any::<bool>()), 0..4);
    let kept = prop_oneof![3 => Just(None), 1 => Just(Some(true)), 1 => Just(Some(false))];
    let (wanted, preserved) = (proptest::bool::weighted(0.2), proptest::bool::weighted(0.2));
    (what, uses, 0..3u8, kept, wanted, preserved).prop_map(|(what, uses, failed, kept, wanted, preserved)| {
        Called { what, uses, failed, kept, wanted, preserved }
    })
}

fn key(index: usize) -> StepKey {
    StepKey::new(&StepName::parse(&format!("call-{index}")).unwrap(), 1)
}

fn at(ms: usize) -> Timestamp {
    Timestamp::from_ms(ms as i64)
}

fn facts(index: u32) -> RunFacts {
    let execution = ExecutionId::parse("e-1").unwrap();
    RunFacts {
        run: RunId::new(&execution, index),
        execution,
        index,
        task: TaskName::parse("order").unwrap(),
        version: 1,
        created_at: at(0),
        deadline: None,
    }
}

fn field(index: usize) -> String {
    format!("field-of-{index}")
}

fn result(index: usize) -> Json {
    Json::from(serde_json::json!({ "id": field(index), "ok": true }))
}

/// The old run as the journal has it, and the same as the model knows it.
struct Old {
    calls: Vec<Called>,
    run: Run,
    /// The calls in the order of the run: first those that were made, then those that lie aside.
    order: Vec<usize>,
}

impl Old {
    fn new(mut calls: Vec<Called>) -> Self {
        let (mut kept, mut made) = (Vec::new(), Vec::new());
        for (index, call) in calls.iter_mut().enumerate() {
            // Only what is completed is kept; waits and the like are left out of that here.
            call.kept = call.kept.filter(|_| call.what == What::Completed);
            if call.kept.is_some() {
                kept.push(index);
            }
            if call.kept != Some(false) {
                made.push(index);
            }
        }
        let mut old = Old { calls, run: Run::new(facts(1), Policy::default()), order: Vec::new() };
        old.order = made.clone();
        old.order.extend(kept.iter().filter(|index| old.calls[**index].kept == Some(false)));
        for index in kept {
            let mut before = Run::new(facts(0), Policy::default());
            old.records(index, 0).iter().for_each(|record| before.apply(record));
            let mut step = before.steps()[0].clone();
            step.kept_from = Some(facts(0).run);
            old.run.apply(&Record::StepKept { step: Box::new(step) });
        }
        for (place, index) in made.into_iter().enumerate() {
            let records = match old.calls[index].kept {
                Some(_) => vec![Record::StepAdopted { key: key(index), at: at(index) }],
                None => old.records(index, place as u32),
            };
            records.iter().for_each(|record| old.run.apply(record));
        }
        old
    }

    /// Which earlier calls with a result `index` was really made of.
    fn sources(&self, index: usize) -> BTreeSet<usize> {
        let place = |index: usize| self.order.iter().position(|other| *other == index).unwrap();
        let uses =
            self.calls[index].uses.iter().filter_map(|(back, _)| index.checked_sub(usize::from(*back)));
        uses.filter(|source| self.has_result(*source) && place(*source) < place(index)).collect()
    }

    fn has_result(&self, index: usize) -> bool {
        matches!(self.calls[index].what, What::Completed | What::Event | What::Capture)
    }

    fn input(&self, index: usize) -> Json {
        let sources = self.sources(index);
        let whole = |source: &usize| {
            let mut uses = self.calls[index].uses.iter();
            uses.any(|(back, whole)| index - source == usize::from(*back) && *whole)
        };
        let parts: Vec<serde_json::Value> = sources
            .iter()
            .map(|source| match whole(source) {
                true => result(*source).to_value().unwrap(),
                false => serde_json::json!(field(*source)),
            })
            .collect();
        Json::from(serde_json::json!({ "of": parts, "own": format!("input-{index}") }))
    }

    fn records(&self, index: usize, step: u32) -> Vec<Record> {
        let (key, at) = (key(index), at(index));
        let event = || EventName::parse(key.as_str()).unwrap();
        match self.calls[index].what {
            What::Sleep => vec![
                Record::SleepStarted { key: key.clone(), until: at, at },
                Record::SleepEnded { step, at },
            ],
            What::Event => vec![
                Record::WaitStarted { key: key.clone(), event: event(), deadline: None, at },
                Record::EventConsumed { step, event: index as i64, payload: result(index), at },
            ],
            What::TimedOut => vec![
                Record::WaitStarted { key: key.clone(), event: event(), deadline: Some(at), at },
                Record::WaitTimedOut { step, at },
            ],
            What::Capture => vec![Record::Captured { key: key.clone(), value: result(index), at }],
            What::Completed | What::Dead | What::Open => self.attempts(index, step),
        }
    }

    fn attempts(&self, index: usize, step: u32) -> Vec<Record> {
        let (at, call) = (at(index), &self.calls[index]);
        let input = StepInput::of(&self.input(index));
        let start = StepStarted {
            key: key(index),
            function: "f".to_owned(),
            parts: input.parts(),
            input: input.hash,
            at,
            deadline: at.plus_ms(9),
            step_deadline: None,
        };
        let mut records = vec![Record::StepStarted(start)];
        let failure = Failure::new(FailureKind::Error, "declined");
        for attempt in 1..=u32::from(call.failed) {
            let failure = failure.clone();
            records.push(Record::AttemptFailed {
                step,
                attempt,
                failure,
                at,
                retry_at: Some(at),
                receipt: None,
            });
            let (attempt, deadline) = (attempt + 1, at.plus_ms(9));
            records.push(Record::AttemptStarted { step, attempt, at, deadline, step_deadline: None });
        }
        let attempt = u32::from(call.failed) + 1;
        match call.what {
            What::Completed => {
                records.push(Record::StepCompleted {
                    step,
                    attempt,
                    result: result(index),
                    at,
                    receipt: None,
                });
            }
            What::Dead => {
                records.push(Record::AttemptFailed {
                    step,
                    attempt,
                    failure,
                    at,
                    retry_at: None,
                    receipt: None,
                });
            }
            _ => {}
        }
        records
    }
}

/// What the rules say, call by call.
#[derive(Debug, Default, PartialEq)]
struct Model {
    kept: Vec<StepKey>,
    repeated: Vec<StepKey>,
    runs: Vec<StepKey>,
    effective: Vec<StepKey>,
    stale: Vec<Stale>,
}

fn model(old: &Old) -> Model {
    let mut model = Model::default();
    // For each call: which of those that run again its result may change with.
    let mut changes_with: BTreeMap<usize, BTreeSet<usize>> = BTreeMap::new();
    for index in &old.order {
        let (call, key_) = (&old.calls[*index], key(*index));
        let completed = !matches!(call.what, What::Dead | What::Open);
        let again = call.what == What::Dead || call.wanted && !(completed && call.preserved);
        match (completed, again) {
            (true, true) => model.repeated.push(key_.clone()),
            (true, false) => model.kept.push(key_.clone()),
            (false, _) => model.runs.push(key_.clone()),
        }
        let mut causes = BTreeSet::new();
        if call.what == What::Completed {
            for source in old.sources(*index) {
                causes.extend(changes_with.get(&source).into_iter().flatten().copied());
            }
        }
        if completed && !again && call.what != What::Sleep && !model.effective.is_empty() {
            model.stale.push(Stale {
                step: key_.clone(),
                after: model.effective.clone(),
                by_input: causes
                    .iter()
                    .map(|cause| key(*cause))
                    .collect::<BTreeSet<_>>()
                    .into_iter()
                    .collect(),
            });
        }
        if again {
            model.effective.push(key_);
            causes = BTreeSet::from([*index]);
        }
        changes_with.insert(*index, causes);
    }
    model
}

fn named(old: &Old, which: impl Fn(&Called) -> bool) -> Vec<StepKey> {
    (0..old.calls.len()).filter(|index| which(&old.calls[*index])).map(key).collect()
}

fn rerun(old: &Old) -> Rerun {
    Rerun { steps: named(old, |call| call.wanted), preserve: named(old, |call| call.preserved), by: None }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn a_rerun_keeps_and_repeats_what_the_rules_say(calls in proptest::collection::vec(called(), 0..12)) {
        let old = Old::new(calls);
        let plan = plan_rerun(&old.run, &rerun(&old), at(99)).unwrap();

        let effects = plan.replacement.effects.clone();
        let got = Model {
            kept: effects.kept, repeated: effects.repeated, runs: effects.runs,
            effective: plan.effective, stale: plan.stale,
        };
        prop_assert_eq!(got, model(&old));
        prop_assert_eq!(plan.replacement.end, Some(Record::RunCancelled { by: None, at: at(99) }));
        // The kept ones, in their order, with all that they had.
        let kept: Vec<&Step> = plan.replacement.records.iter().map(|record| match record {
            Record::StepKept { step } => &**step,
            other => panic!("{other:?}"),
        }).collect();
        prop_assert_eq!(kept.iter().map(|step| step.key.clone()).collect::<Vec<_>>(), model(&old).kept);
        for step in kept {
            let mut was = old.run.step(&step.key).unwrap().clone();
            was.kept_from = was.kept_from.or(Some(facts(1).run));
            prop_assert_eq!(step, &was);
        }
        // As it is on disk.
        for record in &plan.replacement.records {
            let text = serde_json::to_string(record).unwrap();
            prop_assert_eq!(&serde_json::from_str::<Record>(&text).unwrap(), record);
        }
    }

    /// Made again in any order, and some with another input: a call of what was kept is answered
    /// from the past if it is the same call, and what is not runs from its first attempt.
    #[test]
    fn the_handler_meets_what_was_kept(
        calls in proptest::collection::vec((called(), any::<u8>()), 0..12), other in any::<u16>(),
    ) {
        let (calls, mut sort): (Vec<_>, Vec<_>) = calls.into_iter().unzip();
        let old = Old::new(calls);
        let plan = plan_rerun(&old.run, &rerun(&old), at(99)).unwrap();
        let mut run = Run::new(facts(2), Policy::default());
        plan.replacement.records.iter().for_each(|record| run.apply(record));
        sort.resize(old.calls.len(), 0);
        let mut order = old.order.clone();
        order.sort_by_key(|index| sort[*index]);
        let kept = model(&old).kept;
        for (place, index) in (0..).zip(order) {
            let (before, another) = (old.run.step(&key(index)).unwrap(), other >> index & 1 == 1);
            let place = Place { index: place, key: key(index) };
            let input = match another {
                true => Json::from(serde_json::json!("another input")),
                false => old.input(index),
            };
            let (input, options) = (StepInput::of(&input), StepOptions::default());
            let event = EventName::parse(key(index).as_str()).unwrap();
            let value = Json::from(serde_json::json!("another value"));
            let what = old.calls[index].what;
            let call = match what {
                What::Sleep => Input::Sleeps { place: &place, until: Until::After(u64::from(another)) },
                What::Event | What::TimedOut => {
                    Input::WaitsForEvent { place: &place, event: &event, timeout_ms: another.then_some(5) }
                }
                What::Capture => Input::Captures { place: &place, value: &value },
                _ => Input::StepCalled { place: &place, function: "f", input: &input, options: &options, hold: None },
            };
            let decision = run.decide(call, at(99));
            decision.records.iter().for_each(|record| run.apply(record));
            let same = !another || matches!(what, What::Event | What::TimedOut | What::Capture);
            let stands = &run.steps()[place.index as usize];
            if kept.contains(&place.key) && same {
                let (outcome, at) = (before.outcome().unwrap(), before.ended_at.unwrap());
                prop_assert_eq!(decision.reply, Reply::Recorded { outcome, at });
                prop_assert_eq!(&stands.attempts, &before.attempts);
                continue;
            }
            prop_assert_eq!(stands.replaced.as_ref().map(|old| &old.key), kept.contains(&place.key).then_some(&place.key));
            if stands.call.kind().as_str() == "step" {
                prop_assert!(matches!(decision.reply, Reply::Go { attempt: 1, .. }), "{:?}", decision);
                let done = Record::StepCompleted { step: place.index, attempt: 1, result: Json::null(), at: at(99), receipt: None };
                run.apply(&done);
            }
        }
        prop_assert!(run.aside().is_empty());
    }
}

#[test]
fn steps_that_the_run_does_not_have_are_named_each_once() {
    let old = Old::new(Vec::new());
    let rerun = Rerun { steps: vec![key(2), key(1), key(2)], preserve: vec![key(3), key(1)], by: None };
    let error = plan_rerun(&old.run, &rerun, at(1)).unwrap_err();
    let steps = vec![key(1), key(2), key(3)];
    assert_eq!(error, RepairError::UnknownSteps { run: facts(1).run, steps });
    assert!(error.to_string().contains("\"call-1\", \"call-2\", \"call-3\""), "{error}");
}

/// Ten thousand kept steps, of which the handler calls the last ones first: as slow as it gets.
#[test]
fn a_large_rerun_is_planned_and_met_in_no_time() {
    const STEPS: usize = 10_000;
    let call = Called {
        what: What::Completed,
        uses: vec![(1, true)],
        failed: 0,
        kept: None,
        wanted: false,
        preserved: false,
    };
    let mut run = Run::new(facts(1), Policy::default());
    let mut old = Old { calls: vec![call; STEPS], run: run.clone(), order: vec![0, 1] };
    for index in 0..STEPS {
        old.order = vec![index.saturating_sub(1), index];
        old.records(index, index as u32).iter().for_each(|record| run.apply(record));
    }
    let begun = std::time::Instant::now();
    let steps = (0..STEPS).step_by(2).map(key).collect();
    let plan = plan_rerun(&run, &Rerun { steps, ..Rerun::default() }, at(1)).unwrap();
    let mut next = Run::new(facts(2), Policy::default());
    plan.replacement.records.iter().for_each(|record| next.apply(record));
    assert_eq!(next.aside().len(), STEPS / 2);
    for index in (0..STEPS).rev().filter(|index| index % 2 == 1) {
        next.apply(&Record::StepAdopted { key: key(index), at: at(1) });
    }
    assert!(next.aside().is_empty());
    assert!(next.steps().iter().all(|step| step.status() == StepStatus::Completed));
    // A second where milliseconds are meant: the machine may be busy, a square is far above it.
    assert!(begun.elapsed().as_secs() < 5, "{:?}", begun.elapsed());
}
