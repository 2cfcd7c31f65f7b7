//! What is left behind by a dead process.

use std::sync::Arc;

use stepbox_domain::run::Wait;

use super::given::*;
use crate::store::*;

on_every_store!(
    a_recovery_lets_go_of_all_claims_and_lists_what_is_not_over,
    a_recovery_finds_what_was_sent_while_nobody_looked,
    claims_left_behind_without_a_record_are_counted,
    a_claim_that_came_to_a_wait_is_no_crash,
    a_released_claim_is_no_crash,
);

async fn a_recovery_lets_go_of_all_claims_and_lists_what_is_not_over(store: Arc<dyn Store>) {
    with_order(&store).await;
    let fresh = scheduled(&store, "fresh").await;
    let under_way = claimed(&store, "under way").await;
    let waits = claimed(&store, "waits").await;
    let sleep = Wait::Sleep { step: key("nap"), until: at(5_000) };
    let asleep = Standing::Open { waiting: Some(sleep), due: Some(at(5_000)) };
    store.commit(Commit { release: true, ..standing(waits, 0, asleep.clone()) }).await.unwrap();
    let parked = claimed(&store, "parked").await;
    store.commit(standing(parked, 0, asleep)).await.unwrap();
    let for_ever = claimed(&store, "for ever").await;
    store.commit(Commit { release: true, ..standing(for_ever, 0, at_event("e", None)) }).await.unwrap();
    let over = claimed(&store, "over").await;
    store.commit(standing(over, 0, completed("1", 5))).await.unwrap();

    let unfinished = |run, due: Option<i64>, waiting| Unfinished {
        run,
        due: due.map(at),
        waiting,
        crashes: 0,
        held: false,
    };
    assert_eq!(
        store.recover().await.unwrap(),
        [
            unfinished(fresh, Some(1_000), false),
            unfinished(under_way.run, Some(1_000), false),
            unfinished(waits.run, Some(5_000), true),
            // Its claim was not let go in good order, so it is looked at.
            unfinished(parked.run, Some(5_000), false),
            unfinished(for_ever.run, None, true),
        ]
    );
    assert_lost(store.commit(recording(under_way, 0, vec![step_ran("s")])).await);
    assert!(store.claim(under_way.run, at(9)).await.unwrap().is_some());
    assert!(store.claim(parked.run, at(9)).await.unwrap().is_some());
}

/// Invariant 9.
async fn a_recovery_finds_what_was_sent_while_nobody_looked(store: Arc<dyn Store>) {
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    store.commit(Commit { release: true, ..standing(claim, 0, at_event("e", None)) }).await.unwrap();
    send(&store, "a", "other", "1").await;
    assert!(store.recover().await.unwrap()[0].waiting);
    send(&store, "a", "e", "1").await;
    assert!(!store.recover().await.unwrap()[0].waiting);
}

/// Invariant 8.
async fn claims_left_behind_without_a_record_are_counted(store: Arc<dyn Store>) {
    with_order(&store).await;
    let run = claimed(&store, "a").await.run;
    for crashes in 1..4 {
        store.recover().await.unwrap();
        assert_eq!(store.claim(run, at(1)).await.unwrap().unwrap().crashes, crashes);
    }
    store.recover().await.unwrap();
    store.recover().await.unwrap();
    let claimed = store.claim(run, at(1)).await.unwrap().unwrap();
    assert_eq!(claimed.crashes, 4, "a claim counts once, however often the host is started");
    store.commit(recording(claimed.claim, 0, vec![step_ran("s")])).await.unwrap();
    store.recover().await.unwrap();
    assert_eq!(store.claim(run, at(1)).await.unwrap().unwrap().crashes, 0, "it had got somewhere");
    store.recover().await.unwrap();
    assert_eq!(store.claim(run, at(1)).await.unwrap().unwrap().crashes, 1);
}

async fn a_claim_that_came_to_a_wait_is_no_crash(store: Arc<dyn Store>) {
    with_order(&store).await;
    let run = claimed(&store, "a").await.run;
    for _ in 0..3 {
        store.recover().await.unwrap();
        let claimed = store.claim(run, at(1)).await.unwrap().unwrap();
        assert!(claimed.crashes <= 1);
        store.commit(standing(claimed.claim, 0, at_event("e", None))).await.unwrap();
    }
    store.recover().await.unwrap();
    assert_eq!(store.claim(run, at(1)).await.unwrap().unwrap().crashes, 0);
}

async fn a_released_claim_is_no_crash(store: Arc<dyn Store>) {
    with_order(&store).await;
    let run = claimed(&store, "a").await.run;
    store.recover().await.unwrap();
    let claimed = store.claim(run, at(1)).await.unwrap().unwrap();
    assert_eq!(claimed.crashes, 1);
    store.commit(releasing(claimed.claim, 0)).await.unwrap();
    store.recover().await.unwrap();
    assert_eq!(store.claim(run, at(1)).await.unwrap().unwrap().crashes, 0);
}
