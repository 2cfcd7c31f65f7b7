//! Ending what somebody does not want any more.

use sqlx::Row as _;
use stepbox_domain::{ExecutionId, Timestamp, journal::Record};

use super::Connection;
use crate::store::{Cancel, RunKey, StoreError, codec};

/// Ends the execution and its current run within the transaction that is open. The epoch moves
/// on, so whoever held the run cannot record anything in it from here on (invariant 4).
pub(crate) async fn cancel(
    connection: &mut Connection,
    execution: &ExecutionId,
    by: Option<&str>,
    now: Timestamp,
) -> Result<Cancel, StoreError> {
    let run: Option<i64> = sqlx::query_scalar(
        "update executions set status = 'cancelled', completed_ms = $2
          where execution_id = $1 and completed_ms is null
         returning run_key",
    )
    .bind(execution.as_str())
    .bind(now.as_ms())
    .fetch_optional(&mut *connection)
    .await?;
    let Some(run) = run else { return not_cancelled(connection, execution).await };

    sqlx::query(
        "update runs
            set status = 'cancelled', completed_ms = $2, claim_epoch = claim_epoch + 1, claim_state = 'free',
                due_ms = null, waiting = null, awaited_event = null
          where run_key = $1",
    )
    .bind(run)
    .bind(now.as_ms())
    .execute(&mut *connection)
    .await?;
    let record = Record::RunCancelled { by: by.map(str::to_owned), at: now };
    sqlx::query(
        "insert into records (run_key, number, body)
         select $1, coalesce(max(number) + 1, 0), $2 from records where run_key = $1",
    )
    .bind(run)
    .bind(codec::encode_record(&record)?)
    .execute(connection)
    .await?;
    Ok(Cancel::Cancelled(RunKey(run)))
}

async fn not_cancelled(connection: &mut Connection, execution: &ExecutionId) -> Result<Cancel, StoreError> {
    let row = sqlx::query("select status from executions where execution_id = $1")
        .bind(execution.as_str())
        .fetch_optional(connection)
        .await?;
    match row {
        Some(row) => Ok(Cancel::AlreadyOver(codec::status(row.try_get("status")?)?)),
        None => Ok(Cancel::NoSuchExecution),
    }
}
