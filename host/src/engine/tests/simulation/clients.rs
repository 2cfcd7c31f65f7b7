//! Those who use the host: clients and admins, who try again when they get no answer.

use std::{sync::Arc, time::Duration};

use serde_json::json;
use stepbox_domain::{
    ExecutionId, Json, Limit, Limits, Run, StepKey,
    pause::{PauseScope, StepPattern},
    run::{Policy, Wait},
    step::{Overrides, StepStatus},
};

use super::{
    super::scripted::{NoLogs, add_version, config, task},
    faults::Faulty,
    guest::{Player, event},
    world::{Sent, World},
};
use crate::{
    engine::{Engine, EngineConfig, EngineError, StepRetry, Who},
    store::{Store, StoreError, Views},
};

/// A host that is up.
#[derive(Clone)]
pub struct Host {
    engine: Engine,
    store: Arc<dyn Store>,
    world: World,
}

impl Host {
    /// None: its store did not answer, so it did not come up.
    pub async fn begin(world: &World) -> Option<Host> {
        if world.1.version(&task(), 1).await.ok()?.is_none() {
            add_version(&world.1, "t", json!({}));
        }
        let store: Arc<dyn Store> = Arc::new(Faulty::new(world));
        let guest = Arc::new(Player(world.clone()));
        // Mostly fewer at the same time than want to go: then they stand in line.
        let live_max = 1 + world.seen().started.len() as u64 % 4;
        let live_max = [(Limit::LiveMax, live_max)].into_iter().collect();
        let config = EngineConfig { limits: Limits::default().with(&live_max), ..config() };
        let engine = Engine::new(store.clone(), guest, Arc::new(NoLogs), world.new_clock(), config);
        engine.begin().await.ok()?;
        world.tell("up".to_owned());
        Some(Host { engine, store, world: world.clone() })
    }

    /// One of those that were started.
    fn any_execution(&self) -> Option<ExecutionId> {
        let started: Vec<ExecutionId> = self.world.seen().started.into_keys().collect();
        let place = self.world.roll(started.len() as u64) as usize;
        started.into_iter().nth(place)
    }

    async fn nap(&self, up_to_ms: u64) {
        let ms = self.world.roll(up_to_ms);
        tokio::time::sleep(Duration::from_millis(ms)).await;
    }
}

fn id(number: usize) -> ExecutionId {
    ExecutionId::parse(&format!("e{number}")).expect("an id")
}

/// Everybody who makes trouble, until the host dies.
pub fn trouble(host: &Host) {
    for number in 0..host.world.programs().len() {
        let host = host.clone();
        tokio::spawn(async move {
            host.nap(300).await;
            start(&host, number).await;
        });
    }
    let (sender, admin, nature) = (host.clone(), host.clone(), host.clone());
    tokio::spawn(async move {
        loop {
            sender.nap(500).await;
            if let Some(execution) = sender.any_execution() {
                send(&sender, &execution).await;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            admin.nap(700).await;
            if let Some(execution) = admin.any_execution() {
                mend(&admin, &execution).await;
            }
        }
    });
    tokio::spawn(async move {
        loop {
            nature.nap(4_000).await;
            if nature.world.strikes(3) {
                nature.world.jump();
            }
        }
    });
}

/// Starts it until that is acknowledged.
async fn start(host: &Host, number: usize) {
    loop {
        match host.engine.start(id(number), task(), Json::from(json!(number))).await {
            Ok(_) => {
                let new = {
                    let mut new = false;
                    host.world.see(|seen| new = seen.started.insert(id(number), number).is_none());
                    new
                };
                if new {
                    host.world.count(|counts| &mut counts.executions);
                    host.world.tell(format!("{} is acknowledged", id(number)));
                }
                return;
            }
            Err(EngineError::Store(StoreError::Unavailable(_))) => host.nap(100).await,
            Err(error) => panic!("{error}"),
        }
    }
}

/// Sends an event once; without an answer nobody knows whether it is there.
async fn send(host: &Host, execution: &ExecutionId) {
    let token = host.world.roll(u64::MAX);
    let mut place = 0;
    host.world.see(|seen| {
        let sent = seen.sent.entry(execution.clone()).or_default();
        place = sent.len();
        sent.push(Sent { token, acknowledged: false });
    });
    let payload = Json::from(json!(token.to_string()));
    match host.engine.send_event(execution, &event(), &payload).await {
        Ok(_) => {
            host.world.count(|counts| &mut counts.events);
            host.world.see(|seen| {
                if let Some(sent) = seen.sent.get_mut(execution).and_then(|sent| sent.get_mut(place)) {
                    sent.acknowledged = true;
                }
            });
        }
        Err(EngineError::AlreadyOver { .. } | EngineError::Store(StoreError::Unavailable(_))) => {}
        Err(error) => panic!("{error}"),
    }
}

/// One thing that an admin does, as the dice say.
async fn mend(host: &Host, execution: &ExecutionId) {
    let who = || Who { by: Some("ann".to_owned()), reason: None };
    let dry_run = host.world.roll(5) == 0;
    let steps = steps_of(host, execution).await;
    let any = |of: &[StepKey]| of.get(host.world.roll(of.len() as u64) as usize).cloned();
    let all: Vec<StepKey> = steps.iter().map(|(key, _)| key.clone()).collect();
    let dead: Vec<StepKey> =
        steps.iter().filter(|(_, status)| *status == StepStatus::Dead).map(|(key, _)| key.clone()).collect();
    let world = &host.world;
    let done = match world.roll(12) {
        0 => match host.engine.cancel(execution, who()).await {
            Ok(()) => {
                world.see(|seen| seen.cancelled += 1);
                world.count(|counts| &mut counts.cancels);
                Ok("is cancelled")
            }
            Err(error) => Err(error),
        },
        1 => {
            let done = host.engine.restart(execution, None, who(), dry_run).await;
            done.map(|_| counted(world, dry_run, "restarted", |counts| &mut counts.restarts))
        }
        2 | 3 => {
            let named: Vec<StepKey> = any(&all).into_iter().chain(any(&dead)).collect();
            let preserved: Vec<StepKey> = any(&all).into_iter().collect();
            let done = host.engine.rerun(execution, named, preserved, who(), dry_run).await;
            done.map(|_| counted(world, dry_run, "rerun", |counts| &mut counts.reruns))
        }
        4 | 5 => pause(host, execution).await,
        6 | 7 => resume(host).await,
        8 => {
            let Some(step) = any(&dead) else { return };
            let outcome = Ok(Json::from(json!({ "by": "hand" })));
            let done = host.engine.resolve_step(execution, step, outcome, who(), dry_run).await;
            done.map(|_| counted(world, dry_run, "resolved", |counts| &mut counts.resolves))
        }
        _ => {
            let Some(step) = any(&dead) else { return };
            let overrides = Overrides { attempts_max: Some(5), timeout_ms: None };
            let retry = StepRetry { step, overrides, version: None };
            let done = host.engine.retry_step(execution, retry, who(), dry_run).await;
            done.map(|_| counted(world, dry_run, "retried", |counts| &mut counts.retries))
        }
    };
    match done {
        Ok(what) => world.tell(format!("{execution} {what}")),
        // Things have changed since the admin looked, or the store had its mood.
        Err(
            EngineError::Repair(_)
            | EngineError::AlreadyOver { .. }
            | EngineError::UnknownPauseRule(_)
            | EngineError::Store(StoreError::Unavailable(_)),
        ) => {}
        Err(error) => panic!("{error}"),
    }
}

fn counted(
    world: &World,
    dry_run: bool,
    what: &'static str,
    which: impl FnOnce(&mut super::world::Counts) -> &mut u64,
) -> &'static str {
    if dry_run {
        return "is looked at";
    }
    world.count(which);
    what
}

async fn pause(host: &Host, execution: &ExecutionId) -> Result<&'static str, EngineError> {
    let step = match host.world.roll(2) {
        0 => None,
        _ => Some(StepPattern::parse(["ch*", "*", "ship"][host.world.roll(3) as usize]).expect("a pattern")),
    };
    let scope = PauseScope { execution: Some(execution.clone()), task: None, step };
    let expires_at = match host.world.roll(2) {
        0 => None,
        _ => Some(host.engine.clock().now().plus_ms(1 + host.world.roll(2_000))),
    };
    host.engine.pause(scope, expires_at, Who::default()).await?;
    host.world.count(|counts| &mut counts.pauses);
    Ok("is paused")
}

/// Ends one of the rules.
async fn resume(host: &Host) -> Result<&'static str, EngineError> {
    let rules = host.store.pause_rules(false).await?;
    let Some(rule) = rules.get(host.world.roll(rules.len() as u64) as usize) else { return Ok("is free") };
    match host.world.roll(2) {
        0 => host.engine.end_pause(&rule.id, Who::default()).await?,
        _ => _ = host.engine.resume(rule.scope.clone(), Who::default()).await?,
    }
    Ok("goes on")
}

/// The steps of the current run, if the store tells.
async fn steps_of(host: &Host, execution: &ExecutionId) -> Vec<(StepKey, StepStatus)> {
    let Ok(Some(view)) = host.store.execution(execution).await else { return Vec::new() };
    let Ok(Some((facts, records))) = host.store.journal(&view.run).await else { return Vec::new() };
    let run = Run::fold(facts, Policy::default(), &records);
    run.steps().iter().chain(run.aside()).map(|step| (step.key.clone(), step.status())).collect()
}

/// Starts what is not started yet, ends all pauses, sends what is waited for, and comes back when
/// everything is over. Far longer than anything takes is a failure.
pub async fn finish(host: &Host) {
    const PATIENCE: Duration = Duration::from_secs(7 * 24 * 3_600);
    for number in 0..host.world.programs().len() {
        start(host, number).await;
    }
    for rule in host.store.pause_rules(false).await.expect("peace") {
        match host.engine.end_pause(&rule.id, Who::default()).await {
            // It may have expired.
            Ok(()) | Err(EngineError::UnknownPauseRule(_)) => {}
            Err(error) => panic!("{error}"),
        }
    }
    let end = tokio::time::Instant::now() + PATIENCE;
    for number in 0..host.world.programs().len() {
        loop {
            let view = host.engine.wait(&id(number), Duration::from_secs(600)).await.expect("peace");
            if view.status.is_terminal() {
                break;
            }
            if matches!(view.waiting, Some(Wait::Event { deadline: None, .. })) {
                send(host, &id(number)).await;
            }
            assert!(tokio::time::Instant::now() < end, "it stands still for ever: {view:#?}");
        }
    }
}
