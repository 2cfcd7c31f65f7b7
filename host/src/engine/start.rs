//! A client starts an execution.

use std::sync::Arc;

use futures_util::FutureExt as _;
use stepbox_domain::{Digest, ExecutionId, Fingerprint, Json, Limit, TaskName};
use tokio::sync::OwnedSemaphorePermit;

use super::{
    Engine, EngineError, Inner, carried_through, grants::why_not_active, opening::opening,
    settings::check_value, worker,
};
use crate::store::{Claim, Claimed, Creation, ExecutionView, HeldRun, NewExecution, StoreError};

/// What a start came to.
#[derive(Debug)]
pub enum Started {
    New(ExecutionView),
    /// The same start has been made before: the execution as it stands now.
    Replay(ExecutionView),
}

impl Engine {
    /// Starts `task` with `payload` under `id`, once: the same start again answers how the first
    /// one stands. Durable before the answer.
    pub async fn start(
        &self,
        id: ExecutionId,
        task: TaskName,
        payload: Json,
    ) -> Result<Started, EngineError> {
        let engine = self.clone();
        carried_through(async move { engine.start_once(id, task, payload).await }).await
    }

    async fn start_once(
        &self,
        id: ExecutionId,
        task: TaskName,
        payload: Json,
    ) -> Result<Started, EngineError> {
        let engine = &self.0;
        let fingerprint = Fingerprint::of(&task, &payload);
        let limits = engine.settings.of(&task).limits.clone();
        let live_max = limits.get(Limit::LiveMax);
        // Held until the execution exists: a module is not removed, nor another version made
        // active, between the check and the creation.
        let modules = engine.modules.read().await;
        let refusal = match modules.active(&task) {
            None => EngineError::UnknownTask(task.clone()),
            Some(active) => match check_value(&limits, &task, "the payload", &payload)
                .and_then(|()| active.accepts(&payload))
            {
                Ok(()) => {
                    let now = engine.clock.now();
                    // A place that is free is taken at once, and the run driven.
                    let is_held = engine.pauses.hold(&id, &task, None, now).is_some();
                    // One that has been made and is under way would be driven in vain.
                    let is_known = engine.waiters.is_fresh(&id);
                    let permit = match engine.ready.len() {
                        0 if !is_held
                            && !is_known
                            && !engine.is_cautious()
                            && !engine.stopping.has_begun()
                            && !engine.capacity.is_full(&task, live_max) =>
                        {
                            engine.places.clone().try_acquire_owned().ok()
                        }
                        _ => None,
                    };
                    let deadline = active.timeout_ms.map(|ms| now.plus_ms(ms));
                    let new = NewExecution {
                        id: id.clone(),
                        task: task.clone(),
                        payload,
                        fingerprint,
                        version: active.version,
                        now,
                        deadline,
                        held: None,
                    };
                    let is_driven = permit.is_some();
                    let creation = match permit {
                        Some(permit) => driven(engine, new, active.digest.clone(), permit).await?,
                        None => engine.store.create_execution(new).await?,
                    };
                    drop(modules);
                    return Ok(match creation {
                        Creation::New { execution, run } => {
                            engine.metrics.started.inc();
                            let stands_in_line =
                                || engine.capacity.stands_in_line(&task, run, &execution.run, live_max);
                            match deadline {
                                _ if is_driven => {}
                                Some(deadline) if stands_in_line() => engine.timers.set(run, deadline),
                                None if stands_in_line() => {}
                                _ => engine.ready.push(run),
                            }
                            Started::New(execution)
                        }
                        Creation::Replay(execution) => Started::Replay(execution),
                        Creation::Clash { task } => return Err(EngineError::IdTaken { id, task }),
                    });
                }
                Err(refusal) => refusal,
            },
        };
        drop(modules);
        // What could not be started now may have been started before, when it could.
        match engine.store.execution(&id).await? {
            None => Err(match refusal {
                EngineError::UnknownTask(task) => why_not_active(engine, task).await,
                refusal => refusal,
            }),
            Some(known) if known.fingerprint == fingerprint => Ok(Started::Replay(known)),
            Some(known) => Err(EngineError::IdTaken { id, task: known.task }),
        }
    }
}

/// Starts an execution whose run is driven at once: as far as it gets without giving way before the start
/// is on its way to the store, which takes along what the run has come to, and then beside it.
async fn driven(
    engine: &Arc<Inner>,
    new: NewExecution,
    digest: Digest,
    permit: OwnedSemaphorePermit,
) -> Result<Creation, StoreError> {
    let run = engine.store.new_run();
    let Some(handle) = engine.live.enter(run) else {
        return Err(StoreError::Corrupt(format!("the key {} of a new run is taken", run.0)));
    };
    // No event can have come.
    handle.before_claim();
    let claimed = Claimed {
        claim: Claim::first(run),
        facts: new.facts(),
        payload: new.payload.clone(),
        digest,
        known: 0,
        records: Vec::new(),
        events: Vec::new(),
        crashes: 0,
    };
    let (opening, unwritten) = opening();
    let mut driving =
        Box::pin(worker::drive(Arc::clone(engine), handle, claimed, None, permit, Some(unwritten)));
    // It cannot be over: it hears only later whether it has been written.
    let _ = driving.as_mut().now_or_never();
    let commit = opening.shut();
    // One that rests has nothing to do but to hear of it.
    let resting = match commit.as_ref().is_some_and(|commit| commit.release) {
        true => Some(driving),
        false => {
            tokio::spawn(driving);
            None
        }
    };
    let new = NewExecution { held: Some(HeldRun { run, commit }), ..new };
    let creation = engine.store.create_execution(new).await;
    opening.answer(match &creation {
        Ok(Creation::New { execution, .. }) => {
            if resting.is_none() {
                engine.waiters.started(execution);
            }
            Ok(())
        }
        Ok(Creation::Replay(_) | Creation::Clash { .. }) => {
            // What it has done was for nothing, and nobody has seen it.
            engine.live.interrupt(run);
            Err(StoreError::ClaimLost)
        }
        Err(error) => Err(error.again()),
    });
    if let Some(mut resting) = resting
        && resting.as_mut().now_or_never().is_none()
    {
        tokio::spawn(resting);
    }
    creation
}
