//! What is sent to executions from outside.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use stepbox_domain::{EventName, ExecutionId, ExecutionStatus, Json, Timestamp, event::Event, run::Wait};

use super::{
    Connection, Row,
    statement::{Statement, Value, execute_all, fetch_all, transact, wide},
};
use crate::store::{EventAdded, RunKey, StoreError, codec};

#[derive(Debug)]
pub(crate) struct NewEvent {
    pub execution: ExecutionId,
    pub name: EventName,
    pub payload: Json,
    pub now: Timestamp,
}

/// Keeps all of `events`, in their order, within the transaction that is open.
pub(crate) async fn add(
    connection: &mut Connection,
    events: &[&NewEvent],
) -> Result<Vec<EventAdded>, StoreError> {
    let rows = fetch_all(connection, look_up(events)).await?;
    let inserted = execute_all(connection, insert(events)).await?;
    added(events, &rows, inserted)
}

/// Keeps one as a transaction of its own, in one round trip.
pub(crate) async fn add_alone(
    connection: &mut Connection,
    event: &NewEvent,
) -> Result<EventAdded, StoreError> {
    let statements = look_up(&[event]).into_iter().chain(insert(&[event])).collect();
    let done = transact(connection, statements).await?;
    let [looked_up, inserted] = &done[..] else {
        return Err(StoreError::Corrupt("not every statement had an answer".to_owned()));
    };
    let added = added(&[event], &looked_up.rows, inserted.touched)?;
    added.into_iter().next().ok_or_else(|| StoreError::Corrupt("an event had no answer".to_owned()))
}

/// What became of `events`, of whose addressees `rows` tell how they stood before.
fn added(events: &[&NewEvent], rows: &[Row], inserted: u64) -> Result<Vec<EventAdded>, StoreError> {
    let addressees = rows.iter().map(Addressee::read).collect::<Result<HashMap<_, _>, _>>()?;
    let mut answered = HashSet::new();
    let added: Vec<EventAdded> = events
        .iter()
        .map(|event| match addressees.get(&event.execution) {
            None => EventAdded::NoSuchExecution,
            Some(addressee) if addressee.status.is_terminal() => EventAdded::AlreadyOver(addressee.status),
            Some(addressee) => {
                let awaited = addressee.awaits(event) && answered.insert(&event.execution);
                EventAdded::Added { run: addressee.run, awaited }
            }
        })
        .collect();
    let kept = added.iter().filter(|added| matches!(added, EventAdded::Added { .. })).count();
    match inserted == kept as u64 {
        true => Ok(added),
        false => Err(StoreError::Corrupt("the status of an execution and its end do not agree".to_owned())),
    }
}

/// Those whose execution is there and not over.
fn insert(events: &[&NewEvent]) -> Vec<Statement> {
    let rows: Vec<[Value; 4]> = events
        .iter()
        .map(|event| {
            [
                event.execution.as_str().into(),
                event.name.as_str().into(),
                event.now.as_ms().into(),
                event.payload.as_str().into(),
            ]
        })
        .collect();
    wide(&rows, |values| {
        // The cross join keeps them in their order.
        format!(
            "with n (execution_id, name, received_ms, payload) as ({values})
             insert into events (execution_key, name, received_ms, payload)
             select e.execution_key, n.name, n.received_ms, n.payload
               from n cross join executions e on e.execution_id = n.execution_id
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
                               and p.consumed_by is null) as answered
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
