//! Reading journals, and finding what a dead process left behind.

use sqlx::Row as _;
use stepbox_domain::{
    ExecutionId, RunId, Timestamp,
    journal::Record,
    run::{RunFacts, Wait},
};

use super::{Connection, Row, claims};
use crate::store::{RunKey, RunView, StoreError, Trigger, Unfinished, codec};

/// The journal of the run, from its first record on.
pub(crate) async fn records(connection: &mut Connection, run: RunKey) -> Result<Vec<Record>, StoreError> {
    let rows = sqlx::query("select number, body from records where run_key = $1 order by number")
        .bind(run.0)
        .fetch_all(connection)
        .await?;
    decoded(run, &rows)
}

/// The records in `rows`, which are the whole journal of `run` in its order.
pub(crate) fn decoded(run: RunKey, rows: &[Row]) -> Result<Vec<Record>, StoreError> {
    (0..)
        .zip(rows)
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

/// The runs of an execution, oldest first; none when there is no such execution.
pub(crate) async fn runs(
    connection: &mut Connection,
    execution: &ExecutionId,
) -> Result<Option<Vec<RunView>>, StoreError> {
    // Of the current run the execution has the result, so that it is written once.
    let rows = sqlx::query(
        "select r.run_index, r.version, coalesce(r.payload, e.payload) as payload, r.status, r.created_ms,
                r.started_ms, r.completed_ms, r.trigger, r.triggered_by,
                case when r.run_key = e.run_key then e.result else r.result end as result,
                case when r.run_key = e.run_key then e.error else r.error end as error
           from executions e join runs r on r.execution_key = e.execution_key
          where e.execution_id = $1
          order by r.run_index",
    )
    .bind(execution.as_str())
    .fetch_all(connection)
    .await?;
    let runs: Vec<RunView> = rows.iter().map(|row| run_view(execution, row)).collect::<Result<_, _>>()?;
    Ok((!runs.is_empty()).then_some(runs))
}

fn run_view(execution: &ExecutionId, row: &Row) -> Result<RunView, StoreError> {
    let index = codec::number("a run's index", row.try_get("run_index")?)?;
    let trigger: &str = row.try_get("trigger")?;
    let result: Option<String> = row.try_get("result")?;
    let error: Option<&str> = row.try_get("error")?;
    let time = |ms: Option<i64>| ms.map(Timestamp::from_ms);
    Ok(RunView {
        run: RunId::new(execution, index),
        index,
        version: codec::number("a version", row.try_get("version")?)?,
        payload: codec::json(row.try_get("payload")?)?,
        status: codec::status(row.try_get("status")?)?,
        result: result.map(codec::json).transpose()?,
        error: error.map(|error| codec::decode("a failure", error)).transpose()?,
        created_at: Timestamp::from_ms(row.try_get("created_ms")?),
        started_at: time(row.try_get("started_ms")?),
        completed_at: time(row.try_get("completed_ms")?),
        trigger: Trigger::parse(trigger)
            .ok_or_else(|| StoreError::Corrupt(format!("a run that is triggered by \"{trigger}\"")))?,
        triggered_by: row.try_get("triggered_by")?,
    })
}

/// Lets go of all claims and lists what is not over. For the start of the host: whoever held a
/// claim is dead. A hold on a run that is over is left: it takes no claim but one by force to get
/// such a run, and that asks nobody.
pub(crate) async fn recover(connection: &mut Connection) -> Result<Vec<Unfinished>, StoreError> {
    // A run whose event came while nobody looked is not waiting any more.
    let rows = sqlx::query(
        "select r.run_key, r.due_ms, r.crashes, r.waiting as stands_at,
                r.waiting is not null and r.claim_state = 'free'
                and not exists (select 1 from events p
                                 where p.execution_key = r.execution_key and p.name = r.awaited_event
                                   and p.consumed_by is null) as waiting
           from executions e join runs r on r.run_key = e.run_key
          where e.status in ('scheduled', 'running')
          order by r.run_key",
    )
    .fetch_all(&mut *connection)
    .await?;
    sqlx::query(
        "update runs set claim_state = 'abandoned'
          where claim_state = 'held'
            and run_key in (select run_key from executions where status in ('scheduled', 'running'))",
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
