//! Modules and their versions.

use sqlx::Row as _;
use stepbox_domain::{Digest, TaskName, Timestamp, audit::AuditEntry};

use super::{Connection, Row, audit, executions::Known, settings};
use crate::store::{ModuleView, NewVersion, Removal, StoreError, VersionAdded, VersionView, codec, trail};

/// Within the transaction that is open, as the other verbs here.
pub(crate) async fn add_version(
    connection: &mut Connection,
    known: &mut Known,
    new: &NewVersion,
    entry: &AuditEntry,
) -> Result<VersionAdded, StoreError> {
    if let Some(module) = module(connection, &new.task).await? {
        let has_it = |view: &VersionView| view.digest == new.digest && (view.active || view.waiting);
        if let Some(same) = [Some(module.shown), module.waiting].into_iter().flatten().find(has_it) {
            return Ok(VersionAdded::Same(same));
        }
    }
    // The row of a removed module is still there and knows which numbers have been given.
    let version: i64 = sqlx::query_scalar(
        "insert into modules (task_name, active_version, versions_given) values ($1, null, 1)
         on conflict (task_name) do update set versions_given = modules.versions_given + 1
         returning versions_given",
    )
    .bind(new.task.as_str())
    .fetch_one(&mut *connection)
    .await?;
    sqlx::query("insert into components (digest, bytes) values ($1, $2) on conflict (digest) do nothing")
        .bind(new.digest.as_str())
        .bind(new.component.as_slice())
        .execute(&mut *connection)
        .await?;
    sqlx::query(
        "insert into module_versions (task_name, version, digest, size_bytes, compiled_in_ms, created_ms, waiting,
                                      manifest)
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(new.task.as_str())
    .bind(version)
    .bind(new.digest.as_str())
    .bind(i64::try_from(new.component.len()).unwrap_or(i64::MAX))
    .bind(i64::try_from(new.compiled_in_ms).unwrap_or(i64::MAX))
    .bind(new.now.as_ms())
    .bind(i64::from(new.waits))
    .bind(new.manifest.as_str())
    .execute(&mut *connection)
    .await?;
    let number = codec::number("a version", version)?;
    if !new.waits {
        make_active(connection, &new.task, number).await?;
    }
    audit::write(connection, known, &trail::of_version(entry.clone(), number)).await?;
    match self::version(connection, &new.task, number).await? {
        Some(view) => Ok(VersionAdded::New(view)),
        None => Err(StoreError::Corrupt(format!("version {version} of \"{}\" is gone at once", new.task))),
    }
}

/// Whether that changed anything.
async fn make_active(connection: &mut Connection, task: &TaskName, version: u32) -> Result<bool, StoreError> {
    let activated = sqlx::query(
        "update modules set active_version = $2
          where task_name = $1 and active_version is not $2
            and exists (select 1 from module_versions v where v.task_name = $1 and v.version = $2)",
    )
    .bind(task.as_str())
    .bind(i64::from(version))
    .execute(&mut *connection)
    .await?;
    if activated.rows_affected() == 0 {
        return Ok(false);
    }
    sqlx::query(
        "update module_versions set waiting = 0 where task_name = $1 and version <= $2 and waiting = 1",
    )
    .bind(task.as_str())
    .bind(i64::from(version))
    .execute(connection)
    .await?;
    Ok(true)
}

pub(crate) async fn activate_version(
    connection: &mut Connection,
    known: &mut Known,
    task: &TaskName,
    version: u32,
    entry: &AuditEntry,
) -> Result<Option<VersionView>, StoreError> {
    if make_active(connection, task, version).await? {
        audit::write(connection, known, entry).await?;
    }
    self::version(connection, task, version).await
}

pub(crate) async fn remove(
    connection: &mut Connection,
    known: &mut Known,
    task: &TaskName,
    entry: &AuditEntry,
) -> Result<Removal, StoreError> {
    let Some(module) = module(connection, task).await? else { return Ok(Removal::NoSuchModule) };
    if module.unfinished > 0 {
        return Ok(Removal::InUse(module.unfinished));
    }
    for sql in [
        "update modules set active_version = null where task_name = $1",
        "delete from module_versions where task_name = $1",
    ] {
        sqlx::query(sql).bind(task.as_str()).execute(&mut *connection).await?;
    }
    settings::remove(connection, task).await?;
    sqlx::query("delete from components where digest not in (select digest from module_versions)")
        .execute(&mut *connection)
        .await?;
    audit::write(connection, known, entry).await?;
    Ok(Removal::Removed)
}

pub(crate) async fn component(
    connection: &mut Connection,
    digest: &Digest,
) -> Result<Option<Vec<u8>>, StoreError> {
    Ok(sqlx::query_scalar("select bytes from components where digest = $1")
        .bind(digest.as_str())
        .fetch_optional(connection)
        .await?)
}

/// Every registered task, by name; only `task` where one is named.
async fn read_modules(
    connection: &mut Connection,
    task: Option<&TaskName>,
) -> Result<Vec<ModuleView>, StoreError> {
    // Of each task the version that is shown, and the newest that waits, which may be the same.
    let rows = sqlx::query(
        "with picked as (
             select m.task_name, m.active_version,
                    coalesce(m.active_version, (select max(version) from module_versions v
                                                 where v.task_name = m.task_name)) as shown,
                    (select max(version) from module_versions v
                      where v.task_name = m.task_name and v.waiting = 1) as newest_waiting
               from modules m
              where m.task_name = $1 or $1 is null)
         select v.task_name, v.version, v.digest, v.size_bytes, v.compiled_in_ms, v.created_ms, v.waiting, v.manifest,
                v.version is p.active_version as active,
                v.version = p.shown as is_shown,
                (select count(*) from module_versions o where o.task_name = p.task_name) as versions,
                (select coalesce(sum(c.executions), 0) from execution_counts c
                  where c.task_name = v.task_name and c.version = v.version
                    and c.status in ('scheduled', 'running')) as unfinished,
                (select coalesce(sum(c.executions), 0) from execution_counts c
                  where c.task_name = v.task_name and c.status in ('scheduled', 'running'))
                  as unfinished_of_all
           from picked p join module_versions v on v.task_name = p.task_name
            and (v.version = p.shown or v.version = p.newest_waiting)
          order by v.task_name, is_shown desc",
    )
    .bind(task.map(TaskName::as_str))
    .fetch_all(connection)
    .await?;
    let mut modules: Vec<ModuleView> = Vec::new();
    for row in &rows {
        let view = version_view(row)?;
        let is_shown: i64 = row.try_get("is_shown")?;
        if is_shown != 0 {
            modules.push(ModuleView {
                task: view.task.clone(),
                shown: view.clone(),
                waiting: None,
                versions: codec::number("a count", row.try_get("versions")?)?,
                unfinished: codec::number("a count", row.try_get("unfinished_of_all")?)?,
            });
        }
        if view.waiting
            && let Some(module) = modules.last_mut()
        {
            module.waiting = Some(view);
        }
    }
    Ok(modules)
}

pub(crate) async fn modules(connection: &mut Connection) -> Result<Vec<ModuleView>, StoreError> {
    read_modules(connection, None).await
}

pub(crate) async fn module(
    connection: &mut Connection,
    task: &TaskName,
) -> Result<Option<ModuleView>, StoreError> {
    Ok(read_modules(connection, Some(task)).await?.pop())
}

/// Newest first; only `version` where one is named.
async fn read_versions(
    connection: &mut Connection,
    task: &TaskName,
    version: Option<u32>,
) -> Result<Vec<VersionView>, StoreError> {
    let rows = sqlx::query(
        "select v.task_name, v.version, v.digest, v.size_bytes, v.compiled_in_ms, v.created_ms, v.waiting, v.manifest,
                v.version is m.active_version as active,
                (select coalesce(sum(c.executions), 0) from execution_counts c
                  where c.task_name = v.task_name and c.version = v.version
                    and c.status in ('scheduled', 'running')) as unfinished
           from module_versions v join modules m on m.task_name = v.task_name
          where v.task_name = $1 and (v.version = $2 or $2 is null)
          order by v.version desc",
    )
    .bind(task.as_str())
    .bind(version.map(i64::from))
    .fetch_all(connection)
    .await?;
    rows.iter().map(version_view).collect()
}

/// Newest first; none when the task is not registered.
pub(crate) async fn versions(
    connection: &mut Connection,
    task: &TaskName,
) -> Result<Option<Vec<VersionView>>, StoreError> {
    let versions = read_versions(connection, task, None).await?;
    Ok((!versions.is_empty()).then_some(versions))
}

pub(crate) async fn version(
    connection: &mut Connection,
    task: &TaskName,
    version: u32,
) -> Result<Option<VersionView>, StoreError> {
    Ok(read_versions(connection, task, Some(version)).await?.pop())
}

fn version_view(row: &Row) -> Result<VersionView, StoreError> {
    let active: i64 = row.try_get("active")?;
    let waiting: i64 = row.try_get("waiting")?;
    Ok(VersionView {
        task: codec::task_name(row.try_get("task_name")?)?,
        version: codec::number("a version", row.try_get("version")?)?,
        active: active != 0,
        waiting: waiting != 0,
        digest: codec::digest(row.try_get("digest")?)?,
        size_bytes: codec::number("a size", row.try_get("size_bytes")?)?,
        compiled_in_ms: codec::number("a duration", row.try_get("compiled_in_ms")?)?,
        created_at: Timestamp::from_ms(row.try_get("created_ms")?),
        manifest: codec::json(row.try_get("manifest")?)?,
        unfinished: codec::number("a count", row.try_get("unfinished")?)?,
    })
}
