//! What the lists show.

use std::sync::Arc;

use stepbox_domain::ExecutionStatus;

use super::given::audit;
use super::given::*;
use crate::store::*;

on_every_store!(
    a_list_can_be_sorted_and_paged,
    ties_are_broken_by_the_order_of_the_starts,
    a_list_shows_only_what_its_filter_matches,
    a_search_takes_every_character_for_itself,
    a_search_knows_no_case_of_ascii_letters,
    counts_are_by_status,
);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lists_wait_for_each_other_and_nobody_waits_for_them() {
    let directory = tempfile::TempDir::new().unwrap();
    let sqlite = Arc::new(open(&directory).await);
    let store: Arc<dyn Store> = sqlite.clone();
    four(&store).await;
    // There is one turn, since two of three readers are kept for others.
    let turn = sqlite.turn().await.unwrap();
    let refunds = ExecutionFilter { task: Some("refund".to_owned()), ..ExecutionFilter::default() };
    let list = store.executions(&refunds, NEWEST_FIRST);
    tokio::pin!(list);
    let done = async {
        let e = create(&store, "e", "order", 70).await;
        let claim = store.claim(e, at(80)).await.unwrap().unwrap().claim;
        store.commit(standing(claim, 0, completed("1", 90))).await.unwrap();
        view(&store, "e").await
    };
    tokio::select! {
        biased;
        _ = &mut list => panic!("two had the only turn"),
        e = done => assert_eq!(e.status, ExecutionStatus::Completed),
    }
    drop(turn);
    assert_eq!(list.await.unwrap().1, 1);
}

const NEWEST_FIRST: Page = Page { sort: Sort::ScheduledAt, descending: true, limit: 20, offset: 0 };

async fn create(store: &Arc<dyn Store>, id: &str, task: &str, ms: i64) -> RunKey {
    match store.create_execution(NewExecution { now: at(ms), ..start(id, task, "{}") }).await.unwrap() {
        Creation::New { run, .. } => run,
        other => panic!("{other:?}"),
    }
}

/// Four executions: `a` completed at 10, `b` running at 30, `c` of "refund" at 20, `d` at 40.
async fn four(store: &Arc<dyn Store>) {
    with_order(store).await;
    store.add_version(upload("refund", b"refund 1"), audit()).await.unwrap();
    let a = create(store, "a", "order", 10).await;
    let b = create(store, "b", "order", 30).await;
    create(store, "c", "refund", 20).await;
    create(store, "d", "order", 40).await;
    let claim = store.claim(a, at(50)).await.unwrap().unwrap().claim;
    store.commit(standing(claim, 0, completed("1", 60))).await.unwrap();
    store.claim(b, at(50)).await.unwrap().unwrap();
}

/// The ids of the page, and how many match in all.
async fn list(store: &Arc<dyn Store>, filter: ExecutionFilter, page: Page) -> (String, u64) {
    let (views, total) = store.executions(&filter, page).await.unwrap();
    let ids: Vec<_> = views.iter().map(|view| view.id.as_str()).collect();
    (ids.join(" "), total)
}

async fn ids(store: &Arc<dyn Store>, filter: ExecutionFilter) -> String {
    let (ids, total) = list(store, filter, Page { descending: false, ..NEWEST_FIRST }).await;
    assert_eq!(ids.split_whitespace().count() as u64, total);
    ids
}

async fn a_list_can_be_sorted_and_paged(store: Arc<dyn Store>) {
    four(&store).await;
    let sorted = async |sort, descending, limit, offset| {
        list(&store, ExecutionFilter::default(), Page { sort, descending, limit, offset }).await
    };
    let page = |ids: &str| (ids.to_owned(), 4);
    assert_eq!(sorted(Sort::ScheduledAt, false, 20, 0).await, page("a c b d"));
    assert_eq!(sorted(Sort::ScheduledAt, true, 20, 0).await, page("d b c a"));
    assert_eq!(sorted(Sort::Status, false, 20, 0).await, page("a b c d"));
    assert_eq!(sorted(Sort::Status, true, 20, 0).await, page("d c b a"));
    assert_eq!(sorted(Sort::TaskName, false, 20, 0).await, page("a b d c"));
    assert_eq!(sorted(Sort::TaskName, true, 20, 0).await, page("c d b a"));
    assert_eq!(sorted(Sort::ScheduledAt, false, 2, 1).await, page("c b"));
    assert_eq!(sorted(Sort::ScheduledAt, false, 0, 0).await, page(""));
    assert_eq!(sorted(Sort::ScheduledAt, false, 2, 4).await, page(""));
    assert_eq!(sorted(Sort::ScheduledAt, false, u32::MAX, u64::MAX).await, page(""));
    let views = store.executions(&ExecutionFilter::default(), NEWEST_FIRST).await.unwrap().0;
    for listed in views {
        assert_eq!(view(&store, listed.id.as_str()).await, listed);
    }
}

async fn ties_are_broken_by_the_order_of_the_starts(store: Arc<dyn Store>) {
    with_order(&store).await;
    for id in ["z", "y", "x"] {
        create(&store, id, "order", 10).await;
    }
    for sort in [Sort::ScheduledAt, Sort::Status, Sort::TaskName] {
        let up = Page { sort, descending: false, ..NEWEST_FIRST };
        assert_eq!(list(&store, ExecutionFilter::default(), up).await.0, "z y x");
        let down = Page { sort, ..NEWEST_FIRST };
        assert_eq!(list(&store, ExecutionFilter::default(), down).await.0, "x y z");
    }
}

async fn a_list_shows_only_what_its_filter_matches(store: Arc<dyn Store>) {
    four(&store).await;
    let all = ExecutionFilter::default;
    let status = |status| ExecutionFilter { status: Some(status), ..all() };
    assert_eq!(ids(&store, all()).await, "a c b d");
    assert_eq!(ids(&store, status(ExecutionStatus::Scheduled)).await, "c d");
    assert_eq!(ids(&store, status(ExecutionStatus::Completed)).await, "a");
    assert_eq!(ids(&store, status(ExecutionStatus::Failed)).await, "");
    let of_task = |task: &str| ExecutionFilter { task: Some(task.to_owned()), ..all() };
    assert_eq!(ids(&store, of_task("refund")).await, "c");
    assert_eq!(ids(&store, of_task("refun")).await, "");
    let between = |from: i64, to: i64| ExecutionFilter { from: Some(at(from)), to: Some(at(to)), ..all() };
    assert_eq!(ids(&store, between(20, 30)).await, "c b");
    assert_eq!(ids(&store, between(30, 20)).await, "");
    assert_eq!(ids(&store, ExecutionFilter { from: Some(at(21)), ..all() }).await, "b d");
    let everything = ExecutionFilter {
        status: Some(ExecutionStatus::Scheduled),
        task: Some("order".to_owned()),
        from: Some(at(20)),
        to: Some(at(40)),
        search: Some("D".to_owned()),
    };
    assert_eq!(ids(&store, everything).await, "d");
}

async fn search(store: &Arc<dyn Store>, search: &str) -> String {
    ids(store, ExecutionFilter { search: Some(search.to_owned()), ..ExecutionFilter::default() }).await
}

async fn a_search_takes_every_character_for_itself(store: Arc<dyn Store>) {
    with_order(&store).await;
    for (ms, id) in (0..).zip(["50%", "5_0", r"5\0", "5x0", "o'k", "a\"b"]) {
        create(&store, id, "order", ms).await;
    }
    assert_eq!(search(&store, "%").await, "50%");
    assert_eq!(search(&store, "5_").await, "5_0");
    assert_eq!(search(&store, r"\").await, r"5\0");
    assert_eq!(search(&store, "'").await, "o'k");
    assert_eq!(search(&store, "\"").await, "a\"b");
    assert_eq!(search(&store, "rde").await.split(' ').count(), 6, "the task's name counts too");
    assert_eq!(search(&store, "").await.split(' ').count(), 6);
    assert_eq!(search(&store, "5\0").await, "");
    assert_eq!(search(&store, &"x".repeat(100_000)).await, "");
}

async fn a_search_knows_no_case_of_ascii_letters(store: Arc<dyn Store>) {
    with_order(&store).await;
    for (ms, id) in (0..).zip(["Kunde-MÜLLER", "kunde-müller"]) {
        create(&store, id, "order", ms).await;
    }
    assert_eq!(search(&store, "KUNDE").await, "Kunde-MÜLLER kunde-müller");
    assert_eq!(search(&store, "mÜlL").await, "Kunde-MÜLLER");
    assert_eq!(search(&store, "ü").await, "kunde-müller");
}

async fn counts_are_by_status(store: Arc<dyn Store>) {
    assert_eq!(store.counts().await.unwrap(), Counts::default());
    four(&store).await;
    store.cancel(&id("d"), None, at(99), audit()).await.unwrap();
    let counts = Counts { scheduled: 1, running: 1, completed: 1, failed: 0, cancelled: 1 };
    assert_eq!(store.counts().await.unwrap(), counts);
}
