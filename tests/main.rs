//! The product from outside: the real binary, real HTTP, real components.
//!
//! | folder | claims |
//! |---|---|
//! | `api` | every sentence of the HTTP contract, by resource |
//! | `admin` | every row of the admin's table, its semantics, the audit trail |
//! | `admin_race` | that admins who race each other break nothing |
//! | `engine` | what happens to a run: steps, retries, deadlines, waits, replays |
//! | `crash` | what survives `kill -9`, and how the host stops |
//! | `sandbox` | that what a guest may take has limits, which can be set |
//! | `hostile` | that no guest, upload or client hurts the host or its neighbours |
//! | `examples` | that the examples do what their pages say |
//! | `tidy` | the architecture, read from the sources |
//!
//! `checker` reads the database that a campaign leaves behind; `harness` starts servers and speaks to them; `guests` is the package of the test guests.

mod checker;
mod harness;

mod admin;
mod admin_race;
mod api;
mod crash;
mod engine;
mod examples;
mod hostile;
mod sandbox;
mod tidy;
