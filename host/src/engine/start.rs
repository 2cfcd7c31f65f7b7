//! A client starts an execution.

use std::sync::Arc;

use stepbox_domain::{ExecutionId, Fingerprint, Json, Limit, TaskName};

use super::{Engine, EngineError, carried_through, grants::why_not_active, settings::check_value, worker};
use crate::store::{Creation, ExecutionView, NewExecution};

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
                    // A place that is free is taken at once, and start and claim are one commit.
                    let is_held = engine.pauses.hold(&id, &task, None, now).is_some();
                    let permit = match engine.ready.len() {
                        0 if !is_held
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
                        claim: permit.is_some(),
                    };
                    let starting = engine.live.starting();
                    let creation = engine.store.create_execution(new).await?;
                    drop(modules);
                    return Ok(match creation {
                        Creation::New { execution, run, claimed } => {
                            engine.metrics.started.inc();
                            let entered = claimed.map(|claimed| (claimed, engine.live.enter(run)));
                            drop(starting);
                            match (entered, permit) {
                                (Some((claimed, Some(handle))), Some(permit)) => {
                                    engine.waiters.started(&execution);
                                    tokio::spawn(worker::drive(Arc::clone(engine), handle, claimed, permit));
                                }
                                _ if engine.capacity.stands_in_line(&task, run, &execution.run, live_max) => {
                                    if let Some(deadline) = deadline {
                                        engine.timers.set(run, deadline);
                                    }
                                }
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
