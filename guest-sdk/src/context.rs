//! Which execution this is, and which attempt.

use std::cell::Cell;
use std::time::SystemTime;

/// Which execution this is. The same in the handler and in its steps, and on every replay.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct TaskContext {
    /// What the client called the execution: its idempotency key.
    pub execution_id: String,
    pub run_id: String,
    /// 0 for the first run of an execution; restart and rerun make more.
    pub run_index: u32,
    pub task_name: String,
    /// The version number of the module that this run is pinned to.
    pub module_version: u32,
    /// When this run started.
    pub started_at: SystemTime,
}

/// Which execution this is. Also inside of a step.
///
/// A step may run more than once (a crash can come between the deed and its record), so what it
/// does to others should carry a key that is the same each time. The execution's id and the
/// step's name make one:
///
/// ```no_run
/// # use stepbox_guest::context;
/// let idempotency_key = format!("{}/charge", context().execution_id);
/// ```
pub fn context() -> TaskContext {
    crate::host::context()
}

thread_local! {
    static ATTEMPT: Cell<u32> = const { Cell::new(0) };
}

/// Which attempt of its step this is, from 1. In a handler, which has no attempts, 0.
pub fn attempt() -> u32 {
    ATTEMPT.get()
}

/// Calls `body` as attempt `attempt` of a step.
pub(crate) fn in_attempt<T>(attempt: u32, body: impl FnOnce() -> T) -> T {
    struct Restore(u32);
    impl Drop for Restore {
        fn drop(&mut self) {
            ATTEMPT.set(self.0);
        }
    }
    let _restore = Restore(ATTEMPT.replace(attempt));
    body()
}
