//! The promises of the store of guests' logs, kept by both.

use std::{path::Path, sync::Arc};

use stepbox_domain::{RunId, StepKey, Timestamp};
use tempfile::TempDir;

use super::given::*;
use crate::{
    sandbox::LogLevel,
    store::{
        StoreError,
        logs::{memory::MemoryLogs, sqlite::SqliteLogs, *},
    },
};

const SMALL: LogBounds = LogBounds { run_lines_max: 40, run_bytes_max: 8_000, bytes_max: 20_000 };

/// A moment at which SQLite, too, begins to count from 1.
const BEGINNING: Timestamp = Timestamp::from_ms(0);

async fn in_sqlite(directory: &Path, bounds: LogBounds) -> SqliteLogs {
    SqliteLogs::open(directory, bounds, BEGINNING).await
}

fn entry(execution: &str, index: u32, message: &str) -> LogEntry {
    LogEntry {
        execution: id(execution),
        run: RunId::new(&id(execution), index),
        step: None,
        level: LogLevel::Info,
        target: "stdout".to_owned(),
        at: at(1_000),
        message: message.to_owned(),
    }
}

async fn messages(store: &dyn LogStore, filter: LogFilter) -> Vec<String> {
    store.lines(&filter).await.unwrap().into_iter().map(|line| line.entry.message).collect()
}

fn all_of(execution: &str) -> LogFilter {
    LogFilter::of(id(execution), 10_000)
}

fn dice(state: &mut u64, below: u64) -> u64 {
    *state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
    (*state >> 33) % below
}

/// The same lines into both, with bounds that are soon reached: equal answers to equal questions.
#[tokio::test]
async fn sqlite_keeps_and_drops_what_the_model_does() {
    let directory = TempDir::new().unwrap();
    let (model, sqlite) = (MemoryLogs::new(SMALL), in_sqlite(directory.path(), SMALL).await);
    let mut seed = 7;
    let (mut dropped, mut matched, mut told) = (0, 0, 0);
    for round in 0..400_i64 {
        let lines: Vec<LogEntry> = (0..dice(&mut seed, 12))
            .map(|n| LogEntry {
                step: (dice(&mut seed, 2) == 0).then(|| {
                    (StepKey::parse(["a", "b#2"][dice(&mut seed, 2) as usize]).unwrap(), n as u32 + 1)
                }),
                level: LogLevel::ALL[dice(&mut seed, 5) as usize],
                at: at(round + dice(&mut seed, 3) as i64),
                message: "Abc%_€".repeat(dice(&mut seed, 40) as usize),
                ..entry(
                    &format!("e{}", dice(&mut seed, 3) + round as u64 / 80),
                    dice(&mut seed, 2) as u32,
                    "",
                )
            })
            .collect();
        let added = model.add(&lines, BEGINNING).await.unwrap();
        assert_eq!(added, sqlite.add(&lines, BEGINNING).await.unwrap(), "round {round}");
        dropped += added.dropped;
        assert!(added.bytes <= SMALL.bytes_max);

        let some = |seed: &mut u64| dice(seed, 3) == 0;
        let execution = format!("e{}", dice(&mut seed, 3) + round as u64 / 80);
        let filter = LogFilter {
            run: some(&mut seed).then(|| RunId::new(&id(&execution), 0)),
            step: some(&mut seed).then(|| StepKey::parse("b#2").unwrap()),
            attempt: some(&mut seed).then_some(2),
            level: some(&mut seed).then_some(LogLevel::Warn),
            search: some(&mut seed).then(|| "aBC%_".to_owned()),
            from: some(&mut seed).then(|| at(round - 5)),
            to: some(&mut seed).then(|| at(round)),
            after: some(&mut seed).then(|| dice(&mut seed, 2_000)),
            descending: some(&mut seed),
            ..LogFilter::of(id(&execution), dice(&mut seed, 30) as u32)
        };
        let found = model.lines(&filter).await.unwrap();
        assert_eq!(found, sqlite.lines(&filter).await.unwrap(), "round {round}: {filter:?}");
        matched += found.len();
        let all = model.lines(&all_of(&execution)).await.unwrap();
        assert_eq!(all, sqlite.lines(&all_of(&execution)).await.unwrap(), "round {round}");
        told += all.iter().filter(|line| line.entry.message.contains("were dropped")).count();
    }
    assert!(dropped > 500 && matched > 500 && told > 20, "{dropped} dropped, {matched} found, {told} told");
}

#[tokio::test]
async fn of_a_run_the_last_lines_are_kept_and_how_many_went_is_said_once() {
    let directory = TempDir::new().unwrap();
    let stores: [Arc<dyn LogStore>; 2] =
        [Arc::new(MemoryLogs::new(SMALL)), Arc::new(in_sqlite(directory.path(), SMALL).await)];
    for store in stores {
        for n in 0..200 {
            store
                .add(&[entry("flood", 0, &n.to_string()), entry("quiet", 0, "here")], BEGINNING)
                .await
                .unwrap();
        }
        let kept = messages(store.as_ref(), all_of("flood")).await;
        assert!((36..=40).contains(&kept.len()), "{kept:?}");
        assert_eq!(kept.last().unwrap(), "199");
        let dropped = 200 - (kept.len() - 1);
        assert_eq!(
            kept[0],
            format!(
                "{dropped} earlier lines of this run were dropped: of a run the last 40 lines are kept, or \
                 8000 bytes"
            )
        );
        assert_eq!(kept[1], dropped.to_string());
    }
}

#[tokio::test]
async fn when_all_is_too_much_the_run_that_printed_nothing_for_longest_goes_first() {
    let directory = TempDir::new().unwrap();
    let bounds = LogBounds { bytes_max: 10_000, ..SMALL };
    let stores: [Arc<dyn LogStore>; 2] =
        [Arc::new(MemoryLogs::new(bounds)), Arc::new(in_sqlite(directory.path(), bounds).await)];
    for store in stores {
        let at_ms =
            |execution: &str, ms: i64| LogEntry { at: at(ms), ..entry(execution, 0, &"x".repeat(2_000)) };
        store.add(&[at_ms("old", 1), at_ms("older", 2), at_ms("new", 3)], BEGINNING).await.unwrap();
        store.add(&[at_ms("old", 4)], BEGINNING).await.unwrap();
        let added = store.add(&[at_ms("newest", 5)], BEGINNING).await.unwrap();
        assert_eq!(added.dropped, 1);
        for (execution, lines) in [("old", 2), ("older", 0), ("new", 1), ("newest", 1)] {
            assert_eq!(messages(store.as_ref(), all_of(execution)).await.len(), lines, "{execution}");
        }
    }
}

#[tokio::test]
async fn what_was_added_is_there_after_a_kill_and_numbers_go_on_beyond_what_may_be_lost() {
    let directory = TempDir::new().unwrap();
    let store = in_sqlite(directory.path(), SMALL).await;
    store.add(&[entry("e", 0, "one"), entry("e", 0, "two")], BEGINNING).await.unwrap();
    // What another process would find if this one were killed now.
    let copy = TempDir::new().unwrap();
    for file in ["logs.db", "logs.db-wal"] {
        std::fs::copy(directory.path().join(file), copy.path().join(file)).unwrap();
    }
    let reopened = SqliteLogs::open(copy.path(), SMALL, at(5_000)).await;
    assert_eq!(messages(&reopened, all_of("e")).await, ["one", "two"]);
    reopened.add(&[entry("e", 0, "three")], at(5_000)).await.unwrap();
    let sequences: Vec<u64> =
        reopened.lines(&all_of("e")).await.unwrap().iter().map(|line| line.sequence).collect();
    assert!(sequences[2] >= 5_000_000, "{sequences:?}");
    reopened.close().await;
    // The clock was set back: still not below what is there.
    let reopened = in_sqlite(copy.path(), SMALL).await;
    reopened.add(&[entry("e", 0, "four")], BEGINNING).await.unwrap();
    assert_eq!(messages(&reopened, all_of("e")).await, ["one", "two", "three", "four"]);
}

#[tokio::test]
async fn files_that_are_deleted_are_made_anew_also_under_a_running_host() {
    let directory = TempDir::new().unwrap();
    let store = in_sqlite(directory.path(), SMALL).await;
    store.add(&[entry("e", 0, "lost")], BEGINNING).await.unwrap();
    for file in std::fs::read_dir(directory.path()).unwrap() {
        std::fs::remove_file(file.unwrap().path()).unwrap();
    }
    store.add(&[entry("e", 0, "kept")], BEGINNING).await.unwrap();
    assert_eq!(messages(&store, all_of("e")).await, ["kept"]);
    store.close().await;
    let store = in_sqlite(directory.path(), SMALL).await;
    assert_eq!(messages(&store, all_of("e")).await, ["kept"]);
}

#[tokio::test]
async fn a_damaged_file_is_set_aside_at_the_start_and_while_the_host_runs() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("logs.db");
    std::fs::write(&file, "this is no database ".repeat(1_000)).unwrap();
    let store = in_sqlite(directory.path(), LogBounds::new(1 << 20)).await;
    store.add(&[entry("e", 0, "kept")], BEGINNING).await.unwrap();
    assert_eq!(messages(&store, all_of("e")).await, ["kept"]);
    let aside = directory.path().join("logs.db.damaged");
    assert!(std::fs::read_to_string(&aside).unwrap().starts_with("this is no database"));

    let many: Vec<LogEntry> = (0..2_000).map(|n| entry("e", 0, &format!("{n} {}", "x".repeat(50)))).collect();
    store.add(&many, BEGINNING).await.unwrap();
    store.close().await;
    // Everything but the first page.
    let mut bytes = std::fs::read(&file).unwrap();
    bytes[4_096..].fill(0xa5);
    std::fs::write(&file, bytes).unwrap();
    let store = in_sqlite(directory.path(), LogBounds::new(1 << 20)).await;
    let mut failures = 0;
    while let Err(error) = store.add(&[entry("e", 0, "after")], BEGINNING).await {
        assert!(matches!(error, StoreError::Corrupt(_)), "{error}");
        failures += 1;
        assert!(failures < 3, "it goes on being damaged: {error}");
    }
    assert_eq!(messages(&store, all_of("e")).await, ["after"]);
}

#[tokio::test]
async fn a_file_of_a_newer_program_is_left_as_it_is() {
    let directory = TempDir::new().unwrap();
    in_sqlite(directory.path(), SMALL).await.close().await;
    let mut connection = sqlx::ConnectOptions::connect(
        &sqlx::sqlite::SqliteConnectOptions::new().filename(directory.path().join("logs.db")),
    )
    .await
    .unwrap();
    sqlx::query(
        "insert into _sqlx_migrations (version, description, success, checksum, execution_time)
         values (99, 'later', true, x'00', 0)",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    let store = in_sqlite(directory.path(), SMALL).await;
    let refused = store.add(&[entry("e", 0, "no")], BEGINNING).await.unwrap_err();
    assert!(matches!(refused, StoreError::Unavailable(_)), "{refused}");
    assert!(matches!(store.lines(&all_of("e")).await, Err(StoreError::Unavailable(_))));
    assert!(!directory.path().join("logs.db.damaged").exists());
}

/// What lines count for is not far from what they take.
#[tokio::test]
async fn the_file_does_not_outgrow_its_bound() {
    let directory = TempDir::new().unwrap();
    let bounds = LogBounds::new(2 << 20);
    let store = in_sqlite(directory.path(), bounds).await;
    for round in 0..60 {
        // Short ones cost most beside their text.
        let lines: Vec<LogEntry> =
            (0..1_000).map(|n| entry(&format!("e{round}"), 0, &n.to_string())).collect();
        store.add(&lines, BEGINNING).await.unwrap();
    }
    store.close().await;
    let bytes = std::fs::metadata(directory.path().join("logs.db")).unwrap().len();
    println!("{bytes} bytes on disk with a bound of {}", bounds.bytes_max);
    assert!(bytes < bounds.bytes_max * 5 / 4, "{bytes}");
}
