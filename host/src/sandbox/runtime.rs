//! The wasmtime engine: each switch with its reason, the ticker, the places for instances.

use std::{num::NonZeroUsize, sync::Arc, time::Duration};

use stepbox_domain::{Limit, Limits};
use wasmtime::{
    CallHook, Config, Enabled, Engine, InstanceAllocationStrategy, PoolingAllocationConfig, Store,
    UpdateDeadline, WasmBacktraceDetails,
    component::{HasSelf, Linker},
    error::Context as _,
};

use super::{
    GuestLimits, PoolSizes, SandboxConfig, Secrets, bindings,
    bounds::Bounds,
    egress::{self, Outside},
    limits::MemoryBudget,
    places::{HandlerPlaces, StepPlaces},
    state::State,
    turns::Turns,
    virtual_wasi,
};

/// How long a guest computes before it gives way to others, and so how soon a guest whose future
/// is dropped is gone.
pub(super) const TICK: Duration = Duration::from_millis(5);

/// A guest's own stack; recursion beyond it traps.
const WASM_STACK_BYTES: usize = 512 << 10;

/// The whole stack of a guest: its own, and that of what the host does within a call.
const STACK_BYTES: usize = 2 << 20;

/// What all guests share.
pub(super) struct Runtime {
    pub engine: Engine,
    pub limits: Arc<GuestLimits>,
    /// For `describe` where no task is known.
    pub default_limits: Arc<Limits>,
    turns: Arc<Turns>,
    without_limits: bool,
    pub outside: Arc<Outside>,
    /// For handler instances and `describe`.
    pub handler_linker: Linker<State>,
    pub step_linker: Linker<State>,
    pub handlers: HandlerPlaces,
    pub steps: StepPlaces,
    pub describes: HandlerPlaces,
}

/// `describe` is called at upload only; a few places of its own, so that uploads pass however
/// many runs are under way.
const DESCRIBES_MAX: u32 = 4;

impl Runtime {
    pub(super) fn new(config: &SandboxConfig, secrets: Arc<dyn Secrets>) -> wasmtime::Result<Arc<Self>> {
        let engine = Engine::new(engine_config().allocation_strategy(pool(config))).context(
            "the sandbox cannot reserve the address space for its instances; a smaller pool may do",
        )?;
        start_ticker(&engine);
        warn_of_too_few_mappings(config);

        let mut step_linker = linker(&engine)?;
        egress::offer(&mut step_linker)?;
        let mut handler_linker = linker(&engine)?;
        virtual_wasi::shadow_clock(&mut handler_linker)?;
        egress::offer_and_refuse(&mut handler_linker)?;
        let outside = Outside::new(&config.egress, secrets)
            .map_err(|error| wasmtime::Error::msg(format!("{error:#}")))?;

        let sizes: &PoolSizes = &config.pool;
        let describe_bytes = size(&config.limits, Limit::MemoryMaxBytes);
        // Each of them by default, and one that has all that a task may have.
        let describes_memory = describe_bytes
            .saturating_mul(DESCRIBES_MAX as usize)
            .max(size(&config.ceilings, Limit::MemoryMaxBytes));
        Ok(Arc::new(Runtime {
            engine,
            outside,
            limits: Arc::new(config.guest.clone()),
            default_limits: Arc::new(config.limits.clone()),
            turns: Turns::new(),
            without_limits: config.without_limits_for_bench,
            handler_linker,
            step_linker,
            handlers: HandlerPlaces::new(
                sizes.handlers_max,
                MemoryBudget::new(sizes.handlers_memory_max_bytes),
            ),
            steps: StepPlaces::new(sizes.steps_max, MemoryBudget::new(sizes.steps_memory_max_bytes)),
            describes: HandlerPlaces::new(DESCRIBES_MAX, MemoryBudget::new(describes_memory)),
        }))
    }

    /// What holds for an instance of a task with these limits.
    pub(super) fn bounds(&self, task: Arc<Limits>) -> Bounds {
        Bounds { task, host: self.limits.clone() }
    }

    /// A store in which an instance with `state` can be made: bounded and interruptible.
    pub(super) fn store(&self, state: State) -> Store<State> {
        let value_max_bytes = state.bounds.value_max_bytes();
        let mut store = Store::new(&self.engine, state);
        if self.without_limits {
            store.set_epoch_deadline(1);
            store.epoch_deadline_async_yield_and_update(1);
            return store;
        }
        store.limiter(|state| &mut state.memory);
        store.set_max_component_handles(self.limits.handles_max);
        // Counted in bytes of what is copied out of the guest in one call, with some room for
        // names and for texts in UTF-16: what is just too large still gets the better message.
        store.set_hostcall_fuel(value_max_bytes.saturating_mul(4).saturating_add(1 << 20));
        store.set_epoch_deadline(1);
        let turns = self.turns.clone();
        store.epoch_deadline_callback(move |mut context| {
            let state = context.data_mut();
            state.host_was_not_called();
            let has_just_waited = state.cpu.has_just_waited();
            state.cpu.check().map_err(wasmtime::Error::new)?;
            if has_just_waited {
                return Ok(UpdateDeadline::Continue(1));
            }
            let way = turns.clone().give_way(state.cpu.clone());
            Ok(UpdateDeadline::YieldCustom(1, Box::pin(way)))
        });
        store.call_hook(|mut context, hook| match hook {
            CallHook::CallingHost => context.data_mut().host_is_called().map_err(wasmtime::Error::new),
            CallHook::ReturningFromHost | CallHook::CallingWasm | CallHook::ReturningFromWasm => Ok(()),
        });
        store
    }
}

/// What machine code depends on. The child process that compiles uses the same.
pub(super) fn engine_config() -> Config {
    let mut config = Config::new();

    // A guest looks at the clock at every loop and call: the only way to interrupt it.
    config.epoch_interruption(true);
    config.max_wasm_stack(WASM_STACK_BYTES).async_stack_size(STACK_BYTES);
    // Names in a failure's stack come from the component's name section. Lines would come from its
    // debug info, which would be parsed at the trap, in this process and without any bound.
    config.wasm_backtrace_details(WasmBacktraceDetails::Disable);
    // A Rust panic takes a dozen to get out.
    config.wasm_backtrace_max_frames(NonZeroUsize::new(50));
    // The bits of a NaN differ between processors; a handler must not see that.
    config.cranelift_nan_canonicalization(true);

    // Off: what no guest needs. Every one of these is more compiler for an upload to attack.
    config
        .wasm_tail_call(false)
        .wasm_memory64(false)
        .wasm_relaxed_simd(false)
        .wasm_wide_arithmetic(false)
        .wasm_custom_page_sizes(false)
        .wasm_stack_switching(false)
        .concurrency_support(false);
    // On, although few need them: without multi-memory wasmtime 48.0.8 panics on components whose
    // inner components call each other; Python guests need extended-const.
    config.wasm_multi_memory(true).wasm_extended_const(true);
    // `memory_reservation` stays at 4 GiB: with less, every memory access carries its own check.
    config
}

fn pool(config: &SandboxConfig) -> InstanceAllocationStrategy {
    let places = config.pool.handlers_max + config.pool.steps_max + DESCRIBES_MAX;
    let mut pool = PoolingAllocationConfig::new();
    // Counts are address space, not memory. QuickJS has two memories, Python 14 core instances.
    pool.total_component_instances(places)
        .total_stacks(places)
        .total_core_instances(places.saturating_mul(16))
        .total_memories(places.saturating_mul(2))
        .total_tables(places.saturating_mul(2))
        .max_core_instances_per_component(config.guest.core_instances_max)
        .max_memories_per_component(4)
        .max_tables_per_component(8)
        .max_memories_per_module(4)
        .max_tables_per_module(8)
        .max_memory_size(size(&config.ceilings, Limit::MemoryMaxBytes))
        .table_elements(size(&config.ceilings, Limit::TableMaxElements))
        // Kept for good by every place that was ever used: a little saves page faults, a MiB
        // times thousands is all the memory there is.
        .linear_memory_keep_resident(64 << 10)
        .table_keep_resident(16 << 10)
        .pagemap_scan(Enabled::Auto);
    InstanceAllocationStrategy::Pooling(pool)
}

fn size(limits: &Limits, limit: Limit) -> usize {
    usize::try_from(limits.get(limit)).unwrap_or(usize::MAX)
}

/// Running out of mappings fails any allocation of the process, not just the one of an instance.
fn warn_of_too_few_mappings(config: &SandboxConfig) {
    let places = u64::from(config.pool.handlers_max + config.pool.steps_max + DESCRIBES_MAX);
    let needed = places * MAPPINGS_FOR_A_PLACE + MAPPINGS_OF_THE_HOST;
    let limit = std::fs::read_to_string("/proc/sys/vm/max_map_count").ok();
    if let Some(limit) = limit.and_then(|text| text.trim().parse::<u64>().ok())
        && limit < needed
    {
        tracing::warn!(
            limit,
            needed,
            "with all instances in use this process may run out of memory mappings: raise the kernel's \
             vm.max_map_count, or make the pool smaller"
        );
    }
}

/// A live instance takes 6, the guard pages of its stack 2.
const MAPPINGS_FOR_A_PLACE: u64 = 8;
const MAPPINGS_OF_THE_HOST: u64 = 4_000;

/// All of WASI 0.2 but HTTP, which differs, and the durable calls.
fn linker(engine: &Engine) -> wasmtime::Result<Linker<State>> {
    let mut linker = Linker::new(engine);
    wasmtime_wasi::p2::add_to_linker_async(&mut linker)?;
    bindings::Task::add_to_linker::<_, HasSelf<_>>(&mut linker, |state: &mut State| state)?;
    Ok(linker)
}

fn start_ticker(engine: &Engine) {
    let engine = engine.weak();
    // Ends when the engine is gone. A thread and not a task: it must tick when all threads of
    // the runtime are busy with guests, which is when it is needed.
    std::thread::Builder::new()
        .name("guest-ticker".to_owned())
        .spawn(move || {
            while let Some(engine) = engine.upgrade() {
                engine.increment_epoch();
                drop(engine);
                std::thread::sleep(TICK);
            }
        })
        .expect("a thread can be started when the host starts");
}
