//! The contract, sentence by sentence, over the store's reference model and a scripted guest.

mod executions;
mod harness;
mod modules;
mod operations;
mod refusals;
