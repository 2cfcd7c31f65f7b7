//! The tables, and how a database comes to have them. The rules are in `migrations/README.md`.

use sqlx::SqliteConnection;
use sqlx::migrate::{Migration, MigrationType, Migrator};

use crate::fault::{self, Fault};

/// Number, name and text of each migration, oldest first. A list and not `sqlx::migrate!`, whose
/// macros would build SQLite and sqlx a second time.
pub(super) const SQLITE: &[(i64, &str, &str)] =
    &[(1, "first", include_str!("../../../migrations/sqlite/0001_first.sql"))];

/// Brings the database up to date. Refuses one that a newer program has written, or whose past
/// is another than ours.
pub(super) async fn migrate(connection: &mut SqliteConnection) -> Result<(), sqlx::migrate::MigrateError> {
    let migration = |(number, name, sql): &(i64, &'static str, &'static str)| {
        let sql = sqlx::SqlSafeStr::into_sql_str(*sql);
        Migration::new(*number, (*name).into(), MigrationType::Simple, sql, false)
    };
    let migrator = Migrator::with_migrations(SQLITE.iter().map(migration).collect());
    fault::during(Fault::Migration, migrator.run(connection)).await
}
