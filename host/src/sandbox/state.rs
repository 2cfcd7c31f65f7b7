//! What an instance carries with it: its side of the host.

use std::sync::Arc;

use stepbox_domain::{RunId, TaskName, Timestamp, capability::Grants};
use wasmtime::component::ResourceTable;
use wasmtime_wasi::{WasiCtx, WasiCtxView, WasiView};
use wasmtime_wasi_http::WasiHttpCtx;

use super::{
    GuestContext, GuestLimits, HostCalls, LogLine, LogSink,
    bindings::stepbox::task::types::TaskContext,
    egress::{self, Hooks},
    limits::{CpuMeter, MemoryBudget, MemoryLimiter},
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
    pub output: Arc<Output>,
    /// Only the handler's moves.
    pub time: VirtualTime,
    pub role: Role,
    pub limits: Arc<GuestLimits>,
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
        limits: &Arc<GuestLimits>,
        budget: &Arc<MemoryBudget>,
    ) -> Self {
        let output = Output::new(context.run_id.clone(), context.logs.clone(), limits);
        let time = VirtualTime::starting_at(context.started_at);
        State {
            wasi: virtual_wasi::for_handler(&context.run_id, &time, &output, limits),
            time,
            role: Role::Handler { calls, context: task_context(context) },
            ..State::bare(output, limits.handler_cpu_max_ms, limits, budget)
        }
    }

    pub(super) fn step(
        context: &GuestContext,
        grants: &Grants,
        limits: &Arc<GuestLimits>,
        budget: &Arc<MemoryBudget>,
    ) -> Self {
        let output = Output::new(context.run_id.clone(), context.logs.clone(), limits);
        State {
            wasi: virtual_wasi::for_steps(&output, limits, &egress::environment_of_steps(grants)),
            role: Role::Step { context: task_context(context) },
            ..State::bare(output, limits.attempt_cpu_max_ms, limits, budget)
        }
    }

    /// For `describe`: a handler whose clock stands at a fixed moment, so that a module describes
    /// itself in the same way whenever it is asked.
    pub(super) fn describe(run: RunId, limits: &Arc<GuestLimits>, budget: &Arc<MemoryBudget>) -> Self {
        const MOMENT: Timestamp = Timestamp::from_ms(1_767_225_600_000);
        let output = Output::new(run.clone(), Arc::new(Nowhere), limits);
        let time = VirtualTime::starting_at(MOMENT);
        State {
            wasi: virtual_wasi::for_handler(&run, &time, &output, limits),
            time,
            ..State::bare(output, limits.describe_cpu_max_ms, limits, budget)
        }
    }

    fn bare(
        output: Arc<Output>,
        cpu_max_ms: u64,
        limits: &Arc<GuestLimits>,
        budget: &Arc<MemoryBudget>,
    ) -> Self {
        State {
            wasi: WasiCtx::builder().build(),
            http: egress::context(),
            http_hooks: Hooks::nothing(),
            table: ResourceTable::new(),
            memory: MemoryLimiter::new(limits, budget.clone()),
            cpu: CpuMeter::new(cpu_max_ms),
            output,
            time: VirtualTime::starting_at(Timestamp::from_ms(0)),
            role: Role::Describe,
            limits: limits.clone(),
        }
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
