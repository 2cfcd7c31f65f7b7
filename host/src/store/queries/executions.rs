//! Starting executions.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
};

use sqlx::Row as _;
use stepbox_domain::{ExecutionId, Fingerprint, audit::Chain};

use super::{
    Connection, alone,
    commits::{self, Encoded},
    statement::{Statement, Value, execute_all, fetch_all, wide},
    views,
};
use crate::store::{
    Claim, Commit, Creation, ExecutionView, NewExecution, RunKey, Standing, StoreError, no_such_version,
};

/// The keys that new rows get. The writer gives them out itself, so that an execution and its
/// first run can name each other and go into the tables in one statement each, and whoever sent an
/// event hears its number. One that is given out and not used is lost, which does no harm.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keys {
    pub next_execution: i64,
    pub next_event: i64,
}

/// The keys that new runs get; from the store as well as from its writer, since a run can be under way
/// before it is in the table.
#[derive(Clone, Debug)]
pub(crate) struct RunKeys(Arc<AtomicI64>);

impl RunKeys {
    pub(crate) fn next(&self) -> RunKey {
        RunKey(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// What the writer knows by heart.
#[derive(Debug)]
pub(crate) struct Known {
    pub keys: Keys,
    pub runs: RunKeys,
    /// The end of the audit trail; none where it has to be looked up.
    pub trail: Option<Chain>,
}

impl Known {
    pub(crate) async fn read(connection: &mut Connection) -> Result<Known, StoreError> {
        let row = sqlx::query(
            "select (select coalesce(max(execution_key), 0) + 1 from executions) as next_execution,
                    (select coalesce(max(run_key), 0) + 1 from runs) as next_run,
                    (select coalesce(max(seq), 0) + 1 from events) as next_event",
        )
        .fetch_one(connection)
        .await?;
        let keys =
            Keys { next_execution: row.try_get("next_execution")?, next_event: row.try_get("next_event")? };
        let runs = RunKeys(Arc::new(AtomicI64::new(row.try_get("next_run")?)));
        Ok(Known { keys, runs, trail: None })
    }
}

/// A start in the form in which it is written.
#[derive(Debug)]
pub(crate) struct Start {
    new: NewExecution,
    /// What its run has come to by now.
    commit: Option<Encoded>,
    /// How it stands after that, where it differs from any start.
    standing: Option<Standing>,
}

/// Of a start whose run has not come to anything yet.
const NOTHING: [Value; 4] = [const { Value::Null }; 4];

impl Start {
    pub(crate) fn of(mut new: NewExecution) -> Result<Self, StoreError> {
        let commit = new.held.as_mut().and_then(|held| held.commit.take());
        let is_its_own = |commit: &Commit| {
            let run = new.held.as_ref().map(|held| Claim::first(held.run));
            run == Some(commit.claim) && commit.first_number == 0 && commit.consumed.is_empty()
        };
        if !commit.as_ref().is_none_or(is_its_own) {
            return Err(StoreError::Corrupt("a run cannot begin with what another has come to".to_owned()));
        }
        let standing = commit.as_ref().and_then(|commit| commit.standing.clone());
        Ok(Start { new, commit: commit.map(Encoded::of).transpose()?, standing })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.new.payload.len_bytes() + self.commit.as_ref().map_or(0, Encoded::bytes)
    }

    /// How many records it begins with.
    pub(crate) fn rows(&self) -> usize {
        self.commit.as_ref().map_or(0, Encoded::rows)
    }

    /// See [`Encoded::of_run`].
    fn change(&self) -> [Value; 7] {
        self.commit.as_ref().map_or([const { Value::Null }; 7], Encoded::of_run)
    }

    pub(super) fn commit(&self) -> Option<&Encoded> {
        self.commit.as_ref()
    }
}

/// A start with the keys of its execution and its first run.
pub(super) type Numbered<'a> = (i64, i64, &'a Start);

/// Starts all of `starts`. `alone`: as a transaction of its own, else within the one that is open.
pub(crate) async fn create(
    connection: &mut Connection,
    known: &mut Known,
    starts: &[&Start],
    alone: bool,
) -> Result<Vec<Result<Creation, StoreError>>, StoreError> {
    // Of several starts under one id the first is made, the others look at what it has made.
    let mut places = HashMap::new();
    let mut numbered = Vec::with_capacity(starts.len());
    for start in starts {
        places.entry(&start.new.id).or_insert_with(|| {
            let run = start.new.held.as_ref().map_or_else(|| known.runs.next(), |held| held.run);
            numbered.push((known.keys.next_execution, run.0, *start));
            known.keys.next_execution += 1;
            numbered.len() - 1
        });
    }
    let inserted = match &numbered[..] {
        [one] if alone => u64::from(alone::start(connection, one).await?),
        several => {
            let inserted = execute_all(connection, insert_executions(several)).await?;
            execute_all(connection, insert_runs(several)).await?;
            execute_all(connection, insert_first_records(several)).await?;
            inserted
        }
    };
    let there = match inserted == numbered.len() as u64 {
        true => None,
        false => Some(by_ids(connection, places.keys().copied()).await?),
    };

    let mut made = HashSet::new();
    let outcome = |start: &Start| {
        let new = &start.new;
        let (execution_key, run_key, first) = numbered[places[&new.id]];
        let (key, view, fingerprint) = match there.as_ref().map(|there| there.get(&new.id)) {
            None => (execution_key, new_view(first, run_key), first.new.fingerprint.clone()),
            Some(Some(there)) => there.clone(),
            Some(None) => return Err(no_such_version(&new.task, new.version)),
        };
        if key == execution_key && made.insert(run_key) {
            return Ok(Creation::New { execution: view, run: RunKey(run_key) });
        }
        Ok(match fingerprint == new.fingerprint {
            true => Creation::Replay(view),
            false => Creation::Clash { task: view.task },
        })
    };
    Ok(starts.iter().copied().map(outcome).collect())
}

/// How an execution stands that has just been created.
fn new_view(start: &Start, run_key: i64) -> ExecutionView {
    let mut view = start.new.view(RunKey(run_key));
    if let Some(standing) = start.standing.clone() {
        view.stand(standing);
    }
    view
}

/// Those whose id is free and whose version is there.
fn insert_executions(starts: &[Numbered<'_>]) -> Vec<Statement> {
    let rows: Vec<[Value; 14]> = starts.iter().map(execution_row).collect();
    wide(&rows, |values| format!("with n ({EXECUTION_ROW}) as ({values}) {}", insert_executions_of("n")))
}

pub(super) const EXECUTION_ROW: &str = "execution_key, execution_id, task_name, fingerprint, status, now_ms, \
                                        run_key, version, payload, completed_ms, result, error, trouble, \
                                        trouble_shape";

pub(super) fn execution_row((execution_key, run_key, start): &Numbered<'_>) -> [Value; 14] {
    let new = &start.new;
    let [_, status, completed_ms, ..] = start.change();
    let [result, error, trouble, trouble_shape] = start.commit.as_ref().map_or(NOTHING, Encoded::end);
    [
        (*execution_key).into(),
        new.id.as_str().into(),
        new.task.as_str().into(),
        new.fingerprint.as_str().into(),
        match (status, &new.held) {
            (Value::Null, Some(_)) => "running".into(),
            (Value::Null, None) => "scheduled".into(),
            (status, _) => status,
        },
        new.now.as_ms().into(),
        (*run_key).into(),
        i64::from(new.version).into(),
        new.payload.as_str().into(),
        completed_ms,
        result,
        error,
        trouble,
        trouble_shape,
    ]
}

/// `n`, here and below: whatever has rows with the columns that are read of it.
pub(super) fn insert_executions_of(n: &str) -> String {
    format!(
        "insert into executions (execution_key, execution_id, task_name, fingerprint, status, scheduled_ms,
                                 run_key, run_index, version, payload, completed_ms, result, error, trouble,
                                 trouble_shape)
         select n.execution_key, n.execution_id, n.task_name, n.fingerprint, n.status, n.now_ms,
                n.run_key, 0, n.version, n.payload, n.completed_ms, n.result, n.error, n.trouble, n.trouble_shape
           from {n} join module_versions v on v.task_name = n.task_name and v.version = n.version
          where true
         on conflict (execution_id) do nothing"
    )
}

/// The first runs of those executions that have just been inserted under the same keys.
fn insert_runs(starts: &[Numbered<'_>]) -> Vec<Statement> {
    let rows: Vec<[Value; 10]> = starts
        .iter()
        .map(|numbered| {
            let (execution_key, run_key, _) = numbered;
            let [a, b, c, d, e, f, g, h] = run_row(numbered);
            [(*run_key).into(), (*execution_key).into(), a, b, c, d, e, f, g, h]
        })
        .collect();
    wide(&rows, |values| {
        format!("with n (run_key, execution_key, {RUN_ROW}) as ({values}) {}", insert_runs_of("n"))
    })
}

/// Beside the two keys.
pub(super) const RUN_ROW: &str =
    "deadline_ms, epoch, started_ms, claim_state, due_ms, claim_records, waiting, awaited_event";

pub(super) fn run_row((_, _, start): &Numbered<'_>) -> [Value; 8] {
    let new = &start.new;
    let is_held = new.held.is_some();
    let [stands, _, _, due_ms, waiting, awaited_event, claim_state] = start.change();
    [
        new.deadline.map(|deadline| deadline.as_ms()).into(),
        i64::from(is_held).into(),
        is_held.then_some(new.now.as_ms()).into(),
        match (claim_state, is_held) {
            (Value::Null, true) => "held".into(),
            (Value::Null, false) => "free".into(),
            (claim_state, _) => claim_state,
        },
        if matches!(stands, Value::Int(1)) { due_ms } else { new.now.as_ms().into() },
        // See `commits::change_runs_of`.
        if matches!(waiting, Value::Null) { 0.into() } else { (-1).into() },
        waiting,
        awaited_event,
    ]
}

pub(super) fn insert_runs_of(n: &str) -> String {
    format!(
        "insert into runs (run_key, execution_key, run_index, version, trigger, status, created_ms, started_ms,
                           completed_ms, deadline_ms, claim_epoch, claim_state, claim_records, crashes, due_ms,
                           waiting, awaited_event)
         select n.run_key, n.execution_key, 0, e.version, 'initial', e.status, e.scheduled_ms, n.started_ms,
                e.completed_ms, n.deadline_ms, n.epoch, n.claim_state, n.claim_records, 0, n.due_ms,
                n.waiting, n.awaited_event
           from {n} join executions e on e.execution_key = n.execution_key"
    )
}

fn insert_first_records(starts: &[Numbered<'_>]) -> Vec<Statement> {
    let commits: Vec<&Encoded> = starts.iter().filter_map(|(_, _, start)| start.commit.as_ref()).collect();
    commits::insert_rows(&commits, insert_first_records_of)
}

/// No fence but that the run is there: it came with them.
pub(super) fn insert_first_records_of(c: &str) -> String {
    format!(
        "insert into records (run_key, number, body)
         select c.run_key, c.number, c.body
           from {c} join runs r on r.run_key = c.run_key"
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
