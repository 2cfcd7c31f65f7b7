//! What the tests stand on: the real binary, HTTP, built guests, waiting for conditions.

pub mod admin;
pub mod campaign;
pub mod client;
pub mod clock;
pub mod disk;
pub mod guests;
pub mod script;
pub mod server;
pub mod until;
pub mod web;

pub use admin::{
    ADMIN_PREFIXES, admin_path, attempts_in, bulk_id, find_step, in_ms, is_step, now, rule_id, step_in,
    steps_in, time, until_past,
};
pub use client::{Answer, Client};
pub use script::{if_failed, script, settle, sleep, step, step_with, wait_event};
pub use serde_json::{Value, json};
pub use server::Server;
pub use until::until;
