//! Who did what, when and why.

use axum::{extract::State, response::Response};
use stepbox_domain::{ExecutionId, TaskName, audit::AuditAction};

use super::{Api, ApiError, query::Query, wire};
use crate::store::AuditFilter;

const LIMIT_DEFAULT: u32 = 100;
const LIMIT_MAX: u32 = 1_000;

/// `GET /audit`
pub async fn list(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    let query =
        query.only(&["action", "actor", "executionId", "taskName", "from", "to", "limit", "offset"])?;
    let actions = AuditAction::ALL.map(AuditAction::as_str).join(", ");
    let filter = AuditFilter {
        action: query.value("action", &format!("one of {actions}"), AuditAction::parse)?,
        actor: query.text("actor").map(str::to_owned),
        execution: query.value("executionId", "an execution id", |text| ExecutionId::parse(text).ok())?,
        task: query.value("taskName", "a task name", |text| TaskName::parse(text).ok())?,
        from: query.time("from")?,
        to: query.time("to")?,
    };
    let limit = query.number("limit", LIMIT_MAX)?.unwrap_or(LIMIT_DEFAULT);
    let (entries, total) = api.views().audit(&filter, limit, query.offset("offset")?).await?;
    let entries: Vec<wire::AuditEntry> = entries.into_iter().map(Into::into).collect();
    Ok(wire::page(&entries, total))
}
