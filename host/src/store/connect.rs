//! How files of SQLite are opened.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use super::StoreError;

/// How long somebody waits for a reader, or for his turn at one.
pub(super) const READER_WAIT_MAX: Duration = Duration::from_secs(10);

/// What holds for each connection. `cache_kib`: how much of the file it keeps in memory.
pub(super) fn options(file: &Path, cache_kib: u32) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .foreign_keys(true)
        .busy_timeout(Duration::from_secs(5))
        .pragma("cache_size", format!("-{cache_kib}"))
        .pragma("temp_store", "memory")
        .disable_statement_logging()
}

/// Of files beside the database, on which no run depends. `synchronous = normal`: the end of the
/// process loses nothing, a loss of power may lose the last moments, and neither damages the file.
pub(super) mod beside_the_database {
    use super::*;

    pub(in crate::store) fn reading(file: &Path) -> SqliteConnectOptions {
        options(file, 4_096).read_only(true)
    }

    pub(in crate::store) fn writing(file: &Path) -> SqliteConnectOptions {
        options(file, 4_096)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .synchronous(SqliteSynchronous::Normal)
            // After a flood the write-ahead log does not stay as long as it was.
            .pragma("journal_size_limit", "16777216")
            .foreign_keys(false)
    }
}

/// So many connections that are kept; who finds none free queues.
pub(super) async fn pool(connections: u32, options: SqliteConnectOptions) -> Result<SqlitePool, StoreError> {
    Ok(SqlitePoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(READER_WAIT_MAX)
        .idle_timeout(None)
        .max_lifetime(None)
        // A file does not go away as a server does.
        .test_before_acquire(false)
        .connect_with(options)
        .await?)
}

/// Its name with `end` after it: of a write-ahead log, say.
pub(super) fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
}
