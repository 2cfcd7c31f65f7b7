//! Searches, with their index and without it: always what looking at each execution finds.

use std::{path::PathBuf, time::Duration};

use proptest::{prelude::*, test_runner::TestRunner};
use stepbox_domain::ExecutionStatus;
use tempfile::TempDir;

use super::given::*;
use crate::store::{memory::Memory, sqlite::Sqlite, *};

const NEWEST_FIRST: Page = Page { sort: Sort::ScheduledAt, descending: true, limit: 1_000, offset: 0 };

/// Texts of few letters, so that many ids have them; and of what is special to somebody.
fn text(chars: std::ops::Range<usize>) -> impl Strategy<Value = String> {
    let char = prop::sample::select(vec!['a', 'A', 'b', 'B', '-', '"', '\'', '%', '*', ' ', 'Ü', 'ü', 'ß']);
    prop::collection::vec(char, chars).prop_map(String::from_iter)
}

/// The same start in both, if the id can be one.
async fn create(stores: &[&dyn Store], id: &str, task: &str, ms: i64) {
    if ExecutionId::parse(id).is_err() {
        return;
    }
    for store in stores {
        let new = NewExecution { now: at(ms), ..start(id, task, "{}") };
        store.create_execution(new).await.unwrap();
    }
}

async fn until_indexed(store: &Sqlite) {
    let newest = store.newest_execution().await;
    let indexed = async {
        while store.indexed_up_to().await != Some(newest) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(120), indexed).await.expect("the index is filled");
}

async fn assert_same(sqlite: &Sqlite, memory: &Memory, search: &str) {
    let filters = [
        ExecutionFilter::default(),
        ExecutionFilter { status: Some(ExecutionStatus::Scheduled), ..ExecutionFilter::default() },
        ExecutionFilter { status: Some(ExecutionStatus::Failed), ..ExecutionFilter::default() },
        ExecutionFilter { task: Some("order".to_owned()), from: Some(at(20)), ..ExecutionFilter::default() },
    ];
    for filter in filters {
        let filter = ExecutionFilter { search: Some(search.to_owned()), ..filter };
        for page in [NEWEST_FIRST, Page { sort: Sort::TaskName, descending: false, limit: 3, offset: 2 }] {
            let (found, expected) = (
                sqlite.executions(&filter, page).await.unwrap(),
                memory.executions(&filter, page).await.unwrap(),
            );
            let named = |(views, total): &(Vec<ExecutionView>, u64)| {
                (views.iter().map(|view| view.id.to_string()).collect::<Vec<_>>(), *total)
            };
            assert_eq!(named(&found), named(&expected), "{filter:?} {page:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_search_finds_the_same_with_and_without_its_index() {
    let directory = TempDir::new().unwrap();
    let (sqlite, memory) = (open(&directory).await, Memory::new());
    for store in [&sqlite as &dyn Store, &memory] {
        for task in ["order", "order-b", "refund-aab"] {
            store.add_version(upload(task, task.as_bytes()), audit()).await.unwrap();
        }
    }
    let mut runner = TestRunner::default();
    let mut draw = |strategy: BoxedStrategy<String>| strategy.new_tree(&mut runner).unwrap().current();
    let mut texts: Vec<String> =
        ["", "\0", "aab", "ORDER", "order-", "e", "scheduled", "\"", "AB\0A", "üÜ"].map(str::to_owned).into();
    texts.push("a".repeat(300));
    texts.extend((0..40).map(|_| draw(text(1..6).boxed())));
    // Long ones: some that are there as they are, some whose parts only are.
    texts.extend(["abab-baba-abba", "xx-abab-baba-ab", "abab-abab-baba", "------------"].map(str::to_owned));

    let mut ms = 0;
    for round in 0..3 {
        for id in ["xx-ABAB-baba-abba", "baba-abab-abba", "------------", "abab-baba-abb"] {
            create(&[&sqlite, &memory], &format!("{id}{round}"), "refund-aab", 7).await;
        }
        for _ in 0..60 {
            ms += 1;
            let task = ["order", "order-b", "refund-aab"][ms as usize % 10 % 3];
            create(&[&sqlite, &memory], &draw(text(3..9).boxed()), task, ms % 50).await;
        }
        // Some of them before the newest are in the index, some after.
        if round == 1 {
            until_indexed(&sqlite).await;
        }
        for text in &texts {
            assert_same(&sqlite, &memory, text).await;
        }
    }
    until_indexed(&sqlite).await;
    for text in &texts {
        assert_same(&sqlite, &memory, text).await;
    }
}

/// The ids, and how many there are.
async fn found(store: &Sqlite, search: &str) -> (String, u64) {
    let filter = ExecutionFilter { search: Some(search.to_owned()), ..ExecutionFilter::default() };
    let (views, total) = store.executions(&filter, NEWEST_FIRST).await.unwrap();
    let ids: Vec<&str> = views.iter().map(|view| view.id.as_str()).collect();
    (ids.join(" "), total)
}

struct Indexed {
    directory: TempDir,
}

impl Indexed {
    /// A closed store with executions `one` and `two`, and an index of them.
    async fn new() -> Self {
        let directory = TempDir::new().unwrap();
        let store = open(&directory).await;
        store.add_version(upload("order", b"order"), audit()).await.unwrap();
        for id in ["one", "two"] {
            create(&[&store], id, "order", 1).await;
        }
        until_indexed(&store).await;
        store.close().await;
        Indexed { directory }
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("search.db")
    }

    /// Opens it; how searches go before the index is ready and after.
    async fn assert_searched(&self, expected: &[(&str, &str)]) {
        let store = open(&self.directory).await;
        for _ in 0..2 {
            for (search, ids) in expected {
                let total = ids.split_whitespace().count() as u64;
                assert_eq!(found(&store, search).await, ((*ids).to_owned(), total));
            }
            until_indexed(&store).await;
        }
        store.close().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_is_gone_or_damaged_is_made_anew() {
    let indexed = Indexed::new().await;
    let found = [("two", "two"), ("TWO", "two"), ("none", "")];
    indexed.assert_searched(&found).await;
    std::fs::remove_file(indexed.file()).unwrap();
    indexed.assert_searched(&found).await;
    std::fs::write(indexed.file(), "no database ".repeat(1_000)).unwrap();
    indexed.assert_searched(&found).await;
    // A layout of another time.
    let other = sqlx::sqlite::SqliteConnectOptions::new().filename(indexed.file());
    let mut connection = sqlx::ConnectOptions::connect(&other).await.unwrap();
    sqlx::raw_sql("drop table ids; pragma user_version = 99").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    indexed.assert_searched(&found).await;
}

/// While it is used, too.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_that_goes_or_is_damaged_under_a_running_store_leads_nobody_astray() {
    let indexed = Indexed::new().await;
    let store = open(&indexed.directory).await;
    until_indexed(&store).await;
    let file = sqlx::sqlite::SqliteConnectOptions::new().filename(indexed.file());
    let mut connection = sqlx::ConnectOptions::connect(&file).await.unwrap();
    sqlx::raw_sql("drop table ids").execute(&mut connection).await.unwrap();
    sqlx::Connection::close(connection).await.unwrap();
    create(&[&store], "three", "order", 1).await;
    assert_eq!(found(&store, "two").await, ("two".to_owned(), 1));
    // It is made anew.
    until_indexed(&store).await;
    assert_eq!(found(&store, "thr").await, ("three".to_owned(), 1));

    std::fs::remove_file(indexed.file()).unwrap();
    create(&[&store], "four", "order", 1).await;
    for text in ["two", "three", "four"] {
        assert_eq!(found(&store, text).await, (text.to_owned(), 1));
    }
    store.close().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_index_of_another_database_is_not_believed() {
    let (ours, other) = (Indexed::new().await, Indexed::new().await);
    let store = open(&ours.directory).await;
    for id in ["three", "four"] {
        create(&[&store], id, "order", 1).await;
    }
    until_indexed(&store).await;
    store.close().await;
    // As when an older copy of the database is put back.
    std::fs::copy(ours.file(), other.file()).unwrap();
    other.assert_searched(&[("two", "two"), ("three", ""), ("four", "")]).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_an_index_searches_look_at_each_execution() {
    let indexed = Indexed::new().await;
    std::fs::remove_file(indexed.file()).unwrap();
    std::fs::create_dir(indexed.file()).unwrap();
    let store = open(&indexed.directory).await;
    assert_eq!(found(&store, "two").await, ("two".to_owned(), 1));
    assert_eq!(store.indexed_up_to().await, None);
    store.close().await;
}
