//! Bulk repairs and their items.

use sqlx::{QueryBuilder, Row as _, Sqlite};
use stepbox_domain::{
    ExecutionId, Timestamp,
    audit::AuditEntry,
    bulk::{BulkId, BulkProgress, BulkState},
};

use super::{
    Connection, Row, audit,
    executions::Known,
    statement::{Value, execute_all, wide},
};
use crate::store::{BULK_CANCELLED, BULK_EXAMPLES, BulkView, FailedSelection, NewBulk, StoreError, codec};

pub(super) fn conditions(selection: &FailedSelection, query: &mut QueryBuilder<Sqlite>) {
    // What an index is kept of.
    query.push(" where e.status = 'failed' and e.trouble is not null");
    if let Some(fingerprint) = &selection.fingerprint {
        query.push(" and e.trouble = ").push_bind(fingerprint.clone());
    }
    if let Some(task) = &selection.task {
        query.push(" and e.task_name = ").push_bind(task.as_str().to_owned());
    }
    if let Some(version) = selection.version {
        query.push(" and e.version = ").push_bind(i64::from(version));
    }
    if let Some(from) = selection.from {
        query.push(" and e.completed_ms >= ").push_bind(from.as_ms());
    }
    if let Some(to) = selection.to {
        query.push(" and e.completed_ms <= ").push_bind(to.as_ms());
    }
    if let Some(search) = &selection.search {
        found_by(search, query);
    }
}

/// Looked at one by one: failed executions are few.
fn found_by(search: &str, query: &mut QueryBuilder<Sqlite>) {
    let search = search.to_ascii_lowercase();
    query.push(" and (instr(lower(e.execution_id), ").push_bind(search.clone());
    query.push(") > 0 or instr(lower(e.task_name), ").push_bind(search).push(") > 0)");
}

pub(crate) async fn count(
    connection: &mut Connection,
    selection: &FailedSelection,
) -> Result<u64, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new("select count(*) from executions e");
    conditions(selection, &mut query);
    codec::number("a count", query.build_query_scalar().fetch_one(connection).await?)
}

/// Within the transaction that is open, as all that writes here: how many items it has.
pub(crate) async fn create(
    connection: &mut Connection,
    known: &mut Known,
    new: &NewBulk,
    entry: &AuditEntry,
) -> Result<u64, StoreError> {
    let key: i64 = sqlx::query_scalar(
        "insert into bulks (bulk_id, plan, selection, state, created_ms) values ($1, $2, $3, 'running', $4)
         returning bulk_key",
    )
    .bind(new.id.as_str())
    .bind(codec::encode("a plan", &new.plan)?)
    .bind(codec::encode("a selection", &new.selection)?)
    .bind(new.now.as_ms())
    .fetch_one(&mut *connection)
    .await?;
    let mut query = QueryBuilder::<Sqlite>::new(
        "insert into bulk_items (bulk_key, number, execution_key, state)
         select ",
    );
    query.push_bind(key);
    query.push(
        ", row_number() over (order by e.completed_ms, e.execution_key), e.execution_key, 'pending'
           from executions e",
    );
    conditions(&new.selection, &mut query);
    let items = query.build().execute(&mut *connection).await?.rows_affected();
    audit::write(connection, known, entry).await?;
    Ok(items)
}

/// Whether the item was pending, in a bulk repair that is running.
pub(crate) async fn mark_repaired(
    connection: &mut Connection,
    bulk: &BulkId,
    execution_key: i64,
) -> Result<bool, StoreError> {
    let marked = sqlx::query(
        "update bulk_items set state = 'repaired'
          where bulk_key = (select bulk_key from bulks where bulk_id = $1 and state = 'running')
            and execution_key = $2 and state = 'pending'",
    )
    .bind(bulk.as_str())
    .bind(execution_key)
    .execute(connection)
    .await?;
    Ok(marked.rows_affected() > 0)
}

pub(crate) async fn skip(
    connection: &mut Connection,
    bulk: &BulkId,
    execution: &ExecutionId,
    why: &str,
) -> Result<(), StoreError> {
    sqlx::query(
        "update bulk_items set state = 'skipped', why = $3
          where bulk_key = (select bulk_key from bulks where bulk_id = $1 and state = 'running')
            and execution_key = (select execution_key from executions where execution_id = $2)
            and state = 'pending'",
    )
    .bind(bulk.as_str())
    .bind(execution.as_str())
    .bind(why)
    .execute(connection)
    .await?;
    Ok(())
}

/// An item, by its bulk repair's key and its number.
pub(crate) type ItemKey = (i64, i64);

/// The repaired items whose execution is over: what [`settle`] has to look at. For a reader, so
/// that the writer is left alone while nothing has changed.
pub(crate) async fn to_settle(
    connection: &mut Connection,
    bulk: &BulkId,
) -> Result<Vec<ItemKey>, StoreError> {
    let rows = sqlx::query(
        "select i.bulk_key, i.number
           from bulks b
          cross join bulk_items i on i.bulk_key = b.bulk_key and i.state = 'repaired'
          cross join executions e on e.execution_key = i.execution_key
          where b.bulk_id = $1 and e.completed_ms is not null",
    )
    .bind(bulk.as_str())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get("bulk_key")?, row.try_get("number")?))).collect()
}

/// Keeps what became of those of `items` that are still over.
pub(crate) async fn settle(connection: &mut Connection, items: &[ItemKey]) -> Result<(), StoreError> {
    let rows: Vec<[Value; 2]> =
        items.iter().map(|(bulk, number)| [(*bulk).into(), (*number).into()]).collect();
    let statements = wide(&rows, |values| {
        format!(
            "with n (bulk_key, number) as ({values})
             update bulk_items as i
                set state = case e.status when 'completed' then 'completed' else 'failed' end,
                    why = case e.status when 'completed' then null
                                        else coalesce(e.error ->> '$.message', '{BULK_CANCELLED}') end
               from n, executions e
              where i.bulk_key = n.bulk_key and i.number = n.number and i.state = 'repaired'
                and e.execution_key = i.execution_key and e.completed_ms is not null"
        )
    });
    execute_all(connection, statements).await?;
    Ok(())
}

/// How a bulk repair is to end.
#[derive(Debug)]
pub(crate) struct End {
    pub bulk: BulkId,
    pub state: BulkState,
    pub why: Option<String>,
    pub now: Timestamp,
    pub audit: Option<AuditEntry>,
}

/// False when it is not running.
pub(crate) async fn end(
    connection: &mut Connection,
    known: &mut Known,
    end: &End,
) -> Result<bool, StoreError> {
    let ended = sqlx::query(
        "update bulks set state = $2, why = $3, ended_ms = $4 where bulk_id = $1 and state = 'running'",
    )
    .bind(end.bulk.as_str())
    .bind(end.state.as_str())
    .bind(end.why.as_deref())
    .bind(end.now.as_ms())
    .execute(&mut *connection)
    .await?;
    if ended.rows_affected() == 0 {
        return Ok(false);
    }
    if let Some(entry) = &end.audit {
        audit::write(connection, known, entry).await?;
    }
    Ok(true)
}

pub(crate) async fn progress(connection: &mut Connection, bulk: &BulkId) -> Result<BulkProgress, StoreError> {
    let rows = sqlx::query(
        "select i.state, count(*) as items
           from bulk_items i where i.bulk_key = (select bulk_key from bulks where bulk_id = $1)
          group by i.state",
    )
    .bind(bulk.as_str())
    .fetch_all(connection)
    .await?;
    let mut progress = BulkProgress::default();
    for row in &rows {
        let items = codec::number("a count", row.try_get("items")?)?;
        *match row.try_get::<&str, _>("state")? {
            "pending" => &mut progress.pending,
            "repaired" => &mut progress.under_way,
            "completed" => &mut progress.completed,
            "failed" => &mut progress.failed,
            "skipped" => &mut progress.skipped,
            other => return Err(StoreError::Corrupt(format!("an item of a bulk repair is \"{other}\""))),
        } = items;
    }
    Ok(progress)
}

/// Up to `limit` items that nothing has been done with, in order.
pub(crate) async fn pending(
    connection: &mut Connection,
    bulk: &BulkId,
    limit: u32,
) -> Result<Vec<ExecutionId>, StoreError> {
    let rows = sqlx::query(
        "select e.execution_id
           from bulk_items i cross join executions e on e.execution_key = i.execution_key
          where i.bulk_key = (select bulk_key from bulks where bulk_id = $1) and i.state = 'pending'
          order by i.number limit $2",
    )
    .bind(bulk.as_str())
    .bind(i64::from(limit))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| codec::execution_id(row.try_get("execution_id")?)).collect()
}

/// All, newest first; only `bulk` where one is named.
pub(crate) async fn bulks(
    connection: &mut Connection,
    bulk: Option<&BulkId>,
) -> Result<Vec<BulkView>, StoreError> {
    let rows = sqlx::query("select * from bulks where bulk_id = $1 or $1 is null order by bulk_key desc")
        .bind(bulk.map(BulkId::as_str))
        .fetch_all(&mut *connection)
        .await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in &rows {
        views.push(view(connection, row).await?);
    }
    Ok(views)
}

async fn view(connection: &mut Connection, row: &Row) -> Result<BulkView, StoreError> {
    let id = BulkId::new(row.try_get::<&str, _>("bulk_id")?);
    let progress = progress(connection, &id).await?;
    let state: &str = row.try_get("state")?;
    let ended: Option<i64> = row.try_get("ended_ms")?;
    Ok(BulkView {
        plan: codec::decode("a plan", row.try_get("plan")?)?,
        selection: codec::decode("a selection", row.try_get("selection")?)?,
        state: BulkState::parse(state)
            .ok_or_else(|| StoreError::Corrupt(format!("bulk repair {} is \"{state}\"", id.as_str())))?,
        why: row.try_get("why")?,
        created_at: Timestamp::from_ms(row.try_get("created_ms")?),
        ended_at: ended.map(Timestamp::from_ms),
        progress,
        examples: examples(connection, row.try_get("bulk_key")?).await?,
        id,
    })
}

async fn examples(connection: &mut Connection, bulk: i64) -> Result<Vec<(ExecutionId, String)>, StoreError> {
    let rows = sqlx::query(
        "select e.execution_id, i.why
           from bulk_items i cross join executions e on e.execution_key = i.execution_key
          where i.bulk_key = $1 and i.state in ('failed', 'skipped') and i.why is not null
          order by i.number limit $2",
    )
    .bind(bulk)
    .bind(BULK_EXAMPLES as i64)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok((codec::execution_id(row.try_get("execution_id")?)?, row.try_get("why")?)))
        .collect()
}
