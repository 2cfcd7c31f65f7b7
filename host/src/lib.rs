//! The Stepbox host. See ARCHITECTURE.md.

pub mod engine;
pub mod sandbox;
pub mod store;
