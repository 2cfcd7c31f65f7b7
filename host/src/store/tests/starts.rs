//! Starting executions: each test is told of a store, and holds on every one.

use std::sync::Arc;

use futures_util::future::join_all;
use stepbox_domain::{Digest, ExecutionStatus};

use super::given::audit;
use super::given::*;
use crate::store::*;

on_every_store!(
    a_start_is_new_once_and_a_replay_afterwards,
    of_a_thousand_identical_starts_one_is_new,
    of_concurrent_starts_with_two_payloads_one_wins,
    an_id_that_is_taken_by_another_start_is_a_clash,
    a_start_can_be_claimed_at_once,
    a_start_on_a_version_that_is_gone_leaves_nothing_behind,
);

async fn a_start_is_new_once_and_a_replay_afterwards(store: Arc<dyn Store>) {
    with_order(&store).await;
    let new = store.create_execution(start("a", "order", r#"{"n": 1, "m":2}"#)).await.unwrap();
    let Creation::New { execution, run, claimed: None } = new else { panic!("{new:?}") };
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
    let new = NewExecution { claim: true, deadline: Some(at(60_000)), ..start("a", "order", "{}") };
    let creation = store.create_execution(new).await.unwrap();
    let Creation::New { execution, run, claimed: Some(claimed) } = creation else { panic!("{creation:?}") };
    assert_eq!(execution.status, ExecutionStatus::Running);
    assert_eq!(execution, view(&store, "a").await);
    assert_eq!(claimed.claim.run, run);
    assert_eq!(claimed.digest, Digest::of(b"order 1"));
    let (facts, records) = store.journal(&execution.run).await.unwrap().unwrap();
    assert_eq!((&facts, records.len()), (&claimed.facts, 0));
    assert_eq!(store.claim(run, at(1_100)).await.unwrap(), None);
    store.commit(recording(claimed.claim, 0, vec![step_ran("s")])).await.unwrap();
}

async fn a_start_on_a_version_that_is_gone_leaves_nothing_behind(store: Arc<dyn Store>) {
    with_order(&store).await;
    for new in [start("a", "refund", "{}"), NewExecution { version: 2, ..start("a", "order", "{}") }] {
        for claim in [false, true] {
            let error = store.create_execution(NewExecution { claim, ..new.clone() }).await.unwrap_err();
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
