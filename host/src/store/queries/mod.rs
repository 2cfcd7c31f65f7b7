//! The SQL. One file for each noun; domain values in and out, each statement whole and in one
//! place.
//!
//! Written so that SQLite and PostgreSQL read most of it alike: `with … as (values …)`,
//! `on conflict`, `returning`, `update … from`. Where many rows go into one statement the
//! parameters are plain `?`: SQLite looks up a named one (`$1`) by walking over all of them.

pub(super) mod alone;
pub(super) mod audit;
pub(super) mod bulks;
pub(super) mod cancels;
pub(super) mod claims;
pub(super) mod commits;
pub(super) mod events;
pub(super) mod executions;
pub(super) mod modules;
pub(super) mod pauses;
pub(super) mod repairs;
pub(super) mod runs;
pub(super) mod search;
pub(super) mod secrets;
pub(super) mod settings;
pub(super) mod statement;
pub(super) mod troubles;
pub(super) mod views;

pub(super) type Connection = sqlx::SqliteConnection;
pub(super) type Row = sqlx::sqlite::SqliteRow;
