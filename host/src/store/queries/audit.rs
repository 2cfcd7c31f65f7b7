//! The audit trail.

use sqlx::{QueryBuilder, Row as _, Sqlite};
use stepbox_domain::{
    ExecutionId, TaskName, Timestamp,
    audit::{AuditAction, AuditEntry, AuditHash, Chain},
};

use super::{Connection, Row, executions::Known};
use crate::store::{AuditFilter, AuditRow, AuditView, StoreError, codec};

/// Adds the entry that follows all that are there, within the transaction that is open.
pub(crate) async fn write(
    connection: &mut Connection,
    known: &mut Known,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    // Known again only when it is written: after a failure the writer forgets what it knew.
    let end = match known.trail.take() {
        Some(end) => end,
        None => end(connection).await?,
    };
    let number = end.count + 1;
    let hash = end.head.next(number, entry);
    sqlx::query(
        "insert into audit (number, at_ms, actor, action, execution_id, task_name, target, before, after, reason, hash)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(i64::try_from(number).unwrap_or(i64::MAX))
    .bind(entry.at.as_ms())
    .bind(entry.actor.as_deref())
    .bind(entry.action.as_str())
    .bind(entry.execution.as_ref().map(ExecutionId::as_str))
    .bind(entry.task.as_ref().map(TaskName::as_str))
    .bind(entry.target.as_deref())
    .bind(entry.before.as_str())
    .bind(entry.after.as_str())
    .bind(entry.reason.as_deref())
    .bind(hash.as_str())
    .execute(connection)
    .await?;
    known.trail = Some(Chain { count: number, head: hash });
    Ok(())
}

async fn end(connection: &mut Connection) -> Result<Chain, StoreError> {
    let last = sqlx::query("select number, hash from audit order by number desc limit 1")
        .fetch_optional(connection)
        .await?;
    let Some(last) = last else { return Ok(Chain::default()) };
    Ok(Chain {
        count: codec::number("an audit number", last.try_get("number")?)?,
        head: AuditHash::from_stored(last.try_get("hash")?),
    })
}

/// A page of what `filter` matches, newest first, and how many it matches in all.
pub(crate) async fn page(
    connection: &mut Connection,
    filter: &AuditFilter,
    limit: u32,
    offset: u64,
) -> Result<(Vec<AuditView>, u64), StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("select * from audit where true");
    conditions(filter, &mut query);
    query.push(" order by number desc limit ").push_bind(i64::from(limit));
    query.push(" offset ").push_bind(i64::try_from(offset).unwrap_or(i64::MAX));
    let rows = query.build().fetch_all(&mut *connection).await?;
    let views = rows.iter().map(view).collect::<Result<_, _>>()?;

    let mut count = QueryBuilder::<Sqlite>::new("select count(*) from audit where true");
    conditions(filter, &mut count);
    let total = codec::number("a count", count.build_query_scalar().fetch_one(connection).await?)?;
    Ok((views, total))
}

fn conditions(filter: &AuditFilter, query: &mut QueryBuilder<Sqlite>) {
    if let Some(action) = filter.action {
        query.push(" and action = ").push_bind(action.as_str());
    }
    if let Some(actor) = &filter.actor {
        query.push(" and actor = ").push_bind(actor.clone());
    }
    if let Some(execution) = &filter.execution {
        query.push(" and execution_id = ").push_bind(execution.as_str().to_owned());
    }
    if let Some(task) = &filter.task {
        query.push(" and task_name = ").push_bind(task.as_str().to_owned());
    }
    if let Some(from) = filter.from {
        query.push(" and at_ms >= ").push_bind(from.as_ms());
    }
    if let Some(to) = filter.to {
        query.push(" and at_ms <= ").push_bind(to.as_ms());
    }
}

/// Oldest first, whether or not they can be read.
pub(crate) async fn after(
    connection: &mut Connection,
    after: u64,
    limit: u32,
) -> Result<Vec<AuditRow>, StoreError> {
    let rows = sqlx::query("select * from audit where number > $1 order by number limit $2")
        .bind(i64::try_from(after).unwrap_or(i64::MAX))
        .bind(i64::from(limit))
        .fetch_all(connection)
        .await?;
    rows.iter()
        .map(|row| {
            let number = codec::number("an audit number", row.try_get("number")?)?;
            Ok(match view(row) {
                Ok(view) => AuditRow::Read(view),
                Err(error) => AuditRow::Unreadable { number, why: error.to_string() },
            })
        })
        .collect()
}

fn view(row: &Row) -> Result<AuditView, StoreError> {
    let action: &str = row.try_get("action")?;
    let execution: Option<&str> = row.try_get("execution_id")?;
    let task: Option<&str> = row.try_get("task_name")?;
    let entry = AuditEntry {
        at: Timestamp::from_ms(row.try_get("at_ms")?),
        actor: row.try_get("actor")?,
        action: AuditAction::parse(action)
            .ok_or_else(|| StoreError::Corrupt(format!("an unknown action \"{action}\"")))?,
        execution: execution.map(codec::execution_id).transpose()?,
        task: task.map(codec::task_name).transpose()?,
        target: row.try_get("target")?,
        before: codec::json(row.try_get("before")?)?,
        after: codec::json(row.try_get("after")?)?,
        reason: row.try_get("reason")?,
    };
    Ok(AuditView {
        number: codec::number("an audit number", row.try_get("number")?)?,
        entry,
        hash: AuditHash::from_stored(row.try_get("hash")?),
    })
}
