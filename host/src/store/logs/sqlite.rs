//! Guests' logs in a file of their own: `<data directory>/logs.db`.
//!
//! Nobody waits for it, and no run depends on it. So a file that cannot be opened, is damaged or was
//! deleted is no reason not to start: it is set aside or made anew, now or when that can be done.
//! `synchronous = normal`: an end of the process loses nothing of what was added, a loss of power may
//! lose the last moments, and neither damages the file.

use std::{
    collections::BTreeMap,
    os::unix::fs::MetadataExt,
    path::{Path, PathBuf},
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, Connection as _, QueryBuilder, Row as _, Sqlite, SqlitePool,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqlitePoolOptions, SqliteSynchronous},
};
use stepbox_domain::{RunId, StepKey, Timestamp};

use super::{Added, HOST, LogBounds, LogEntry, LogFilter, LogStore, LogView, RUN_BYTES};
use crate::{
    sandbox::LogLevel,
    store::{
        StoreError, codec,
        queries::{
            Connection, Row,
            statement::{Value, execute_all, wide},
        },
        schema,
    },
};

/// Logs that are read at the same time; others queue.
const READERS: u32 = 2;

/// How long a reader waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(10);

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
    /// The last sequence number that was given.
    last: u64,
    /// What all runs count for.
    bytes: u64,
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
        let mut connection = writing(&self.file).connect().await?;
        schema::migrate_logs(&mut connection).await.map_err(of_migration)?;
        let row = sqlx::query(
            "select coalesce((select max(sequence) from log_lines), 0) as last,
                    (select coalesce(sum(bytes), 0) + count(*) * $1 from log_runs) as bytes",
        )
        .bind(RUN_BYTES as i64)
        .fetch_one(&mut connection)
        .await?;
        let last: u64 = codec::number("a sequence", row.try_get("last")?)?;
        // Not simply on from the last one: of what is lost, somebody may have seen the numbers.
        let from_time = u64::try_from(now.as_ms()).unwrap_or(0).saturating_mul(1_000);
        let readers = SqlitePoolOptions::new()
            .max_connections(READERS)
            .acquire_timeout(TURN_MAX)
            .idle_timeout(None)
            .max_lifetime(None)
            .test_before_acquire(false)
            .connect_with(options(&self.file).read_only(true))
            .await?;
        *self.readers.lock().unwrap_or_else(PoisonError::into_inner) = Some(readers);
        let gone = || StoreError::Unavailable("its file is gone".to_owned());
        Ok(Open {
            connection,
            identity: identity(&self.file).ok_or_else(gone)?,
            last: last.max(from_time),
            bytes: codec::number("a size", row.try_get("bytes")?)?,
        })
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

fn beside(file: &Path, end: &str) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(end);
    name.into()
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

fn options(file: &Path) -> SqliteConnectOptions {
    SqliteConnectOptions::new()
        .filename(file)
        .busy_timeout(Duration::from_secs(5))
        // 4 MB for each connection, in KiB.
        .pragma("cache_size", "-4096")
        .pragma("temp_store", "memory")
        .disable_statement_logging()
}

fn writing(file: &Path) -> SqliteConnectOptions {
    options(file)
        .create_if_missing(true)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Normal)
        // After a flood the write-ahead log does not stay as long as it was.
        .pragma("journal_size_limit", "16777216")
        .foreign_keys(false)
        .statement_cache_capacity(100)
}

#[async_trait]
impl LogStore for SqliteLogs {
    async fn add(&self, lines: &[LogEntry], now: Timestamp) -> Result<Added, StoreError> {
        let mut open = self.open.lock().await;
        let done = match self.opened(&mut open, now).await {
            Ok(there) => add(there, &self.bounds, lines).await,
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
        let done = async { lines(&mut *readers.acquire().await?, filter).await };
        self.noted(done.await)
    }

    async fn close(&self) {
        self.close_all(&mut *self.open.lock().await).await;
    }
}

/// How much of a run is kept, as far as one transaction knows.
struct Stand {
    key: i64,
    lines: u64,
    bytes: u64,
    dropped: u64,
}

async fn add(open: &mut Open, bounds: &LogBounds, lines: &[LogEntry]) -> Result<Added, StoreError> {
    let Open { connection, last, bytes, .. } = open;
    sqlx::query("begin immediate").execute(&mut *connection).await?;
    let mut total = *bytes;
    let mut stands = stand(connection, lines, &mut total).await?;

    let mut rows: Vec<[Value; 8]> = Vec::with_capacity(lines.len());
    let mut next = *last;
    for line in lines {
        next += 1;
        let Some(stand) = stands.get_mut(&line.run) else { continue };
        stand.lines += 1;
        stand.bytes += line.bytes();
        total += line.bytes();
        rows.push(row(next, stand.key, line));
    }
    insert(connection, &rows).await?;

    let mut dropped = 0;
    for (run, stand) in &mut stands {
        if bounds.exceeded(stand.lines, stand.bytes) {
            dropped += shorten(connection, bounds, run, stand, &mut total).await?;
        }
        let last_ms = lines.iter().rfind(|line| line.run == *run).map(|line| line.at.as_ms());
        sqlx::query(
            "update log_runs set lines = $2, bytes = $3, dropped = $4, last_ms = $5 where run_key = $1",
        )
        .bind(stand.key)
        .bind(stand.lines as i64)
        .bind(stand.bytes as i64)
        .bind(stand.dropped as i64)
        .bind(last_ms)
        .execute(&mut *connection)
        .await?;
    }
    while total > bounds.bytes_max {
        let Some(gone) = drop_oldest(connection, &mut total).await? else { break };
        dropped += gone;
    }
    sqlx::query("commit").execute(connection).await?;
    (*last, *bytes) = (next, total);
    Ok(Added { dropped, bytes: total })
}

/// How the runs of `lines` stand, those among them that are new.
async fn stand(
    connection: &mut Connection,
    lines: &[LogEntry],
    total: &mut u64,
) -> Result<BTreeMap<RunId, Stand>, StoreError> {
    let mut stands = BTreeMap::new();
    for line in lines {
        if stands.contains_key(&line.run) {
            continue;
        }
        let row = sqlx::query(
            "insert into log_runs (run_id, execution_id, lines, bytes, dropped, last_ms)
             values ($1, $2, 0, 0, 0, $3)
             on conflict (run_id) do update set last_ms = excluded.last_ms
             returning run_key, lines, bytes, dropped",
        )
        .bind(line.run.as_str())
        .bind(line.execution.as_str())
        .bind(line.at.as_ms())
        .fetch_one(&mut *connection)
        .await?;
        let stand = Stand {
            key: row.try_get("run_key")?,
            lines: codec::number("a number of lines", row.try_get("lines")?)?,
            bytes: codec::number("a size", row.try_get("bytes")?)?,
            dropped: codec::number("a number of lines", row.try_get("dropped")?)?,
        };
        if stand.lines == 0 {
            *total += RUN_BYTES;
        }
        stands.insert(line.run.clone(), stand);
    }
    Ok(stands)
}

fn row(sequence: u64, run: i64, line: &LogEntry) -> [Value; 8] {
    [
        (sequence as i64).into(),
        run.into(),
        line.at.as_ms().into(),
        line.step.as_ref().map(|(step, _)| step.as_str()).into(),
        line.step.as_ref().map(|(_, attempt)| i64::from(*attempt)).into(),
        level_number(line.level).into(),
        line.target.as_str().into(),
        line.message.as_str().into(),
    ]
}

async fn insert(connection: &mut Connection, rows: &[[Value; 8]]) -> Result<(), StoreError> {
    let statements = wide(rows, |values| {
        format!(
            "with n (sequence, run_key, at_ms, step, attempt, level, target, message) as ({values})
             insert into log_lines (sequence, run_key, at_ms, step, attempt, level, target, message)
             select sequence, run_key, at_ms, step, attempt, level, target, message from n
              where sequence is not null"
        )
    });
    execute_all(connection, statements).await.map(drop)
}

/// Drops the oldest lines of a run, and puts a line in their place that says so. How many.
async fn shorten(
    connection: &mut Connection,
    bounds: &LogBounds,
    run: &RunId,
    stand: &mut Stand,
    total: &mut u64,
) -> Result<u64, StoreError> {
    let (lines_max, bytes_max) = bounds.kept();
    let newest_first = LogFilter { run: Some(run.clone()), descending: true, ..every_line_of(run)? };
    let all = lines(connection, &newest_first).await?;
    let (mut kept, mut bytes) = (0, 0);
    let mut cut = None;
    for line in &all {
        if kept + 1 > lines_max || bytes + line.entry.bytes() > bytes_max {
            cut = Some(line);
            break;
        }
        kept += 1;
        bytes += line.entry.bytes();
    }
    let Some(cut) = cut else { return Ok(0) };
    let gone = sqlx::query("delete from log_lines where run_key = $1 and sequence <= $2")
        .bind(stand.key)
        .bind(cut.sequence as i64)
        .execute(&mut *connection)
        .await?
        .rows_affected();
    // The line that told of those before.
    let dropped = gone - u64::from(stand.dropped > 0);
    stand.dropped += dropped;
    let told = LogEntry {
        step: None,
        level: LogLevel::Warn,
        target: HOST.to_owned(),
        message: bounds.dropped(stand.dropped),
        ..cut.entry.clone()
    };
    insert(connection, &[row(cut.sequence, stand.key, &told)]).await?;
    stand.lines = kept + 1;
    *total = *total + bytes + told.bytes() - stand.bytes;
    stand.bytes = bytes + told.bytes();
    Ok(dropped)
}

fn every_line_of(run: &RunId) -> Result<LogFilter, StoreError> {
    let execution = run.execution();
    let execution = execution.ok_or_else(|| StoreError::Corrupt(format!("\"{run}\" is no run")))?;
    Ok(LogFilter::of(execution, u32::MAX))
}

/// Drops the log of the run that has printed nothing for longest. How many lines; none: nothing is
/// there.
async fn drop_oldest(connection: &mut Connection, total: &mut u64) -> Result<Option<u64>, StoreError> {
    let oldest = sqlx::query(
        "delete from log_runs
          where run_key = (select run_key from log_runs order by last_ms, run_key limit 1)
         returning run_key, bytes, dropped",
    )
    .fetch_optional(&mut *connection)
    .await?;
    let Some(oldest) = oldest else { return Ok(None) };
    let gone = sqlx::query("delete from log_lines where run_key = $1")
        .bind(oldest.try_get::<i64, _>("run_key")?)
        .execute(connection)
        .await?
        .rows_affected();
    let bytes: u64 = codec::number("a size", oldest.try_get("bytes")?)?;
    *total = total.saturating_sub(bytes + RUN_BYTES);
    let told = oldest.try_get::<i64, _>("dropped")? > 0;
    Ok(Some(gone - u64::from(told)))
}

async fn lines(connection: &mut Connection, filter: &LogFilter) -> Result<Vec<LogView>, StoreError> {
    // The runs lead: an execution has few of them, and each has its lines in order.
    let mut query = QueryBuilder::<Sqlite>::new(
        "select l.*, r.run_id, r.execution_id from log_runs r cross join log_lines l
          where l.run_key = r.run_key and r.execution_id = ",
    );
    query.push_bind(filter.execution.as_str().to_owned());
    if let Some(run) = &filter.run {
        query.push(" and r.run_id = ").push_bind(run.as_str().to_owned());
    }
    if let Some(step) = &filter.step {
        query.push(" and l.step = ").push_bind(step.as_str().to_owned());
    }
    if let Some(attempt) = filter.attempt {
        query.push(" and l.attempt = ").push_bind(i64::from(attempt));
    }
    if let Some(level) = filter.level {
        query.push(" and l.level >= ").push_bind(level_number(level));
    }
    if let Some(search) = &filter.search {
        query.push(" and instr(lower(l.message), ").push_bind(search.to_ascii_lowercase()).push(") > 0");
    }
    if let Some(from) = filter.from {
        query.push(" and l.at_ms >= ").push_bind(from.as_ms());
    }
    if let Some(to) = filter.to {
        query.push(" and l.at_ms <= ").push_bind(to.as_ms());
    }
    if let Some(after) = filter.after {
        query.push(if filter.descending { " and l.sequence < " } else { " and l.sequence > " });
        query.push_bind(i64::try_from(after).unwrap_or(i64::MAX));
    }
    query.push(if filter.descending { " order by l.sequence desc" } else { " order by l.sequence" });
    query.push(" limit ").push_bind(i64::from(filter.limit));
    query.build().fetch_all(connection).await?.iter().map(view).collect()
}

fn view(row: &Row) -> Result<LogView, StoreError> {
    let corrupt = |what: String| StoreError::Corrupt(format!("a line of a log: {what}"));
    let step: Option<&str> = row.try_get("step")?;
    let attempt: Option<i64> = row.try_get("attempt")?;
    let step = match (step, attempt) {
        (Some(step), Some(attempt)) => {
            let step = StepKey::parse(step).map_err(|error| corrupt(error.to_string()))?;
            Some((step, codec::number("an attempt", attempt)?))
        }
        _ => None,
    };
    let level: i64 = row.try_get("level")?;
    let level = usize::try_from(level).ok().and_then(|level| LogLevel::ALL.get(level).copied());
    Ok(LogView {
        sequence: codec::number("a sequence", row.try_get("sequence")?)?,
        entry: LogEntry {
            execution: codec::execution_id(row.try_get("execution_id")?)?,
            run: RunId::parse(row.try_get("run_id")?).map_err(|error| corrupt(error.to_string()))?,
            step,
            level: level.ok_or_else(|| corrupt("an unknown level".to_owned()))?,
            target: row.try_get("target")?,
            at: Timestamp::from_ms(row.try_get("at_ms")?),
            message: row.try_get("message")?,
        },
    })
}

fn level_number(level: LogLevel) -> i64 {
    level as i64
}
