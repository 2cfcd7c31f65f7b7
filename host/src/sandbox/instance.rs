//! Instances of one module: the handler's, the steps', the one that describes.

use std::sync::Arc;

use async_trait::async_trait;
use stepbox_domain::{FailureKind, Json, Limits, RunId, step::AttemptFailure};
use wasmtime::Store;

use super::{
    Guest, GuestExit, HandlerSetup, HostCalls, StepExit, StepRunner, StepSetup,
    bindings::{Task, TaskPre},
    egress::{Egress, Hooks},
    ending::{Doing, Ending, Fault, attempt_failure, ending},
    places::{IdleInstance, Place},
    runtime::Runtime,
    state::State,
    values::{attempt_failure_from_guest, failure_from_guest, json_from_guest},
};

/// A compiled and linked module.
pub(super) struct Module {
    pub runtime: Arc<Runtime>,
    pub handler: TaskPre<State>,
    pub step: TaskPre<State>,
}

#[async_trait]
impl Guest for Module {
    async fn run(&self, setup: HandlerSetup, payload: &Json, calls: Box<dyn HostCalls>) -> GuestExit {
        let runtime = &self.runtime;
        let _place = runtime.handlers.take().await;
        let HandlerSetup { context, limits, meter } = setup;
        let bounds = runtime.bounds(limits);
        let state = State::handler(&context, calls, bounds.clone(), meter, &runtime.handlers.memory);
        let mut store = runtime.store(state);
        let cpu = store.data().cpu.clone();
        let payload = payload.as_str().to_owned();
        let running = cpu.counted(async {
            let making = self.handler.instantiate_async(&mut store).await;
            let instance = making.map_err(Fault::in_making)?;
            instance.call_run(&mut store, &payload).await.map_err(Fault::in_call)
        });
        let returned = tokio::select! {
            biased;
            returned = running => returned,
            hit = cpu.out_of_wall_time() => Err(Fault::in_call(wasmtime::Error::new(hit))),
        };

        match returned {
            Ok(Ok(result)) => {
                match json_from_guest(result, "the result of the handler", bounds.value_max_bytes()) {
                    Ok(result) => GuestExit::Returned(Ok(result)),
                    Err(failure) => GuestExit::Failed(failure),
                }
            }
            Ok(Err(failure)) => GuestExit::Returned(Err(failure_from_guest(failure, &bounds))),
            Err(fault) => match ending(&fault, Doing::Handler, store.data()) {
                Ending::Ended => GuestExit::Ended,
                Ending::Unavailable(why) => GuestExit::Unavailable(why),
                Ending::Failed(failure) => GuestExit::Failed(failure),
            },
        }
    }

    fn steps(&self, setup: StepSetup) -> Box<dyn StepRunner> {
        Box::new(Steps {
            runtime: self.runtime.clone(),
            module: self.step.clone(),
            setup,
            idle: Arc::default(),
        })
    }
}

impl Module {
    /// Has the module describe itself, in an instance that may call nothing of the host. The
    /// error is a sentence.
    pub(super) async fn describe(&self, limits: Arc<Limits>) -> Result<String, Ending> {
        let runtime = &self.runtime;
        let _place = runtime.describes.take().await;
        let run = RunId::parse("describe").expect("a run id may be called so");
        let bounds = runtime.bounds(limits);
        let state = State::describe(run, bounds, &runtime.describes.memory);
        let mut store = runtime.store(state);
        let cpu = store.data().cpu.clone();
        let described = cpu
            .counted(async {
                let making = self.handler.instantiate_async(&mut store).await;
                let instance = making.map_err(Fault::in_making)?;
                instance.call_describe(&mut store).await.map_err(Fault::in_call)
            })
            .await;
        described.map_err(|fault| ending(&fault, Doing::Describe, store.data()))
    }
}

/// The step instance of one leg of a run, and how to make it anew.
struct Steps {
    runtime: Arc<Runtime>,
    module: TaskPre<State>,
    setup: StepSetup,
    idle: Arc<IdleInstance>,
}

/// An instance in which steps are run, one after the other.
pub(super) struct StepInstance {
    task: Task,
    store: Store<State>,
    // After the store: the place is free when the instance is gone.
    _place: Place,
}

#[async_trait]
impl StepRunner for Steps {
    async fn run_step(&mut self, function: &str, input: &Json, attempt: u32) -> StepExit {
        // Out of its place while it works: if this future is dropped, so is the instance.
        let (instance, returned) = match self.idle.take() {
            Some(mut instance) => {
                let returned = instance.call(function, input, attempt).await;
                (instance, returned)
            }
            None => match self.make_and_call(function, input, attempt).await {
                Ok(made) => made,
                Err(exit) => return exit,
            },
        };
        self.exit(instance, function, returned)
    }
}

/// What `run-step` returned, or what ended it.
type Returned = wasmtime::Result<Result<String, super::bindings::stepbox::task::types::StepError>>;

impl Steps {
    async fn make_and_call(
        &self,
        function: &str,
        input: &Json,
        attempt: u32,
    ) -> Result<(Box<StepInstance>, Returned), StepExit> {
        let place = self.runtime.steps.take().await;
        let StepSetup { context, limits, grants, meter, gate } = &self.setup;
        let bounds = self.runtime.bounds(limits.clone());
        let mut state =
            State::step(context, grants, gate.clone(), bounds, meter.clone(), &self.runtime.steps.memory);
        state.http_hooks = Hooks::outgoing(Egress::new(&self.runtime.outside, &self.setup));
        let mut store = self.runtime.store(state);
        let cpu = store.data().cpu.clone();
        let made = cpu.counted(self.module.instantiate_async(&mut store)).await;
        match made {
            Ok(task) => {
                let mut instance = Box::new(StepInstance { task, store, _place: place });
                let returned = instance.call_on(function, input, attempt).await;
                Ok((instance, returned))
            }
            Err(error) => Err(failed_exit(&Fault::in_making(error), function, store.data())),
        }
    }

    fn exit(&self, instance: Box<StepInstance>, function: &str, returned: Returned) -> StepExit {
        let meter = &self.setup.meter;
        match returned {
            Ok(outcome) => {
                let bounds = instance.store.data().bounds.clone();
                instance.store.data().output.end();
                // A request that goes on without its attempt is ended with its instance.
                if instance.store.data().http_hooks.is_at_rest() {
                    self.runtime.steps.rest(&self.idle, instance);
                }
                match outcome {
                    Ok(output) => {
                        let what = format_args!("the result of {}", Doing::Step(function));
                        meter.went_out(output.len());
                        match json_from_guest(output, what, bounds.value_max_bytes()) {
                            Ok(output) => StepExit::Completed(output),
                            // The next attempt would return the same.
                            Err(failure) => StepExit::Failed(attempt_failure(failure).not_retryable()),
                        }
                    }
                    Err(error) => StepExit::Failed(attempt_failure_from_guest(
                        error.message,
                        error.details,
                        error.retryable,
                        error.retry_after_ms,
                        &bounds,
                    )),
                }
            }
            Err(error) => match failed_exit(&Fault::in_call(error), function, instance.store.data()) {
                // It has run in part, so it counts as an attempt.
                StepExit::Unavailable(why) => {
                    StepExit::Failed(AttemptFailure::new(FailureKind::OverLimit, why))
                }
                exit => exit,
            },
        }
    }
}

impl StepInstance {
    /// Another attempt in an instance that has run some already.
    async fn call(&mut self, function: &str, input: &Json, attempt: u32) -> Returned {
        let state = self.store.data_mut();
        state.cpu.reset();
        state.memory.note();
        state.http_hooks.begin_attempt();
        // Ticks that passed while it did nothing are no reason to give way.
        self.store.set_epoch_deadline(1);
        self.call_on(function, input, attempt).await
    }

    async fn call_on(&mut self, function: &str, input: &Json, attempt: u32) -> Returned {
        let state = self.store.data();
        state.meter.came_in(input.as_str().len());
        let cpu = state.cpu.clone();
        let input = input.as_str().to_owned();
        cpu.counted(self.task.call_run_step(&mut self.store, function, &input, attempt)).await
    }
}

fn failed_exit(fault: &Fault, function: &str, state: &State) -> StepExit {
    match ending(fault, Doing::Step(function), state) {
        Ending::Failed(failure) => StepExit::Failed(attempt_failure(failure)),
        Ending::Unavailable(why) => StepExit::Unavailable(why),
        // No call of a step is answered so.
        Ending::Ended => StepExit::Failed(AttemptFailure::new(FailureKind::Trapped, "the step was ended")),
    }
}
