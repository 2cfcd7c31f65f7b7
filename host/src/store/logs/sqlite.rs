//! Guests' logs in a file of their own: `<data directory>/logs.db`. How it is opened, and what becomes
//! of it when it cannot be; what is in it is the matter of [`queries`].
//!
//! Nobody waits for it, and no run depends on it. So a file that cannot be opened, is damaged or was
//! deleted is no reason not to start: it is set aside or made anew, now or when that can be done.

use std::{
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use async_trait::async_trait;
use sqlx::{ConnectOptions, Connection as _, SqlitePool};
use stepbox_domain::Timestamp;

use super::{
    Added, LogBounds, LogEntry, LogFilter, LogStore, LogView,
    queries::{self, Stock},
};
use crate::store::{
    StoreError,
    connect::{self, beside, beside_the_database::*},
    queries::Connection,
    schema,
};

/// Logs that are read at the same time; others queue.
const READERS: u32 = 2;

pub struct SqliteLogs {
    file: PathBuf,
    bounds: LogBounds,
    /// None where it could not be opened yet, and after a failure.
    open: tokio::sync::Mutex<Option<Open>>,
    readers: Mutex<Option<SqlitePool>>,
    /// It was found to hold what it should not.
    damaged: AtomicBool,
}

struct Open {
    connection: Connection,
    /// Which file it is, should another one have its name by now.
    identity: (u64, u64),
    stock: Stock,
}

impl SqliteLogs {
    /// The logs under `data_dir`, which is there. What is wrong with them is said in the log of the
    /// host, and tried again when something is to be kept.
    pub async fn open(data_dir: &Path, bounds: LogBounds, now: Timestamp) -> Self {
        let logs = SqliteLogs {
            file: data_dir.join("logs.db"),
            bounds,
            open: tokio::sync::Mutex::default(),
            readers: Mutex::default(),
            damaged: AtomicBool::default(),
        };
        let opened = logs.opened(&mut *logs.open.lock().await, now).await.map(drop);
        if let Err(error) = opened {
            tracing::warn!(%error, "guests' logs cannot be kept for now");
        }
        logs
    }

    /// What is open, opened if need be.
    async fn opened<'a>(
        &self,
        open: &'a mut Option<Open>,
        now: Timestamp,
    ) -> Result<&'a mut Open, StoreError> {
        if open.as_ref().is_some_and(|open| identity(&self.file) != Some(open.identity)) {
            tracing::warn!(file = %self.file.display(), "the file of guests' logs is gone; a new one is made");
            self.close_all(open).await;
        }
        let there = match open.take() {
            Some(there) => there,
            None => match self.connect(now).await {
                Err(StoreError::Corrupt(what)) => {
                    self.set_aside(&what)?;
                    self.connect(now).await?
                }
                connected => connected?,
            },
        };
        Ok(open.insert(there))
    }

    async fn connect(&self, now: Timestamp) -> Result<Open, StoreError> {
        if self.damaged.swap(false, Ordering::Relaxed) {
            return Err(StoreError::Corrupt("it was found to be damaged".to_owned()));
        }
        let mut connection = writing(&self.file).statement_cache_capacity(100).connect().await?;
        schema::migrate_logs(&mut connection).await.map_err(of_migration)?;
        let mut stock = queries::stock(&mut connection).await?;
        // Not simply on from the last one: of what is lost, somebody may have seen the numbers.
        let from_time = u64::try_from(now.as_ms()).unwrap_or(0).saturating_mul(1_000);
        stock.last = stock.last.max(from_time);
        let readers = connect::pool(READERS, reading(&self.file)).await?;
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = Some(readers);
        let gone = || StoreError::Unavailable("its file is gone".to_owned());
        Ok(Open { connection, identity: identity(&self.file).ok_or_else(gone)?, stock })
    }

    /// A damaged file is kept for who may want to look at it, under another name.
    fn set_aside(&self, what: &str) -> Result<(), StoreError> {
        tracing::warn!(
            %what,
            file = %self.file.display(),
            "guests' logs were damaged and are set aside as logs.db.damaged; new ones begin"
        );
        let failed = |error: std::io::Error| StoreError::Unavailable(error.to_string());
        std::fs::rename(&self.file, beside(&self.file, ".damaged")).map_err(failed)?;
        for end in ["-wal", "-shm"] {
            match std::fs::remove_file(beside(&self.file, end)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(failed(error)),
                _ => {}
            }
        }
        Ok(())
    }

    fn readers(&self) -> Option<SqlitePool> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    async fn close_all(&self, open: &mut Option<Open>) {
        let readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(readers) = readers {
            readers.close().await;
        }
        if let Some(open) = open.take()
            && let Err(error) = open.connection.close().await
        {
            tracing::debug!(%error, "the database of guests' logs did not close in good order");
        }
    }

    /// Remembers what a failure says of the file.
    fn noted<T>(&self, done: Result<T, StoreError>) -> Result<T, StoreError> {
        if let Err(StoreError::Corrupt(_)) = &done {
            self.damaged.store(true, Ordering::Relaxed);
        }
        done
    }
}

fn identity(file: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(file).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn of_migration(error: sqlx::migrate::MigrateError) -> StoreError {
    match error {
        sqlx::migrate::MigrateError::Execute(error) => error.into(),
        // One of a newer program: to be left as it is.
        other => StoreError::Unavailable(other.to_string()),
    }
}

#[async_trait]
impl LogStore for SqliteLogs {
    async fn add(&self, lines: &[LogEntry], now: Timestamp) -> Result<Added, StoreError> {
        let mut open = self.open.lock().await;
        let done = match self.opened(&mut open, now).await {
            Ok(Open { connection, stock, .. }) => queries::add(connection, stock, &self.bounds, lines).await,
            Err(error) => Err(error),
        };
        if done.is_err() {
            // Closing rolls back whatever is open.
            self.close_all(&mut open).await;
        }
        self.noted(done)
    }

    async fn lines(&self, filter: &LogFilter) -> Result<Vec<LogView>, StoreError> {
        let Some(readers) = self.readers() else {
            return Err(StoreError::Unavailable("guests' logs cannot be read now".to_owned()));
        };
        let done = async { queries::lines(&mut *readers.acquire().await?, filter).await };
        self.noted(done.await)
    }

    async fn close(&self) {
        self.close_all(&mut *self.open.lock().await).await;
    }
}
