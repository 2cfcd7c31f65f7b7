//! The tables, and how a database comes to have them. The rules are in `migrations/README.md`.

use sqlx::SqliteConnection;
use sqlx::migrate::{MigrateError, Migration, MigrationType, Migrator};

use crate::fault::{self, Fault};

/// Number, name and text of each migration, oldest first. A list and not `sqlx::migrate!`, whose
/// macros would build SQLite and sqlx a second time.
pub(super) const SQLITE: &[(i64, &str, &str)] =
    &[(1, "first", include_str!("../../../migrations/sqlite/0001_first.sql"))];

/// As [`SQLITE`], of the database of guests' logs.
pub(super) const SQLITE_LOGS: &[(i64, &str, &str)] =
    &[(1, "first", include_str!("../../../migrations/sqlite_logs/0001_first.sql"))];

/// Brings the database up to date. Refuses one that a newer program has written, or whose past
/// is another than ours.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    fault::during(Fault::Migration, migrator(SQLITE).run(connection)).await
}

/// The same for guests' logs.
pub(super) async fn migrate_logs(connection: &mut SqliteConnection) -> Result<(), MigrateError> {
    // The shorter way there is, `run`, gives a future that cannot be sent to another thread.
    migrator(SQLITE_LOGS).run_direct(None, connection, false).await
}

fn migrator(list: &[(i64, &'static str, &'static str)]) -> Migrator {
    let migration = |(number, name, sql): &(i64, &'static str, &'static str)| {
        let sql = sqlx::SqlSafeStr::into_sql_str(*sql);
        Migration::new(*number, (*name).into(), MigrationType::Simple, sql, false)
    };
    Migrator::with_migrations(list.iter().map(migration).collect())
}
