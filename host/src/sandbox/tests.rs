//! What the sandbox promises, proved at its edge with guests in WebAssembly text.

mod cache;
mod compile;
mod determinism;
mod gate;
mod handler;
mod hostile;
mod limits;
mod places;
mod steps;
mod ticks;
mod uploads;

use stepbox_domain::{Digest, Limit};

use super::{testing::*, *};
