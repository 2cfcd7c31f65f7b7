//! When the write-ahead log is brought into the database.
//!
//! Left to itself SQLite does that inside of the commit that makes the log too long, and that
//! commit takes up to sixty times as long as the others. So it is done beside the writer, on a
//! connection of its own, which stops nobody. The log can only start over, though, when all of
//! it has been brought over at a moment when nobody writes; so once it has grown, the writer
//! itself does the little that is left, between two commits.

use std::time::Duration;

use sqlx::{ConnectOptions, Row as _, sqlite::SqliteConnectOptions};
use tokio::sync::{mpsc, oneshot};

use super::StoreError;
use super::group_commit::Message;
use super::queries::Connection;
use crate::fault::{self, Fault};

const INTERVAL: Duration = Duration::from_secs(1);
/// While much is written.
const INTERVAL_BUSY: Duration = Duration::from_millis(250);
/// From this many pages of log on (32 MB) it is made to start over.
const LOG_PAGES_MAX: i64 = 16_000;
/// So many pages are little enough for the writer to do.
const REST_PAGES_MAX: i64 = 800;
/// A busy writer adds to the log while it is brought over: so often is the rest tried again.
const PASSES_MAX: u32 = 4;

/// Works until the writer is gone.
pub(super) async fn run(options: SqliteConnectOptions, writer: mpsc::WeakUnboundedSender<Message>) {
    let mut connection: Option<Connection> = None;
    let mut interval = INTERVAL;
    loop {
        tokio::time::sleep(interval).await;
        let Some(writer) = writer.upgrade() else { return };
        match round(&mut connection, &options, &writer).await {
            Ok(log) => interval = if log < LOG_PAGES_MAX { INTERVAL } else { INTERVAL_BUSY },
            Err(error) => {
                connection = None;
                tracing::warn!(%error, "the write-ahead log could not be brought into the database");
            }
        }
    }
}

/// How many pages the log had.
async fn round(
    connection: &mut Option<Connection>,
    options: &SqliteConnectOptions,
    writer: &mpsc::UnboundedSender<Message>,
) -> Result<i64, StoreError> {
    let connection = match connection {
        Some(connection) => connection,
        None => connection.insert(options.connect().await?),
    };
    let mut pages = 0;
    for _ in 0..PASSES_MAX {
        let (log, done) = passive(connection).await?;
        pages = log;
        if log < LOG_PAGES_MAX {
            return Ok(log);
        }
        if log - done <= REST_PAGES_MAX {
            break;
        }
    }
    let (done, wait) = oneshot::channel();
    if writer.send(Message::Checkpoint(done)).is_ok() {
        // An error means that the writer is gone, and with it the need.
        let _ = wait.await;
    }
    Ok(pages)
}

/// Brings over what can be without stopping anybody: how many pages the log has, and how many of
/// them have been brought over.
async fn passive(connection: &mut Connection) -> Result<(i64, i64), StoreError> {
    let checkpoint = sqlx::query("pragma wal_checkpoint(passive)").fetch_one(connection);
    let row = fault::during(Fault::Checkpoint, checkpoint).await?;
    Ok((row.try_get(1)?, row.try_get(2)?))
}
