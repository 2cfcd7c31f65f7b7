//! What survives `kill -9`, and how the host stops when it is asked to.

mod anywhere;
mod states;
mod stop;
