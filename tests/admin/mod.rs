//! What an admin sees and does, over both prefixes: every row of the contract's table, each of its
//! semantics, and the defects of Zart that are named there.

mod audit;
mod bulk;
mod bulk_course;
mod cancels;
mod clocks;
mod detail;
mod grants;
mod holds;
mod logs;
mod pauses;
mod prefixes;
mod removed;
mod rerun;
mod resolve;
mod restart;
mod retry;
mod retry_overrides;
mod secrets;
mod verify;
