//! What happens to a run, seen from outside.

mod deadlines;
mod determinism;
mod retries;
mod steps;
mod waiting;
mod wasi;
