//! Drives a real stepbox from outside: for the benchmark, beside its peers, and for the demonstration.

pub mod bench;
pub mod floor;
pub mod host;
pub mod peers;
