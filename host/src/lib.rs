//! The Stepbox host: one process that keeps, runs and shows durable tasks.
//!
//! ```text
//!             HTTP                                             guest (Wasm component)
//!              │                                                        ▲ │ step, sleep, wait-event, …
//!    ┌─────────▼─────────┐        ┌──────────────────────┐        ┌─────┴─▼──────────┐
//!    │ api   (axum)      │──────▶ │ engine               │──────▶ │ sandbox (wasmtime)│
//!    │                   │ Engine │ moves runs; owns time│ start  │ HostCalls ◀ trait │
//!    └─────────┬─────────┘        └───┬──────────────┬───┘        └─────────┬────────┘
//!              │ Views (read)         │ Store (write)│ decide/apply         │
//!              │        ┌─────────────▼───┐     ┌────▼──────────────────────▼──┐
//!              └──────▶ │ store (sqlx)    │────▶│ domain: values and decisions │
//!                       └─────────────────┘     └──────────────────────────────┘
//! ```
//!
//! Arrows are imports. Start reading at [`serve`], which wires it all, or at
//! `engine::live_run::LiveRun::take`, on which it all turns. See ARCHITECTURE.md.

pub mod config;
pub mod serve;

pub mod api;
pub mod engine;
pub mod sandbox;
pub mod store;

pub mod audit;
pub mod fault;
pub mod guest_logs;
pub mod logs;
pub mod secret_command;
pub mod vault;
pub mod verdict;
