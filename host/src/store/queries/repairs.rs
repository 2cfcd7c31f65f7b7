//! Repairs: taking hold by force, amending a run, replacing it by a new one.
//!
//! All that can be refused is looked at before anything is written, so that a repair which is
//! refused harms nobody else in its batch.

use std::sync::Arc;

use sqlx::Row as _;
use stepbox_domain::{ExecutionId, Timestamp, audit::AuditEntry, bulk::BulkId};

use super::{
    Connection, audit, bulks, claims,
    executions::Known,
    runs,
    statement::{Value, execute_all, wide},
};
use crate::store::{
    Claim, Epoch, Repair, RepairChange, RunKey, Seized, StoreError, Trigger, codec, not_a_version,
    not_pending,
};

/// Takes hold of the execution's current run, whoever holds it; none when there is no such
/// execution.
pub(crate) async fn seize(
    connection: &mut Connection,
    execution: &ExecutionId,
) -> Result<Option<Claim>, StoreError> {
    // A hold of this kind never counts as a crash: as one that has come to a wait.
    let row = sqlx::query(
        "update runs set claim_epoch = claim_epoch + 1, claim_state = 'held', claim_records = -1
          where run_key = (select run_key from executions where execution_id = $1)
         returning run_key, claim_epoch",
    )
    .bind(execution.as_str())
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    Ok(Some(Claim { run: RunKey(row.try_get("run_key")?), epoch: Epoch(row.try_get("claim_epoch")?) }))
}

/// What a repair has to know of the run that it has seized; none when the claim is lost.
pub(crate) async fn read_seized(
    connection: &mut Connection,
    claim: Claim,
) -> Result<Option<Seized>, StoreError> {
    let records = runs::records(&mut *connection, claim.run).await?;
    // The epoch comes last: if it is still ours, nobody else has written before.
    let row = sqlx::query(
        "select e.execution_id, e.task_name, e.status, r.run_index, r.version, r.created_ms, r.deadline_ms
           from runs r join executions e on e.execution_key = r.execution_key
          where r.run_key = $1 and r.claim_epoch = $2 and r.claim_state = 'held'",
    )
    .bind(claim.run.0)
    .bind(claim.epoch.0)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let status = codec::status(row.try_get("status")?)?;
    Ok(Some(Seized { claim, facts: claims::facts(&row)?, status, records }))
}

/// A repair in the form in which it is written.
#[derive(Debug)]
pub(crate) struct Encoded {
    claim: Claim,
    change: Change,
    bodies: Vec<Arc<str>>,
    audit: AuditEntry,
    bulk: Option<BulkId>,
}

#[derive(Debug)]
enum Change {
    Amend { first_number: u64, version: Option<u32> },
    Replace(Replace),
}

#[derive(Debug)]
struct Replace {
    end: Option<Arc<str>>,
    at: Timestamp,
    trigger: Trigger,
    triggered_by: Option<String>,
    version: u32,
    payload: Option<Arc<str>>,
    deadline: Option<Timestamp>,
}

impl Encoded {
    pub(crate) fn of(repair: Repair) -> Result<Self, StoreError> {
        let (change, records) = match repair.change {
            RepairChange::Amend { first_number, records, version } => {
                (Change::Amend { first_number, version }, records)
            }
            RepairChange::Replace { end, at, trigger, triggered_by, version, payload, deadline, records } => {
                let end = end.as_ref().map(codec::encode_record).transpose()?;
                let payload = payload.map(|payload| payload.as_str().into());
                let replace = Replace { end, at, trigger, triggered_by, version, payload, deadline };
                (Change::Replace(replace), records)
            }
        };
        let bodies = records.iter().map(codec::encode_record).collect::<Result<_, _>>()?;
        Ok(Encoded { claim: repair.claim, change, bodies, audit: repair.audit, bulk: repair.bulk })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bodies.iter().map(|body| body.len()).sum()
    }
}

/// The run, as a repair finds it.
struct Held {
    execution_key: i64,
    /// The length of its journal.
    records: u64,
}

/// Within the transaction that is open: the run that is current from then on, or why nothing was
/// written.
pub(crate) async fn repair(
    connection: &mut Connection,
    known: &mut Known,
    repair: &Encoded,
) -> Result<Result<RunKey, StoreError>, StoreError> {
    let held = match allowed(connection, repair).await? {
        Ok(held) => held,
        Err(refusal) => return Ok(Err(refusal)),
    };
    let run = match &repair.change {
        Change::Amend { version, .. } => amend(connection, repair, &held, *version).await?,
        Change::Replace(replace) => self::replace(connection, known, repair, &held, replace).await?,
    };
    audit::write(connection, known, &repair.audit).await?;
    Ok(Ok(run))
}

/// Whether all is as the repair has to find it. Marks its bulk item, last.
async fn allowed(
    connection: &mut Connection,
    repair: &Encoded,
) -> Result<Result<Held, StoreError>, StoreError> {
    let row = sqlx::query(
        "select r.execution_key, r.version, e.execution_id, e.task_name,
                (select coalesce(max(number) + 1, 0) from records where run_key = r.run_key) as records
           from runs r join executions e on e.execution_key = r.execution_key
          where r.run_key = $1 and r.claim_epoch = $2 and r.claim_state = 'held'",
    )
    .bind(repair.claim.run.0)
    .bind(repair.claim.epoch.0)
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(Err(StoreError::ClaimLost)) };
    let held = Held {
        execution_key: row.try_get("execution_key")?,
        records: codec::number("the length of a journal", row.try_get("records")?)?,
    };
    let version = match &repair.change {
        Change::Amend { first_number, .. } if *first_number != held.records => {
            let what = "the number of the record is not the next";
            return Ok(Err(StoreError::Corrupt(what.to_owned())));
        }
        Change::Amend { version: Some(version), .. } => *version,
        Change::Amend { version: None, .. } => codec::number("a version", row.try_get("version")?)?,
        Change::Replace(replace) => replace.version,
    };
    let task = codec::task_name(row.try_get("task_name")?)?;
    let there =
        sqlx::query_scalar::<_, i64>("select 1 from module_versions where task_name = $1 and version = $2")
            .bind(task.as_str())
            .bind(i64::from(version))
            .fetch_optional(&mut *connection)
            .await?;
    if there.is_none() {
        return Ok(Err(not_a_version(&task, version)));
    }
    if let Some(bulk) = &repair.bulk
        && !bulks::mark_repaired(connection, bulk, held.execution_key).await?
    {
        let execution = codec::execution_id(row.try_get("execution_id")?)?;
        return Ok(Err(not_pending(bulk, &execution)));
    }
    Ok(Ok(held))
}

async fn amend(
    connection: &mut Connection,
    repair: &Encoded,
    held: &Held,
    version: Option<u32>,
) -> Result<RunKey, StoreError> {
    let run = repair.claim.run;
    insert_records(connection, run, held.records, &repair.bodies).await?;
    sqlx::query(
        "update executions
            set status = 'running', completed_ms = null, result = null, error = null, trouble = null,
                trouble_shape = null, version = coalesce($2, version)
          where execution_key = $1",
    )
    .bind(held.execution_key)
    .bind(version.map(i64::from))
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "update runs
            set status = 'running', completed_ms = null, version = coalesce($2, version), claim_state = 'free',
                due_ms = $3, waiting = null, awaited_event = null
          where run_key = $1",
    )
    .bind(run.0)
    .bind(version.map(i64::from))
    .bind(repair.audit.at.as_ms())
    .execute(connection)
    .await?;
    Ok(run)
}

async fn replace(
    connection: &mut Connection,
    known: &mut Known,
    repair: &Encoded,
    held: &Held,
    replace: &Replace,
) -> Result<RunKey, StoreError> {
    let (old, new) = (repair.claim.run, known.runs.next());
    insert_records(connection, old, held.records, replace.end.as_slice()).await?;
    sqlx::query(
        "update runs as r
            set status = case when e.completed_ms is null then 'cancelled' else r.status end,
                completed_ms = coalesce(r.completed_ms, $2), result = e.result, error = e.error,
                claim_state = 'free', due_ms = null, waiting = null, awaited_event = null
           from executions e
          where r.run_key = $1 and e.execution_key = r.execution_key",
    )
    .bind(old.0)
    .bind(replace.at.as_ms())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "insert into runs (run_key, execution_key, run_index, version, trigger, status, created_ms, deadline_ms,
                           claim_epoch, claim_state, claim_records, crashes, due_ms, triggered_by, payload)
         select $2, execution_key, run_index + 1, $3, $4, 'scheduled', $5, $6, 0, 'free', 0, 0, $5, $7,
                coalesce($8, payload)
           from runs where run_key = $1",
    )
    .bind(old.0)
    .bind(new.0)
    .bind(i64::from(replace.version))
    .bind(replace.trigger.as_str())
    .bind(replace.at.as_ms())
    .bind(replace.deadline.map(|deadline| deadline.as_ms()))
    .bind(replace.triggered_by.as_deref())
    .bind(replace.payload.as_deref())
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "update executions
            set status = 'scheduled', completed_ms = null, run_key = $2, run_index = run_index + 1, version = $3,
                result = null, error = null, trouble = null, trouble_shape = null
          where execution_key = $1",
    )
    .bind(held.execution_key)
    .bind(new.0)
    .bind(i64::from(replace.version))
    .execute(&mut *connection)
    .await?;
    insert_records(connection, new, 0, &repair.bodies).await?;
    Ok(new)
}

async fn insert_records(
    connection: &mut Connection,
    run: RunKey,
    first_number: u64,
    bodies: &[Arc<str>],
) -> Result<(), StoreError> {
    let first = i64::try_from(first_number)
        .map_err(|_| StoreError::Corrupt("the number of a record is out of range".to_owned()))?;
    let rows: Vec<[Value; 3]> = (first..)
        .zip(bodies)
        .map(|(number, body)| [run.0.into(), number.into(), body.clone().into()])
        .collect();
    let statements = wide(&rows, |values| {
        format!(
            "with n (run_key, number, body) as ({values})
             insert into records (run_key, number, body)
             select run_key, number, body from n where run_key is not null"
        )
    });
    execute_all(connection, statements).await?;
    Ok(())
}
