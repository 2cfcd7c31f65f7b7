//! What admins set for tasks.

use sqlx::Row as _;
use stepbox_domain::TaskName;

use super::{Connection, Row, audit, executions::Known, modules};
use crate::store::{SettingsChange, SettingsView, StoreError, VersionView, codec};

/// Within the transaction that is open.
pub(crate) async fn put(
    connection: &mut Connection,
    known: &mut Known,
    change: &SettingsChange,
) -> Result<Option<VersionView>, StoreError> {
    sqlx::query(
        "insert into task_settings (task_name, grants, limits) values ($1, $2, $3)
         on conflict (task_name) do update set grants = excluded.grants, limits = excluded.limits",
    )
    .bind(change.task.as_str())
    .bind(&*codec::encode("grants", &change.settings.grants)?)
    .bind(&*codec::encode("limits", &change.settings.limits)?)
    .execute(&mut *connection)
    .await?;
    audit::write(connection, known, &change.audit).await?;
    match &change.activate {
        None => Ok(None),
        Some((version, entry)) => {
            modules::activate_version(connection, known, &change.task, *version, entry).await
        }
    }
}

pub(crate) async fn remove(connection: &mut Connection, task: &TaskName) -> Result<(), StoreError> {
    sqlx::query("delete from task_settings where task_name = $1")
        .bind(task.as_str())
        .execute(connection)
        .await?;
    Ok(())
}

pub(crate) async fn all(connection: &mut Connection) -> Result<Vec<(TaskName, SettingsView)>, StoreError> {
    let rows = sqlx::query("select * from task_settings order by task_name").fetch_all(connection).await?;
    rows.iter().map(|row| Ok((codec::task_name(row.try_get("task_name")?)?, view(row)?))).collect()
}

pub(crate) async fn of(connection: &mut Connection, task: &TaskName) -> Result<SettingsView, StoreError> {
    let row = sqlx::query("select * from task_settings where task_name = $1")
        .bind(task.as_str())
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(view).transpose().map(Option::unwrap_or_default)
}

fn view(row: &Row) -> Result<SettingsView, StoreError> {
    Ok(SettingsView {
        grants: codec::decode("grants", row.try_get("grants")?)?,
        limits: codec::decode("limits", row.try_get("limits")?)?,
    })
}
