//! Starting executions.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use stepbox_domain::{
    Digest, ExecutionId, ExecutionStatus, Fingerprint, RunId, TaskName, audit::Chain, run::RunFacts,
};

use super::{
    Connection, alone,
    statement::{Statement, Value, execute_all, fetch_all, wide},
    views,
};
use crate::store::{
    Claim, Claimed, Creation, Epoch, ExecutionView, NewExecution, RunKey, StoreError, codec, no_such_version,
};

/// The keys that new rows get. The writer gives them out itself, so that an execution and its
/// first run can name each other and go into the tables in one statement each, and whoever sent an
/// event hears its number. One that is given out and not used is lost, which does no harm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub next_execution: i64,
    pub next_run: i64,
    pub next_event: i64,
}

impl Keys {
    pub(crate) async fn read(connection: &mut Connection) -> Result<Keys, StoreError> {
        let row = sqlx::query(
            "select (select coalesce(max(execution_key), 0) + 1 from executions) as next_execution,
                    (select coalesce(max(run_key), 0) + 1 from runs) as next_run,
                    (select coalesce(max(seq), 0) + 1 from events) as next_event",
        )
        .fetch_one(connection)
        .await?;
        Ok(Keys {
            next_execution: row.try_get("next_execution")?,
            next_run: row.try_get("next_run")?,
            next_event: row.try_get("next_event")?,
        })
    }
}

/// What the writer knows by heart.
#[derive(Debug)]
pub(crate) struct Known {
    pub keys: Keys,
    /// The end of the audit trail; none where it has to be looked up.
    pub trail: Option<Chain>,
    /// Of versions that were there once. A number is never given twice, so this cannot grow stale
    /// in any way but that the version is gone.
    digests: HashMap<(TaskName, u32), Digest>,
}

impl Known {
    pub(crate) async fn read(connection: &mut Connection) -> Result<Known, StoreError> {
        Ok(Known { keys: Keys::read(connection).await?, trail: None, digests: HashMap::new() })
    }
}

/// A start with the keys of its execution and its first run.
pub(super) type Numbered<'a> = (i64, i64, &'a NewExecution);

/// Starts all of `starts`. `alone`: as a transaction of its own, else within the one that is open.
pub(crate) async fn create(
    connection: &mut Connection,
    known: &mut Known,
    starts: &[&NewExecution],
    alone: bool,
) -> Result<Vec<Result<Creation, StoreError>>, StoreError> {
    learn_digests(connection, known, starts).await?;
    // Of several starts under one id the first is made, the others look at what it has made.
    let mut places = HashMap::new();
    let mut numbered = Vec::with_capacity(starts.len());
    for start in starts {
        places.entry(&start.id).or_insert_with(|| {
            numbered.push((known.keys.next_execution, known.keys.next_run, *start));
            known.keys.next_execution += 1;
            known.keys.next_run += 1;
            numbered.len() - 1
        });
    }
    let inserted = match &numbered[..] {
        [one] if alone => u64::from(alone::start(connection, one).await?),
        several => {
            let inserted = execute_all(connection, insert_executions(several)).await?;
            execute_all(connection, insert_runs(several)).await?;
            inserted
        }
    };
    let there = match inserted == numbered.len() as u64 {
        true => None,
        false => Some(by_ids(connection, places.keys().copied()).await?),
    };

    let mut made = HashSet::new();
    let outcome = |start: &&NewExecution| {
        let (execution_key, run_key, first) = numbered[places[&start.id]];
        let (key, view, fingerprint) = match there.as_ref().map(|there| there.get(&start.id)) {
            None => (execution_key, new_view(first, run_key), first.fingerprint.clone()),
            Some(Some(there)) => there.clone(),
            Some(None) => return Err(no_such_version(&start.task, start.version)),
        };
        if key == execution_key && made.insert(&first.id) {
            let claimed = start.claim.then(|| claimed(known, start, run_key)).transpose()?;
            return Ok(Creation::New { execution: view, run: RunKey(run_key), claimed });
        }
        Ok(match fingerprint == start.fingerprint {
            true => Creation::Replay(view),
            false => Creation::Clash { task: view.task },
        })
    };
    Ok(starts.iter().map(outcome).collect())
}

/// How an execution stands that has just been created.
fn new_view(start: &NewExecution, run_key: i64) -> ExecutionView {
    ExecutionView {
        id: start.id.clone(),
        task: start.task.clone(),
        payload: start.payload.clone(),
        fingerprint: start.fingerprint.clone(),
        status: if start.claim { ExecutionStatus::Running } else { ExecutionStatus::Scheduled },
        scheduled_at: start.now,
        completed_at: None,
        version: start.version,
        run: RunId::new(&start.id, 0),
        run_key: RunKey(run_key),
        result: None,
        error: None,
        waiting: None,
    }
}

fn claimed(known: &Known, start: &NewExecution, run_key: i64) -> Result<Claimed, StoreError> {
    let digest = known.digests.get(&(start.task.clone(), start.version));
    Ok(Claimed {
        claim: Claim { run: RunKey(run_key), epoch: Epoch(1) },
        facts: RunFacts {
            run: RunId::new(&start.id, 0),
            execution: start.id.clone(),
            index: 0,
            task: start.task.clone(),
            version: start.version,
            created_at: start.now,
            deadline: start.deadline,
        },
        payload: start.payload.clone(),
        digest: digest.cloned().ok_or_else(|| no_such_version(&start.task, start.version))?,
        records: Vec::new(),
        events: Vec::new(),
        crashes: 0,
    })
}

/// Those whose id is free and whose version is there.
fn insert_executions(starts: &[Numbered<'_>]) -> Vec<Statement> {
    let rows: Vec<[Value; 9]> = starts.iter().map(execution_row).collect();
    wide(&rows, |values| format!("with n ({EXECUTION_ROW}) as ({values}) {}", insert_executions_of("n")))
}

pub(super) const EXECUTION_ROW: &str =
    "execution_key, execution_id, task_name, fingerprint, status, now_ms, run_key, version, payload";

pub(super) fn execution_row((execution_key, run_key, start): &Numbered<'_>) -> [Value; 9] {
    [
        (*execution_key).into(),
        start.id.as_str().into(),
        start.task.as_str().into(),
        start.fingerprint.as_str().into(),
        if start.claim { "running" } else { "scheduled" }.into(),
        start.now.as_ms().into(),
        (*run_key).into(),
        i64::from(start.version).into(),
        start.payload.as_str().into(),
    ]
}

/// `n`, here and below: whatever has rows with the columns that are read of it.
pub(super) fn insert_executions_of(n: &str) -> String {
    format!(
        "insert into executions (execution_key, execution_id, task_name, fingerprint, status, scheduled_ms,
                                 run_key, run_index, version, payload)
         select n.execution_key, n.execution_id, n.task_name, n.fingerprint, n.status, n.now_ms,
                n.run_key, 0, n.version, n.payload
           from {n} join module_versions v on v.task_name = n.task_name and v.version = n.version
          where true
         on conflict (execution_id) do nothing"
    )
}

/// The first runs of those executions that have just been inserted under the same keys.
fn insert_runs(starts: &[Numbered<'_>]) -> Vec<Statement> {
    let rows: Vec<[Value; 6]> = starts
        .iter()
        .map(|numbered| {
            let (execution_key, run_key, _) = numbered;
            let [deadline_ms, epoch, started_ms, claim_state] = run_row(numbered);
            [(*run_key).into(), (*execution_key).into(), deadline_ms, epoch, started_ms, claim_state]
        })
        .collect();
    wide(&rows, |values| {
        format!("with n (run_key, execution_key, {RUN_ROW}) as ({values}) {}", insert_runs_of("n"))
    })
}

/// Beside the two keys.
pub(super) const RUN_ROW: &str = "deadline_ms, epoch, started_ms, claim_state";

pub(super) fn run_row((_, _, start): &Numbered<'_>) -> [Value; 4] {
    [
        start.deadline.map(|deadline| deadline.as_ms()).into(),
        i64::from(start.claim).into(),
        start.claim.then_some(start.now.as_ms()).into(),
        if start.claim { "held" } else { "free" }.into(),
    ]
}

pub(super) fn insert_runs_of(n: &str) -> String {
    format!(
        "insert into runs (run_key, execution_key, run_index, version, trigger, status, created_ms, started_ms,
                           deadline_ms, claim_epoch, claim_state, claim_records, crashes, due_ms)
         select n.run_key, n.execution_key, 0, e.version, 'initial', e.status, e.scheduled_ms, n.started_ms,
                n.deadline_ms, n.epoch, n.claim_state, 0, 0, e.scheduled_ms
           from {n} join executions e on e.execution_key = n.execution_key"
    )
}

async fn by_ids(
    connection: &mut Connection,
    ids: impl Iterator<Item = &ExecutionId>,
) -> Result<HashMap<ExecutionId, (i64, ExecutionView, Fingerprint)>, StoreError> {
    let rows: Vec<[Value; 1]> = ids.map(|id| [id.as_str().into()]).collect();
    let statements = wide(&rows, |values| {
        format!(
            "with n (execution_id) as ({values})
             select e.execution_key, e.fingerprint, {columns}
               from n join executions e on e.execution_id = n.execution_id join runs r on r.run_key = e.run_key",
            columns = views::EXECUTION_COLUMNS
        )
    });
    fetch_all(connection, statements)
        .await?
        .iter()
        .map(|row| {
            let view = views::execution_view(row)?;
            let fingerprint = Fingerprint::from_stored(row.try_get("fingerprint")?);
            Ok((view.id.clone(), (row.try_get("execution_key")?, view, fingerprint)))
        })
        .collect()
}

/// Looks up the digests that claims of `starts` will need.
async fn learn_digests(
    connection: &mut Connection,
    known: &mut Known,
    starts: &[&NewExecution],
) -> Result<(), StoreError> {
    for start in starts.iter().filter(|start| start.claim) {
        let version = (start.task.clone(), start.version);
        if known.digests.contains_key(&version) {
            continue;
        }
        let digest: Option<String> =
            sqlx::query_scalar("select digest from module_versions where task_name = $1 and version = $2")
                .bind(start.task.as_str())
                .bind(i64::from(start.version))
                .fetch_optional(&mut *connection)
                .await?;
        if let Some(digest) = digest {
            known.digests.insert(version, codec::digest(&digest)?);
        }
    }
    Ok(())
}
