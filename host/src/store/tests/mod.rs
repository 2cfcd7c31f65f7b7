//! The promises of the store, kept by every store.

mod claims;
mod codec;
mod crash;
mod differential;
mod events;
mod given;
mod lists;
mod modules;
mod recovery;
mod schema;
mod starts;
