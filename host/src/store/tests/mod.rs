//! The promises of the store, kept by every store.

mod codec;
mod conformance;
mod crash;
mod differential;
mod given;
mod lists;
mod modules;
mod schema;
