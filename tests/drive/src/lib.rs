//! Drives a real stepbox from outside: for the benchmark and for the demonstration.

pub mod bench;
pub mod floor;
pub mod host;
