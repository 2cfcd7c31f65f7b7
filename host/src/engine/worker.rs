//! Claims a run that is ready, drives it until it rests, lets it go.

use std::{sync::Arc, time::Duration};

use stepbox_domain::{
    Failure, FailureKind, Limit, Run, Timestamp,
    decide::{Input, Reply},
    pause::PauseRuleId,
    run::{RunFacts, Wait},
};
use tokio::sync::{Mutex, OwnedSemaphorePermit};

use super::{
    Inner,
    calls::Calls,
    kept::Kept,
    live::LiveHandle,
    live_run::{Gone, Hold, LiveRun},
    loader::LoadError,
    metrics::Part,
    opening::Unwritten,
    stopping::Phase,
    waiters::Ended,
};
use crate::{
    sandbox::{GuestContext, GuestExit, HandlerSetup, Meter},
    store::{Claim, Claimed, Commit, RunKey, Standing, StoreError},
};

/// How soon a run is looked at again that could not be taken up, or whose store did not answer.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// What an interrupted step has to write that it was.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// Takes up one ready run after the other, for ever. Stops when the host does.
pub(crate) async fn dispatch(engine: Arc<Inner>) {
    loop {
        engine.pulse.beat();
        let run = tokio::select! {
            biased;
            () = engine.stopping.reached(Phase::Draining) => return,
            run = engine.ready.pop() => run,
            () = tokio::time::sleep(Duration::from_secs(1)) => continue,
        };
        let permit = match engine.places.clone().try_acquire_owned() {
            Ok(permit) => permit,
            Err(_) => match wait_for_place(&engine).await {
                Some(permit) => permit,
                None => return,
            },
        };
        tokio::spawn(take_up(engine.clone(), run, permit));
    }
}

async fn wait_for_place(engine: &Arc<Inner>) -> Option<OwnedSemaphorePermit> {
    loop {
        engine.parking.make_room();
        engine.pulse.beat();
        tokio::select! {
            biased;
            () = engine.stopping.reached(Phase::Draining) => return None,
            permit = engine.places.clone().acquire_owned() => return permit.ok(),
            () = tokio::time::sleep(Duration::from_millis(250)) => {}
        }
    }
}

async fn take_up(engine: Arc<Inner>, run: RunKey, permit: OwnedSemaphorePermit) {
    // Entered before the claim reads the events: what comes after that is knocked for.
    let Some(handle) = engine.live.enter(run) else { return };
    handle.before_claim();
    let kept = engine.kept.take(run);
    let known = kept.as_ref().map_or(0, |kept| kept.records);
    match engine.store.claim_from(run, engine.clock.now(), known).await {
        Ok(Some(claimed)) => drive(engine, handle, claimed, kept, permit, None).await,
        Ok(None) => {
            engine.pauses.taken_up(run);
            engine.capacity.gone(run, &engine.ready);
            engine.live.leave(run, false, &engine.ready);
        }
        Err(error) => {
            tracing::warn!(%error, run = run.0, "a run could not be claimed; trying again");
            engine.live.leave(run, false, &engine.ready);
            engine.timers.set(run, engine.clock.now().plus_ms(TRY_AGAIN.as_millis() as u64));
        }
    }
}

/// Drives a claimed run, already entered among the live, until it rests. `kept`: what it was when it was
/// let go of. `start`: its start is still on its way to the store.
pub(crate) async fn drive(
    engine: Arc<Inner>,
    handle: Arc<LiveHandle>,
    claimed: Claimed,
    kept: Option<Kept>,
    permit: OwnedSemaphorePermit,
    start: Option<Unwritten>,
) {
    engine.timers.forget(claimed.claim.run);
    let key = claimed.claim.run;
    let execution = claimed.facts.execution.clone();
    let rest = Box::pin(lead(&engine, &handle, claimed, kept, start)).await;
    // It leaves before anything can wake it: who finds it here still would pass it over. A wake-up
    // too many does no harm.
    let at_event = matches!(rest, Rest::Stands { at_event: true, .. });
    engine.live.leave(key, at_event, &engine.ready);
    if !matches!(rest, Rest::InLine { .. }) {
        engine.capacity.gone(key, &engine.ready);
    }
    engine.waiters.rests(&execution);
    match rest {
        Rest::Over(ended) => engine.waiters.wake(&execution, ended),
        // It may be over: then somebody has to hear of it.
        Rest::Gone => engine.waiters.wake(&execution, None),
        Rest::Unknown => {
            engine.waiters.wake(&execution, None);
            engine.ready.push(key);
        }
        Rest::Stands { due, .. } => {
            if let Some(due) = due {
                engine.timers.set(key, due);
            }
        }
        Rest::InLine { deadline } => {
            if let Some(deadline) = deadline {
                engine.timers.set(key, deadline);
            }
        }
        Rest::Held(rule) => engine.pauses.keep(key, rule, &engine.clock, &engine.ready),
        Rest::Again(after) => {
            engine.timers.set(key, engine.clock.now().plus_ms(after.as_millis() as u64));
        }
    }
    drop(permit);
}

/// How a run came to rest.
pub(crate) enum Rest {
    /// How, unless it was not we who ended it.
    Over(Option<Ended>),
    /// Let go; `due` is when to look at it again.
    Stands { due: Option<Timestamp>, at_event: bool },
    /// Let go because this pause rule holds it, whose end wakes it.
    Held(PauseRuleId),
    /// Let go because its task has as many live runs as it may; it is woken when it is its turn, or
    /// when its time is up.
    InLine { deadline: Option<Timestamp> },
    /// Let go without having got anywhere.
    Again(Duration),
    /// No longer ours.
    Gone,
    /// No longer ours, and perhaps by a commit of our own whose answer got lost: it may be over, or
    /// stand at something.
    Unknown,
}

async fn lead(
    engine: &Arc<Inner>,
    handle: &Arc<LiveHandle>,
    claimed: Claimed,
    kept: Option<Kept>,
    start: Option<Unwritten>,
) -> Rest {
    // Before its clocks are looked at: they stand.
    if let Some(paused) = engine.pauses.hold_of_run(&claimed.facts, engine.clock.now()) {
        if let Some(Unwritten { start, .. }) = start
            && start.written().await.is_err()
        {
            return Rest::Gone;
        }
        if let Some(kept) = kept {
            engine.kept.keep(claimed.claim.run, kept);
        }
        return held(engine, &claimed, paused).await;
    }
    let Claimed { claim, facts, payload, digest, known, records, events, crashes } = claimed;
    let policy = engine.policy(&facts.task);
    let run = match kept {
        Some(kept) => kept.go_on(&facts, known, &records),
        None => (known == 0).then(|| Run::fold(facts.clone(), policy.clone(), &records)),
    };
    // Once more, and then with all of its journal.
    let Some(mut run) = run else { return let_go(engine, claim, &facts).await };
    run.set_policy(policy);
    #[cfg(test)]
    if known > 0
        && let Ok(Some((_, journal))) = engine.store.journal(&facts.run).await
    {
        let count = known as usize + records.len();
        assert_eq!(run, Run::fold(facts.clone(), run.policy().clone(), &journal[..count]));
    }
    run.mailbox_mut().receive(events);

    let (guest, doomed) = match engine.loader.load(&digest).await {
        Ok(guest) => (Some(guest), None),
        Err(error) => (None, Some(error)),
    };
    let context = GuestContext {
        execution_id: facts.execution.to_string(),
        run_id: facts.run.clone(),
        run_index: facts.index,
        task: facts.task.clone(),
        version: facts.version,
        started_at: facts.created_at,
        logs: engine.logs.clone(),
    };
    let count = known + records.len() as u64;
    let live =
        LiveRun::new(engine.clone(), handle.clone(), claim, run, count, guest.clone(), context.clone());
    let live = match start {
        Some(start) => live.while_it_starts(start),
        None => live,
    };
    let context = GuestContext { logs: live.handler_logs(), ..context };
    let live = Arc::new(Mutex::new(live));

    if let Some(failure) = hopeless(engine, crashes, doomed, &facts) {
        return match failure {
            Ok(failure) => end(&live, Input::HandlerFails { failure }).await,
            Err(reason) => {
                tracing::warn!(%reason, run = %facts.run, "a module could not be loaded; trying again");
                again(&live).await
            }
        };
    }
    // Its time may have been up before it was taken up.
    let taken_up_at = engine.clock.now();
    let taken = live.lock().await.take(Input::TimePasses).await;
    match taken {
        Ok(Reply::Stop) => return Rest::Over(live.lock().await.ended()),
        Ok(_) => {}
        Err(Gone) => return after_trouble(engine, &live).await,
    }
    let deadline = live.lock().await.run().deadline();

    let limits = live.lock().await.limits();
    let live_max = limits.get(Limit::LiveMax);
    let place = engine.capacity.take(&facts.task, claim.run, &facts.run, live_max, &engine.ready);
    let Some(_place) = place else { return in_line(engine, &live).await };

    let calls = Box::new(Calls(live.clone()));
    let meter: Arc<Meter> = Arc::default();
    let setup = HandlerSetup { context, limits, meter: meter.clone() };
    let Some(guest) = guest else { return Rest::Again(TRY_AGAIN) };
    let exit = tokio::select! {
        biased;
        exit = guest.run(setup, &payload, calls) => Some(exit),
        () = engine.pauses.out_of_time(&engine.clock, &facts, taken_up_at, deadline) => None,
        () = handle.interrupted(claim) => return Rest::Gone,
        () = out_of_patience(engine) => Some(GuestExit::Ended),
        Gone = keep_paying(&live) => return after_trouble(engine, &live).await,
    };
    engine.metrics.guest(&facts.task, Part::Handler, &meter.receipt());
    match exit {
        Some(GuestExit::Returned(result)) => {
            let (calls_made, result) = {
                let live = live.lock().await;
                (live.calls_made(), result.map_err(|failure| live.with_logs(failure)))
            };
            end(&live, Input::HandlerReturns { calls_made, result }).await
        }
        Some(GuestExit::Failed(failure)) => {
            let failure = live.lock().await.with_logs(failure);
            end(&live, Input::HandlerFails { failure }).await
        }
        Some(GuestExit::Unavailable(reason)) => {
            tracing::warn!(%reason, run = %facts.run, "no instance for a run; trying again");
            // Those that stand still hold memory that would do.
            engine.parking.make_room();
            again(&live).await
        }
        Some(GuestExit::Ended) => rest(engine, &live).await,
        None => end(&live, Input::TimePasses).await,
    }
    .or_trouble(engine, &live)
    .await
}

/// Writes what the handler has heard where it gives way between two calls: it may be long until the
/// next. A call that is under way sees to it by itself, and tells us when it is over. Comes back when
/// that cannot be written.
async fn keep_paying(live: &Mutex<LiveRun>) -> Gone {
    let owing = live.lock().await.owing();
    loop {
        owing.notified().await;
        // Not in line for it: the handler would have to stand in that line with each of its calls.
        let Ok(mut live) = live.try_lock() else { continue };
        if let Err(gone) = live.pay().await {
            return gone;
        }
    }
}

/// Lets go of a run that a pause rule holds as a whole, without looking at anything in it.
async fn held(engine: &Arc<Inner>, claimed: &Claimed, paused: Wait) -> Rest {
    let Wait::Pause { rule, .. } = &paused else { return Rest::Again(TRY_AGAIN) };
    let rule = rule.clone();
    let commit = Commit {
        claim: claimed.claim,
        first_number: claimed.known + claimed.records.len() as u64,
        records: Vec::new(),
        consumed: Vec::new(),
        standing: Some(Standing::Open { waiting: Some(paused), due: None }),
        release: true,
    };
    engine.pauses.will_show(claimed.claim.run);
    match engine.store.commit(commit).await {
        Ok(()) => Rest::Held(rule),
        Err(StoreError::ClaimLost) => Rest::Gone,
        Err(error) => {
            tracing::error!(%error, run = %claimed.facts.run, "a held run could not be written; trying again");
            let_go(engine, claimed.claim, &claimed.facts).await
        }
    }
}

/// Lets go of a run whose task has as many live ones as it may.
async fn in_line(engine: &Arc<Inner>, live: &Arc<Mutex<LiveRun>>) -> Rest {
    let mut held = live.lock().await;
    if held.release().await.is_ok() {
        let deadline = held.run().deadline();
        held.keep();
        return match held.paused_by() {
            Some(rule) => Rest::Held(rule.clone()),
            None => Rest::InLine { deadline },
        };
    }
    drop(held);
    after_trouble(engine, live).await
}

/// Why a run must not be given to its guest: a failure to end it with, or a reason to try later.
fn hopeless(
    engine: &Arc<Inner>,
    crashes: u32,
    doomed: Option<LoadError>,
    facts: &RunFacts,
) -> Option<Result<Failure, String>> {
    if crashes >= engine.config.policy.crashes_max {
        return Some(Ok(Failure::new(
            FailureKind::HostCrashed,
            format!(
                "the host died {crashes} times in a row while this run was under way, without anything \
                 recorded in between, so the run was ended; version {} of task \"{}\" may take the host down",
                facts.version, facts.task
            ),
        )));
    }
    match doomed {
        None => None,
        Some(LoadError::Unavailable(reason)) => Some(Err(reason)),
        Some(LoadError::Unusable(reason)) => Some(Ok(Failure::new(
            FailureKind::Unsupported,
            format!(
                "version {} of task \"{}\" cannot be run on this host: {reason}; upload it again and start anew",
                facts.version, facts.task
            ),
        ))),
    }
}

impl Rest {
    /// Looks closer at what seems to be gone.
    async fn or_trouble(self, engine: &Arc<Inner>, live: &Arc<Mutex<LiveRun>>) -> Rest {
        match self {
            Rest::Gone => after_trouble(engine, live).await,
            rest => rest,
        }
    }
}

/// Lets go of a run that could not be given to its guest.
async fn again(live: &Arc<Mutex<LiveRun>>) -> Rest {
    match live.lock().await.release().await {
        Ok(()) => Rest::Again(TRY_AGAIN),
        Err(Gone) => Rest::Gone,
    }
}

/// The handler has come to its end: the run is over, if it can still be written.
async fn end(live: &Arc<Mutex<LiveRun>>, input: Input<'_>) -> Rest {
    let mut live = live.lock().await;
    match live.take(input).await {
        Ok(Reply::Stop) => Rest::Over(live.ended()),
        Ok(_) | Err(Gone) => Rest::Gone,
    }
}

/// The handler was ended: the run is over, stands at a wait, or the host is stopping.
async fn rest(engine: &Arc<Inner>, live: &Arc<Mutex<LiveRun>>) -> Rest {
    let mut held = live.lock().await;
    if held.run().end().is_some() {
        return match held.answered().await {
            Ok(()) => Rest::Over(held.ended()),
            Err(Gone) => Rest::Gone,
        };
    }
    if held.release().await.is_err() {
        return Rest::Gone;
    }
    engine.metrics.suspended.inc();
    let (due, wait, seen) = (held.run().due(), held.run().wait(), held.run().mailbox().seen());
    held.keep();
    if let Some(rule) = held.paused_by() {
        return Rest::Held(rule.clone());
    }
    let Some(Wait::Event { event, .. }) = wait else { return Rest::Stands { due, at_event: false } };
    // What was stored just before the wait was on disk found nobody waiting, and whoever stored
    // it may come to knock only when we have left. From the release on, every event is awaited.
    match engine.store.events_after(held.claim().run, seen).await {
        Ok(events) if !events.iter().any(|come| come.name == event) => Rest::Stands { due, at_event: true },
        Ok(_) => Rest::Again(Duration::ZERO),
        Err(error) => {
            tracing::warn!(%error, run = %held.run().facts().run, "events could not be read; looking again");
            Rest::Again(TRY_AGAIN)
        }
    }
}

/// Something could not be written. If the run is still ours, nobody knows what is on disk: let go
/// of it, however long the store needs, and take it up from what is there.
async fn after_trouble(engine: &Arc<Inner>, live: &Arc<Mutex<LiveRun>>) -> Rest {
    let (claim, facts) = {
        let mut live = live.lock().await;
        // What is on its way, the start among it, comes before what is to end it.
        let _ = live.answered().await;
        match live.hold() {
            Hold::Lost => return Rest::Gone,
            Hold::Unwritten(reason) => {
                tracing::error!(%reason, run = %live.run().facts().run, "a run could not be written; trying again");
            }
            Hold::Ours | Hold::Unsure => {}
        }
        (live.claim(), live.run().facts().clone())
    };
    let_go(engine, claim, &facts).await
}

/// Ends the claim, however long the store needs for it.
pub(crate) async fn let_go(engine: &Arc<Inner>, claim: Claim, facts: &RunFacts) -> Rest {
    loop {
        match engine.store.commit(Commit::let_go(claim)).await {
            Ok(()) => return Rest::Again(Duration::ZERO),
            Err(StoreError::ClaimLost) => return Rest::Unknown,
            Err(error) => {
                tracing::error!(%error, run = %facts.run, "a run cannot be let go of yet; trying again");
                tokio::select! {
                    biased;
                    () = tokio::time::sleep(TRY_AGAIN) => {}
                    // The next start of the host finds it.
                    () = engine.stopping.reached(Phase::Expired) => return Rest::Gone,
                }
            }
        }
    }
}

/// Comes back a while after the host's patience is used up. By then a step under way has been
/// interrupted and has written so: found open after the next start, it would pass for one under
/// which the host died. What is left is a handler that computes.
async fn out_of_patience(engine: &Arc<Inner>) {
    engine.stopping.reached(Phase::Expired).await;
    tokio::time::sleep(LAST_WORDS).await;
}
