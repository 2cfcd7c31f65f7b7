//! The steps of a run: called, tried until they have an outcome, each attempt within its time.

use std::{sync::Arc, time::Duration};

use stepbox_domain::{
    FailureKind,
    decide::{Bound, Input, Reply},
    step::{AttemptFailure, AttemptOutcome, StepInput},
};

use super::{Gone, Hold, LiveRun};
use crate::{
    engine::{metrics::Part, stopping::Phase},
    sandbox::{Answer, EndHandler, StepCall, StepExit, StepRunner, StepSetup},
};

/// How long an attempt may go on before the fact that it started is written down. Shorter ones
/// are written together with their outcome, in one commit instead of two.
const START_KEPT_BACK: Duration = Duration::from_millis(5);

/// What ended an attempt that took its time.
enum Ended {
    Exit(StepExit),
    TimedOut,
    Stopped,
}

impl LiveRun {
    /// Runs the step `call` with its retries until it has an outcome.
    pub async fn step(&mut self, call: StepCall) -> Result<Answer, EndHandler> {
        let place = self.place(call.name.clone());
        let hash = StepInput::of(&call.input);
        if self.owes && self.was_seen {
            // It would stand at its gate in the middle, which costs more than to begin a little later.
            self.pay().await.map_err(|Gone| EndHandler)?;
        }
        loop {
            if self.engine.stopping.has_begun() {
                return Err(EndHandler);
            }
            self.look_at_settings();
            let facts = self.run.facts();
            let held_by = self.engine.pauses.hold(
                &facts.execution,
                &facts.task,
                Some(&place.key),
                self.engine.clock.now(),
            );
            let input = Input::StepCalled {
                place: &place,
                function: &call.function,
                input: &hash,
                options: &call.options,
                hold: held_by.as_ref(),
            };
            let mut reply = self.take(input).await.map_err(|Gone| EndHandler)?;
            if let Reply::Go { attempt, time_ms, bound } = reply {
                tracing::debug!(target: "steps", run = %self.context.run_id, step = %place.key, attempt, "begins");
                self.step_logs.begin(place.key.clone(), attempt);
                let outcome = self.attempt(&call, attempt, Duration::from_millis(time_ms), bound).await?;
                self.was_seen = self.gate.take_used();
                let receipt = Box::new(self.meter.receipt());
                self.engine.metrics.guest(&self.context.task, Part::Steps, &receipt);
                let receipt = Some(receipt);
                let options = &call.options;
                let input = Input::AttemptEnded { place: &place, attempt, outcome, receipt, options };
                reply = self.take(input).await.map_err(|Gone| EndHandler)?;
                let completed = matches!(reply, Reply::Recorded { outcome: Ok(_), .. });
                let ended = if completed { "completed" } else { "failed" };
                tracing::debug!(target: "steps", run = %self.context.run_id, step = %place.key, attempt, "{ended}");
            }
            match reply {
                Reply::Recorded { outcome, at } => return Ok(self.answer(outcome, at)),
                Reply::Refused(failure) => {
                    self.leg.give_back(&call.name);
                    return Ok(self.refuse(failure));
                }
                Reply::Wait(wait) => self.stand(&wait).await?,
                Reply::Go { .. } | Reply::Stop | Reply::Leave => return Err(EndHandler),
            }
        }
    }

    /// Looks whether the task is set otherwise since. The handler's instance keeps what it has.
    fn look_at_settings(&mut self) {
        let settings = self.engine.settings.of(&self.context.task);
        if !Arc::ptr_eq(&settings, &self.settings) {
            self.run.set_policy(self.engine.policy_within(&settings.limits));
            self.settings = settings;
            self.steps = None;
        }
    }

    /// Where the next attempt runs: in the instance of the one before, if there is one.
    fn step_runner(&mut self) -> Option<Box<dyn StepRunner>> {
        self.steps.take().or_else(|| {
            let setup = StepSetup {
                context: self.context.clone(),
                limits: self.settings.limits.clone(),
                grants: self.settings.grants.clone(),
                meter: self.meter.clone(),
                gate: self.gate.clone(),
            };
            Some(self.guest.as_ref()?.steps(setup))
        })
    }

    /// One attempt, until it ends by itself, when it has taken `time`, or by the end of the host.
    async fn attempt(
        &mut self,
        call: &StepCall,
        attempt: u32,
        time: Duration,
        bound: Bound,
    ) -> Result<AttemptOutcome, EndHandler> {
        let engine = self.engine.clone();
        let mut steps = self.step_runner().ok_or(EndHandler)?;
        drop(self.step_tail.take());
        self.meter.begin();
        let exit = {
            let mut running = std::pin::pin!(steps.run_step(&call.function, &call.input, attempt));
            let quick = {
                let paid_for_a_while = async {
                    self.pay().await?;
                    tokio::time::sleep(START_KEPT_BACK).await;
                    Ok(())
                };
                tokio::select! {
                    biased;
                    exit = &mut running => Some(exit),
                    // It waits for something, which may be the gate.
                    paid = paid_for_a_while => {
                        paid.map_err(|Gone| EndHandler)?;
                        None
                    }
                }
            };
            match quick {
                Some(exit) => Some(exit),
                None => {
                    // It takes its time: let it be seen meanwhile, and be counted should we die.
                    let facts = self.run.facts().clone();
                    let watched = async {
                        tokio::select! {
                            biased;
                            exit = running => Ok(Ended::Exit(exit)),
                            () = engine.pauses.spent(&engine.clock, &facts, time) => {
                                Ok(Ended::TimedOut)
                            }
                            () = engine.stopping.reached(Phase::Expired) => Ok(Ended::Stopped),
                        }
                    };
                    let both = futures_util::future::try_join(watched, self.write(false)).await;
                    match both.map_err(|Gone| EndHandler)?.0 {
                        Ended::Exit(exit) => Some(exit),
                        Ended::Stopped => return Ok(AttemptOutcome::Interrupted),
                        Ended::TimedOut => None,
                    }
                }
            }
        };
        Ok(match exit {
            Some(StepExit::Completed(result)) => {
                self.steps = Some(steps);
                AttemptOutcome::Completed(result)
            }
            Some(StepExit::Failed(failure)) => {
                self.steps = Some(steps);
                AttemptOutcome::Failed(AttemptFailure { logs: self.step_tail.take(), ..failure })
            }
            Some(StepExit::Unavailable(reason)) => {
                self.hold = Hold::Unwritten(reason);
                return Err(EndHandler);
            }
            None => {
                // With it goes the line that it had not finished.
                drop(steps);
                let (kind, why) = match bound {
                    Bound::Timeout => (FailureKind::TimedOut, "its timeout has passed".to_owned()),
                    Bound::Limit { max_ms } => {
                        let why = format!("it took more than {max_ms} ms by the clock (attemptWallMaxMs)");
                        (FailureKind::OverLimit, why)
                    }
                };
                let message = format!("step \"{}\" was interrupted in attempt {attempt}: {why}", call.name);
                let failure = AttemptFailure::new(kind, message);
                AttemptOutcome::Failed(AttemptFailure { logs: self.step_tail.take(), ..failure })
            }
        })
    }
}
