//! The task that fills the index.

use std::{
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use sqlx::{ConnectOptions, Connection as _, Row as _, sqlite::SqliteConnectOptions};
use tokio::time::{Instant, sleep};

use super::{Shared, file};
use crate::store::{
    StoreError,
    queries::{
        Connection,
        search::{is_close_behind, newest},
    },
};

/// How long the newest executions stay out of the index, while it keeps up.
const INTERVAL: Duration = Duration::from_millis(500);
/// After a failure.
const INTERVAL_FAILED: Duration = Duration::from_secs(30);
/// So many ids go into one transaction. One takes some 30 µs.
const BATCH: i64 = 512;

pub(super) async fn run(path: PathBuf, database: SqliteConnectOptions, shared: Arc<Shared>) {
    let mut failed_at: Option<Instant> = None;
    loop {
        let Err(error) = fill(&path, &database, &shared).await;
        tracing::warn!(
            %error, file = %path.display(),
            "the index of executions' ids cannot be kept for now; searches look at each of them"
        );
        if let Some(readers) = shared.put(None) {
            readers.close().await;
        }
        let removed = matches!(error, StoreError::Corrupt(_)) && file::remove(&path).is_ok();
        // What a new file does not mend is not the file's fault.
        let lately = failed_at.is_some_and(|at| at.elapsed() < INTERVAL_FAILED);
        failed_at = Some(Instant::now());
        if !removed || lately {
            sleep(INTERVAL_FAILED).await;
        }
    }
}

/// Comes back with what keeps it from going on.
async fn fill(
    path: &Path,
    database: &SqliteConnectOptions,
    shared: &Shared,
) -> Result<std::convert::Infallible, StoreError> {
    let mut main = database.clone().connect().await?;
    let mut index = file::open(path).await?;
    let mut up_to = progress(&mut index).await?;
    if !is_of(&mut main, &up_to).await? {
        let _ = index.close().await;
        file::remove(path)?;
        index = file::open(path).await?;
        up_to = progress(&mut index).await?;
    }
    let mut up_to = up_to.0;
    loop {
        let begin = Instant::now();
        if shared.damaged.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Corrupt("a search found it damaged".to_owned()));
        }
        let newest = newest(&mut main).await?;
        let mut added = 0;
        if newest > up_to {
            (up_to, added) = add(&mut main, &mut index, up_to).await?;
        }
        if shared.readers().is_none() && is_close_behind(up_to, newest) {
            shared.put(Some(file::readers(path).await?));
        }
        // With much to catch up it takes no more than half of a processor.
        sleep(if added == BATCH { begin.elapsed() } else { INTERVAL }).await;
    }
}

/// Up to which execution it goes, and what that one is called.
async fn progress(index: &mut Connection) -> Result<(i64, Option<String>), StoreError> {
    let row = sqlx::query("select up_to, last_id from progress").fetch_one(index).await?;
    Ok((row.try_get("up_to")?, row.try_get("last_id")?))
}

/// Whether what the index has is of this database, and not of one that had its place before.
async fn is_of(main: &mut Connection, (up_to, last_id): &(i64, Option<String>)) -> Result<bool, StoreError> {
    if *up_to == 0 {
        return Ok(true);
    }
    let there: Option<String> =
        sqlx::query_scalar("select execution_id from executions where execution_key = $1")
            .bind(up_to)
            .fetch_optional(main)
            .await?;
    Ok(there.is_some() && there == *last_id)
}

/// Adds the next ones: up to where it goes now, and how many they were.
async fn add(main: &mut Connection, index: &mut Connection, up_to: i64) -> Result<(i64, i64), StoreError> {
    let rows = sqlx::query(
        "select execution_key, execution_id, lower(execution_id) as lowered from executions
          where execution_key > $1 order by execution_key limit $2",
    )
    .bind(up_to)
    .bind(BATCH)
    .fetch_all(main)
    .await?;
    let Some(last) = rows.last() else { return Ok((up_to, 0)) };
    let (newest, last_id): (i64, String) = (last.try_get("execution_key")?, last.try_get("execution_id")?);
    let ids = rows
        .iter()
        .map(|row| Ok((row.try_get("execution_key")?, row.try_get("lowered")?)))
        .collect::<Result<Vec<(i64, String)>, sqlx::Error>>()?;
    let ids = serde_json::to_string(&ids).map_err(|error| StoreError::Corrupt(error.to_string()))?;

    let mut transaction = index.begin().await?;
    sqlx::query("insert into ids (rowid, id) select value ->> 0, value ->> 1 from json_each($1)")
        .bind(ids)
        .execute(&mut *transaction)
        .await?;
    sqlx::query("update progress set up_to = $1, last_id = $2")
        .bind(newest)
        .bind(last_id)
        .execute(&mut *transaction)
        .await?;
    transaction.commit().await?;
    Ok((newest, rows.len() as i64))
}
