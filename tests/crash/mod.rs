//! What survives `kill -9`, also at the worst places, a full disk and a torn log, and how the host
//! stops when it is asked to.
//!
//! Not here: a wall clock that jumps. It cannot be set for one process from outside, and a host
//! that could be told another time would have it in its product for the sake of a test. The
//! engine's simulation (`host/src/engine/tests/simulation`) has a clock of its own, which jumps by
//! up to an hour in both directions.
//!
//! `STEPBOX_CRASH_KILLS=1000 cargo test --test it anywhere -- --nocapture` makes the campaign longer.

mod anywhere;
mod disk;
mod faults;
mod load;
mod states;
mod stop;
mod tail;
mod trouble;
