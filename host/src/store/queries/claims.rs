//! Taking hold of runs.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use stepbox_domain::{ExecutionId, RunId, Timestamp, run::RunFacts};

use super::{
    Connection, Row, runs,
    statement::{Statement, Value, execute_all, fetch_all, fetch_each, transact, wide},
};
use crate::store::{Claim, Claimed, Epoch, NewEvent, RunKey, StoreError, codec};

/// A hold that was given; what there is to know of the run is read afterwards.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Hold {
    pub claim: Claim,
    pub crashes: u32,
    /// How many records there are.
    pub records: i64,
    /// Of these, so many at the beginning need not be read.
    pub known: i64,
}

impl Hold {
    pub(crate) fn known_up_to(self, known: u64) -> Self {
        Hold { known: i64::try_from(known).unwrap_or(i64::MAX).min(self.records), ..self }
    }

    /// How many records there are to read.
    pub(crate) fn unknown(&self) -> i64 {
        self.records - self.known
    }
}

/// Takes hold of those of `wanted` that are neither over nor held, once if they are in it twice,
/// within the transaction that is open.
pub(crate) async fn claim(
    connection: &mut Connection,
    wanted: &[(RunKey, Timestamp)],
) -> Result<HashMap<RunKey, Hold>, StoreError> {
    let rows = fetch_all(connection, take_hold(wanted)).await?;
    // Not by the epoch, which a repair moves on too. Once too often does no harm.
    let wanted: HashSet<&(RunKey, Timestamp)> = wanted.iter().collect();
    let mut first_time = Vec::new();
    for row in &rows {
        let started = (RunKey(row.try_get("run_key")?), Timestamp::from_ms(row.try_get("started_ms")?));
        if wanted.contains(&started) {
            first_time.push(started.0);
        }
    }
    execute_all(connection, show_running(&first_time)).await?;
    rows.iter().map(hold).collect()
}

/// Takes hold of one as a transaction of its own, in one round trip.
pub(crate) async fn claim_alone(
    connection: &mut Connection,
    run: RunKey,
    now: Timestamp,
) -> Result<Option<Hold>, StoreError> {
    let wanted = [(run, now)];
    let statements = take_hold(&wanted).into_iter().chain(show_running(&[run])).collect();
    let done = transact(connection, statements, |_| Ok(())).await?;
    let held = done.first().and_then(|done| done.rows.first());
    Ok(held.map(hold).transpose()?.map(|(_, hold)| hold))
}

/// Takes hold of the runs that stand at one of `events` and are held by nobody, where that is asked
/// for, within the transaction that is open.
pub(crate) async fn claim_awaiting(
    connection: &mut Connection,
    events: &[&NewEvent],
) -> Result<HashMap<RunKey, Hold>, StoreError> {
    fetch_all(connection, take_hold_of_awaiting(events)).await?.iter().map(hold).collect()
}

pub(crate) fn hold(row: &Row) -> Result<(RunKey, Hold), StoreError> {
    let run = RunKey(row.try_get("run_key")?);
    let epoch = Epoch(row.try_get("claim_epoch")?);
    let crashes = codec::number("a count of crashes", row.try_get("crashes")?)?;
    Ok((run, Hold { claim: Claim { run, epoch }, crashes, records: row.try_get("claim_records")?, known: 0 }))
}

fn take_hold(wanted: &[(RunKey, Timestamp)]) -> Vec<Statement> {
    let rows: Vec<[Value; 2]> = wanted.iter().map(|(run, now)| [run.0.into(), now.as_ms().into()]).collect();
    wide(&rows, |values| format!("with w (run_key, now_ms) as ({values}) {TAKE_HOLD}"))
}

pub(crate) fn take_hold_of_awaiting(events: &[&NewEvent]) -> Vec<Statement> {
    let rows: Vec<[Value; 3]> = events
        .iter()
        .filter(|event| event.claim.is_some())
        .map(|event| [event.execution.as_str().into(), event.name.as_str().into(), event.now.as_ms().into()])
        .collect();
    wide(&rows, |values| {
        format!(
            "with n (execution_id, name, now_ms) as ({values}),
                  w (run_key, now_ms) as (
                     select r.run_key, min(n.now_ms)
                       from n join executions e on e.execution_id = n.execution_id
                              join runs r on r.run_key = e.run_key and r.awaited_event = n.name
                      group by r.run_key)
             {TAKE_HOLD}"
        )
    })
}

/// Of the runs `w`. A claim that was left behind counts as a crash when the journal is as long as it
/// was when it was given.
const TAKE_HOLD: &str = "
     update runs
        set claim_epoch = claim_epoch + 1,
            claim_state = 'held',
            crashes = case when claim_state = 'abandoned'
                            and claim_records = (select coalesce(max(number) + 1, 0) from records
                                                  where records.run_key = runs.run_key)
                           then crashes + 1 else 0 end,
            claim_records = (select coalesce(max(number) + 1, 0) from records
                              where records.run_key = runs.run_key),
            status = 'running',
            started_ms = coalesce(started_ms, w.now_ms)
       from w
      where runs.run_key = w.run_key and claim_state <> 'held' and status in ('scheduled', 'running')
     returning runs.run_key, claim_epoch, crashes, claim_records, started_ms";

/// At the first claim of a run its execution begins to run.
fn show_running(runs: &[RunKey]) -> Vec<Statement> {
    let rows: Vec<[Value; 1]> = runs.iter().map(|run| [run.0.into()]).collect();
    wide(&rows, |values| {
        format!(
            "with w (run_key) as ({values})
             update executions set status = 'running'
               from w join runs r on r.run_key = w.run_key and r.status = 'running'
              where executions.execution_key = r.execution_key and executions.status = 'scheduled'"
        )
    })
}

/// All that is needed to go on with the runs that we hold; none for one whose hold has ended
/// meanwhile. At most 256 at once.
pub(crate) async fn read_claimed(
    connection: &mut Connection,
    holds: &[Hold],
) -> Result<Vec<Option<Claimed>>, StoreError> {
    let rows: Vec<[Value; 3]> = holds
        .iter()
        .map(|hold| [hold.claim.run.0.into(), hold.claim.epoch.0.into(), hold.known.into()])
        .collect();
    // The epoch comes last: if it is still ours, nobody else has written before.
    let texts = [
        runs::JOURNALS,
        "select r.run_key, p.seq, p.name, p.payload, p.received_ms
           from w cross join runs r on r.run_key = w.run_key
                  join events p on p.execution_key = r.execution_key and p.consumed_by is null
          order by p.seq",
        "select r.run_key, e.execution_id, e.task_name, coalesce(r.payload, e.payload) as payload, r.run_index,
                r.version, r.created_ms, r.deadline_ms, v.digest
           from w cross join runs r on r.run_key = w.run_key and r.claim_epoch = w.epoch
                                   and r.claim_state = 'held'
           join executions e on e.execution_key = r.execution_key
           left join module_versions v on v.task_name = e.task_name and v.version = r.version",
    ];
    let statements = texts.iter().flat_map(|text| {
        wide(&rows, |values| format!("with w (run_key, epoch, known) as ({values}) {text}"))
    });
    let mut found = fetch_each(connection, statements.collect()).await?.into_iter().map(by_run);
    let mut next = || found.next().transpose().map(Option::unwrap_or_default);
    let (journals, mut mailboxes, heads) = (next()?, next()?, next()?);
    holds
        .iter()
        .map(|hold| {
            let run = hold.claim.run;
            let Some(row) = heads.get(&run).and_then(|rows| rows.first()) else { return Ok(None) };
            let facts = facts(row)?;
            let digest: Option<String> = row.try_get("digest")?;
            let digest = digest.ok_or_else(|| {
                StoreError::Corrupt(format!(
                    "there is no version {} of task \"{}\"",
                    facts.version, facts.task
                ))
            })?;
            let events = mailboxes.remove(&run).unwrap_or_default();
            Ok(Some(Claimed {
                claim: hold.claim,
                facts,
                payload: codec::json(row.try_get("payload")?)?,
                digest: codec::digest(&digest)?,
                known: u64::try_from(hold.known).unwrap_or(0),
                records: runs::decoded(run, hold.known, journals.get(&run).map_or(&[], Vec::as_slice))?,
                events: events.iter().map(super::events::event).collect::<Result<_, _>>()?,
                crashes: hold.crashes,
            }))
        })
        .collect()
}

/// The rows of each run, in their order.
fn by_run(rows: Vec<Row>) -> Result<HashMap<RunKey, Vec<Row>>, StoreError> {
    let mut runs: HashMap<RunKey, Vec<Row>> = HashMap::new();
    for row in rows {
        runs.entry(RunKey(row.try_get("run_key")?)).or_default().push(row);
    }
    Ok(runs)
}

pub(crate) fn facts(row: &Row) -> Result<RunFacts, StoreError> {
    let execution: ExecutionId = codec::execution_id(row.try_get("execution_id")?)?;
    let index = codec::number("a run's index", row.try_get("run_index")?)?;
    let deadline: Option<i64> = row.try_get("deadline_ms")?;
    Ok(RunFacts {
        run: RunId::new(&execution, index),
        execution,
        index,
        task: codec::task_name(row.try_get("task_name")?)?,
        version: codec::number("a version", row.try_get("version")?)?,
        created_at: Timestamp::from_ms(row.try_get("created_ms")?),
        deadline: deadline.map(Timestamp::from_ms),
    })
}
