//! The file of the index. What is wrong with it is mended by making it anew.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use sqlx::{
    ConnectOptions, Connection as _, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};

use crate::store::{StoreError, queries::Connection};

/// Goes up with every change of [`TABLES`].
const LAYOUT: i64 = 1;

/// `content=''`: the ids themselves stay where they are. Their ASCII letters are lowered before,
/// the same as those of what is searched for, and no other character is folded.
const TABLES: &str = "
    begin immediate;
    create virtual table ids using fts5 (
        id, content = '', columnsize = 0, detail = full, tokenize = 'trigram case_sensitive 1'
    );
    -- Up to which execution it goes, and what that one is called: another database has another.
    create table progress (up_to integer not null, last_id text) strict;
    insert into progress (up_to, last_id) values (0, null);
    pragma user_version = 1;
    commit;
";

/// Searches at the same time; others queue.
const READERS: u32 = 2;

/// Opens it, and makes it if it is not there or not of our layout.
pub(super) async fn open(file: &Path) -> Result<Connection, StoreError> {
    let mut connection = writing(file).connect().await?;
    let mut layout: i64 = sqlx::query_scalar("pragma user_version").fetch_one(&mut connection).await?;
    if layout != LAYOUT && layout != 0 {
        let _ = connection.close().await;
        remove(file)?;
        connection = writing(file).connect().await?;
        layout = 0;
    }
    if layout == 0 {
        sqlx::raw_sql(TABLES).execute(&mut connection).await?;
    }
    Ok(connection)
}

pub(super) async fn readers(file: &Path) -> Result<SqlitePool, StoreError> {
    Ok(SqlitePoolOptions::new()
        .max_connections(READERS)
        .acquire_timeout(Duration::from_secs(10))
        .idle_timeout(None)
        .max_lifetime(None)
        .test_before_acquire(false)
        .connect_with(options(file).read_only(true))
        .await?)
}

/// Takes it away, whoever has it open.
pub(super) fn remove(file: &Path) -> Result<(), StoreError> {
    for end in ["", "-wal", "-shm"] {
        let mut name = file.as_os_str().to_owned();
        name.push(end);
        match std::fs::remove_file(PathBuf::from(name)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Unavailable(format!("{}: {error}", file.display())));
            }
            _ => {}
        }
    }
    Ok(())
}

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::from_secs(5))
        // 4 MB for each connection, in KiB.
        .pragma("cache_size", "-4096")
        .pragma("temp_store", "memory")
        .disable_statement_logging()
}

/// `synchronous = normal`: a loss of power may lose the last additions, which are then made again.
fn writing(file: &Path) -> SqliteConnectOptions {
    options(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        .pragma("journal_size_limit", "16777216")
}
