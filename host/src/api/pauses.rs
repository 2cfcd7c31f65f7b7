//! Pause rules: make, look, end.

use axum::{extract::State, http::StatusCode, response::Response};
use stepbox_domain::{
    ExecutionId, TaskName,
    pause::{PauseScope, StepPattern},
};

use super::{
    Api, ApiError,
    extract::{JsonObject, OptionalObject, PathIds},
    fields::Fields,
    query::Query,
    wire,
};

/// `POST /pause`
pub async fn pause(State(api): State<Api>, body: JsonObject) -> Result<Response, ApiError> {
    let fields = body.fields()?;
    let rule = api.engine().pause(scope(&fields)?, fields.time("expiresAt")?, fields.who()?).await?;
    Ok(wire::json(StatusCode::CREATED, &wire::PauseRule::new(rule, api.engine().clock().now())))
}

fn scope(fields: &Fields) -> Result<PauseScope, ApiError> {
    Ok(PauseScope {
        execution: fields.parsed("executionId", ExecutionId::parse)?,
        task: fields.parsed("taskName", TaskName::parse)?,
        step: fields.parsed("stepPattern", StepPattern::parse)?,
    })
}

/// `GET /pause`: those in force, or all that there ever were.
pub async fn list(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    let all = query.only(&["includeDeleted"])?.flag("includeDeleted")?;
    let now = api.engine().clock().now();
    let rules = api.views().pause_rules(all).await?.into_iter();
    let rules: Vec<wire::PauseRule> = rules
        .filter(|rule| all || rule.ends_at().is_none_or(|end| now < end))
        .map(|rule| wire::PauseRule::new(rule, now))
        .collect();
    Ok(wire::json(StatusCode::OK, &rules))
}

/// `POST /pause/{rule}`
pub async fn end(
    State(api): State<Api>,
    path: PathIds,
    body: OptionalObject,
) -> Result<StatusCode, ApiError> {
    api.engine().end_pause(&path.pause_rule(), body.fields()?.who()?).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `DELETE /pause/{rule}`: the same, with who and why in the query.
pub async fn delete(State(api): State<Api>, path: PathIds, query: Query) -> Result<StatusCode, ApiError> {
    let who = query.only(&["triggeredBy", "reason"])?.who()?;
    api.engine().end_pause(&path.pause_rule(), who).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// `POST /resume`
pub async fn resume(State(api): State<Api>, body: JsonObject) -> Result<Response, ApiError> {
    let fields = body.fields()?;
    let rules_deleted = api.engine().resume(scope(&fields)?, fields.who()?).await?;
    Ok(wire::json(StatusCode::OK, &wire::RulesDeleted { rules_deleted }))
}
