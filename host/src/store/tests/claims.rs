//! Claims, commits and how runs end.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use stepbox_domain::{
    Digest, ExecutionStatus, Failure, FailureKind, RunId,
    journal::Record,
    run::{RunFacts, Wait},
};

use super::given::*;
use super::given::{audit, trouble};
use crate::store::*;

on_every_store!(
    a_claim_brings_all_that_is_needed_to_go_on,
    a_run_has_one_holder,
    of_concurrent_claims_one_holds,
    records_come_back_in_their_order,
    an_end_comes_with_as_many_records_as_there_are,
    a_claim_reads_what_is_not_known_of_a_journal,
    commits_of_one_run_that_come_at_once_keep_their_order,
    commits_of_many_runs_come_at_once,
    an_older_claim_cannot_write,
    a_lost_claim_in_a_crowd_writes_nothing_and_harms_nobody,
    a_released_run_cannot_be_written,
    what_follows_a_release_in_the_same_moment_is_lost,
    a_record_in_the_place_of_another_is_refused_and_harms_nobody,
    a_wait_shows_until_it_is_over,
    a_completed_run_is_over,
    a_failed_run_is_over,
    cancel_is_final_at_its_answer,
    cancel_of_what_is_over_or_unknown_says_so,
    cancel_against_a_stream_of_commits_leaves_a_whole_journal,
    a_journal_is_found_by_the_exact_id_of_its_run,
    a_ping_is_answered,
    a_closed_store_says_so,
);

async fn a_claim_reads_what_is_not_known_of_a_journal(store: Arc<dyn Store>) {
    with_order(&store).await;
    let mut claim = claimed(&store, "a").await;
    let mut records: Vec<Record> = (0..100).map(|number| captured(&number.to_string())).collect();
    // Large ones are read by themselves.
    for large in [0, 40, 63] {
        records[large] = captured(&format!("\"{}:é\"", "x".repeat(100_000 + large)));
    }
    let all = recording(claim, 0, records.clone());
    store.commit(Commit { release: true, ..all }).await.unwrap();
    for known in [0, 1, 31, 32, 33, 99, 100, 1_000] {
        let claimed = store.claim_from(claim.run, at(2_000), known).await.unwrap().unwrap();
        let there = known.min(100);
        assert_eq!((claimed.known, &claimed.records[..]), (there, &records[there as usize..]));
        claim = claimed.claim;
        let at_go = standing(claim, 100, at_event("go", None));
        store.commit(Commit { release: true, ..at_go }).await.unwrap();
    }
    // And so does an event that takes hold of it.
    let asked = Arc::new(Mutex::new(None));
    let asks = asked.clone();
    let known: Known = Arc::new(move |run| {
        *asks.lock().unwrap() = Some(run);
        40
    });
    let event = NewEvent { claim: Some(known), ..new_event("a", "go", "1") };
    let added = store.add_event(event).await.unwrap();
    let EventAdded::Added { taken: Taken::Held(claimed), .. } = added else { panic!("{added:?}") };
    assert_eq!((claimed.known, &claimed.records[..]), (40, &records[40..]));
    assert_eq!(*asked.lock().unwrap(), Some(claim.run));
}

async fn a_claim_brings_all_that_is_needed_to_go_on(store: Arc<dyn Store>) {
    with_order(&store).await;
    let new = NewExecution { deadline: Some(at(70_000)), ..start("a", "order", r#"{"n":1}"#) };
    let Creation::New { run, .. } = store.create_execution(new).await.unwrap() else { panic!() };
    send(&store, "a", "early", "1").await;
    let first = store.claim(run, at(1_100)).await.unwrap().unwrap();
    assert_eq!(view(&store, "a").await.status, ExecutionStatus::Running);
    let commit = Commit { release: true, ..recording(first.claim, 0, vec![step_ran("s"), captured("1")]) };
    store.commit(commit).await.unwrap();

    let second = store.claim(run, at(1_200)).await.unwrap().unwrap();
    assert!(second.claim.epoch > first.claim.epoch);
    let facts = RunFacts {
        run: RunId::new(&id("a"), 0),
        execution: id("a"),
        index: 0,
        task: task("order"),
        version: 1,
        created_at: at(1_000),
        deadline: Some(at(70_000)),
    };
    assert_eq!(second.facts, facts);
    assert_eq!(second.payload.as_str(), r#"{"n":1}"#);
    assert_eq!(second.digest, Digest::of(b"order 1"));
    assert_eq!(second.records, [step_ran("s"), captured("1")]);
    assert_eq!(told(&second.events), [(1, "early 1".to_owned())]);
    assert_eq!(second.events[0].received_at, at(2_000));
    assert_eq!(second.crashes, 0);
}

async fn a_run_has_one_holder(store: Arc<dyn Store>) {
    with_order(&store).await;
    let run = scheduled(&store, "a").await;
    let first = store.claim(run, at(1)).await.unwrap().unwrap();
    assert_eq!(store.claim(run, at(2)).await.unwrap(), None);
    store.commit(releasing(first.claim, 0)).await.unwrap();
    assert!(store.claim(run, at(3)).await.unwrap().is_some());
    assert_eq!(store.claim(RunKey(999), at(4)).await.unwrap(), None);
}

async fn of_concurrent_claims_one_holds(store: Arc<dyn Store>) {
    with_order(&store).await;
    let mut runs = vec![];
    for n in 0..30 {
        runs.push(scheduled(&store, &format!("e{n}")).await);
    }
    let claims = join_all((0..300).map(|n| store.claim(runs[n % 30], at(1)))).await;
    let held: std::collections::HashSet<_> =
        claims.into_iter().filter_map(|claim| Some(claim.unwrap()?.claim.run)).collect();
    assert_eq!(held.len(), 30);
    assert_eq!(store.counts().await.unwrap(), Counts { running: 30, ..Counts::default() });
}

async fn records_come_back_in_their_order(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let records: Vec<_> = (0..700).map(|n| captured(&n.to_string())).collect();
    let mut number = 0;
    for size in [1, 2, 3, 5, 16, 17, 64, 65, 256, 271] {
        let chunk = records[number..number + size].to_vec();
        store.commit(recording(claim, number as u64, chunk)).await.unwrap();
        number += size;
    }
    assert_eq!(number, records.len());
    assert_eq!(journal(&store, "a").await, records);
}

async fn an_end_comes_with_as_many_records_as_there_are(store: Arc<dyn Store>) {
    with_order(&store).await;
    for size in [1, 16, 17, 64, 65, 300] {
        let name = format!("of-{size}");
        let claim = claimed(&store, &name).await;
        let records: Vec<_> = (0..size).map(|n| captured(&n.to_string())).collect();
        let end = Commit { standing: Some(completed("1", 5)), ..recording(claim, 0, records.clone()) };
        store.commit(end).await.unwrap();
        assert_eq!(journal(&store, &name).await, records);
        assert_eq!(view(&store, &name).await.status, ExecutionStatus::Completed);
    }
}

async fn commits_of_one_run_that_come_at_once_keep_their_order(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let records: Vec<_> = (0..200).map(|n| captured(&n.to_string())).collect();
    let wait = |n: usize| Standing::Open {
        waiting: Some(Wait::Sleep { step: key("s"), until: at(n as i64) }),
        due: Some(at(n as i64)),
    };
    let commits = records.iter().enumerate().map(|(n, record)| {
        let commit = recording(claim, n as u64, vec![record.clone()]);
        store.commit(Commit { standing: Some(wait(n)), ..commit })
    });
    for result in join_all(commits).await {
        result.unwrap();
    }
    assert_eq!(journal(&store, "a").await, records);
    assert_eq!(view(&store, "a").await.waiting.unwrap().until(), Some(at(199)), "the last word counts");
}

async fn commits_of_many_runs_come_at_once(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claims = join_all((0..300).map(|n| {
        let store = store.clone();
        async move { claimed(&store, &format!("e{n}")).await }
    }))
    .await;
    for round in 0..3 {
        let commits = claims.iter().map(|claim| {
            store.commit(recording(*claim, round * 2, vec![captured("1"), captured(&round.to_string())]))
        });
        join_all(commits).await.into_iter().for_each(|result| result.unwrap());
    }
    let ends = claims.iter().enumerate().map(|(n, claim)| {
        let end = Standing::Completed { result: json(&n.to_string()), at: at(9) };
        store.commit(Commit { standing: Some(end), ..recording(*claim, 6, vec![captured("2")]) })
    });
    join_all(ends).await.into_iter().for_each(|result| result.unwrap());
    assert_eq!(store.counts().await.unwrap(), Counts { completed: 300, ..Counts::default() });
    for n in [0, 17, 299] {
        assert_eq!(journal(&store, &format!("e{n}")).await.len(), 7);
        assert_eq!(view(&store, &format!("e{n}")).await.result.unwrap().as_str(), n.to_string());
    }
}

/// Invariant 3.
async fn an_older_claim_cannot_write(store: Arc<dyn Store>) {
    with_order(&store).await;
    let old = claimed(&store, "a").await;
    store.commit(releasing(old, 0)).await.unwrap();
    let new = store.claim(old.run, at(2)).await.unwrap().unwrap().claim;
    let events_before = send(&store, "a", "e", "1").await;
    assert!(matches!(events_before, EventAdded::Added { .. }));
    assert_lost(store.commit(recording(old, 0, vec![step_ran("s")])).await);
    assert_lost(store.commit(standing(old, 0, completed("1", 5))).await);
    assert_lost(store.commit(releasing(old, 0)).await);
    assert_lost(store.commit(commit(old, 0)).await);
    assert_lost(store.commit(Commit { consumed: vec![1], ..commit(old, 0) }).await);
    assert_eq!(journal(&store, "a").await, []);
    assert_eq!(store.events_after(new.run, 0).await.unwrap().len(), 1);
    store.commit(recording(new, 0, vec![step_ran("s")])).await.unwrap();
    store.commit(commit(new, 1)).await.unwrap();
}

async fn a_lost_claim_in_a_crowd_writes_nothing_and_harms_nobody(store: Arc<dyn Store>) {
    with_order(&store).await;
    let mut claims = vec![];
    for n in 0..60 {
        let claim = claimed(&store, &format!("e{n}")).await;
        if n % 3 == 0 {
            store.commit(releasing(claim, 0)).await.unwrap();
            store.claim(claim.run, at(2)).await.unwrap().unwrap();
        }
        claims.push(claim);
    }
    let commits = claims.iter().enumerate().map(|(n, claim)| {
        let records = if n % 2 == 0 { vec![captured("1"), captured("2")] } else { vec![] };
        let standing = Some(Standing::Completed { result: json("1"), at: at(7) });
        store.commit(Commit { standing, ..recording(*claim, 0, records) })
    });
    for (n, result) in join_all(commits).await.into_iter().enumerate() {
        if n % 3 == 0 { assert_lost(result) } else { result.unwrap() }
    }
    for n in 0..60 {
        let name = format!("e{n}");
        let (status, length) = match (n % 3 == 0, n % 2 == 0) {
            (true, _) => (ExecutionStatus::Running, 0),
            (false, true) => (ExecutionStatus::Completed, 2),
            (false, false) => (ExecutionStatus::Completed, 0),
        };
        assert_eq!(view(&store, &name).await.status, status, "{name}");
        assert_eq!(journal(&store, &name).await.len(), length, "{name}");
    }
}

async fn a_released_run_cannot_be_written(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let release = Commit { release: true, ..recording(claim, 0, vec![step_ran("s")]) };
    store.commit(release).await.unwrap();
    assert_lost(store.commit(recording(claim, 1, vec![step_ran("t")])).await);
    assert_lost(store.commit(standing(claim, 1, completed("1", 5))).await);
    assert_eq!(journal(&store, "a").await.len(), 1);
}

async fn what_follows_a_release_in_the_same_moment_is_lost(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let (first, second, third) = tokio::join!(
        store.commit(recording(claim, 0, vec![step_ran("s")])),
        store.commit(Commit { release: true, ..recording(claim, 1, vec![step_ran("t")]) }),
        store.commit(recording(claim, 2, vec![step_ran("u")])),
    );
    first.unwrap();
    second.unwrap();
    assert_lost(third);
    assert_eq!(journal(&store, "a").await.len(), 2);
}

async fn a_record_in_the_place_of_another_is_refused_and_harms_nobody(store: Arc<dyn Store>) {
    with_order(&store).await;
    let (a, b) = (claimed(&store, "a").await, claimed(&store, "b").await);
    store.commit(recording(a, 0, vec![step_ran("s")])).await.unwrap();
    let (good, bad, later) = tokio::join!(
        store.commit(recording(b, 0, vec![captured("1")])),
        store.commit(recording(a, 0, vec![captured("2")])),
        store.commit(recording(b, 1, vec![captured("3")])),
    );
    good.unwrap();
    assert_corrupt(bad);
    later.unwrap();
    assert_corrupt(store.commit(recording(a, 0, vec![captured("2")])).await);
    assert_eq!(journal(&store, "a").await, [step_ran("s")]);
    assert_eq!(journal(&store, "b").await, [captured("1"), captured("3")]);
}

async fn a_wait_shows_until_it_is_over(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let wait = Wait::Sleep { step: key("nap"), until: at(5_000) };
    let open = Standing::Open { waiting: Some(wait.clone()), due: Some(at(5_000)) };
    store.commit(Commit { release: true, ..standing(claim, 0, open) }).await.unwrap();
    let shown = view(&store, "a").await;
    assert_eq!((shown.status, shown.waiting), (ExecutionStatus::Running, Some(wait)));

    let claim = store.claim(claim.run, at(5_000)).await.unwrap().unwrap().claim;
    assert!(view(&store, "a").await.waiting.is_some());
    store.commit(standing(claim, 0, Standing::Open { waiting: None, due: None })).await.unwrap();
    assert_eq!(view(&store, "a").await.waiting, None);
}

async fn a_completed_run_is_over(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    store.commit(standing(claim, 0, at_event("e", None))).await.unwrap();
    let end = Record::RunCompleted { result: json("[1]"), at: at(3_000) };
    let commit = Commit { standing: Some(completed("[1]", 3_000)), ..recording(claim, 0, vec![end.clone()]) };
    store.commit(commit).await.unwrap();
    let shown = view(&store, "a").await;
    assert_eq!(shown.status, ExecutionStatus::Completed);
    assert_eq!((shown.completed_at, shown.result, shown.waiting), (Some(at(3_000)), Some(json("[1]")), None));
    assert_lost(store.commit(recording(claim, 1, vec![step_ran("s")])).await);
    assert_eq!(store.claim(claim.run, at(4_000)).await.unwrap(), None);
    assert_eq!(journal(&store, "a").await, [end]);
}

async fn a_failed_run_is_over(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let failure = Failure::new(FailureKind::Trapped, "unreachable\n\"quoted\"").of_step(key("s#2"), 3);
    let failed = Standing::Failed { failure: failure.clone(), trouble: trouble(), at: at(3_000) };
    let end = Record::RunFailed { failure: failure.clone(), at: at(3_000) };
    store.commit(Commit { standing: Some(failed), ..recording(claim, 0, vec![end]) }).await.unwrap();
    let shown = view(&store, "a").await;
    assert_eq!((shown.status, shown.error, shown.result), (ExecutionStatus::Failed, Some(failure), None));
    assert_lost(store.commit(releasing(claim, 1)).await);
}

/// Invariant 4.
async fn cancel_is_final_at_its_answer(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    store.commit(recording(claim, 0, vec![step_ran("s")])).await.unwrap();
    store.commit(standing(claim, 1, at_event("e", None))).await.unwrap();
    let cancel = store.cancel(&id("a"), Some("ann"), at(3_000), audit()).await.unwrap();
    assert_eq!(cancel, Cancel::Cancelled(claim.run));
    assert_lost(store.commit(recording(claim, 1, vec![step_ran("t")])).await);
    assert_lost(store.commit(standing(claim, 1, completed("1", 5))).await);
    assert_eq!(store.claim(claim.run, at(4_000)).await.unwrap(), None);
    let shown = view(&store, "a").await;
    assert_eq!(
        (shown.status, shown.completed_at, shown.waiting),
        (ExecutionStatus::Cancelled, Some(at(3_000)), None)
    );
    let end = Record::RunCancelled { by: Some("ann".to_owned()), at: at(3_000) };
    assert_eq!(journal(&store, "a").await, [step_ran("s"), end]);
    assert_eq!(store.recover().await.unwrap(), []);
}

async fn cancel_of_what_is_over_or_unknown_says_so(store: Arc<dyn Store>) {
    with_order(&store).await;
    scheduled(&store, "a").await;
    let cancel =
        async |execution: &str| store.cancel(&id(execution), None, at(3_000), audit()).await.unwrap();
    assert!(matches!(cancel("a").await, Cancel::Cancelled(_)));
    assert_eq!(cancel("a").await, Cancel::AlreadyOver(ExecutionStatus::Cancelled));
    let claim = claimed(&store, "b").await;
    store.commit(standing(claim, 0, completed("1", 5))).await.unwrap();
    assert_eq!(cancel("b").await, Cancel::AlreadyOver(ExecutionStatus::Completed));
    assert_eq!(cancel("c").await, Cancel::NoSuchExecution);
    assert_eq!(journal(&store, "a").await, [Record::RunCancelled { by: None, at: at(3_000) }]);
}

async fn cancel_against_a_stream_of_commits_leaves_a_whole_journal(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let writer = store.clone();
    // Four under way at a time, one after the other in their order.
    let stream = tokio::spawn(async move {
        for first in (0..100_000).step_by(4) {
            tokio::task::yield_now().await;
            let four = (first..first + 4).map(|n| writer.commit(recording(claim, n, vec![captured("1")])));
            let written = join_all(four).await.iter().take_while(|result| result.is_ok()).count() as u64;
            if written < 4 {
                return first + written;
            }
        }
        panic!("the claim was not lost")
    });
    while journal(&store, "a").await.len() < 20 {
        tokio::task::yield_now().await;
    }
    store.cancel(&id("a"), None, at(3_000), audit()).await.unwrap();
    let answered = journal(&store, "a").await;
    let written = stream.await.unwrap();
    assert_eq!(answered.len() as u64, written + 1, "nothing is recorded after the answer");
    assert!(matches!(answered.last(), Some(Record::RunCancelled { .. })));
    assert_eq!(journal(&store, "a").await, answered);
}

async fn a_journal_is_found_by_the_exact_id_of_its_run(store: Arc<dyn Store>) {
    with_order(&store).await;
    claimed(&store, "a:run:0").await;
    let find = async |run: &str| store.journal(&RunId::parse(run).unwrap()).await.unwrap().is_some();
    assert!(find("a:run:0:run:0").await);
    for unknown in
        ["a:run:0", "a:run:0:run:1", "a:run:0:run:00", "a:run:0:run:+0", "a:run:0:run:x", "nothing"]
    {
        assert!(!find(unknown).await, "{unknown}");
    }
}

async fn a_ping_is_answered(store: Arc<dyn Store>) {
    store.ping().await.unwrap();
}

async fn a_closed_store_says_so(store: Arc<dyn Store>) {
    with_order(&store).await;
    store.close().await;
    store.close().await;
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    let start = store.create_execution(start("a", "order", "{}")).await;
    assert!(matches!(start, Err(StoreError::Unavailable(_))));
}
