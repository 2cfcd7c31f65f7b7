//! What survives `kill -9`, also at the worst places, a full disk, a torn log and a wall clock
//! that jumps, and how the host stops when it is asked to.
//!
//! `STEPBOX_CRASH_KILLS=1000 cargo test --test it anywhere -- --nocapture` makes the campaign longer.

mod anywhere;
mod clock;
mod disk;
mod faults;
mod load;
mod states;
mod stop;
mod tail;
mod trouble;
