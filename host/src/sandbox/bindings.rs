//! What `bindgen!` makes of `wit/task.wit`. Nothing else is in here.

wasmtime::component::bindgen!({
    path: "../wit",
    world: "task",
    // Every call may wait for the journal, and may end the guest.
    imports: { default: async | trappable },
    exports: { default: async },
});
