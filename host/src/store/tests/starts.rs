//! Starting executions: each test is told of a store, and holds on every one.

use std::sync::Arc;

use futures_util::future::join_all;
use stepbox_domain::{ExecutionStatus, Failure, FailureKind, journal::Record};

use super::given::audit;
use super::given::*;
use crate::store::*;

on_every_store!(
    a_start_is_new_once_and_a_replay_afterwards,
    of_a_thousand_identical_starts_one_is_new,
    of_concurrent_starts_with_two_payloads_one_wins,
    an_id_that_is_taken_by_another_start_is_a_clash,
    a_start_can_be_claimed_at_once,
    a_start_takes_along_what_its_run_has_come_to,
    a_start_on_a_version_that_is_gone_leaves_nothing_behind,
);

async fn a_start_is_new_once_and_a_replay_afterwards(store: Arc<dyn Store>) {
    with_order(&store).await;
    let new = store.create_execution(start("a", "order", r#"{"n": 1, "m":2}"#)).await.unwrap();
    let Creation::New { execution, run } = new else { panic!("{new:?}") };
    assert_eq!(execution.payload.as_str(), r#"{"n": 1, "m":2}"#);
    assert_eq!((execution.status, execution.scheduled_at), (ExecutionStatus::Scheduled, at(1_000)));
    assert_eq!((execution.run.as_str(), execution.run_key), ("a:run:0", run));
    assert_eq!(view(&store, "a").await, execution);

    let again = store.create_execution(start("a", "order", r#"{"m":2,"n":1}"#)).await.unwrap();
    assert_eq!(again, Creation::Replay(execution));

    let claim = store.claim(run, at(1_100)).await.unwrap().unwrap().claim;
    store.commit(standing(claim, 0, completed("3", 2_000))).await.unwrap();
    let finished = store.create_execution(start("a", "order", r#"{"m":2,"n":1}"#)).await.unwrap();
    assert_eq!(finished, Creation::Replay(view(&store, "a").await));
    assert_eq!(view(&store, "a").await.status, ExecutionStatus::Completed);
}

async fn of_a_thousand_identical_starts_one_is_new(store: Arc<dyn Store>) {
    with_order(&store).await;
    let starts = (0..1_000).map(|_| store.create_execution(start("a", "order", "[1]")));
    let mut new = 0;
    for creation in join_all(starts).await {
        match creation.unwrap() {
            Creation::New { .. } => new += 1,
            Creation::Replay(view) => assert_eq!((view.id.as_str(), view.payload.as_str()), ("a", "[1]")),
            Creation::Clash { .. } => panic!("a clash"),
        }
    }
    assert_eq!(new, 1);
    assert_eq!(store.counts().await.unwrap().scheduled, 1);
}

async fn of_concurrent_starts_with_two_payloads_one_wins(store: Arc<dyn Store>) {
    with_order(&store).await;
    let starts =
        (0..100).map(|n| store.create_execution(start("a", "order", if n % 2 == 0 { "1" } else { "2" })));
    let creations: Vec<_> = join_all(starts).await.into_iter().map(Result::unwrap).collect();
    let count = |of: fn(&Creation) -> bool| creations.iter().filter(|creation| of(creation)).count();
    assert_eq!(count(|creation| matches!(creation, Creation::New { .. })), 1);
    assert_eq!(count(|creation| matches!(creation, Creation::Replay(_))), 49);
    assert_eq!(count(|creation| matches!(creation, Creation::Clash { .. })), 50);
}

async fn an_id_that_is_taken_by_another_start_is_a_clash(store: Arc<dyn Store>) {
    with_order(&store).await;
    store.add_version(upload("refund", b"refund 1"), audit()).await.unwrap();
    scheduled(&store, "a").await;
    for other in [start("a", "order", "{ }x".trim_end_matches('x')), start("a", "order", "{}")] {
        assert!(matches!(store.create_execution(other).await.unwrap(), Creation::Replay(_)));
    }
    for other in [start("a", "order", "[]"), start("a", "refund", "{}")] {
        let clash = store.create_execution(other).await.unwrap();
        assert_eq!(clash, Creation::Clash { task: task("order") });
    }
}

async fn a_start_can_be_claimed_at_once(store: Arc<dyn Store>) {
    with_order(&store).await;
    let new = NewExecution { deadline: Some(at(60_000)), ..start("a", "order", "{}") };
    let key = store.new_run();
    let creation = store.create_execution(held(new, key, None)).await.unwrap();
    let Creation::New { execution, run } = creation else { panic!("{creation:?}") };
    assert_eq!(execution.status, ExecutionStatus::Running);
    assert_eq!(execution, view(&store, "a").await);
    assert_eq!(run, key);
    let (facts, records) = store.journal(&execution.run).await.unwrap().unwrap();
    assert_eq!((facts.deadline, records.len()), (Some(at(60_000)), 0));
    assert_eq!(store.claim(run, at(1_100)).await.unwrap(), None);
    store.commit(recording(Claim::first(run), 0, vec![step_ran("s")])).await.unwrap();
}

async fn a_start_takes_along_what_its_run_has_come_to(store: Arc<dyn Store>) {
    with_order(&store).await;
    let failure = Failure::new(FailureKind::Error, "no");
    let failed = Standing::Failed { failure: failure.clone(), trouble: trouble(), at: at(1_500) };
    let many = (0..100).map(|n| step_ran(&format!("s{n}"))).collect();
    let come_to: Vec<(&str, Vec<Record>, Option<Standing>, bool)> = vec![
        ("went-on", vec![step_ran("s")], None, false),
        ("done", vec![step_ran("s"), captured("[1]")], Some(completed("[3]", 1_500)), true),
        ("failed", vec![Record::RunFailed { failure, at: at(1_500) }], Some(failed), true),
        ("sleeps", vec![], Some(at_event("x", Some(9_000))), true),
        ("parked", vec![], Some(at_event("x", Some(9_000))), false),
        ("let-go", vec![], None, true),
        ("long", many, Some(completed("[4]", 1_500)), true),
    ];
    // One after the other, and all at once.
    for round in ["alone", "together"] {
        let make = async |(name, records, standing, release): (&str, Vec<Record>, Option<Standing>, bool)| {
            let id = format!("{name}-{round}");
            // The same in two steps.
            let twin = claimed(&store, &format!("{id}-twin")).await;
            let come_to = |claim| Commit {
                standing: standing.clone(),
                release,
                ..recording(claim, 0, records.clone())
            };
            store.commit(come_to(twin)).await.unwrap();
            let run = store.new_run();
            let new = held(start(&id, "order", "{}"), run, Some(come_to(Claim::first(run))));
            let created = store.create_execution(new.clone()).await.unwrap();
            let Creation::New { execution, .. } = created else { panic!("{created:?}") };
            assert_eq!(execution, view(&store, &id).await);
            // A second one changes nothing, whatever it has come to.
            let other = store.new_run();
            let again = held(start(&id, "order", "{}"), other, Some(come_to(Claim::first(other))));
            let again = store.create_execution(again).await.unwrap();
            assert_eq!(again, Creation::Replay(execution.clone()));
            let lost = store.commit(recording(Claim::first(other), 0, vec![step_ran("late")])).await;
            assert!(matches!(lost, Err(StoreError::ClaimLost)), "{lost:?}");

            let twin = view(&store, &format!("{id}-twin")).await;
            let stands = |view: &ExecutionView| {
                (
                    view.status,
                    view.completed_at,
                    view.result.clone(),
                    view.error.clone(),
                    view.waiting.clone(),
                )
            };
            assert_eq!(stands(&execution), stands(&twin), "{id}");
            let journal = store.journal(&execution.run).await.unwrap().unwrap().1;
            assert_eq!(journal, records, "{id}");
            // And so it goes on, or does not.
            let next = async |run| {
                let more = recording(Claim::first(run), records.len() as u64, vec![step_ran("more")]);
                let more = store.commit(more).await.is_ok();
                let claimed = store.claim(run, at(2_000)).await.unwrap();
                (more, claimed.map(|claimed| (claimed.records, claimed.crashes, claimed.claim.epoch)))
            };
            assert_eq!(next(run).await, next(twin.run_key).await, "{id}");
        };
        match round {
            "alone" => {
                for what in come_to.clone() {
                    make(what).await;
                }
            }
            _ => _ = join_all(come_to.iter().cloned().map(make)).await,
        }
    }
    let of_status = |status| ExecutionFilter { status: Some(status), ..ExecutionFilter::default() };
    let page = Page { sort: Sort::ScheduledAt, descending: true, limit: 100, offset: 0 };
    let (_, failed) = store.executions(&of_status(ExecutionStatus::Failed), page).await.unwrap();
    assert_eq!(failed, 4);
    assert_eq!(store.counts().await.unwrap().completed, 8);
}

async fn a_start_on_a_version_that_is_gone_leaves_nothing_behind(store: Arc<dyn Store>) {
    with_order(&store).await;
    for new in [start("a", "refund", "{}"), NewExecution { version: 2, ..start("a", "order", "{}") }] {
        for new in [new.clone(), held(new, store.new_run(), None)] {
            let error = store.create_execution(new).await.unwrap_err();
            assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
        }
    }
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    // In company, too.
    let (good, bad) = tokio::join!(
        store.create_execution(start("b", "order", "{}")),
        store.create_execution(start("a", "refund", "{}")),
    );
    assert!(matches!(good.unwrap(), Creation::New { .. }));
    assert!(matches!(bad, Err(StoreError::Unavailable(_))));
    assert_eq!(store.counts().await.unwrap().scheduled, 1);
}
