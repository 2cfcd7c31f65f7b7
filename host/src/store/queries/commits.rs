//! Adding to journals.
//!
//! Every statement carries the fence: it touches only runs whose current claim is the one that
//! the commit names (invariant 3). What a commit writes is therefore there as a whole or not at
//! all, and one that has lost its claim leaves no trace, whatever else is in the batch.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use sqlx::Row as _;
use stepbox_domain::run::Wait;

use super::{
    Connection,
    statement::{Statement, Value, execute_all, fetch_all, wide},
};
use crate::store::{Claim, Commit, RunKey, Standing, StoreError, codec};

/// A commit in the form in which it is written.
#[derive(Debug)]
pub(crate) struct Encoded {
    claim: Claim,
    first_number: i64,
    bodies: Vec<Arc<str>>,
    consumed: Vec<i64>,
    change: Option<Change>,
}

/// What changes in the row of the run, and in that of its execution.
#[derive(Clone, Debug, Default)]
struct Change {
    standing: Option<Stands>,
    release: bool,
}

#[derive(Clone, Debug)]
enum Stands {
    Open { due_ms: Option<i64>, waiting: Option<Arc<str>>, awaited_event: Option<Arc<str>> },
    Over { status: &'static str, at_ms: i64, result: Option<Arc<str>>, failed: Option<Failed> },
}

/// What is kept of a failure.
#[derive(Clone, Debug)]
struct Failed {
    error: Arc<str>,
    /// A fingerprint, and what it stands for.
    trouble: Arc<str>,
    trouble_shape: Arc<str>,
}

impl Encoded {
    pub(crate) fn of(commit: Commit) -> Result<Self, StoreError> {
        let bodies = commit.records.iter().map(codec::encode_record).collect::<Result<_, _>>()?;
        let standing = commit.standing.map(Stands::of).transpose()?;
        let first_number = i64::try_from(commit.first_number)
            .map_err(|_| StoreError::Corrupt("the number of a record is out of range".to_owned()))?;
        let change =
            (standing.is_some() || commit.release).then_some(Change { standing, release: commit.release });
        Ok(Encoded { claim: commit.claim, first_number, bodies, consumed: commit.consumed, change })
    }

    pub(crate) fn bytes(&self) -> usize {
        self.bodies.iter().map(|body| body.len()).sum()
    }

    /// How many it inserts.
    pub(crate) fn rows(&self) -> usize {
        self.bodies.len()
    }

    /// As the row of `one_commit` (see `alone`).
    pub(super) fn row(&self) -> Result<[Value; 16], StoreError> {
        let [stands, status, at_ms, due_ms, waiting, awaited_event, claim_state] = self.of_run();
        let [result, error, trouble, trouble_shape] = self.end();
        Ok([
            self.claim.run.0.into(),
            self.claim.epoch.0.into(),
            self.first_number.into(),
            self.packed_bodies()?,
            codec::encode("events", &self.consumed)?.into(),
            stands,
            status,
            at_ms,
            due_ms,
            waiting,
            awaited_event,
            claim_state,
            result,
            error,
            trouble,
            trouble_shape,
        ])
    }

    /// All of the records as one text.
    pub(super) fn packed_bodies(&self) -> Result<Value, StoreError> {
        let bodies: Vec<&str> = self.bodies.iter().map(|body| &**body).collect();
        Ok(codec::encode("records", &bodies)?.into())
    }

    /// What changes in the row of the run (see [`Change::of_run`]); null what does not.
    pub(super) fn of_run(&self) -> [Value; 7] {
        self.change.as_ref().map_or([const { Value::Null }; 7], Change::of_run)
    }

    /// What the row of an execution gets that is over (see [`Change::end`]); null where it is not.
    pub(super) fn end(&self) -> [Value; 4] {
        self.change.as_ref().and_then(Change::end).unwrap_or([const { Value::Null }; 4])
    }

    /// Whether it does nothing but record, and little enough for a single statement.
    pub(super) fn only_records(&self) -> bool {
        const ROWS_MAX: usize = 64;
        let records = (1..=ROWS_MAX).contains(&self.bodies.len());
        records && self.consumed.is_empty() && self.change.is_none()
    }

    /// Whether the claim ends with it.
    fn ends_claim(&self) -> bool {
        self.change.as_ref().is_some_and(Change::ends_claim)
    }
}

impl Change {
    fn ends_claim(&self) -> bool {
        self.release || matches!(self.standing, Some(Stands::Over { .. }))
    }

    /// For the row of the run: stands, status, at_ms, due_ms, waiting, awaited_event, claim_state.
    fn of_run(&self) -> [Value; 7] {
        let (status, at_ms, due_ms, waiting, awaited_event) = match &self.standing {
            None => (Value::Null, Value::Null, Value::Null, Value::Null, Value::Null),
            Some(Stands::Open { due_ms, waiting, awaited_event }) => (
                "running".into(),
                Value::Null,
                (*due_ms).into(),
                waiting.clone().into(),
                awaited_event.clone().into(),
            ),
            Some(Stands::Over { status, at_ms, .. }) => {
                ((*status).into(), (*at_ms).into(), Value::Null, Value::Null, Value::Null)
            }
        };
        let claim_state = if self.ends_claim() { "free" } else { "held" };
        let stands = i64::from(self.standing.is_some());
        [stands.into(), status, at_ms, due_ms, waiting, awaited_event, claim_state.into()]
    }

    /// For the row of an execution that is over: result, error, trouble, trouble_shape.
    fn end(&self) -> Option<[Value; 4]> {
        let Some(Stands::Over { result, failed, .. }) = &self.standing else { return None };
        let failed = failed.as_ref();
        Some([
            result.clone().into(),
            failed.map(|failed| failed.error.clone()).into(),
            failed.map(|failed| failed.trouble.clone()).into(),
            failed.map(|failed| failed.trouble_shape.clone()).into(),
        ])
    }
}

impl Stands {
    fn of(standing: Standing) -> Result<Self, StoreError> {
        Ok(match standing {
            Standing::Open { waiting, due } => Stands::Open {
                due_ms: due.map(|due| due.as_ms()),
                awaited_event: match &waiting {
                    Some(Wait::Event { event, .. }) => Some(event.as_str().into()),
                    _ => None,
                },
                waiting: waiting.map(|waiting| codec::encode("a wait", &waiting)).transpose()?,
            },
            Standing::Completed { result, at } => Stands::Over {
                status: "completed",
                at_ms: at.as_ms(),
                result: Some(result.as_str().into()),
                failed: None,
            },
            Standing::Failed { failure, trouble, at } => Stands::Over {
                status: "failed",
                at_ms: at.as_ms(),
                result: None,
                failed: Some(Failed {
                    error: codec::encode("a failure", &failure)?,
                    trouble: trouble.fingerprint().into(),
                    trouble_shape: codec::encode("a trouble", &trouble)?,
                }),
            },
        })
    }
}

/// Commits all of `commits` within the transaction that is open; what became of each. Commits of
/// the same run come in their order.
pub(crate) async fn commit(
    connection: &mut Connection,
    commits: &[&Encoded],
) -> Result<Vec<Result<(), StoreError>>, StoreError> {
    let mut ended = HashSet::new();
    let in_time: Vec<bool> = commits
        .iter()
        .map(|commit| {
            let in_time = !ended.contains(&commit.claim.run);
            if commit.ends_claim() {
                ended.insert(commit.claim.run);
            }
            in_time
        })
        .collect();
    let mut live: Vec<&Encoded> =
        commits.iter().zip(&in_time).filter(|(_, in_time)| **in_time).map(|(commit, _)| *commit).collect();

    let wanted: u64 = live.iter().map(|commit| commit.bodies.len() as u64).sum();
    let written = execute_all(connection, insert_records(&live)).await?;
    // The usual case needs no look: all records went in behind the fence, so all claims hold.
    let held = if written == wanted && live.iter().all(|commit| !commit.bodies.is_empty()) {
        None
    } else {
        let claims: Vec<Claim> = live.iter().map(|commit| commit.claim).collect();
        Some(holders(connection, &claims).await?)
    };
    let holds = |commit: &Encoded| {
        held.as_ref().is_none_or(|held| held.contains(&(commit.claim.run, commit.claim.epoch.0)))
    };
    live.retain(|commit| holds(commit));

    let consumed: u64 = live.iter().map(|commit| commit.consumed.len() as u64).sum();
    if execute_all(connection, consume_events(&live)).await? != consumed {
        return Err(StoreError::Corrupt("an event is not there to be consumed".to_owned()));
    }
    let changes = merge(&live);
    execute_all(connection, end_executions(&changes)).await?;
    if execute_all(connection, change_runs(&changes)).await? != changes.len() as u64 {
        return Err(StoreError::Corrupt("the row of a run is not there to be changed".to_owned()));
    }
    Ok(commits
        .iter()
        .zip(in_time)
        .map(|(commit, in_time)| if in_time && holds(commit) { Ok(()) } else { Err(StoreError::ClaimLost) })
        .collect())
}

/// One change for each run: the last word on how it stands.
fn merge(commits: &[&Encoded]) -> Vec<(Claim, Change)> {
    let mut places = HashMap::new();
    let mut merged: Vec<(Claim, Change)> = Vec::new();
    for commit in commits {
        let Some(change) = &commit.change else { continue };
        let place = *places.entry(commit.claim.run).or_insert(merged.len());
        if place == merged.len() {
            merged.push((commit.claim, Change::default()));
        }
        let (_, so_far) = &mut merged[place];
        so_far.release |= change.release;
        if change.standing.is_some() {
            so_far.standing = change.standing.clone();
        }
    }
    merged
}

pub(super) fn insert_records(commits: &[&Encoded]) -> Vec<Statement> {
    insert_rows(commits, insert_records_of)
}

/// `insert`: how, given the name of a table of the rows.
pub(super) fn insert_rows(commits: &[&Encoded], insert: fn(&str) -> String) -> Vec<Statement> {
    let rows: Vec<[Value; 4]> = commits
        .iter()
        .flat_map(|commit| {
            (commit.first_number..).zip(&commit.bodies).map(|(number, body)| {
                [commit.claim.run.0.into(), commit.claim.epoch.0.into(), number.into(), body.clone().into()]
            })
        })
        .collect();
    wide(&rows, |values| format!("with c (run_key, epoch, number, body) as ({values}) {}", insert("c")))
}

/// `c`, here and below: whatever has rows with the columns that are read of it.
pub(super) fn insert_records_of(c: &str) -> String {
    format!(
        "insert into records (run_key, number, body)
         select c.run_key, c.number, c.body
           from {c} join runs r on {FENCE}"
    )
}

/// The claim is the current one of its run, and the run is held. (A run that is over is held by
/// nobody.)
pub(super) const FENCE: &str = "r.run_key = c.run_key and r.claim_epoch = c.epoch and r.claim_state = 'held'";

fn consume_events(commits: &[&Encoded]) -> Vec<Statement> {
    let rows: Vec<[Value; 3]> = commits
        .iter()
        .flat_map(|commit| {
            commit
                .consumed
                .iter()
                .map(|seq| [commit.claim.run.0.into(), commit.claim.epoch.0.into(), (*seq).into()])
        })
        .collect();
    wide(&rows, |values| format!("with c (run_key, epoch, seq) as ({values}) {}", consume_events_of("c")))
}

pub(super) fn consume_events_of(c: &str) -> String {
    format!(
        "update events set consumed_by = r.run_key
           from {c} join runs r on {FENCE}
          where events.seq = c.seq and events.execution_key = r.execution_key and events.consumed_by is null"
    )
}

fn end_executions(changes: &[(Claim, Change)]) -> Vec<Statement> {
    let rows: Vec<[Value; 8]> = changes
        .iter()
        .filter_map(|(claim, change)| {
            let [result, error, trouble, trouble_shape] = change.end()?;
            let [_, status, at_ms, ..] = change.of_run();
            let (run, epoch) = (claim.run.0.into(), claim.epoch.0.into());
            Some([run, epoch, status, at_ms, result, error, trouble, trouble_shape])
        })
        .collect();
    wide(&rows, |values| {
        format!(
            "with c (run_key, epoch, status, at_ms, result, error, trouble, trouble_shape) as ({values}) {}",
            end_executions_of("c")
        )
    })
}

pub(super) fn end_executions_of(c: &str) -> String {
    format!(
        "update executions
            set status = c.status, completed_ms = c.at_ms, result = c.result, error = c.error,
                trouble = c.trouble, trouble_shape = c.trouble_shape
           from {c} join runs r on {FENCE}
          where executions.execution_key = r.execution_key and executions.run_key = r.run_key"
    )
}

/// Comes last: it is what ends claims.
fn change_runs(changes: &[(Claim, Change)]) -> Vec<Statement> {
    let rows: Vec<[Value; 9]> = changes
        .iter()
        .map(|(claim, change)| {
            let [stands, status, at_ms, due_ms, waiting, awaited_event, claim_state] = change.of_run();
            let (run, epoch) = (claim.run.0.into(), claim.epoch.0.into());
            [run, epoch, stands, status, at_ms, due_ms, waiting, awaited_event, claim_state]
        })
        .collect();
    wide(&rows, |values| {
        format!(
            "with c (run_key, epoch, stands, status, at_ms, due_ms, waiting, awaited_event, claim_state)
               as ({values}) {}",
            change_runs_of("c")
        )
    })
}

/// A claim that came to a wait has got somewhere, even if it recorded nothing: it does not count as a
/// crash when it is left behind.
pub(super) fn change_runs_of(c: &str) -> String {
    format!(
        "update runs
            set status = coalesce(c.status, runs.status),
                completed_ms = case when c.stands = 1 then c.at_ms else runs.completed_ms end,
                due_ms = case when c.stands = 1 then c.due_ms else runs.due_ms end,
                waiting = case when c.stands = 1 then c.waiting else runs.waiting end,
                awaited_event = case when c.stands = 1 then c.awaited_event else runs.awaited_event end,
                claim_records = case when c.waiting is null then runs.claim_records else -1 end,
                claim_state = c.claim_state
           from {c}
          where runs.run_key = c.run_key and runs.claim_epoch = c.epoch and runs.claim_state = 'held'"
    )
}

/// Those of `claims` that hold.
async fn holders(
    connection: &mut Connection,
    claims: &[Claim],
) -> Result<HashSet<(RunKey, i64)>, StoreError> {
    let rows: Vec<[Value; 2]> =
        claims.iter().map(|claim| [claim.run.0.into(), claim.epoch.0.into()]).collect();
    let statements = wide(&rows, |values| {
        format!(
            "with c (run_key, epoch) as ({values})
             select r.run_key, r.claim_epoch from c join runs r on {FENCE}"
        )
    });
    fetch_all(connection, statements)
        .await?
        .iter()
        .map(|row| Ok((RunKey(row.try_get("run_key")?), row.try_get("claim_epoch")?)))
        .collect()
}
