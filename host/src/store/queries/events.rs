//! What is sent to executions from outside.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use stepbox_domain::{ExecutionId, ExecutionStatus, Timestamp, event::Event, run::Wait};

use super::{
    Connection, Row,
    claims::{self, Hold},
    executions::Known,
    statement::{Statement, Value, execute_all, fetch_all, transact, wide},
};
use crate::store::{EventAdded, NewEvent, RunKey, StoreError, Taken, codec};

/// Keeps all of `events`, in their order, within the transaction that is open.
pub(crate) async fn add(
    connection: &mut Connection,
    known: &mut Known,
    events: &[&NewEvent],
) -> Result<Vec<EventAdded>, StoreError> {
    let rows = fetch_all(connection, look_up(events)).await?;
    let added = added(events, &rows, known.keys.next_event)?;
    let numbered: Vec<(i64, &NewEvent)> =
        added.iter().zip(events).filter_map(|(added, event)| Some((added.seq()?, *event))).collect();
    let inserted = execute_all(connection, insert(&numbered)).await?;
    known.keys.next_event += all_in(inserted, numbered.len())?;
    events.iter().zip(&added).for_each(|(event, added)| event.is_coming(added));
    Ok(added)
}

/// Keeps one as a transaction of its own, in one round trip; it is coming as soon as it is inserted.
pub(crate) async fn add_alone(
    connection: &mut Connection,
    known: &mut Known,
    event: &NewEvent,
) -> Result<(EventAdded, Option<Hold>), StoreError> {
    let seq = known.keys.next_event;
    let mut statements = look_up(&[event]);
    statements.extend(insert(&[(seq, event)]));
    statements.extend(claims::take_hold_of_awaiting(&[event]));
    let mut kept = None;
    let done = transact(connection, statements, |done| {
        if let [looked_up, inserted] = done {
            let added = added(&[event], &looked_up.rows, seq)?.pop().ok_or_else(unanswered)?;
            let count = all_in(inserted.touched, usize::from(added.seq().is_some()))?;
            event.is_coming(&added);
            kept = Some((added, count));
        }
        Ok(())
    })
    .await?;
    let (added, count) = kept.ok_or_else(unanswered)?;
    known.keys.next_event += count;
    let hold = done.get(2).and_then(|holds| holds.rows.first());
    Ok((added, hold.map(claims::hold).transpose()?.map(|(_, hold)| hold)))
}

fn unanswered() -> StoreError {
    StoreError::Corrupt("an event had no answer".to_owned())
}

/// What becomes of `events`, of whose addressees `rows` tell how they stood before; the first that is
/// kept gets the number `next`.
fn added(events: &[&NewEvent], rows: &[Row], mut next: i64) -> Result<Vec<EventAdded>, StoreError> {
    let mut addressees = rows.iter().map(Addressee::read).collect::<Result<HashMap<_, _>, _>>()?;
    let added = events.iter().map(|event| match addressees.get_mut(&event.execution) {
        None => EventAdded::NoSuchExecution,
        Some(addressee) if addressee.status.is_terminal() => EventAdded::AlreadyOver(addressee.status),
        Some(addressee) => {
            let awaited = addressee.awaits(event);
            addressee.answered |= awaited;
            let (seq, after) = (next, std::mem::replace(&mut addressee.newest, next));
            next += 1;
            EventAdded::Added { run: addressee.run, awaited, seq, after, taken: Taken::Not }
        }
    });
    Ok(added.collect())
}

/// So many were written: as many as there should be.
fn all_in(inserted: u64, wanted: usize) -> Result<i64, StoreError> {
    match inserted == wanted as u64 {
        true => Ok(wanted as i64),
        false => Err(StoreError::Corrupt("the status of an execution and its end do not agree".to_owned())),
    }
}

/// Those whose execution is there and not over.
fn insert(events: &[(i64, &NewEvent)]) -> Vec<Statement> {
    let rows: Vec<[Value; 5]> = events
        .iter()
        .map(|(seq, event)| {
            [
                (*seq).into(),
                event.execution.as_str().into(),
                event.name.as_str().into(),
                event.now.as_ms().into(),
                event.payload.as_str().into(),
            ]
        })
        .collect();
    wide(&rows, |values| {
        format!(
            "with n (seq, execution_id, name, received_ms, payload) as ({values})
             insert into events (seq, execution_key, name, received_ms, payload)
             select n.seq, e.execution_key, n.name, n.received_ms, n.payload
               from n join executions e on e.execution_id = n.execution_id
              where e.completed_ms is null"
        )
    })
}

/// An execution to which something is sent.
struct Addressee {
    status: ExecutionStatus,
    run: RunKey,
    waiting: Option<Wait>,
    /// An event of the awaited name has come already, and nobody has consumed it yet.
    answered: bool,
    /// The last one that nobody has consumed yet; 0 if there is none.
    newest: i64,
}

impl Addressee {
    fn read(row: &Row) -> Result<(ExecutionId, Addressee), StoreError> {
        let waiting: Option<&str> = row.try_get("waiting")?;
        let answered: i64 = row.try_get("answered")?;
        let addressee = Addressee {
            status: codec::status(row.try_get("status")?)?,
            run: RunKey(row.try_get("run_key")?),
            waiting: waiting.map(|waiting| codec::decode("a wait", waiting)).transpose()?,
            answered: answered != 0,
            newest: row.try_get("newest")?,
        };
        Ok((codec::execution_id(row.try_get("execution_id")?)?, addressee))
    }

    /// Whether `event` is what the run stands at, and will answer it.
    fn awaits(&self, event: &NewEvent) -> bool {
        match &self.waiting {
            Some(Wait::Event { event: awaited, deadline, .. }) => {
                *awaited == event.name
                    && !self.answered
                    && deadline.is_none_or(|deadline| event.now <= deadline)
            }
            _ => false,
        }
    }
}

/// How the executions stand to which `events` are sent.
fn look_up(events: &[&NewEvent]) -> Vec<Statement> {
    let ids: HashSet<&ExecutionId> = events.iter().map(|event| &event.execution).collect();
    let rows: Vec<[Value; 1]> = ids.iter().map(|id| [id.as_str().into()]).collect();
    wide(&rows, |values| {
        format!(
            "with n (execution_id) as ({values})
             select e.execution_id, e.status, e.run_key, r.waiting,
                    exists (select 1 from events p
                             where p.execution_key = e.execution_key and p.name = r.awaited_event
                               and p.consumed_by is null) as answered,
                    coalesce((select max(p.seq) from events p
                               where p.execution_key = e.execution_key and p.consumed_by is null), 0) as newest
               from n join executions e on e.execution_id = n.execution_id join runs r on r.run_key = e.run_key"
        )
    })
}

/// The unconsumed events of the run's execution that came after number `after`, oldest first.
pub(crate) async fn after(
    connection: &mut Connection,
    run: RunKey,
    after: i64,
) -> Result<Vec<Event>, StoreError> {
    let rows = sqlx::query(
        "select p.seq, p.name, p.payload, p.received_ms
           from events p
          where p.execution_key = (select execution_key from runs where run_key = $1)
            and p.seq > $2 and p.consumed_by is null
          order by p.seq",
    )
    .bind(run.0)
    .bind(after)
    .fetch_all(connection)
    .await?;
    rows.iter().map(event).collect()
}

pub(crate) fn event(row: &Row) -> Result<Event, StoreError> {
    Ok(Event {
        seq: row.try_get("seq")?,
        name: codec::event_name(row.try_get("name")?)?,
        payload: codec::json(row.try_get("payload")?)?,
        received_at: Timestamp::from_ms(row.try_get("received_ms")?),
    })
}
