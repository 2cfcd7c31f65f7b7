//! Modules: upload, look, roll back or forward, remove.

use std::collections::HashMap;

use axum::{extract::State, http::StatusCode, response::Response};
use stepbox_domain::TaskName;

use super::{
    Api, ApiError,
    extract::{Component, PathIds},
    query::Query,
    wire,
};
use crate::{
    engine::EngineError,
    store::{SettingsView, VersionView},
};

/// Who and why stand in the query: a body, if there is one, is what is to be kept, and nothing else.
pub const WHO: [&str; 2] = ["triggeredBy", "reason"];

/// `PUT /modules/{task}`
pub async fn upload(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    Component(component, _place): Component,
) -> Result<Response, ApiError> {
    let query = query.only(&["triggeredBy", "reason", "grant"])?;
    let wanted = query.value("grant", "wanted", |text| (text == "wanted").then_some(()))?;
    let task = path.new_task()?;
    let uploaded = api.engine().upload(task, component, wanted.is_some(), query.who()?).await?;
    let status = if uploaded.is_new { StatusCode::CREATED } else { StatusCode::OK };
    answer(&api, status, uploaded.version).await
}

async fn answer(api: &Api, status: StatusCode, version: VersionView) -> Result<Response, ApiError> {
    let granted = api.views().settings_of(&version.task).await?.grants;
    Ok(wire::json(status, &wire::ModuleVersion::new(version, &granted)?))
}

/// `GET /modules`
pub async fn list(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let settings: HashMap<TaskName, SettingsView> = api.views().settings().await?.into_iter().collect();
    let nothing = SettingsView::default();
    let modules = api.views().modules().await?.into_iter().map(|module| {
        let settings = settings.get(&module.task).unwrap_or(&nothing);
        wire::Module::new(module, &settings.grants)
    });
    Ok(wire::json(StatusCode::OK, &modules.collect::<Result<Vec<_>, _>>()?))
}

/// `GET /modules/{task}`
pub async fn one(State(api): State<Api>, path: PathIds) -> Result<Response, ApiError> {
    let task = path.task()?;
    match api.views().module(&task).await? {
        Some(module) => {
            let granted = api.views().settings_of(&task).await?.grants;
            Ok(wire::json(StatusCode::OK, &wire::Module::new(module, &granted)?))
        }
        None => Err(EngineError::UnknownModule(task).into()),
    }
}

/// `GET /modules/{task}/versions`
pub async fn versions(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let task = path.task()?;
    match api.views().versions(&task).await? {
        Some(versions) => {
            let granted = api.views().settings_of(&task).await?.grants;
            let versions = versions.into_iter().map(|version| wire::ModuleVersion::new(version, &granted));
            Ok(wire::json(StatusCode::OK, &versions.collect::<Result<Vec<_>, _>>()?))
        }
        None => Err(EngineError::UnknownModule(task).into()),
    }
}

/// `POST /modules/{task}/versions/{version}/activate`
pub async fn activate(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    let who = query.only(&WHO)?.who()?;
    let task = path.task()?;
    let version = api.engine().activate(&task, path.version(&task)?, who).await?;
    answer(&api, StatusCode::OK, version).await
}

/// `DELETE /modules/{task}`
pub async fn remove(State(api): State<Api>, path: PathIds, query: Query) -> Result<StatusCode, ApiError> {
    let who = query.only(&WHO)?.who()?;
    api.engine().remove_module(&path.task()?, who).await?;
    Ok(StatusCode::NO_CONTENT)
}
