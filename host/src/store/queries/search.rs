//! Searches: from a text to what a list has to look at.

use std::sync::Arc;

use sqlx::{QueryBuilder, Row as _, Sqlite};

use super::Connection;
use crate::store::{StoreError, codec};

/// So many executions are looked up one by one rather than looked for in the order of a list. Tests
/// get beyond it, too.
pub(crate) const FEW_MAX: usize = if cfg!(test) { 24 } else { 4_096 };
/// So many of the newest executions can be looked at because the index does not have them yet.
const TAIL_MAX: i64 = 20_000;

/// What the index of ids says of a text.
#[derive(Debug)]
pub(crate) struct IdHits {
    /// The index has the executions up to this key.
    pub up_to: i64,
    pub hits: Hits,
}

#[derive(Debug)]
pub(crate) enum Hits {
    /// These, as many as [`FEW_MAX`] at most.
    Few(Vec<i64>),
    /// Some of these; the others do not have it.
    Among(Vec<i64>),
    /// So many.
    Many(u64),
}

/// Whether so much that is not in the index yet can be looked at by a search.
pub(crate) fn is_close_behind(up_to: i64, newest: i64) -> bool {
    newest.saturating_sub(up_to) <= TAIL_MAX
}

pub(crate) async fn newest(connection: &mut Connection) -> Result<i64, StoreError> {
    let newest: Option<i64> =
        sqlx::query_scalar("select max(execution_key) from executions").fetch_one(connection).await?;
    Ok(newest.unwrap_or(0))
}

/// What a search has come to. See [`crate::store::ExecutionFilter::search`].
pub(crate) enum Found {
    /// Every execution.
    All,
    /// These and no others, as a JSON array of keys.
    Few { keys: Arc<str>, total: u64 },
    /// Those of these tasks (a JSON array), and those whose ids match.
    Many { tasks: Option<Arc<str>>, ids: Ids, total: Option<u64> },
}

/// How an id is found to match.
pub(crate) enum Ids {
    /// It is one of these, as a JSON array of keys.
    Known(Arc<str>),
    /// It has this in it, ASCII letters in lower case.
    With(String),
}

/// `hits`: of the index, for the same text.
pub(crate) async fn find(
    connection: &mut Connection,
    text: &str,
    hits: Option<IdHits>,
) -> Result<Found, StoreError> {
    let rows = sqlx::query(
        "select task_name, sum(executions) as executions from execution_counts group by task_name",
    )
    .fetch_all(&mut *connection)
    .await?;
    let (mut tasks, mut of_tasks) = (Vec::new(), 0);
    for row in &rows {
        let task: String = row.try_get("task_name")?;
        if task.to_ascii_lowercase().contains(text) {
            of_tasks += codec::number::<u64>("a count", row.try_get("executions")?)?;
            tasks.push(task);
        }
    }
    if tasks.len() == rows.len() {
        return Ok(Found::All);
    }
    let (few, total) = match hits {
        Some(hits) => with_tail(connection, text, hits).await?,
        None => (None, None),
    };
    let named = match tasks.is_empty() {
        true => None,
        false => Some(codec::encode("tasks", &tasks)?),
    };
    match (few, named) {
        (Some(mut keys), named) if keys.len() as u64 + of_tasks <= FEW_MAX as u64 => {
            if let Some(named) = named {
                keys.extend(of(connection, &named).await?);
                keys.sort_unstable();
                keys.dedup();
            }
            Ok(Found::Few { total: keys.len() as u64, keys: codec::encode("keys", &keys)? })
        }
        (Some(keys), Some(named)) => {
            let keys = codec::encode("keys", &keys)?;
            let total = of_tasks + not_of(connection, &named, &keys).await?;
            Ok(Found::Many { tasks: Some(named), ids: Ids::Known(keys), total: Some(total) })
        }
        (_, tasks) => {
            let total = total.filter(|_| tasks.is_none());
            Ok(Found::Many { tasks, ids: Ids::With(text.to_owned()), total })
        }
    }
}

/// With the newest executions, which the index does not have yet.
async fn with_tail(
    connection: &mut Connection,
    text: &str,
    hits: IdHits,
) -> Result<(Option<Vec<i64>>, Option<u64>), StoreError> {
    if !is_close_behind(hits.up_to, newest(connection).await?) {
        return Ok((None, None));
    }
    let tail: Vec<i64> = sqlx::query_scalar(
        "select execution_key from executions where execution_key > $1 and instr(lower(execution_id), $2) > 0",
    )
    .bind(hits.up_to)
    .bind(text)
    .fetch_all(&mut *connection)
    .await?;
    let few = match hits.hits {
        Hits::Few(keys) => keys,
        Hits::Among(keys) => that_have(connection, text, &keys).await?,
        Hits::Many(count) => return Ok((None, Some(count + tail.len() as u64))),
    };
    let all = [few, tail].concat();
    let total = all.len() as u64;
    Ok((Some(all).filter(|all| all.len() <= FEW_MAX), Some(total)))
}

/// Those of `keys` that have `text` in their ids.
async fn that_have(connection: &mut Connection, text: &str, keys: &[i64]) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar(
        "select e.execution_key from json_each($1) k cross join executions e
          where e.execution_key = k.value and instr(lower(e.execution_id), $2) > 0",
    )
    .bind(codec::encode("keys", &keys)?)
    .bind(text)
    .fetch_all(connection)
    .await?)
}

async fn of(connection: &mut Connection, tasks: &str) -> Result<Vec<i64>, StoreError> {
    Ok(sqlx::query_scalar(
        "select execution_key from executions where task_name in (select value from json_each($1))",
    )
    .bind(tasks)
    .fetch_all(connection)
    .await?)
}

/// How many of `keys` are of no such task.
async fn not_of(connection: &mut Connection, tasks: &str, keys: &str) -> Result<u64, StoreError> {
    let count = sqlx::query_scalar(
        "select count(*) from json_each($1) k cross join executions e
          where e.execution_key = k.value and e.task_name not in (select value from json_each($2))",
    )
    .bind(keys)
    .bind(tasks)
    .fetch_one(connection)
    .await?;
    codec::number("a count", count)
}

/// The condition on an execution `e`, where it is looked at anyway.
pub(crate) fn condition(tasks: Option<&Arc<str>>, ids: &Ids, query: &mut QueryBuilder<Sqlite>) {
    query.push(" and (");
    if let Some(tasks) = tasks {
        query
            .push("e.task_name in (select value from json_each(")
            .push_bind(tasks.to_string())
            .push(")) or ");
    }
    match ids {
        Ids::Known(keys) => query
            .push("e.execution_key in (select value from json_each(")
            .push_bind(keys.to_string())
            .push("))"),
        // `instr` and not `like`: what is searched for has no special characters. (PostgreSQL calls
        // it `strpos`.) It lowers the ASCII letters and no others.
        Ids::With(text) => query.push("instr(lower(e.execution_id), ").push_bind(text.clone()).push(") > 0"),
    };
    query.push(")");
}
