//! Pause rules.

use sqlx::Row as _;
use stepbox_domain::{
    ExecutionId, TaskName, Timestamp,
    audit::AuditEntry,
    pause::{self, PauseRule, PauseRuleId, StepPattern},
};

use super::{Connection, Row, audit, executions::Known};
use crate::store::StoreError;

/// Within the transaction that is open, as the other verb here.
pub(crate) async fn add(
    connection: &mut Connection,
    known: &mut Known,
    rule: &PauseRule,
    entry: &AuditEntry,
) -> Result<(), StoreError> {
    sqlx::query(
        "insert into pause_rules (rule_id, execution_id, task_name, step_pattern, created_ms, created_by, reason,
                                  expires_ms, deleted_ms, deleted_by)
         values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(rule.id.as_str())
    .bind(rule.scope.execution.as_ref().map(ExecutionId::as_str))
    .bind(rule.scope.task.as_ref().map(TaskName::as_str))
    .bind(rule.scope.step.as_ref().map(StepPattern::as_str))
    .bind(rule.created_at.as_ms())
    .bind(rule.created_by.as_deref())
    .bind(rule.reason.as_deref())
    .bind(rule.expires_at.map(|at| at.as_ms()))
    .bind(rule.deleted_at.map(|at| at.as_ms()))
    .bind(rule.deleted_by.as_deref())
    .execute(&mut *connection)
    .await?;
    audit::write(connection, known, entry).await
}

/// Which rules somebody wants to be deleted, each with the entry for it.
#[derive(Debug)]
pub(crate) struct Deletion {
    pub rules: Vec<(PauseRuleId, AuditEntry)>,
    pub by: Option<String>,
    pub now: Timestamp,
}

/// Those that were not deleted before.
pub(crate) async fn delete(
    connection: &mut Connection,
    known: &mut Known,
    deletion: &Deletion,
) -> Result<Vec<PauseRuleId>, StoreError> {
    let mut deleted = Vec::new();
    for (id, entry) in &deletion.rules {
        let done = sqlx::query(
            "update pause_rules set deleted_ms = $2, deleted_by = $3 where rule_id = $1 and deleted_ms is null",
        )
        .bind(id.as_str())
        .bind(deletion.now.as_ms())
        .bind(deletion.by.as_deref())
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() > 0 {
            audit::write(connection, known, entry).await?;
            deleted.push(id.clone());
        }
    }
    Ok(deleted)
}

/// Oldest first; with the deleted ones where `deleted`.
pub(crate) async fn rules(connection: &mut Connection, deleted: bool) -> Result<Vec<PauseRule>, StoreError> {
    let rows = sqlx::query("select * from pause_rules where $1 or deleted_ms is null order by rule_key")
        .bind(deleted)
        .fetch_all(connection)
        .await?;
    rows.iter().map(rule).collect()
}

fn rule(row: &Row) -> Result<PauseRule, StoreError> {
    let time = |ms: Option<i64>| ms.map(Timestamp::from_ms);
    let id: String = row.try_get("rule_id")?;
    let scope =
        pause::scope(row.try_get("execution_id")?, row.try_get("task_name")?, row.try_get("step_pattern")?)
            .map_err(|error| StoreError::Corrupt(format!("pause rule {id} cannot be read: {error}")))?;
    Ok(PauseRule {
        id: PauseRuleId::new(id),
        scope,
        created_at: Timestamp::from_ms(row.try_get("created_ms")?),
        created_by: row.try_get("created_by")?,
        reason: row.try_get("reason")?,
        expires_at: time(row.try_get("expires_ms")?),
        deleted_at: time(row.try_get("deleted_ms")?),
        deleted_by: row.try_get("deleted_by")?,
    })
}
