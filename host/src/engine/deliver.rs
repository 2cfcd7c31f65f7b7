//! An event comes in, an execution is cancelled, somebody waits for a result.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use serde_json::{Value, json};
use stepbox_domain::{
    EventName, ExecutionId, ExecutionStatus, Json, Limit,
    audit::{AuditAction, AuditEntry},
    event::Event,
};

use tokio::sync::OwnedSemaphorePermit;

use super::{
    Engine, EngineError, Inner, Who,
    ahead::{Answer, on_its_way},
    carried_through,
    kept::Kept,
    live::{Arrived, LiveHandle},
    settings::check_value,
    worker,
};
use crate::store::{Cancel, Claimed, Coming, EventAdded, ExecutionView, Known, NewEvent, StoreError, Taken};

/// What became of an event. Stored either way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// The run stands at a wait that this event answers.
    Delivered,
    /// Nobody waits for it yet; the first wait of that name takes it.
    Buffered,
}

impl Engine {
    /// Keeps an event for the execution and wakes the run if it waits for it. One that is larger
    /// than a value of the task may be is refused.
    pub async fn send_event(
        &self,
        execution: &ExecutionId,
        name: &EventName,
        payload: &Json,
    ) -> Result<Delivery, EngineError> {
        let (engine, execution) = (self.0.clone(), execution.clone());
        let (name, payload) = (name.clone(), payload.clone());
        carried_through(async move { deliver(&engine, &execution, &name, &payload).await }).await
    }

    /// Ends the execution at once: its guest is interrupted, and nothing of it is recorded after
    /// the answer.
    pub async fn cancel(&self, execution: &ExecutionId, who: Who) -> Result<(), EngineError> {
        let (engine, execution) = (self.0.clone(), execution.clone());
        carried_through(async move { cancel(&engine, &execution, who).await }).await
    }

    /// The execution as soon as it is over; as it stands when `patience` is used up.
    pub async fn wait(
        &self,
        execution: &ExecutionId,
        patience: Duration,
    ) -> Result<ExecutionView, EngineError> {
        let engine = &self.0;
        let waiter = engine.waiters.enter(execution);
        let end = tokio::time::Instant::now() + patience;
        let mut patient = true;
        loop {
            let changed = waiter.changed();
            let fresh = if patient { engine.waiters.fresh(execution) } else { None };
            if fresh.is_none() {
                let view = engine.store.execution(execution).await?;
                let view = view.ok_or_else(|| EngineError::UnknownExecution(execution.clone()))?;
                if view.status.is_terminal() || !patient {
                    return Ok(view);
                }
            }
            // Out of patience it looks once more: what it says is how things stand then.
            patient = tokio::time::timeout_at(end, changed).await.is_ok();
            // Of one that was looked up the end may be told late, when a repair has undone it.
            if patient && let Some(over) = fresh.and_then(|fresh| waiter.after(fresh)) {
                return Ok(over);
            }
        }
    }
}

async fn deliver(
    engine: &Arc<Inner>,
    execution: &ExecutionId,
    name: &EventName,
    payload: &Json,
) -> Result<Delivery, EngineError> {
    // No task's limit is below this, so most events need nobody to look whose they are.
    if payload.as_str().len() as u64 > Limit::ValueMaxBytes.least() {
        let Some(view) = engine.store.execution(execution).await? else {
            return Err(EngineError::UnknownExecution(execution.clone()));
        };
        check_value(&engine.settings.of(&view.task).limits, &view.task, "the event", payload)?;
    }
    // A place that is free is taken at once, and event and claim are one commit. Most events find no
    // run that stands at them and give it back: so not the last places.
    let is_roomy = 2 * engine.places.available_permits() > engine.config.live_max;
    let permit = match engine.ready.len() {
        0 if is_roomy && !engine.stopping.has_begun() => engine.places.clone().try_acquire_owned().ok(),
        _ => None,
    };
    let now = engine.clock.now();
    let event = Event { seq: 0, name: name.clone(), payload: payload.clone(), received_at: now };
    let claiming = permit.as_ref().map(|_| engine.live.claiming());
    let (told, kept) = (Arc::<Told>::default(), Arc::<TakenOut>::default());
    let new = NewEvent {
        execution: execution.clone(),
        name: name.clone(),
        payload: payload.clone(),
        now,
        claim: permit.as_ref().map(|_| kept.take_out_of(engine)),
        coming: Some(told.tell_in(engine, event.clone())),
    };
    let added = engine.store.add_event(new).await;
    told.has_come(&added);
    match added? {
        EventAdded::NoSuchExecution => Err(EngineError::UnknownExecution(execution.clone())),
        EventAdded::AlreadyOver(status) => {
            Err(EngineError::AlreadyOver { id: execution.clone(), status, wanted: "take an event" })
        }
        EventAdded::Added { run, awaited, seq, after, taken } => {
            engine.metrics.events.inc();
            match (taken, permit) {
                (Taken::Held(claimed), permit) => {
                    let entered = permit.and_then(|permit| Some((engine.live.enter(run)?, permit)));
                    drop(claiming);
                    go_on(engine, *claimed, kept.take(), entered);
                }
                (Taken::LetGo, _) => engine.ready.push(run),
                // One that is not awaited came before the wait was on disk: whoever writes the wait
                // looks once more (see `worker::rest`).
                (Taken::Not, _) => {
                    let arrived = Arrived { event: Event { seq, ..event }, after };
                    if !engine.live.knock(run, arrived, None) && awaited {
                        engine.ready.push(run);
                    }
                }
            }
            Ok(if awaited { Delivery::Delivered } else { Delivery::Buffered })
        }
    }
}

/// What runs that stand parked have been told of an event before it was on disk: they go on with it, and
/// nothing is seen of that before it is.
#[derive(Default)]
struct Told(Mutex<Vec<(EventAdded, Answer)>>);

impl Told {
    fn tell_in(self: &Arc<Self>, engine: &Arc<Inner>, event: Event) -> Coming {
        let (told, engine) = (self.clone(), engine.clone());
        Box::new(move |added| told.tell(&engine, &event, added))
    }

    /// Has the run that waits for `event` go on, if it is driven here.
    fn tell(&self, engine: &Inner, event: &Event, coming: &EventAdded) {
        let EventAdded::Added { run, awaited: true, seq, after, .. } = *coming else { return };
        let (answer, unwritten) = on_its_way();
        let arrived = Arrived { event: Event { seq, ..event.clone() }, after };
        if engine.live.knock(run, arrived, Some(unwritten)) {
            self.0.lock().unwrap_or_else(PoisonError::into_inner).push((coming.clone(), answer));
        }
    }

    fn has_come(&self, added: &Result<EventAdded, StoreError>) {
        let told = std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner));
        for (coming, answer) in told {
            answer.is(match added {
                Ok(added) if added.is_at(&coming) => Ok(()),
                Ok(_) => Err(StoreError::Unavailable("an event was stored otherwise than told".to_owned())),
                Err(error) => Err(error.again()),
            });
        }
    }
}

/// What had been kept of the run that the event takes hold of: taken out only when there is somebody to
/// go on with it.
#[derive(Default)]
struct TakenOut(Mutex<Option<Kept>>);

impl TakenOut {
    fn take_out_of(self: &Arc<Self>, engine: &Arc<Inner>) -> Known {
        let (place, engine) = (self.clone(), engine.clone());
        Arc::new(move |run| {
            let kept = engine.kept.take(run);
            let records = kept.as_ref().map_or(0, |kept| kept.records);
            *place.0.lock().unwrap_or_else(PoisonError::into_inner) = kept;
            records
        })
    }

    fn take(&self) -> Option<Kept> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// With a run that an event took hold of.
fn go_on(
    engine: &Arc<Inner>,
    claimed: Claimed,
    kept: Option<Kept>,
    entered: Option<(Arc<LiveHandle>, OwnedSemaphorePermit)>,
) {
    let engine = engine.clone();
    match entered {
        Some((handle, permit)) => {
            drop(tokio::spawn(worker::drive(engine, handle, claimed, kept, permit, None)));
        }
        // Whoever drove it has let go of it, and has not left yet. Nobody waits for this: the event is
        // stored.
        None => drop(tokio::spawn(async move {
            worker::let_go(&engine, claimed.claim, &claimed.facts).await;
            engine.ready.push(claimed.claim.run);
        })),
    }
}

async fn cancel(engine: &Inner, execution: &ExecutionId, who: Who) -> Result<(), EngineError> {
    let Some(before) = engine.store.execution(execution).await? else {
        return Err(EngineError::UnknownExecution(execution.clone()));
    };
    let now = engine.clock.now();
    let cancelled = ExecutionView { status: ExecutionStatus::Cancelled, ..before.clone() };
    let audit = AuditEntry {
        execution: Some(execution.clone()),
        task: Some(before.task.clone()),
        target: Some(before.run.to_string()),
        before: Json::from(standing(&before)),
        after: Json::from(standing(&cancelled)),
        ..who.entry(AuditAction::Cancel, now)
    };
    match engine.store.cancel(execution, who.by.as_deref(), now, audit).await? {
        Cancel::NoSuchExecution => Err(EngineError::UnknownExecution(execution.clone())),
        Cancel::AlreadyOver(status) => {
            Err(EngineError::AlreadyOver { id: execution.clone(), status, wanted: "be cancelled" })
        }
        Cancel::Cancelled(run) => {
            engine.live.interrupt(run);
            engine.kept.forget(run);
            engine.timers.forget(run);
            engine.capacity.gone(run, &engine.ready);
            engine.waiters.wake(execution, None);
            engine.metrics.ended(ExecutionStatus::Cancelled);
            Ok(())
        }
    }
}

/// As the audit trail shows an execution. (A moment may lie between the look and the write; the
/// journal is exact.)
fn standing(view: &ExecutionView) -> Value {
    json!({ "status": view.status.as_str(), "run": view.run.as_str(), "version": view.version })
}
