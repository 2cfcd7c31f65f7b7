//! Ending what somebody does not want any more.

use sqlx::Row as _;
use stepbox_domain::{ExecutionId, Timestamp, audit::AuditEntry, journal::Record};

use super::{Connection, audit, executions::Known};
use crate::store::{Cancel, RunKey, StoreError, codec, trail};

/// What somebody wants to be cancelled.
#[derive(Debug)]
pub(crate) struct NewCancel {
    pub execution: ExecutionId,
    pub by: Option<String>,
    pub now: Timestamp,
    pub audit: AuditEntry,
}

/// Ends the execution and its current run within the transaction that is open. The epoch moves
/// on, so whoever held the run cannot record anything in it from here on (invariant 4).
pub(crate) async fn cancel(
    connection: &mut Connection,
    known: &mut Known,
    cancel: &NewCancel,
) -> Result<Cancel, StoreError> {
    let there = sqlx::query("select run_key, status, task_name from executions where execution_id = $1")
        .bind(cancel.execution.as_str())
        .fetch_optional(&mut *connection)
        .await?;
    let Some(there) = there else { return Ok(Cancel::NoSuchExecution) };
    let status = codec::status(there.try_get("status")?)?;
    if status.is_terminal() {
        return Ok(Cancel::AlreadyOver(status));
    }
    let run: i64 = there.try_get("run_key")?;
    let task = codec::task_name(there.try_get("task_name")?)?;
    let now = cancel.now;
    sqlx::query("update executions set status = 'cancelled', completed_ms = $2 where execution_id = $1")
        .bind(cancel.execution.as_str())
        .bind(now.as_ms())
        .execute(&mut *connection)
        .await?;
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
    let record = Record::RunCancelled { by: cancel.by.clone(), at: now };
    sqlx::query(
        "insert into records (run_key, number, body)
         select $1, coalesce(max(number) + 1, 0), $2 from records where run_key = $1",
    )
    .bind(run)
    .bind(codec::encode_record(&record)?)
    .execute(&mut *connection)
    .await?;
    audit::write(connection, known, &trail::of_cancel(cancel.audit.clone(), task, status)).await?;
    Ok(Cancel::Cancelled(RunKey(run)))
}
