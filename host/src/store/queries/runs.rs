//! Reading journals, and finding what a dead process left behind.

use sqlx::Row as _;
use stepbox_domain::{
    RunId, Timestamp,
    journal::Record,
    run::{RunFacts, Wait},
};

use super::{Connection, claims};
use crate::store::{RunKey, StoreError, Unfinished, codec};

/// The journal of the run, from its first record on.
pub(crate) async fn records(connection: &mut Connection, run: RunKey) -> Result<Vec<Record>, StoreError> {
    let rows = sqlx::query("select number, body from records where run_key = $1 order by number")
        .bind(run.0)
        .fetch_all(connection)
        .await?;
    (0..)
        .zip(&rows)
        .map(|(expected, row)| {
            let number: i64 = row.try_get("number")?;
            if number != expected {
                return Err(StoreError::Corrupt(format!("record {expected} of run {} is missing", run.0)));
            }
            codec::decode_record(row.try_get("body")?)
        })
        .collect()
}

pub(crate) async fn journal(
    connection: &mut Connection,
    run: &RunId,
) -> Result<Option<(RunFacts, Vec<Record>)>, StoreError> {
    // A run's id is made of its execution's id and its index.
    let Some((execution, index)) = run.as_str().rsplit_once(":run:") else { return Ok(None) };
    let Ok(index) = index.parse::<u32>() else { return Ok(None) };
    let row = sqlx::query(
        "select e.execution_id, e.task_name, r.run_key, r.run_index, r.version, r.created_ms, r.deadline_ms
           from executions e join runs r on r.execution_key = e.execution_key
          where e.execution_id = $1 and r.run_index = $2",
    )
    .bind(execution)
    .bind(i64::from(index))
    .fetch_optional(&mut *connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let facts = claims::facts(&row)?;
    if facts.run != *run {
        // An index written in another way: `…:run:00`.
        return Ok(None);
    }
    let records = records(connection, RunKey(row.try_get("run_key")?)).await?;
    Ok(Some((facts, records)))
}

/// Lets go of all claims and lists what is not over. For the start of the host: whoever held a
/// claim is dead.
pub(crate) async fn recover(connection: &mut Connection) -> Result<Vec<Unfinished>, StoreError> {
    // A run whose event came while nobody looked is not waiting any more.
    let rows = sqlx::query(
        "select r.run_key, r.due_ms, r.crashes, r.waiting as stands_at,
                r.waiting is not null and r.claim_state = 'free'
                and not exists (select 1 from events p
                                 where p.execution_key = r.execution_key and p.name = r.awaited_event
                                   and p.consumed_by is null) as waiting
           from executions e join runs r on r.run_key = e.run_key
          where e.completed_ms is null
          order by r.run_key",
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(
        "update runs set claim_state = 'abandoned'
          where claim_state = 'held' and run_key in (select run_key from executions where completed_ms is null)",
    )
    .execute(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let due: Option<i64> = row.try_get("due_ms")?;
            let waiting: i64 = row.try_get("waiting")?;
            let stands_at: Option<&str> = row.try_get("stands_at")?;
            let stands_at: Option<Wait> = stands_at.map(|wait| codec::decode("a wait", wait)).transpose()?;
            Ok(Unfinished {
                run: RunKey(row.try_get("run_key")?),
                due: due.map(Timestamp::from_ms),
                waiting: waiting != 0,
                crashes: codec::number("a count of crashes", row.try_get("crashes")?)?,
                held: matches!(stands_at, Some(Wait::Pause { .. })),
            })
        })
        .collect()
}
