//! What survives `kill -9`, and how the host stops when it is asked to.
//!
//! `STEPBOX_CRASH_KILLS=1000 cargo test --test it anywhere -- --nocapture` makes the campaign longer.

mod anywhere;
mod states;
mod stop;
mod trouble;
