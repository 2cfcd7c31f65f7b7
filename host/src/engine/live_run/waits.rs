//! Calls that may have to wait: asked again until there is an answer, standing still in between.

use std::time::Duration;

use stepbox_domain::{
    Limit,
    decide::{Input, Reply},
    run::Wait,
};

use super::{Gone, Hold, LiveRun};
use crate::{
    engine::stopping::Phase,
    sandbox::{Answer, EndHandler},
};

impl LiveRun {
    /// Asks until there is an answer for the handler, standing still in between.
    pub async fn settle(&mut self, input: Input<'_>) -> Result<Answer, EndHandler> {
        loop {
            self.look_for_news(&input).await?;
            let reply = self.take(input.clone()).await.map_err(|Gone| EndHandler)?;
            match reply {
                Reply::Recorded { outcome, at } => return Ok(self.answer(outcome, at)),
                Reply::Refused(failure) => return Ok(self.refuse(failure)),
                Reply::Wait(wait) => self.stand(&wait).await?,
                Reply::Go { .. } | Reply::Stop | Reply::Leave => return Err(EndHandler),
            }
        }
    }

    /// Takes in events that have come since the last look, if the question is about events.
    async fn look_for_news(&mut self, input: &Input<'_>) -> Result<(), EndHandler> {
        if !matches!(input, Input::WaitsForEvent { .. }) {
            return Ok(());
        }
        let mut news = self.handle.take_news();
        news.unwritten.drain(..).for_each(|event| self.follows_from(event));
        if news.put_into(self.run.mailbox_mut()) {
            return Ok(());
        }
        let seen = self.run.mailbox().seen();
        match self.engine.store.events_after(self.claim.run, seen).await {
            Ok(events) => {
                self.run.mailbox_mut().receive(events);
                Ok(())
            }
            Err(error) => {
                self.hold = Hold::Unwritten(error.to_string());
                Err(EndHandler)
            }
        }
    }

    /// Stands still: parked while that is short and there is room, else by ending the handler.
    pub(super) async fn stand(&mut self, wait: &Wait) -> Result<(), EndHandler> {
        let engine = self.engine.clone();
        if matches!(wait, Wait::Pause { .. }) {
            self.paused = Some(wait.clone());
            return Err(EndHandler);
        }
        // The clock of the wait may stand; then there is no telling how long it is.
        if engine.pauses.hold_of_run(self.run.facts(), engine.clock.now()).is_some() {
            return Err(EndHandler);
        }
        let left = wait.until().map(|until| Duration::from_millis(until.ms_since(engine.clock.now())));
        let park_max = engine.config.park_max;
        let is_short = left.is_some_and(|left| left <= park_max) || matches!(wait, Wait::Event { .. });
        if !is_short || engine.stopping.has_begun() {
            return Err(EndHandler);
        }
        let parked_max = self.settings.limits.get(Limit::ParkedMax);
        let in_task = engine.capacity.park(&self.context.task, parked_max);
        let (Some(in_task), Some(parked)) = (in_task, engine.parking.enter()) else { return Err(EndHandler) };
        self.pay().await.map_err(|Gone| EndHandler)?;
        // While it stands it needs no step instance.
        self.steps = None;
        tokio::select! {
            biased;
            () = self.handle.knocked(), if matches!(wait, Wait::Event { .. }) => Ok(()),
            () = tokio::time::sleep(left.unwrap_or(park_max).min(park_max)) => {
                // Over, or long enough for one that nobody answers.
                let over = wait.until().is_some_and(|until| engine.clock.now() >= until);
                let nearly = left.is_some_and(|left| left <= park_max);
                if over || nearly { Ok(()) } else { Err(EndHandler) }
            }
            () = parked.asked_to_leave() => Err(EndHandler),
            () = in_task.asked_to_leave() => Err(EndHandler),
            () = engine.stopping.reached(Phase::Draining) => Err(EndHandler),
        }
    }
}
