//! Handlers as data, and a guest that plays them.

use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use futures_util::FutureExt as _;
use serde_json::{Value, json};
use stepbox_domain::{
    Digest, EventName, Failure, FailureKind, Json, Limits, RunId, StepKey, StepName,
    decide::Until,
    retry::RetryPolicy,
    step::{AttemptFailure, StepOptions},
};

use super::world::{Body, World};
use crate::{
    engine::loader::{LoadError, Loader},
    sandbox::{
        Gate, Guest, GuestExit, HandlerSetup, HostCalls, Inspected, Rejected, StepCall, StepExit, StepRunner,
        StepSetup,
    },
    store::Views as _,
};

pub type Program = Vec<Op>;

/// What a handler does next.
#[derive(Clone, Debug)]
pub enum Op {
    Step(StepOp),
    Sleep {
        ms: u64,
    },
    Wait {
        timeout_ms: Option<u64>,
    },
    Capture,
    /// The steps, where the last step failed and the handler had caught it.
    IfFailed(Vec<StepOp>),
}

#[derive(Clone, Debug)]
pub struct StepOp {
    name: &'static str,
    /// Its first attempts fail, so many.
    failures: u32,
    attempts_max: u32,
    takes_ms: u64,
    /// Its input is what the call before it gave.
    passes_on: bool,
    /// Its failure is no failure of the run.
    caught: bool,
}

const NAMES: [&str; 3] = ["charge", "ship", "notify"];

impl StepOp {
    fn drawn(world: &World) -> Self {
        StepOp {
            name: NAMES[world.roll(3) as usize],
            failures: [0, 0, 0, 1, 2, 4][world.roll(6) as usize],
            attempts_max: 1 + world.roll(3) as u32,
            takes_ms: [0, 0, 1, 20, 400][world.roll(5) as usize],
            passes_on: world.roll(3) == 0,
            caught: world.roll(3) == 0,
        }
    }
}

impl Op {
    fn drawn(world: &World) -> Self {
        match world.roll(9) {
            0 => Op::Sleep { ms: [0, 5, 200, 5_000, 90_000][world.roll(5) as usize] },
            1 | 2 => Op::Wait { timeout_ms: [None, None, Some(300), Some(60_000)][world.roll(4) as usize] },
            3 => Op::Capture,
            4 => Op::IfFailed((0..=world.roll(2)).map(|_| StepOp::drawn(world)).collect()),
            _ => Op::Step(StepOp::drawn(world)),
        }
    }
}

/// A program, as the dice say.
pub fn drawn(world: &World) -> Program {
    (0..world.roll(7)).map(|_| Op::drawn(world)).collect()
}

/// The event that all waits are for.
pub fn event() -> EventName {
    EventName::parse("go").expect("a name")
}

/// Plays the program whose number is the payload.
#[derive(Clone)]
pub struct Player(pub World);

#[async_trait]
impl Loader for Player {
    async fn inspect(&self, _: &[u8], _: &Arc<Limits>) -> Result<Inspected, Rejected> {
        unreachable!("modules are put straight into the store")
    }

    async fn load(&self, _: &Digest) -> Result<Arc<dyn Guest>, LoadError> {
        match self.0.strikes(40) {
            true => Err(LoadError::Unavailable("the dice say so".to_owned())),
            false => Ok(Arc::new(self.clone())),
        }
    }

    fn forget(&self, _: &Digest) {}
}

#[async_trait]
impl Guest for Player {
    async fn run(&self, _: HandlerSetup, payload: &Json, calls: Box<dyn HostCalls>) -> GuestExit {
        let number = payload.to_value().and_then(|value| value.as_u64()).expect("a program's number");
        let program = self.0.programs()[number as usize].clone();
        let mut handler = Handler { calls, nth: 0, names: HashMap::new(), last: json!(null), failed: false };
        match handler.play(&program).await {
            Ok(results) => GuestExit::Returned(Ok(Json::from(json!(results)))),
            Err(Ending::Failed(failure)) => GuestExit::Returned(Err(failure)),
            Err(Ending::Host) => GuestExit::Ended,
        }
    }

    fn steps(&self, setup: StepSetup) -> Box<dyn StepRunner> {
        let (world, instance) = (self.0.clone(), self.0.roll(u64::MAX));
        Box::new(Bodies { world, instance, run: setup.context.run_id, gate: setup.gate })
    }
}

enum Ending {
    Failed(Failure),
    Host,
}

struct Handler {
    calls: Box<dyn HostCalls>,
    nth: u32,
    /// How often each name was called, as the host counts too.
    names: HashMap<&'static str, u32>,
    last: Value,
    failed: bool,
}

impl Handler {
    async fn play(&mut self, program: &Program) -> Result<Vec<Value>, Ending> {
        let mut results = Vec::new();
        for op in program {
            self.nth += 1;
            let name = |what: &str| StepName::parse(&format!("{what}-{}", self.nth)).expect("a name");
            let answer = match op {
                Op::Step(step) => {
                    results.push(self.step(step).await?);
                    continue;
                }
                Op::IfFailed(steps) => {
                    if self.failed {
                        for step in steps {
                            results.push(self.step(step).await?);
                        }
                    }
                    continue;
                }
                Op::Sleep { ms } => self.calls.sleep(name("sleep"), Until::After(*ms)).await,
                Op::Wait { timeout_ms } => self.calls.wait_event(event(), *timeout_ms).await,
                Op::Capture => self.calls.capture(name("capture"), Json::from(json!(self.nth))).await,
            };
            let answer = answer.map_err(|_| Ending::Host)?;
            // A wait that timed out is nothing bad here.
            let value = answer.outcome.ok().and_then(|value| value.to_value()).unwrap_or(json!("in vain"));
            results.push(value.clone());
            self.last = value;
        }
        Ok(results)
    }

    async fn step(&mut self, op: &StepOp) -> Result<Value, Ending> {
        let nth = self.names.entry(op.name).or_insert(0);
        *nth += 1;
        let name = StepName::parse(op.name).expect("a name");
        let input = json!({
            "key": StepKey::new(&name, *nth).as_str(),
            "failures": op.failures,
            "takesMs": op.takes_ms,
            "last": if op.passes_on { self.last.clone() } else { json!(null) },
        });
        let retry = RetryPolicy {
            attempts_max: op.attempts_max,
            delay_first_ms: 50,
            growth_percent: 300,
            delay_max_ms: 2_000,
            jitter: true,
        };
        let call = StepCall {
            name,
            function: op.name.to_owned(),
            input: Json::from(input),
            options: StepOptions { retry, ..StepOptions::default() },
        };
        let answer = self.calls.step(call).await.map_err(|_| Ending::Host)?;
        self.failed = answer.outcome.is_err();
        match answer.outcome {
            Ok(value) => {
                self.last = value.to_value().unwrap_or_default();
                Ok(self.last.clone())
            }
            Err(failure) if op.caught => Ok(json!({ "failed": failure.message })),
            Err(failure) => Err(Ending::Failed(failure)),
        }
    }
}

struct Bodies {
    world: World,
    instance: u64,
    run: RunId,
    gate: Arc<Gate>,
}

impl Drop for Bodies {
    fn drop(&mut self) {
        self.look_at_gate();
    }
}

impl Bodies {
    /// Notes whether anything can have come out of what was done here.
    fn look_at_gate(&self) {
        if self.gate.is_open() {
            self.world.see(|seen| _ = seen.let_out.insert(self.instance));
        }
    }

    /// Does something that is seen outside. What it was given is on disk by then, however the handler
    /// came by it.
    async fn speaks(&self, input: &Value) {
        self.gate.passed().await;
        self.look_at_gate();
        self.world.count(|counts| &mut counts.spoken);
        if let Some(heard) = input["last"]["nonce"].as_str() {
            let journal = self.world.1.journal(&self.run).now_or_never();
            let journal = journal.expect("at once").expect("it answers").expect("it has a journal");
            assert!(format!("{:?}", journal.1).contains(heard), "1: {} went ahead of the disk", self.run);
        }
    }
}

#[async_trait]
impl StepRunner for Bodies {
    async fn run_step(&mut self, function: &str, input: &Json, attempt: u32) -> StepExit {
        let input = input.to_value().expect("our own input");
        let nonce = self.world.roll(u64::MAX);
        self.world.count(|counts| &mut counts.bodies);
        self.look_at_gate();
        if !self.gate.is_open() {
            self.world.count(|counts| &mut counts.ahead);
        }
        self.world.tell(format!("{} {function} attempt {attempt} begins", self.run));
        let key = StepKey::parse(input["key"].as_str().expect("a key")).expect("a key");
        let body = Body { run: self.run.clone(), key, attempt, nonce, instance: self.instance };
        self.world.see(|seen| seen.began.push(body));
        let speaks_at = self.world.roll(4);
        if speaks_at == 0 {
            self.speaks(&input).await;
        }
        if let Some(ms @ 1..) = input["takesMs"].as_u64() {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
        if speaks_at == 1 {
            self.speaks(&input).await;
        }
        if u64::from(attempt) <= input["failures"].as_u64().unwrap_or(0) {
            return StepExit::Failed(AttemptFailure::new(FailureKind::Error, "as the program says"));
        }
        StepExit::Completed(Json::from(json!({ "nonce": nonce.to_string(), "attempt": attempt })))
    }
}
