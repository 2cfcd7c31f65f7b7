//! What failed executions have in common.

use sqlx::{QueryBuilder, Row as _, Sqlite};
use stepbox_domain::{ExecutionId, Timestamp, trouble::Trouble};

use super::{Connection, Row, bulks};
use crate::store::{FailedSelection, StoreError, TroubleView, codec};

/// The most frequent first, with the newest failures of each.
pub(crate) async fn troubles(
    connection: &mut Connection,
    selection: &FailedSelection,
    limit: u32,
    examples: u32,
) -> Result<Vec<TroubleView>, StoreError> {
    let mut query = QueryBuilder::<Sqlite>::new(
        "select e.trouble, count(*) as failures, min(e.completed_ms) as first_ms, max(e.completed_ms) as last_ms
           from executions e",
    );
    bulks::conditions(selection, &mut query);
    query.push(" group by e.trouble order by failures desc, last_ms desc, e.trouble limit ");
    query.push_bind(i64::from(limit));
    let rows = query.build().fetch_all(&mut *connection).await?;
    let mut troubles = Vec::with_capacity(rows.len());
    for row in &rows {
        // Between the two statements the last one may have been repaired.
        if let Some(view) = trouble(connection, selection, examples, row).await? {
            troubles.push(view);
        }
    }
    Ok(troubles)
}

async fn trouble(
    connection: &mut Connection,
    selection: &FailedSelection,
    examples: u32,
    group: &Row,
) -> Result<Option<TroubleView>, StoreError> {
    let fingerprint: String = group.try_get("trouble")?;
    let mut query = QueryBuilder::<Sqlite>::new("select e.execution_id, e.trouble_shape from executions e");
    bulks::conditions(selection, &mut query);
    query.push(" and e.trouble = ").push_bind(fingerprint.clone());
    query.push(" order by e.completed_ms desc, e.execution_key desc limit ");
    query.push_bind(i64::from(examples.max(1)));
    let rows = query.build().fetch_all(connection).await?;
    let Some(first) = rows.first() else { return Ok(None) };
    let trouble: Trouble = codec::decode("a trouble", first.try_get("trouble_shape")?)?;
    let examples: Result<Vec<ExecutionId>, StoreError> = rows
        .iter()
        .take(examples as usize)
        .map(|row| codec::execution_id(row.try_get("execution_id")?))
        .collect();
    Ok(Some(TroubleView {
        fingerprint,
        trouble,
        count: codec::number("a count", group.try_get("failures")?)?,
        first_at: Timestamp::from_ms(group.try_get("first_ms")?),
        last_at: Timestamp::from_ms(group.try_get("last_ms")?),
        examples: examples?,
    }))
}
