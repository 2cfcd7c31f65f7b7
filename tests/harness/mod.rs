//! What the tests stand on: the real binary, HTTP, built guests, waiting for conditions.

pub mod campaign;
pub mod client;
pub mod guests;
pub mod script;
pub mod server;
pub mod until;

pub use client::{Answer, Client};
pub use script::{script, settle, sleep, step, step_with, wait_event};
pub use serde_json::{Value, json};
pub use server::Server;
pub use until::until;
