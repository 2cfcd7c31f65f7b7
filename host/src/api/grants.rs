//! What a task is granted, and the limits that are set for it: look, replace.

use axum::{extract::State, http::StatusCode, response::Response};
use stepbox_domain::{
    TaskName,
    capability::Grants,
    limits::{Limit, LimitSettings},
};

use super::{
    Api, ApiError,
    extract::{JsonObject, PathIds},
    fields::Fields,
    modules::WHO,
    query::Query,
    wire,
};
use crate::engine::Who;

/// What a `PUT` replaces: of which task, with what; and who wants it so. Granted or limited in advance,
/// the task may have no module yet.
struct Change<'a> {
    task: TaskName,
    who: Who,
    fields: Fields<'a>,
}

/// A body with other fields than `allowed` is refused: one that is misspelt would take something away.
fn change<'a>(
    path: &PathIds,
    query: Query,
    body: &'a JsonObject,
    allowed: &[&str],
) -> Result<Change<'a>, ApiError> {
    let who = query.only(&WHO)?.who()?;
    let task = path.new_task()?;
    let fields = body.fields()?;
    fields.only("the body", allowed)?;
    Ok(Change { task, who, fields })
}

/// `GET /modules/{task}/grants`
pub async fn granted(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let settings = api.views().settings_of(&path.task()?).await?;
    Ok(wire::json(StatusCode::OK, &wire::Grants::from(settings.grants)))
}

/// `PUT /modules/{task}/grants`: the whole object, in place of what there was.
pub async fn grant(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let Change { task, who, fields } = change(&path, query, &body, &["http", "addresses", "secrets", "env"])?;
    let grants = Grants {
        http: fields.typed("http")?,
        addresses: fields.typed("addresses")?,
        secrets: fields.typed("secrets")?,
        env: fields.typed("env")?,
    };
    let activated_version = api.engine().set_grants(&task, grants, who).await?;
    let granted = api.views().settings_of(&task).await?.grants;
    let waiting = api.views().module(&task).await?.and_then(|module| module.waiting);
    let answer = wire::GrantsAnswer {
        task_name: task,
        activated_version,
        waiting_version: waiting.map(|view| wire::WaitingVersion::new(&view, &granted)).transpose()?,
        grants: granted.into(),
    };
    Ok(wire::json(StatusCode::OK, &answer))
}

/// `GET /modules/{task}/limits`
pub async fn limits(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let settings = api.views().settings_of(&path.task()?).await?;
    Ok(wire::json(StatusCode::OK, &wire::limits(api.engine().limits(&settings.limits))))
}

/// `PUT /modules/{task}/limits`: what is left out is as the host has it.
pub async fn limit(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let Change { task, who, fields } = change(&path, query, &body, &Limit::ALL.map(Limit::as_str))?;
    let mut limits = LimitSettings::default();
    for limit in Limit::ALL {
        if let Some(value) = fields.number(limit.as_str(), 0..=u64::MAX)? {
            limits.set(limit, value);
        }
    }
    api.engine().set_limits(&task, limits.clone(), who).await?;
    Ok(wire::json(StatusCode::OK, &wire::limits(api.engine().limits(&limits))))
}
