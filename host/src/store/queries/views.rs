//! Executions as lists and details show them.

use sqlx::{QueryBuilder, Row as _, Sqlite};
use stepbox_domain::{ExecutionId, Fingerprint, RunId, Timestamp};

use super::{Connection, Row};
use crate::store::{Counts, ExecutionFilter, ExecutionView, Page, RunKey, Sort, StoreError, codec};

/// What [`execution_view`] reads, of an execution `e` and its current run `r`.
pub(crate) const EXECUTION_COLUMNS: &str = "e.execution_id, e.task_name, coalesce(r.payload, e.payload) as payload, e.fingerprint, e.status, e.scheduled_ms, \
    e.completed_ms, e.run_key, e.run_index, e.version, e.result, e.error, r.waiting";

pub(crate) fn execution_view(row: &Row) -> Result<ExecutionView, StoreError> {
    let id = codec::execution_id(row.try_get("execution_id")?)?;
    let index = codec::number("a run's index", row.try_get("run_index")?)?;
    let completed: Option<i64> = row.try_get("completed_ms")?;
    let result: Option<String> = row.try_get("result")?;
    let error: Option<&str> = row.try_get("error")?;
    let waiting: Option<&str> = row.try_get("waiting")?;
    Ok(ExecutionView {
        run: RunId::new(&id, index),
        id,
        task: codec::task_name(row.try_get("task_name")?)?,
        payload: codec::json(row.try_get("payload")?)?,
        fingerprint: Fingerprint::from_stored(row.try_get("fingerprint")?),
        status: codec::status(row.try_get("status")?)?,
        scheduled_at: Timestamp::from_ms(row.try_get("scheduled_ms")?),
        completed_at: completed.map(Timestamp::from_ms),
        version: codec::number("a version", row.try_get("version")?)?,
        run_key: RunKey(row.try_get("run_key")?),
        result: result.map(codec::json).transpose()?,
        error: error.map(|error| codec::decode("a failure", error)).transpose()?,
        waiting: waiting.map(|waiting| codec::decode("a wait", waiting)).transpose()?,
    })
}

pub(crate) async fn execution(
    connection: &mut Connection,
    id: &ExecutionId,
) -> Result<Option<ExecutionView>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("select ");
    query.push(EXECUTION_COLUMNS);
    query.push(" from executions e join runs r on r.run_key = e.run_key where e.execution_id = ");
    query.push_bind(id.as_str());
    query.build().fetch_optional(connection).await?.as_ref().map(execution_view).transpose()
}

/// A page of what `filter` matches.
pub(crate) async fn executions(
    connection: &mut Connection,
    filter: &ExecutionFilter,
    page: Page,
) -> Result<Vec<ExecutionView>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("select ");
    query.push(EXECUTION_COLUMNS);
    // Not a join: the executions lead, in the order of an index, and only the rows of this page
    // look up their run.
    query.push(" from executions e cross join runs r where r.run_key = e.run_key");
    conditions(filter, &mut query);
    let direction = if page.descending { "desc" } else { "asc" };
    query.push(" order by ");
    let columns: &[&str] = match page.sort {
        Sort::ScheduledAt => &["e.scheduled_ms", "e.execution_key"],
        Sort::Status => &["e.status", "e.scheduled_ms", "e.execution_key"],
        Sort::TaskName => &["e.task_name", "e.scheduled_ms", "e.execution_key"],
    };
    for (place, column) in columns.iter().enumerate() {
        query.push(if place == 0 { "" } else { ", " }).push(column).push(" ").push(direction);
    }
    query.push(" limit ").push_bind(i64::from(page.limit));
    query.push(" offset ").push_bind(i64::try_from(page.offset).unwrap_or(i64::MAX));
    query.build().fetch_all(connection).await?.iter().map(execution_view).collect()
}

/// How many `filter` matches in all.
pub(crate) async fn total(connection: &mut Connection, filter: &ExecutionFilter) -> Result<u64, StoreError> {
    let is_counted = filter.from.is_none() && filter.to.is_none() && filter.search.is_none();
    let mut query = QueryBuilder::<Sqlite>::new(match is_counted {
        true => "select coalesce(sum(e.executions), 0) from execution_counts e where true",
        false => "select count(*) from executions e where true",
    });
    conditions(filter, &mut query);
    codec::number("a count", query.build_query_scalar().fetch_one(connection).await?)
}

pub(crate) fn conditions(filter: &ExecutionFilter, query: &mut QueryBuilder<Sqlite>) {
    if let Some(status) = filter.status {
        query.push(" and e.status = ").push_bind(status.as_str());
    }
    if let Some(task) = &filter.task {
        query.push(" and e.task_name = ").push_bind(task.clone());
    }
    if let Some(from) = filter.from {
        query.push(" and e.scheduled_ms >= ").push_bind(from.as_ms());
    }
    if let Some(to) = filter.to {
        query.push(" and e.scheduled_ms <= ").push_bind(to.as_ms());
    }
    if let Some(search) = &filter.search {
        found_by(search, query);
    }
}

/// See [`ExecutionFilter::search`].
pub(crate) fn found_by(search: &str, query: &mut QueryBuilder<Sqlite>) {
    // `instr` and not `like`: what is searched for has no special characters. (PostgreSQL
    // calls it `strpos`.) Both sides lower the ASCII letters and no others.
    let search = search.to_ascii_lowercase();
    query.push(" and (instr(lower(e.execution_id), ").push_bind(search.clone());
    query.push(") > 0 or instr(lower(e.task_name), ").push_bind(search).push(") > 0)");
}

pub(crate) async fn counts(connection: &mut Connection) -> Result<Counts, StoreError> {
    let rows =
        sqlx::query("select status, sum(executions) as executions from execution_counts group by status")
            .fetch_all(connection)
            .await?;
    let mut counts = Counts::default();
    for row in &rows {
        let status = codec::status(row.try_get("status")?)?;
        *counts.of(status) = codec::number("a count", row.try_get("executions")?)?;
    }
    Ok(counts)
}
