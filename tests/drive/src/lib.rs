//! Drives a real stepbox from outside: for the benchmark and for the demonstration.

pub mod egress;
pub mod floor;
pub mod host;
pub mod limits;
