//! What is sent to executions.

use std::sync::{Arc, Mutex};

use futures_util::future::join_all;
use stepbox_domain::{ExecutionStatus, journal::Record};
use tempfile::TempDir;

use super::given::*;
use crate::store::*;

on_every_store!(
    events_come_back_in_the_order_of_their_arrival,
    an_event_is_awaited_only_by_the_wait_that_it_answers,
    an_event_knows_its_number_and_what_lies_unconsumed_before_it,
    an_event_takes_hold_of_the_run_that_stands_at_it,
    an_event_is_known_before_it_is_there,
    an_event_is_consumed_once,
    an_event_of_another_execution_cannot_be_consumed,
    events_for_what_is_over_or_unknown_are_refused,
);

/// Invariant 5.
async fn events_come_back_in_the_order_of_their_arrival(store: Arc<dyn Store>) {
    with_order(&store).await;
    let (a, b) = (scheduled(&store, "a").await, scheduled(&store, "b").await);
    for (execution, event, payload) in [("a", "x", "1"), ("b", "x", "2"), ("a", "y", "3"), ("a", "x", "1")] {
        assert!(matches!(
            send(&store, execution, event, payload).await,
            EventAdded::Added { awaited: false, .. }
        ));
    }
    let all = told(&store.events_after(a, 0).await.unwrap());
    assert_eq!(all, [(1, "x 1".to_owned()), (3, "y 3".to_owned()), (4, "x 1".to_owned())]);
    assert_eq!(told(&store.events_after(a, 3).await.unwrap()), [(4, "x 1".to_owned())]);
    assert_eq!(store.events_after(b, 0).await.unwrap().len(), 1);
    assert_eq!(store.events_after(RunKey(999), 0).await.unwrap(), []);

    // At once, and more than one statement holds.
    join_all((0..300).map(|n| send_to(&store, n))).await;
    let many = store.events_after(b, 4).await.unwrap();
    assert_eq!(many.len(), 300);
    assert!(many.windows(2).all(|pair| pair[0].seq < pair[1].seq));
    let payloads: Vec<_> = many.iter().map(|event| event.payload.to_string()).collect();
    assert_eq!(payloads, (0..300).map(|n| n.to_string()).collect::<Vec<_>>());
}

async fn send_to(store: &Arc<dyn Store>, n: usize) {
    send(store, "b", "many", &n.to_string()).await;
}

async fn an_event_is_awaited_only_by_the_wait_that_it_answers(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let run = claim.run;
    let send = async |event: &str, payload: &str| match send(&store, "a", event, payload).await {
        EventAdded::Added { run: to, awaited, .. } if to == run => awaited,
        other => panic!("{other:?}"),
    };
    assert!(!send("early", "1").await, "nobody waits yet");
    store.commit(standing(claim, 0, at_event("approval", None))).await.unwrap();
    assert!(!send("early", "1").await, "another name");
    assert!(send("approval", "1").await);
    assert!(!send("approval", "1").await, "the one before answers it");

    store
        .commit(Commit { consumed: vec![3], ..standing(claim, 0, at_event("other", Some(1_999))) })
        .await
        .unwrap();
    assert!(!send("other", "1").await, "too late: it comes at 2,000");
    store.commit(standing(claim, 0, at_event("third", Some(2_000)))).await.unwrap();
    assert!(send("third", "1").await, "just in time");
    store.commit(standing(claim, 0, Standing::Open { waiting: None, due: None })).await.unwrap();
    assert!(!send("third", "1").await, "nobody waits any more");

    // Two at once: one of them answers.
    store.commit(standing(claim, 0, at_event("fourth", None))).await.unwrap();
    let (one, two) = tokio::join!(send("fourth", "1"), send("fourth", "2"));
    assert!(one != two, "{one} {two}");
}

async fn an_event_knows_its_number_and_what_lies_unconsumed_before_it(store: Arc<dyn Store>) {
    with_order(&store).await;
    let (claim, _) = (claimed(&store, "a").await, claimed(&store, "b").await);
    let place = |added: &EventAdded| match added {
        EventAdded::Added { seq, after, .. } => (*seq, *after),
        other => panic!("{other:?}"),
    };
    assert_eq!(place(&send(&store, "a", "x", "1").await), (1, 0));
    send(&store, "b", "x", "1").await;
    assert_eq!(place(&send(&store, "a", "y", "1").await), (3, 1));
    assert_eq!(send(&store, "nobody", "x", "1").await, EventAdded::NoSuchExecution);
    store.commit(Commit { consumed: vec![3], ..commit(claim, 0) }).await.unwrap();
    assert_eq!(place(&send(&store, "a", "x", "1").await), (4, 1), "no number is passed over");
    store.commit(Commit { consumed: vec![1, 4], ..commit(claim, 0) }).await.unwrap();

    // Those that come together too.
    let to = |n: usize| if n.is_multiple_of(2) { "a" } else { "b" };
    let added = join_all((0..20).map(|n| send(&store, to(n), "x", "1"))).await;
    let all: Vec<_> = added.iter().enumerate().map(|(n, added)| (to(n), added)).collect();
    for execution in ["a", "b"] {
        let mut before = if execution == "a" { 0 } else { 2 };
        let mut places: Vec<_> =
            all.iter().filter(|(of, _)| *of == execution).map(|(_, added)| place(added)).collect();
        places.sort_unstable();
        for (seq, after) in places {
            assert_eq!(after, before);
            before = seq;
        }
    }
}

async fn an_event_takes_hold_of_the_run_that_stands_at_it(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let send = async |name: &str, claim: bool| match store
        .add_event(NewEvent { claim: knowing(0).filter(|_| claim), ..new_event("a", name, "1") })
        .await
        .unwrap()
    {
        EventAdded::Added { taken: Taken::Held(claimed), .. } => Some(claimed),
        EventAdded::Added { taken: Taken::Not, .. } => None,
        other => panic!("{other:?}"),
    };
    let rest = async |claim, number| {
        let commit = standing(claim, number, at_event("go", None));
        store.commit(Commit { release: true, ..commit }).await.unwrap();
    };
    store.commit(standing(claim, 0, at_event("go", None))).await.unwrap();
    assert_eq!(send("go", true).await, None, "it is held");
    store.commit(Commit { consumed: vec![1], ..commit(claim, 0) }).await.unwrap();
    rest(claim, 0).await;
    assert_eq!(send("other", true).await, None, "it stands at another");
    assert_eq!(send("go", false).await, None, "nobody asked for it");

    let held = send("go", true).await.expect("it is free");
    assert_eq!(held.claim.epoch, Epoch(claim.epoch.0 + 1));
    let names: Vec<_> = held.events.iter().map(|event| (event.seq, event.name.as_str())).collect();
    assert_eq!(names, [(2, "other"), (3, "go"), (4, "go")], "it comes with what there is");
    assert_eq!(store.claim(held.claim.run, at(3_000)).await.unwrap(), None);
    assert_eq!(send("go", true).await, None, "only once");

    // Of several that come together one has it.
    rest(held.claim, 0).await;
    let all = join_all((0..10).map(|_| send("go", true))).await;
    let held: Vec<_> = all.into_iter().flatten().collect();
    assert_eq!(held.len(), 1, "{held:?}");
    rest(held[0].claim, 0).await;

    // A run that is over is taken hold of by nobody.
    store.cancel(&id("a"), None, at(4_000), audit()).await.unwrap();
    let late = NewEvent { claim: knowing(0), now: at(5_000), ..new_event("a", "go", "1") };
    let late = store.add_event(late).await.unwrap();
    assert_eq!(late, EventAdded::AlreadyOver(ExecutionStatus::Cancelled));
}

async fn an_event_is_known_before_it_is_there(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    scheduled(&store, "b").await;
    store.commit(standing(claim, 0, at_event("go", None))).await.unwrap();
    let send = async |execution: &str, name: &str| {
        let told = Arc::new(Mutex::new(Vec::new()));
        let tell = told.clone();
        let coming: Coming = Box::new(move |added| tell.lock().unwrap().push(added.clone()));
        let event = NewEvent { coming: Some(coming), ..new_event(execution, name, "1") };
        let added = store.add_event(event).await.unwrap();
        assert_eq!(*told.lock().unwrap(), std::slice::from_ref(&added));
        added
    };
    assert_eq!(send("nobody", "go").await, EventAdded::NoSuchExecution);
    let first = send("a", "go").await;
    assert!(matches!(first, EventAdded::Added { awaited: true, seq: 1, .. }), "{first:?}");
    // Many at once go into one commit.
    join_all((0..20).map(|number| send(if number % 2 == 0 { "a" } else { "b" }, "more"))).await;
    store.cancel(&id("a"), None, at(4_000), audit()).await.unwrap();
    assert_eq!(send("a", "go").await, EventAdded::AlreadyOver(ExecutionStatus::Cancelled));
}

/// Invariant 5.
async fn an_event_is_consumed_once(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    send(&store, "a", "x", "1").await;
    send(&store, "a", "x", "2").await;
    let consumed = |event| Record::EventConsumed { step: 0, event, payload: json("1"), at: at(1) };
    let take =
        |number, event| Commit { consumed: vec![event], ..recording(claim, number, vec![consumed(event)]) };
    store.commit(take(0, 1)).await.unwrap();
    assert_eq!(told(&store.events_after(claim.run, 0).await.unwrap()), [(2, "x 2".to_owned())]);
    for missing in [1, 77] {
        assert_corrupt(store.commit(take(1, missing)).await);
    }
    assert_eq!(journal(&store, "a").await.len(), 1, "nothing of a refused commit is kept");
    store.commit(take(1, 2)).await.unwrap();
    assert_eq!(store.events_after(claim.run, 0).await.unwrap(), []);
}

async fn an_event_of_another_execution_cannot_be_consumed(store: Arc<dyn Store>) {
    with_order(&store).await;
    let (a, b) = (claimed(&store, "a").await, claimed(&store, "b").await);
    send(&store, "b", "x", "1").await;
    let (bad, good) = tokio::join!(
        store.commit(Commit { consumed: vec![1], ..commit(a, 0) }),
        store.commit(recording(b, 0, vec![captured("1")])),
    );
    assert_corrupt(bad);
    good.unwrap();
    assert_eq!(store.events_after(b.run, 0).await.unwrap().len(), 1);
}

async fn events_for_what_is_over_or_unknown_are_refused(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    store.commit(standing(claim, 0, completed("1", 5))).await.unwrap();
    assert_eq!(send(&store, "a", "x", "1").await, EventAdded::AlreadyOver(ExecutionStatus::Completed));
    assert_eq!(send(&store, "b", "x", "1").await, EventAdded::NoSuchExecution);
    assert_eq!(store.events_after(claim.run, 0).await.unwrap(), []);
}

#[tokio::test]
async fn a_run_that_an_event_took_hold_of_and_that_cannot_be_read_is_let_go() {
    let directory = TempDir::new().unwrap();
    let store = Arc::new(open(&directory).await);
    let verbs: Arc<dyn Store> = store.clone();
    with_order(&verbs).await;
    let claim = claimed(&verbs, "a").await;
    let commit = standing(claim, 0, at_event("go", None));
    verbs.commit(Commit { release: true, ..commit }).await.unwrap();
    store.close_readers().await;
    let added = verbs.add_event(NewEvent { claim: knowing(0), ..new_event("a", "go", "1") }).await.unwrap();
    assert!(matches!(added, EventAdded::Added { awaited: true, taken: Taken::LetGo, .. }), "{added:?}");
    verbs.close().await;

    let store: Arc<dyn Store> = Arc::new(open(&directory).await);
    assert_eq!(store.claim(claim.run, at(3_000)).await.unwrap().expect("it is free").events.len(), 1);
}
