//! What is on disk when the host dies, and when the disk does not do its part.

use std::path::Path;
use std::sync::Arc;

use futures_util::future::join_all;
use sqlx::{ConnectOptions, Row, sqlite::SqliteConnectOptions};
use tempfile::TempDir;

use super::given::audit;
use super::given::*;
use crate::store::{sqlite::OpenError, sqlite::Sqlite, *};

/// What another process would find if this one were killed now.
fn as_left_on_disk(directory: &Path) -> TempDir {
    let copy = TempDir::new().unwrap();
    for file in ["stepbox.db", "stepbox.db-wal"] {
        std::fs::copy(directory.join(file), copy.path().join(file)).unwrap();
    }
    copy
}

/// Invariant 1.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_acknowledged_is_there_after_a_kill() {
    let (store, directory) = sqlite().await;
    with_order(&store).await;
    for n in 0..5 {
        let claim = claimed(&store, &format!("e{n}")).await;
        join_all((0..20).map(|number| store.commit(recording(claim, number, vec![captured("1")]))))
            .await
            .into_iter()
            .for_each(|result| result.unwrap());
        send(&store, &format!("e{n}"), "x", "1").await;
        store.cancel(&id("e0"), None, at(9), audit()).await.unwrap();

        let copy = as_left_on_disk(directory.path());
        let reopened: Arc<dyn Store> = Arc::new(open(&copy).await);
        for m in 0..=n {
            let name = format!("e{m}");
            assert_eq!(view(&reopened, &name).await, view(&store, &name).await);
            assert_eq!(journal(&reopened, &name).await, journal(&store, &name).await);
            let run = view(&store, &name).await.run_key;
            assert_eq!(
                reopened.events_after(run, 0).await.unwrap(),
                store.events_after(run, 0).await.unwrap()
            );
        }
        assert_eq!(reopened.modules().await.unwrap(), store.modules().await.unwrap());
        assert_eq!(reopened.recover().await.unwrap().len(), n);
        // And it goes on from there, with numbers that have not been given yet.
        let new = claimed(&reopened, "new").await;
        assert_eq!(new.run.0, n as i64 + 2);
        reopened.commit(recording(new, 0, vec![step_ran("s")])).await.unwrap();
    }
}

/// The engine is more careful then.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_knows_whether_it_was_closed() {
    let (store, directory) = sqlite().await;
    assert!(!store.was_left_open(), "nobody has had it before");
    with_order(&store).await;
    assert!(open(&as_left_on_disk(directory.path())).await.was_left_open());
    store.close().await;
    drop(store);
    assert!(!open(&directory).await.was_left_open());
}

/// A repair is many statements: a kill between any two of them leaves all or nothing.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_is_there_as_a_whole_or_not_at_all_after_a_kill() {
    let (store, directory) = sqlite().await;
    with_order(&store).await;
    claimed(&store, "a").await;
    let records: Vec<_> = (0..2_000).map(|n| captured(&n.to_string())).collect();
    for round in 1..6 {
        let seized = store.seize(&id("a")).await.unwrap().unwrap();
        let change = RepairChange::Replace {
            end: None,
            at: at(5_000),
            trigger: Trigger::SelectiveRerun,
            triggered_by: None,
            version: 1,
            payload: None,
            deadline: None,
            records: records.clone(),
        };
        let repair = Repair { claim: seized.claim, change, audit: audit(), bulk: None };
        let repairing = {
            let store = store.clone();
            tokio::spawn(async move { store.repair(repair).await })
        };
        tokio::time::sleep(std::time::Duration::from_millis(3 * round)).await;
        let copy = as_left_on_disk(directory.path());
        repairing.await.unwrap().unwrap();

        let reopened: Arc<dyn Store> = Arc::new(open(&copy).await);
        let runs = reopened.runs(&id("a")).await.unwrap().unwrap().len() as u64;
        let entries = reopened.audit_after(0, 100).await.unwrap().len() as u64;
        assert!(runs == round || runs == round + 1, "{runs} runs in round {round}");
        assert_eq!(entries, runs, "that of the upload, and one for each repair");
        let expected = if runs == 1 { 0 } else { records.len() };
        assert_eq!(journal(&reopened, "a").await.len(), expected);
        assert_eq!(reopened.recover().await.unwrap().len(), 1);
    }
}

#[tokio::test]
async fn the_log_has_its_room_from_the_start_and_keeps_what_is_in_it() {
    let length = |directory: &TempDir| {
        std::fs::metadata(directory.path().join("stepbox.db-wal")).expect("there is a log").len()
    };
    let (store, directory) = sqlite().await;
    assert_eq!(length(&directory), LOG_BYTES);
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    for number in 0..10 {
        store.commit(recording(claim, number, vec![captured("1")])).await.unwrap();
    }
    assert_eq!(length(&directory), LOG_BYTES, "what is written comes to lie in it");

    for (log_bytes, then) in [(2 * LOG_BYTES, 2 * LOG_BYTES), (0, LOG_BYTES)] {
        let copy = as_left_on_disk(directory.path());
        let reopened = Sqlite::open(&sqlite::StoreConfig { log_bytes, ..config(&copy) }).await.unwrap();
        assert_eq!(length(&copy), then);
        let reopened: Arc<dyn Store> = Arc::new(reopened);
        assert_eq!(journal(&reopened, "a").await.len(), 10);
        reopened.recover().await.unwrap();
        let again = reopened.claim(claim.run, at(9)).await.unwrap().expect("its holder is dead");
        reopened.commit(recording(again.claim, 10, vec![captured("1")])).await.unwrap();

        let killed_again = as_left_on_disk(copy.path());
        let reopened: Arc<dyn Store> = Arc::new(open(&killed_again).await);
        assert_eq!(journal(&reopened, "a").await.len(), 11);
    }
}

#[tokio::test]
async fn what_was_queued_is_written_when_the_store_closes() {
    let (store, directory) = sqlite().await;
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let commits = join_all((0..50).map(|n| store.commit(recording(claim, n, vec![captured("1")]))));
    let (results, ()) = tokio::join!(commits, store.close());
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    assert!(!directory.path().join("stepbox.db-wal").exists(), "nothing is left to repair");
    let reopened: Arc<dyn Store> = Arc::new(open(&directory).await);
    assert_eq!(journal(&reopened, "a").await.len(), 50);
}

#[tokio::test]
async fn a_data_directory_belongs_to_one_host() {
    let directory = TempDir::new().unwrap();
    let first = open(&directory).await;
    let error = Sqlite::open(&config(&directory)).await.err().expect("a refusal");
    assert!(matches!(error, OpenError::InUse { .. }), "{error}");
    let message = error.to_string();
    assert!(message.contains(directory.path().to_str().unwrap()), "{message}");
    assert!(message.contains(&std::process::id().to_string()), "{message}");
    first.close().await;
    drop(first);
    open(&directory).await.close().await;
}

#[tokio::test]
async fn a_data_directory_that_cannot_be_made_is_named() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("file");
    std::fs::write(&file, "").unwrap();
    let config = sqlite::StoreConfig { data_dir: file.join("data"), readers: 1, log_bytes: 0 };
    let error = Sqlite::open(&config).await.err().expect("a refusal");
    assert!(error.to_string().contains("file/data"), "{error}");
}

#[tokio::test]
async fn what_is_no_database_is_refused() {
    let directory = TempDir::new().unwrap();
    std::fs::write(directory.path().join("stepbox.db"), "a".repeat(10_000)).unwrap();
    let error = Sqlite::open(&config(&directory)).await.err().expect("a refusal");
    assert!(error.to_string().contains("stepbox.db"), "{error}");
}

#[tokio::test]
async fn a_full_disk_is_said_and_survived() {
    let directory = TempDir::new().unwrap();
    let sqlite = Arc::new(open(&directory).await);
    let store: Arc<dyn Store> = sqlite.clone();
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    store.commit(recording(claim, 0, vec![captured("1")])).await.unwrap();

    // SQLite takes a database that may not grow for a full disk. The limit is the connection's,
    // so the one that the writer opens after the failure finds room again.
    let large = json(&format!("\"{}\"", "x".repeat(200_000)));
    let record = |value: &str| recording(claim, 1, vec![captured(value)]);
    sqlite.run_on_writer("pragma max_page_count = 1").await;
    let alone = store.commit(record(large.as_str())).await;
    sqlite.run_on_writer("pragma max_page_count = 1").await;
    let (in_company, ping) = tokio::join!(store.commit(record(large.as_str())), store.ping());
    for failed in [alone, in_company, ping] {
        match failed {
            Err(StoreError::Unavailable(why)) => assert!(why.contains("full"), "{why}"),
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(journal(&store, "a").await, [captured("1")]);
    store.ping().await.unwrap();
    store.commit(record("2")).await.unwrap();
    assert_eq!(journal(&store, "a").await, [captured("1"), captured("2")]);
}

#[tokio::test]
async fn a_database_that_cannot_be_written_is_said_and_survived() {
    let directory = TempDir::new().unwrap();
    let sqlite = Arc::new(open(&directory).await);
    let store: Arc<dyn Store> = sqlite.clone();
    with_order(&store).await;
    sqlite.run_on_writer("pragma query_only = on").await;
    match store.ping().await {
        Err(StoreError::Unavailable(why)) => assert!(why.contains("written"), "{why}"),
        other => panic!("{other:?}"),
    }
    store.ping().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_starts_over_once_it_has_grown() {
    let (store, directory) = sqlite().await;
    with_order(&store).await;
    let claim = claimed(&store, "a").await;
    let megabyte = captured(&format!("\"{}\"", "x".repeat(1 << 20)));
    for number in 0..40 {
        store.commit(recording(claim, number, vec![megabyte.clone()])).await.unwrap();
    }
    let mut other =
        SqliteConnectOptions::new().filename(directory.path().join("stepbox.db")).connect().await.unwrap();
    for number in 40.. {
        store.commit(recording(claim, number, vec![captured("1")])).await.unwrap();
        let row = sqlx::query("pragma wal_checkpoint(noop)").fetch_one(&mut other).await.unwrap();
        let pages: i64 = row.get(1);
        if pages < 1_000 {
            break;
        }
        assert!(number < 1_000, "the log has {pages} pages");
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}
