//! Secrets, as the vault has sealed them.

use sqlx::Row as _;
use stepbox_domain::{Timestamp, audit::AuditEntry, capability::SecretName};

use super::{Connection, Row, audit, executions::Known};
use crate::store::{NewSecret, SealedSecret, StoreError};

/// Whether it is new. Within the transaction that is open, as the other verb here.
pub(crate) async fn set(
    connection: &mut Connection,
    known: &mut Known,
    secret: &NewSecret,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let set = sqlx::query("update secrets set ciphertext = $2, updated_ms = $3 where name = $1")
        .bind(secret.name.as_str())
        .bind(&secret.ciphertext)
        .bind(secret.now.as_ms())
        .execute(&mut *connection)
        .await?;
    let is_new = set.rows_affected() == 0;
    if is_new {
        sqlx::query("insert into secrets (name, ciphertext, created_ms, updated_ms) values ($1, $2, $3, $3)")
            .bind(secret.name.as_str())
            .bind(&secret.ciphertext)
            .bind(secret.now.as_ms())
            .execute(&mut *connection)
            .await?;
    }
    audit::write(connection, known, entry).await?;
    Ok(is_new)
}

/// Whether there was one.
pub(crate) async fn delete(
    connection: &mut Connection,
    known: &mut Known,
    name: &SecretName,
    entry: &AuditEntry,
) -> Result<bool, StoreError> {
    let gone = sqlx::query("delete from secrets where name = $1")
        .bind(name.as_str())
        .execute(&mut *connection)
        .await?;
    if gone.rows_affected() == 0 {
        return Ok(false);
    }
    audit::write(connection, known, entry).await?;
    Ok(true)
}

/// By name.
pub(crate) async fn all(connection: &mut Connection) -> Result<Vec<SealedSecret>, StoreError> {
    let rows = sqlx::query("select * from secrets order by name").fetch_all(connection).await?;
    rows.iter().map(secret).collect()
}

fn secret(row: &Row) -> Result<SealedSecret, StoreError> {
    let name = SecretName::parse(row.try_get("name")?);
    Ok(SealedSecret {
        name: name.map_err(|error| StoreError::Corrupt(error.to_string()))?,
        ciphertext: row.try_get("ciphertext")?,
        created_at: Timestamp::from_ms(row.try_get("created_ms")?),
        updated_at: Timestamp::from_ms(row.try_get("updated_ms")?),
    })
}
