//! The audit trail as somebody reads it who is not the host.

use std::path::Path;

use sqlx::ConnectOptions;

use super::connect::options;
use super::queries::{Connection, audit};
use super::sqlite::{CACHE_KIB, OpenError};
use super::{AuditRow, StoreError};

/// The audit trail of a data directory, also while a host works on it. Changes nothing.
pub struct AuditTrail {
    connection: Connection,
}

impl AuditTrail {
    pub async fn open(data_dir: &Path) -> Result<Self, OpenError> {
        let database = data_dir.join("stepbox.db");
        // Without a write-ahead log nobody works on it. Said so, SQLite makes no log of its own
        // just to read.
        let at_rest = !data_dir.join("stepbox.db-wal").exists();
        let connected = options(&database, CACHE_KIB).read_only(true).immutable(at_rest).connect().await;
        match connected {
            Ok(connection) => Ok(AuditTrail { connection }),
            Err(error) => Err(OpenError::Database { database, source: error.into() }),
        }
    }

    /// Up to `limit` entries after number `after`, oldest first; also those that make no sense,
    /// for somebody may have altered them.
    pub async fn after(&mut self, after: u64, limit: u32) -> Result<Vec<AuditRow>, StoreError> {
        audit::after(&mut self.connection, after, limit).await
    }
}
