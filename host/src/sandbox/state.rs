//! What an instance carries with it: its side of the host.

use std::sync::Arc;

use stepbox_domain::{Limit, RunId, TaskName, Timestamp, capability::Grants};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use super::{
    Gate, GuestContext, HostCalls, LogLine, LogSink, Meter,
    bindings::stepbox::task::types::TaskContext,
    bounds::Bounds,
    call_rate::CallRate,
    egress::{self, Hooks},
    limits::{CpuMeter, LimitHit, MemoryBudget, MemoryLimiter},
    output::Output,
    virtual_wasi::{self, VirtualTime},
};

/// The data of a wasmtime store. One for each instance, dropped with it.
pub(super) struct State {
    pub wasi: WasiCtx,
    pub http: WasiHttpCtx,
    /// Nothing goes out unless somebody puts another here.
    pub http_hooks: Hooks,
    pub table: ResourceTable,
    pub memory: MemoryLimiter,
    pub cpu: Arc<CpuMeter>,
    calls_left: CallRate,
    pub meter: Arc<Meter>,
    pub output: Arc<Output>,
    /// Only the handler's moves.
    pub time: VirtualTime,
    pub role: Role,
    pub bounds: Bounds,
}

/// Which of a module's instances this is, and so what it may call.
pub(super) enum Role {
    Handler { calls: Box<dyn HostCalls>, context: TaskContext },
    Step { context: TaskContext },
    Describe,
}

impl State {
    pub(super) fn handler(
        context: &GuestContext,
        calls: Box<dyn HostCalls>,
        bounds: Bounds,
        meter: Arc<Meter>,
        budget: &Arc<MemoryBudget>,
    ) -> Self {
        let output = Output::new(context.run_id.clone(), context.logs.clone(), Arc::default(), &bounds);
        let time = VirtualTime::starting_at(context.started_at);
        let cpu_max_ms = bounds.get(Limit::HandlerCpuMaxMs);
        let wall_max_ms = bounds.get(Limit::HandlerWallMaxMs);
        let cpu = CpuMeter::new(cpu_max_ms, Some(wall_max_ms), meter.clone());
        State {
            wasi: virtual_wasi::for_handler(&context.run_id, &time, &output, &bounds.host),
            time,
            role: Role::Handler { calls, context: task_context(context) },
            ..State::bare(output, cpu, bounds, meter, budget)
        }
    }

    /// Its time by the clock is the engine's to watch, which knows the step's own timeout too.
    pub(super) fn step(
        context: &GuestContext,
        grants: &Grants,
        gate: Arc<Gate>,
        bounds: Bounds,
        meter: Arc<Meter>,
        budget: &Arc<MemoryBudget>,
    ) -> Self {
        let output = Output::new(context.run_id.clone(), context.logs.clone(), gate, &bounds);
        let cpu = CpuMeter::new(bounds.get(Limit::AttemptCpuMaxMs), None, meter.clone());
        State {
            wasi: virtual_wasi::for_steps(&output, &bounds.host, &egress::environment_of_steps(grants)),
            role: Role::Step { context: task_context(context) },
            ..State::bare(output, cpu, bounds, meter, budget)
        }
    }

    /// For `describe`: a handler whose clock stands at a fixed moment, so that a module describes
    /// itself in the same way whenever it is asked.
    pub(super) fn describe(run: RunId, bounds: Bounds, budget: &Arc<MemoryBudget>) -> Self {
        const MOMENT: Timestamp = Timestamp::from_ms(1_767_225_600_000);
        let output = Output::new(run.clone(), Arc::new(Nowhere), Arc::default(), &bounds);
        let time = VirtualTime::starting_at(MOMENT);
        let meter: Arc<Meter> = Arc::default();
        let cpu = CpuMeter::new(bounds.host.describe_cpu_max_ms, None, meter.clone());
        State {
            wasi: virtual_wasi::for_handler(&run, &time, &output, &bounds.host),
            time,
            ..State::bare(output, cpu, bounds, meter, budget)
        }
    }

    fn bare(
        output: Arc<Output>,
        cpu: Arc<CpuMeter>,
        bounds: Bounds,
        meter: Arc<Meter>,
        budget: &Arc<MemoryBudget>,
    ) -> Self {
        State {
            wasi: WasiCtx::builder().build(),
            http: egress::context(),
            http_hooks: Hooks::nothing(),
            table: ResourceTable::new(),
            memory: MemoryLimiter::new(&bounds, budget.clone(), meter.clone()),
            cpu,
            calls_left: CallRate::new(bounds.get(Limit::HostCallsPerSecondMax)),
            meter,
            output,
            time: VirtualTime::starting_at(Timestamp::from_ms(0)),
            role: Role::Describe,
            bounds,
        }
    }

    /// The guest calls the host, for whatever it is.
    pub(super) fn host_is_called(&mut self) -> Result<(), LimitHit> {
        self.meter.host_called();
        self.calls_left.take()
    }

    /// What [`State::host_is_called`] was told of was a tick, which comes in the same way.
    pub(super) fn host_was_not_called(&mut self) {
        self.meter.host_was_not_called();
        self.calls_left.give_back();
    }
}

fn task_context(context: &GuestContext) -> TaskContext {
    let task: &TaskName = &context.task;
    TaskContext {
        execution_id: context.execution_id.clone(),
        run_id: context.run_id.to_string(),
        run_index: context.run_index,
        task_name: task.to_string(),
        module_version: context.version,
        started_at_ms: u64::try_from(context.started_at.as_ms()).unwrap_or(0),
    }
}

impl WasiView for State {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView { ctx: &mut self.wasi, table: &mut self.table }
    }
}

/// Output of `describe` is heard only in its last words.
struct Nowhere;

impl LogSink for Nowhere {
    fn line(&self, _: LogLine<'_>) {}
}
