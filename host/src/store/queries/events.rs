//! What is sent to executions from outside.

use std::collections::{HashMap, HashSet};

use sqlx::Row as _;
use stepbox_domain::{EventName, ExecutionId, ExecutionStatus, Json, Timestamp, event::Event, run::Wait};

use super::{
    Connection, Row,
    statement::{Value, execute_all, fetch_all, wide},
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
    let addressees = addressees(connection, events).await?;
    let mut answered = HashSet::new();
    let mut rows: Vec<[Value; 4]> = Vec::with_capacity(events.len());
    let mut added = Vec::with_capacity(events.len());
    for event in events {
        let Some(addressee) = addressees.get(&event.execution) else {
            added.push(EventAdded::NoSuchExecution);
            continue;
        };
        if addressee.status.is_terminal() {
            added.push(EventAdded::AlreadyOver(addressee.status));
            continue;
        }
        rows.push([
            addressee.key.into(),
            event.name.as_str().into(),
            event.now.as_ms().into(),
            event.payload.as_str().into(),
        ]);
        let awaited = addressee.awaits(event) && answered.insert(addressee.key);
        added.push(EventAdded::Added { run: addressee.run, awaited });
    }
    let statements = wide(&rows, |values| {
        format!(
            "with n (execution_key, name, received_ms, payload) as ({values})
             insert into events (execution_key, name, received_ms, payload)
             select execution_key, name, received_ms, payload from n where execution_key is not null"
        )
    });
    execute_all(connection, statements).await?;
    Ok(added)
}

/// An execution to which something is sent.
struct Addressee {
    key: i64,
    status: ExecutionStatus,
    run: RunKey,
    waiting: Option<Wait>,
    /// An event of the awaited name has come already, and nobody has consumed it yet.
    answered: bool,
}

impl Addressee {
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

async fn addressees(
    connection: &mut Connection,
    events: &[&NewEvent],
) -> Result<HashMap<ExecutionId, Addressee>, StoreError> {
    let ids: HashSet<&ExecutionId> = events.iter().map(|event| &event.execution).collect();
    let rows: Vec<[Value; 1]> = ids.iter().map(|id| [id.as_str().into()]).collect();
    let statements = wide(&rows, |values| {
        format!(
            "with n (execution_id) as ({values})
             select e.execution_id, e.execution_key, e.status, e.run_key, r.waiting,
                    exists (select 1 from events p
                             where p.execution_key = e.execution_key and p.name = r.awaited_event
                               and p.consumed_by is null) as answered
               from n join executions e on e.execution_id = n.execution_id join runs r on r.run_key = e.run_key"
        )
    });
    fetch_all(connection, statements)
        .await?
        .iter()
        .map(|row| {
            let waiting: Option<&str> = row.try_get("waiting")?;
            let answered: i64 = row.try_get("answered")?;
            let addressee = Addressee {
                key: row.try_get("execution_key")?,
                status: codec::status(row.try_get("status")?)?,
                run: RunKey(row.try_get("run_key")?),
                waiting: waiting.map(|waiting| codec::decode("a wait", waiting)).transpose()?,
                answered: answered != 0,
            };
            Ok((codec::execution_id(row.try_get("execution_id")?)?, addressee))
        })
        .collect()
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
