//! What everybody has seen, against what the store has in the end. Numbers are those of the
//! invariants in ARCHITECTURE.md.

use std::collections::{BTreeMap, BTreeSet};

use futures_util::FutureExt as _;
use stepbox_domain::{
    ExecutionId, ExecutionStatus, FailureKind, Json, Run,
    audit::Chain,
    journal::Record,
    run::{Policy, RunOutcome, StepState},
    step::{AttemptState, StepKind},
};

use super::world::{Body, Seen, World};
use crate::store::{RunView, Trigger, Views};

pub fn check(world: &World) {
    let seen = world.seen();
    let mut cancelled = 0;
    for execution in seen.started.keys() {
        let view = now(world.1.execution(execution)).expect("1: an acknowledged start is there");
        assert!(view.status.is_terminal(), "9: it has not come to an end: {view:#?}");
        world.count(|counts| match view.status {
            ExecutionStatus::Completed => &mut counts.completed,
            _ => &mut counts.failed,
        });
        let runs = now(world.1.runs(execution)).expect("it has runs");
        assert_eq!(view.run, runs.last().expect("it has runs").run, "the last run is the current one");
        for (index, run) in runs.iter().enumerate() {
            assert_eq!(run.index as usize, index, "{runs:#?}");
            assert_eq!(run.trigger == Trigger::Initial, index == 0, "{run:#?}");
            cancelled += check_run(world, run, &seen);
        }
        check_events(world, execution, &runs);
    }
    assert!(cancelled >= seen.cancelled, "4: a cancel that was acknowledged is not there");
    check_audit(world);
}

/// How often it was cancelled (by a restart or a rerun too).
fn check_run(world: &World, view: &RunView, seen: &Seen) -> u64 {
    let (facts, records) = now(world.1.journal(&view.run)).expect("it has a journal");
    let mut over = false;
    let mut cancels = 0;
    for record in &records {
        let reopens = matches!(record, Record::StepRetryAsked { .. } | Record::StepResolved { .. });
        assert!(!over || reopens, "4: recorded after the end: {record:?} in {records:#?}");
        over = matches!(
            record,
            Record::RunCompleted { .. } | Record::RunFailed { .. } | Record::RunCancelled { .. }
        );
        cancels += u64::from(matches!(record, Record::RunCancelled { .. }));
    }
    let run = Run::fold(facts, Policy::default(), &records);
    let end = run.end().unwrap_or_else(|| panic!("9: {} is not over: {records:#?}", view.run));
    let status = match &end.outcome {
        RunOutcome::Completed(_) => ExecutionStatus::Completed,
        RunOutcome::Failed(failure) => {
            assert_ne!(failure.kind, FailureKind::Diverged, "6: {failure:?} in {records:#?}");
            ExecutionStatus::Failed
        }
        RunOutcome::Cancelled { .. } => ExecutionStatus::Cancelled,
    };
    assert_eq!(view.status, status, "{view:#?}");

    for step in run.steps().iter().filter(|step| step.call.kind() == StepKind::Step) {
        let own: Vec<&Body> =
            seen.began.iter().filter(|body| body.run == view.run && body.key == step.key).collect();
        if step.kept_from.is_some() {
            assert!(own.is_empty(), "2: {} was kept, and ran again: {own:#?} {step:#?}", step.key);
            continue;
        }
        let StepState::Completed(result) = &step.state else { continue };
        if step.resolved.is_some() {
            continue;
        }
        // What a start did that came to nothing, since it had been made before, is seen by nobody.
        let recorded = result.to_value().and_then(|value| value["nonce"].as_str().map(str::to_owned));
        let counts =
            |body: &&&Body| seen.let_out.contains(&body.instance) || recorded == Some(body.nonce.to_string());
        let last = own.iter().rfind(counts);
        let last = last.unwrap_or_else(|| panic!("2: {} never ran: {step:#?}", step.key));
        assert_eq!(
            recorded,
            Some(last.nonce.to_string()),
            "2: {} ran again after it had completed: {own:#?} {step:#?}",
            step.key
        );
        let recorded = step.attempts.last().expect("an attempt");
        assert_eq!((recorded.number, &recorded.state), (last.attempt, &AttemptState::Completed), "{step:#?}");
    }
    cancels
}

/// 5: each event is consumed at most once, in the order of their coming.
fn check_events(world: &World, execution: &ExecutionId, runs: &[RunView]) {
    let sent = world.seen().sent.remove(execution).unwrap_or_default();
    let place: BTreeMap<String, usize> =
        sent.iter().enumerate().map(|(place, sent)| (sent.token.to_string(), place)).collect();
    let mut last = None;
    let mut consumed = BTreeSet::new();
    for run in runs {
        let (_, records) = now(world.1.journal(&run.run)).expect("it has a journal");
        for record in records {
            let Record::EventConsumed { event, payload, .. } = record else { continue };
            // Not one that was on its way and got lost.
            assert_eq!(world.1.event(event).map(|event| event.payload), Some(payload.clone()), "5: not sent");
            let token = text(&payload);
            let this = place[&token];
            assert!(last.is_none_or(|last| last < this), "5: out of order or twice: {token}");
            last = Some(this);
            consumed.insert(this);
        }
    }
    // None that was acknowledged was passed over.
    for (at, sent) in sent.iter().enumerate().filter(|(at, _)| last.is_some_and(|last| *at < last)) {
        assert!(!sent.acknowledged || consumed.contains(&at), "5: lost: {sent:?}");
    }
}

fn check_audit(world: &World) {
    let mut chain = Chain::default();
    for view in now(world.1.audit_after(0, u32::MAX)) {
        chain.follow(view.number, &view.entry, &view.hash).expect("the trail is whole");
    }
}

fn text(json: &Json) -> String {
    json.to_value().and_then(|value| value.as_str().map(str::to_owned)).expect("a text")
}

/// The reference model never waits.
fn now<T, E: std::fmt::Debug>(answer: impl Future<Output = Result<T, E>>) -> T {
    answer.now_or_never().expect("it answers at once").expect("it answers")
}
