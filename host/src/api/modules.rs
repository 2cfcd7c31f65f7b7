//! Modules: upload, look, roll back or forward, remove.

use axum::{extract::State, http::StatusCode, response::Response};

use super::{
    Api, ApiError,
    extract::{Component, PathIds},
    query::Query,
    wire,
};
use crate::{engine::EngineError, store::VersionAdded};

/// Who and why stand in the query: the body, if there is one, is a component.
const WHO: [&str; 2] = ["triggeredBy", "reason"];

/// `PUT /modules/{task}`
pub async fn upload(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    Component(component, _place): Component,
) -> Result<Response, ApiError> {
    let who = query.only(&WHO)?.who()?;
    let (status, version) = match api.engine().upload(path.new_task()?, component, who).await? {
        VersionAdded::New(version) => (StatusCode::CREATED, version),
        VersionAdded::Same(version) => (StatusCode::OK, version),
    };
    Ok(wire::json(status, &wire::ModuleVersion::from(version)))
}

/// `GET /modules`
pub async fn list(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let modules: Vec<wire::Module> = api.views().modules().await?.into_iter().map(Into::into).collect();
    Ok(wire::json(StatusCode::OK, &modules))
}

/// `GET /modules/{task}`
pub async fn one(State(api): State<Api>, path: PathIds) -> Result<Response, ApiError> {
    let task = path.task()?;
    match api.views().module(&task).await? {
        Some(module) => Ok(wire::json(StatusCode::OK, &wire::Module::from(module))),
        None => Err(EngineError::UnknownModule(task).into()),
    }
}

/// `GET /modules/{task}/versions`
pub async fn versions(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let task = path.task()?;
    match api.views().versions(&task).await? {
        Some(versions) => {
            let versions: Vec<wire::ModuleVersion> = versions.into_iter().map(Into::into).collect();
            Ok(wire::json(StatusCode::OK, &versions))
        }
        None => Err(EngineError::UnknownModule(task).into()),
    }
}

/// `POST /modules/{task}/versions/{version}/activate`
pub async fn activate(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    let who = query.only(&WHO)?.who()?;
    let task = path.task()?;
    let version = api.engine().activate(&task, path.version(&task)?, who).await?;
    Ok(wire::json(StatusCode::OK, &wire::ModuleVersion::from(version)))
}

/// `DELETE /modules/{task}`
pub async fn remove(State(api): State<Api>, path: PathIds, query: Query) -> Result<StatusCode, ApiError> {
    let who = query.only(&WHO)?.who()?;
    api.engine().remove_module(&path.task()?, who).await?;
    Ok(StatusCode::NO_CONTENT)
}
