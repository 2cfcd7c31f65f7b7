//! The Stepbox host. See ARCHITECTURE.md.

pub mod sandbox;
pub mod store;
