//! The statements over guests' logs.

use std::collections::BTreeMap;

use sqlx::{QueryBuilder, Row as _, Sqlite};
use stepbox_domain::{RunId, StepKey, Timestamp};

use super::{Added, HOST, LogBounds, LogEntry, LogFilter, LogView, RUN_BYTES};
use crate::{
    sandbox::LogLevel,
    store::{
        StoreError, codec,
        queries::{
            Connection, Row,
            statement::{Value, execute_all, wide},
        },
    },
};

/// What there is in all.
pub(super) struct Stock {
    /// The last sequence number that was given.
    pub last: u64,
    /// What all runs count for.
    pub bytes: u64,
}

pub(super) async fn stock(connection: &mut Connection) -> Result<Stock, StoreError> {
    let row = sqlx::query(
        "select coalesce((select max(sequence) from log_lines), 0) as last,
                (select coalesce(sum(bytes), 0) + count(*) * $1 from log_runs) as bytes",
    )
    .bind(RUN_BYTES as i64)
    .fetch_one(connection)
    .await?;
    Ok(Stock {
        last: codec::number("a sequence", row.try_get("last")?)?,
        bytes: codec::number("a size", row.try_get("bytes")?)?,
    })
}

/// How much of a run is kept, as far as one transaction knows.
struct Stand {
    key: i64,
    lines: u64,
    bytes: u64,
    dropped: u64,
}

/// Adds `lines`, and lets go of what is more than `bounds` allow: all in one transaction.
pub(super) async fn add(
    connection: &mut Connection,
    Stock { last, bytes }: &mut Stock,
    bounds: &LogBounds,
    lines: &[LogEntry],
) -> Result<Added, StoreError> {
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

/// The lines that `filter` lets through, in its order.
pub(super) async fn lines(
    connection: &mut Connection,
    filter: &LogFilter,
) -> Result<Vec<LogView>, StoreError> {
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
