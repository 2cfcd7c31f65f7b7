//! The file of the index. What is wrong with it is mended by making it anew.

use std::path::Path;

use sqlx::{ConnectOptions, Connection as _, SqlitePool};

use crate::store::{
    StoreError,
    connect::{self, beside, beside_the_database::*},
    queries::Connection,
};

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
    connect::pool(READERS, reading(file)).await
}

/// Takes it away, whoever has it open.
pub(super) fn remove(file: &Path) -> Result<(), StoreError> {
    for end in ["", "-wal", "-shm"] {
        match std::fs::remove_file(beside(file, end)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(StoreError::Unavailable(format!("{}: {error}", file.display())));
            }
            _ => {}
        }
    }
    Ok(())
}
