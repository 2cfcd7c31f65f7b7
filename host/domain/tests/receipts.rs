//! What an attempt took is kept as long as the attempt is.

use stepbox_domain::{
    ExecutionId, Failure, FailureKind, Json, Receipt, Run, RunId, StepKey, StepName, TaskName, Timestamp,
    decide::{Bound, Input, Reply},
    journal::{self, Record, StepStarted},
    leg::Place,
    receipt::Request,
    repair::{Rerun, RetryStep, plan_rerun, plan_retry},
    retry::RetryPolicy,
    run::{Policy, RunFacts},
    step::{AttemptFailure, AttemptOutcome, Overrides, StepInput, StepOptions, TimeoutScope},
};

fn at(ms: i64) -> Timestamp {
    Timestamp::from_ms(ms)
}

fn key(name: &str) -> StepKey {
    StepKey::new(&StepName::parse(name).unwrap(), 1)
}

fn run(index: u32, policy: Policy) -> Run {
    let execution = ExecutionId::parse("e").unwrap();
    let facts = RunFacts {
        run: RunId::new(&execution, index),
        execution,
        index,
        task: TaskName::parse("t").unwrap(),
        version: 1,
        created_at: at(0),
        deadline: None,
    };
    Run::new(facts, policy)
}

fn receipt(cpu_us: u64) -> Receipt {
    let request = Request {
        method: "GET".to_owned(),
        origin: "https://example.com".to_owned(),
        path: "/".to_owned(),
        status: Some(200),
        ..Request::default()
    };
    Receipt { cpu_us, host_calls: 7, requests: vec![request], ..Receipt::default() }
}

fn options(attempts_max: u32) -> StepOptions {
    let retry = RetryPolicy { attempts_max, delay_first_ms: 0, jitter: false, ..RetryPolicy::NONE };
    StepOptions { retry, ..StepOptions::default() }
}

struct Bench {
    run: Run,
    rows: Vec<Record>,
}

impl Bench {
    fn take(&mut self, input: Input<'_>) -> Reply {
        let decision = self.run.decide(input, at(10));
        for record in decision.records {
            self.run.apply(&record);
            journal::push(&mut self.rows, record);
        }
        decision.reply
    }

    /// Calls the step `name` at `index`; each outcome costs as much as its attempt's number.
    fn step(&mut self, index: u32, name: &str, outcomes: Vec<AttemptOutcome>) {
        let (place, input) = (Place { index, key: key(name) }, StepInput::of(&Json::null()));
        let options = options(2);
        for outcome in outcomes {
            let call = Input::StepCalled {
                place: &place,
                function: "f",
                input: &input,
                options: &options,
                hold: None,
            };
            let Reply::Go { attempt, .. } = self.take(call) else { panic!("{name}") };
            let receipt = Some(Box::new(receipt(attempt.into())));
            self.take(Input::AttemptEnded { place: &place, attempt, outcome, receipt, options: &options });
        }
    }
}

fn fails() -> AttemptOutcome {
    AttemptOutcome::Failed(AttemptFailure::new(FailureKind::Error, "busy"))
}

fn bills(run: &Run, name: &str) -> Vec<Option<Receipt>> {
    let step = run.step(&key(name)).unwrap();
    step.attempts.iter().map(|attempt| attempt.receipt.as_deref().cloned()).collect()
}

fn lived() -> Bench {
    let mut bench = Bench { run: run(0, Policy::default()), rows: Vec::new() };
    bench.step(0, "at-once", vec![AttemptOutcome::Completed(Json::null())]);
    bench.step(1, "stopped", vec![AttemptOutcome::Interrupted, AttemptOutcome::Completed(Json::null())]);
    bench.step(2, "dies", vec![fails(), fails()]);
    bench
}

#[test]
fn every_ending_of_an_attempt_keeps_its_receipt_on_disk_and_back() {
    let bench = lived();
    let read: Vec<Record> = bench
        .rows
        .iter()
        .map(|record| serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap())
        .collect();
    let folded = Run::fold(bench.run.facts().clone(), Policy::default(), &read);
    assert_eq!(folded, bench.run);
    assert_eq!(bills(&folded, "at-once"), [Some(receipt(1))]);
    assert_eq!(bills(&folded, "stopped"), [Some(receipt(1)), Some(receipt(2))]);
    assert_eq!(bills(&folded, "dies"), [Some(receipt(1)), Some(receipt(2))]);
}

#[test]
fn a_retry_adds_to_the_receipts() {
    let mut bench = lived();
    let wanted = RetryStep { step: key("dies"), overrides: Overrides::default(), version: None, by: None };
    let amendment = plan_retry(&bench.run, &wanted, at(10)).unwrap();
    bench.run.apply(&amendment.record);
    bench.step(2, "dies", vec![AttemptOutcome::Completed(Json::null())]);
    assert_eq!(bills(&bench.run, "dies"), [Some(receipt(1)), Some(receipt(2)), Some(receipt(3))]);
}

#[test]
fn a_rerun_takes_the_receipts_of_what_it_keeps_with_it() {
    let bench = lived();
    let plan = plan_rerun(&bench.run, &Rerun::default(), at(20)).unwrap();
    let mut next = run(1, Policy::default());
    for record in &plan.replacement.records {
        let read: Record = serde_json::from_str(&serde_json::to_string(record).unwrap()).unwrap();
        next.apply(&read);
    }
    assert_eq!(bills(&next, "at-once"), [Some(receipt(1))]);
    assert_eq!(bills(&next, "stopped"), [Some(receipt(1)), Some(receipt(2))]);
    next.apply(&Record::StepAdopted { key: key("at-once"), at: at(21) });
    assert_eq!(bills(&next, "at-once"), [Some(receipt(1))]);
}

/// Which of the two ends an attempt, and when.
#[test]
fn an_attempt_ends_at_its_timeout_or_at_the_limit_of_its_task_whichever_comes_first() {
    let limit = Bound::Limit { max_ms: 100 };
    for (timeout_ms, scope, time_ms, bound) in [
        (None, TimeoutScope::AllAttempts, 100, limit),
        (Some(40), TimeoutScope::AllAttempts, 40, Bound::Timeout),
        (Some(100), TimeoutScope::AllAttempts, 100, Bound::Timeout),
        (Some(500), TimeoutScope::AllAttempts, 100, limit),
        (Some(40), TimeoutScope::PerAttempt, 40, Bound::Timeout),
        (Some(500), TimeoutScope::PerAttempt, 100, limit),
    ] {
        let policy = Policy { attempt_wall_max_ms: 100, ..Policy::default() };
        let mut bench = Bench { run: run(0, policy), rows: Vec::new() };
        let options = StepOptions { timeout_ms, timeout_scope: scope, ..options(1) };
        let reply = bench.take(Input::StepCalled {
            place: &Place { index: 0, key: key("s") },
            function: "f",
            input: &StepInput::of(&Json::null()),
            options: &options,
            hold: None,
        });
        assert_eq!(reply, Reply::Go { attempt: 1, time_ms, bound }, "{timeout_ms:?} {scope:?}");
    }
}

/// What is kept in memory is bounded by it.
#[test]
fn a_run_is_reckoned_to_take_no_less_than_its_texts() {
    const LARGE: usize = 100_000;
    let text = || "x".repeat(LARGE);
    let empty = run(0, Policy::default()).size_bytes();
    let failure = || Failure {
        details: Some(Json::from(serde_json::json!(text()))),
        backtrace: Some(text()),
        logs: vec![text(), text()],
        ..Failure::new(FailureKind::Error, text())
    };
    let started = |name: &str, function: String| {
        let (key, input) = (key(name), StepInput::of(&Json::null()));
        let (hash, parts) = (input.hash.clone(), input.parts());
        let deadline = at(1_000);
        let start =
            StepStarted { key, function, input: hash, parts, at: at(1), deadline, step_deadline: None };
        Record::StepStarted(start)
    };
    let result = Json::from(serde_json::json!(text()));
    let fails = Record::AttemptFailed {
        step: 0,
        attempt: 1,
        failure: failure(),
        at: at(2),
        retry_at: Some(at(3)),
        receipt: Some(Box::new(receipt(1))),
    };
    let whole = [
        (vec![Record::Captured { key: key("a"), value: result.clone(), at: at(1) }], 1),
        (vec![started("a", text())], 1),
        (vec![started("a", String::new()), fails.clone()], 5),
        (
            vec![
                started("a", String::new()),
                fails,
                Record::StepDied { step: 0, failure: failure(), at: at(4) },
            ],
            10,
        ),
    ];
    for (records, texts) in whole {
        let mut run = run(0, Policy::default());
        records.iter().for_each(|record| run.apply(record));
        let taken = run.size_bytes() - empty;
        assert!((texts * LARGE..texts * LARGE + 10_000).contains(&taken), "{taken} for {texts}");
    }
}
