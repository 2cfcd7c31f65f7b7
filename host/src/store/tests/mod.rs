//! The promises of the store, kept by every store.

mod admin;
mod claims;
mod codec;
mod crash;
mod differential;
mod events;
mod given;
mod lists;
mod logs;
mod modules;
mod recovery;
mod repairs;
mod schema;
mod search;
mod secrets;
mod settings;
mod starts;
