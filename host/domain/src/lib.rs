//! What a durable execution is, and what follows from what.
//!
//! Nothing in this crate can wait, read a clock, draw a random number or touch the world; its
//! dependency list is the proof. Time comes in as an argument, jitter is a hash.
//!
//! Two functions carry everything: [`Run::decide`](run::Run::decide) says what a call of the
//! guest leads to, without changing anything; [`Run::apply`](run::Run::apply) folds a [`Record`](journal::Record) into a run and
//! never decides. The laws that hold between them are stated, and tested over random handlers
//! and random crashes, in `tests/laws`:
//!
//! 1. **Replay.** Folding the records gives the run that lived through them.
//! 2. **Crash.** From any prefix of the records, going on never runs a completed step again: in
//!    its run none that is called with the input that it had, in a rerun none that was kept.
//! 3. **Finality.** After a terminal record `decide` yields none. Only an admin's
//!    [`repair`] opens a run again, and never a cancelled one.
//! 4. **Progress.** A run at rest that is not terminal has a due time or a named wait.
//! 5. **Determinism.** Same run, same input, same time: same decision.
//! 6. **Divergence.** A call that does not match its record stops the run, and names both. A
//!    handler that is deterministic never diverges, whatever admins do.

pub mod ids;
pub mod json;
pub mod time;

pub mod execution;
pub mod failure;
pub mod retry;
pub mod step;

pub mod event;
pub mod glob;
pub mod journal;
pub mod lineage;
pub mod pause;
pub mod run;

pub mod decide;
pub mod leg;
pub mod repair;

pub mod audit;
pub mod bulk;
pub mod trouble;

pub mod capability;
pub mod limits;
pub mod manifest;
pub mod receipt;

pub use execution::{ExecutionStatus, Fingerprint};
pub use failure::{Failure, FailureKind};
pub use ids::{Digest, EventName, ExecutionId, IdError, RunId, StepKey, StepName, TaskName};
pub use json::Json;
pub use limits::{Limit, Limits};
pub use manifest::Manifest;
pub use receipt::Receipt;
pub use run::Run;
pub use time::Timestamp;
