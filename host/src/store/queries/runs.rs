//! Reading journals, and finding what a dead process left behind.

use sqlx::Row as _;
use stepbox_domain::{
    ExecutionId, RunId, Timestamp,
    journal::Record,
    run::{RunFacts, Wait},
};

use super::{
    Connection, Row, claims,
    statement::{fetch_all, wide},
};
use crate::store::{RunKey, RunView, StoreError, Trigger, Unfinished, codec};

/// The journals of the runs `w` but for what is `known` of them, many records to a row, since a row costs
/// more on its way here than what stands in it; a large one has a row for itself, so that none becomes
/// larger than the database can make one. Each record with its number and its length in front.
pub(crate) const JOURNALS: &str = "
    select j.run_key, string_agg(j.number || ':' || octet_length(j.body) || ':' || j.body, '') as packed
      from w cross join records j on j.run_key = w.run_key and j.number >= w.known
     group by j.run_key, case when octet_length(j.body) > 65536 then j.number else -1 - j.number / 32 end";

/// The journal of the run, from its first record on.
pub(crate) async fn records(connection: &mut Connection, run: RunKey) -> Result<Vec<Record>, StoreError> {
    let all = [[run.0.into(), 0.into()]];
    let journals = wide(&all, |values| format!("with w (run_key, known) as ({values}) {JOURNALS}"));
    decoded(run, 0, &fetch_all(connection, journals).await?)
}

/// The records in `rows`, which are the journal of `run` from number `known` on.
pub(crate) fn decoded(run: RunKey, known: i64, rows: &[Row]) -> Result<Vec<Record>, StoreError> {
    let corrupt = |number: i64, what| StoreError::Corrupt(format!("record {number} of run {} {what}", run.0));
    let mut bodies = Vec::new();
    for row in rows {
        for one in unpacked(row.try_get("packed")?) {
            bodies.push(one.ok_or_else(|| corrupt(known, "or one after it cannot be read"))?);
        }
    }
    bodies.sort_unstable_by_key(|(number, _)| *number);
    (known..)
        .zip(bodies)
        .map(|(expected, (number, body))| match number == expected {
            true => codec::decode_record(body),
            false => Err(corrupt(expected, "is missing")),
        })
        .collect()
}

/// Texts, each with its number and its length in bytes in front: `0:2:{}1:7:"a:b:c"`. None where it is
/// nothing of the kind.
fn unpacked(mut packed: &str) -> impl Iterator<Item = Option<(i64, &str)>> {
    fn first(packed: &str) -> Option<(i64, &str, &str)> {
        let (number, rest) = packed.split_once(':')?;
        let (length, rest) = rest.split_once(':')?;
        let (body, rest) = rest.split_at_checked(length.parse().ok()?)?;
        Some((number.parse().ok()?, body, rest))
    }
    std::iter::from_fn(move || {
        if packed.is_empty() {
            return None;
        }
        let first = first(packed);
        packed = first.map_or("", |(_, _, rest)| rest);
        Some(first.map(|(number, body, _)| (number, body)))
    })
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_packed_comes_out_again() {
        let all = |packed| unpacked(packed).collect::<Option<Vec<_>>>();
        let three = vec![(7, "{}"), (31, "\"a:b:c\""), (0, "\"é\"\n")];
        assert_eq!(all("7:2:{}31:7:\"a:b:c\"0:5:\"é\"\n"), Some(three));
        assert_eq!(all(""), Some(vec![]));
        for damaged in ["0:3:{}", "x", "2:{}", "1:2{}", "::{}", "0:-1:{}", "0:2:\"é\"", "0:2:{}1:9:{}"] {
            assert_eq!(all(damaged), None, "{damaged}");
        }
    }
}
