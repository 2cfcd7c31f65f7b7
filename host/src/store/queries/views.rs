//! Executions as lists and details show them.

use sqlx::{QueryBuilder, Row as _, Sqlite};
use stepbox_domain::{ExecutionId, Fingerprint, RunId, Timestamp};

use super::{
    Connection, Row,
    search::{self, Found},
};
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

/// A page of what `filter` matches, `found` being what its search has come to.
pub(crate) async fn executions(
    connection: &mut Connection,
    filter: &ExecutionFilter,
    found: &Found,
    page: Page,
) -> Result<Vec<ExecutionView>, StoreError> {
    let mut query = executions_query(filter, found, page);
    query.build().fetch_all(connection).await?.iter().map(execution_view).collect()
}

pub(crate) fn executions_query(filter: &ExecutionFilter, found: &Found, page: Page) -> QueryBuilder<Sqlite> {
    // First the keys of the page, from an index or those few: only its rows are read with their
    // payloads, and look up their runs.
    let mut query = QueryBuilder::<Sqlite>::new("with page (execution_key) as (select e.execution_key from ");
    matching(filter, found, &mut query);
    order(page, &mut query);
    query.push(" limit ").push_bind(i64::from(page.limit));
    query.push(" offset ").push_bind(i64::try_from(page.offset).unwrap_or(i64::MAX));
    query.push(") select ").push(EXECUTION_COLUMNS);
    query.push(
        " from page p cross join executions e cross join runs r
         where e.execution_key = p.execution_key and r.run_key = e.run_key",
    );
    order(page, &mut query);
    query
}

fn order(page: Page, query: &mut QueryBuilder<Sqlite>) {
    let columns: &[&str] = match page.sort {
        Sort::ScheduledAt => &["e.scheduled_ms", "e.execution_key"],
        Sort::Status => &["e.status", "e.scheduled_ms", "e.execution_key"],
        Sort::TaskName => &["e.task_name", "e.scheduled_ms", "e.execution_key"],
    };
    query.push(" order by ");
    for (place, column) in columns.iter().enumerate() {
        let direction = if page.descending { " desc" } else { " asc" };
        query.push(if place == 0 { "" } else { ", " }).push(column).push(direction);
    }
}

/// How many `filter` matches in all.
pub(crate) async fn total(
    connection: &mut Connection,
    filter: &ExecutionFilter,
    found: &Found,
) -> Result<u64, StoreError> {
    let by_time = filter.from.is_some() || filter.to.is_some();
    let by_column = filter.status.is_some() || filter.task.is_some();
    match found {
        Found::Few { total, .. } | Found::Many { total: Some(total), .. } if !by_time && !by_column => {
            return Ok(*total);
        }
        _ => {}
    }
    let mut query = QueryBuilder::<Sqlite>::new("select ");
    match found {
        Found::All if !by_time => {
            query.push("coalesce(sum(e.executions), 0) from execution_counts e where true");
            conditions(filter, &mut query);
        }
        _ => {
            query.push("count(*) from ");
            matching(filter, found, &mut query);
        }
    }
    codec::number("a count", query.build_query_scalar().fetch_one(connection).await?)
}

/// From where, and under which conditions, executions `e` are taken.
fn matching(filter: &ExecutionFilter, found: &Found, query: &mut QueryBuilder<Sqlite>) {
    match found {
        Found::All => {
            query.push("executions e where true");
        }
        // A `cross join` is done in this order.
        Found::Few { keys, .. } => {
            query.push("json_each(").push_bind(keys.to_string());
            query.push(") k cross join executions e where e.execution_key = k.value");
        }
        Found::Many { tasks, ids, .. } => {
            query.push("executions e where true");
            search::condition(tasks.as_ref(), ids, query);
        }
    }
    conditions(filter, query);
}

/// All but the search.
fn conditions(filter: &ExecutionFilter, query: &mut QueryBuilder<Sqlite>) {
    if let Some(status) = filter.status {
        // Not bound: SQLite takes an index of some statuses only if it sees which one it is.
        query.push(" and e.status = '").push(status.as_str()).push("'");
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
