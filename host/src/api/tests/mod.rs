//! The contract, sentence by sentence, over the store's reference model and a scripted guest.

mod admin_refusals;
mod bulks;
mod executions;
mod grants;
mod harness;
mod logs;
mod modules;
mod operations;
mod pauses;
mod refusals;
mod repairs;
mod secrets;
mod shapes;
