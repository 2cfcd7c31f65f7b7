//! One execution with its runs, steps and attempts.

use axum::{extract::State, http::StatusCode, response::Response};
use stepbox_domain::{ExecutionId, Run, run::Policy};

use super::{Api, ApiError, executions, extract::PathIds, query::Query, wire};
use crate::{engine::EngineError, store::RunView};

/// Steps in one answer.
const STEPS_MAX: u32 = 10_000;

/// `GET /executions/{id}/detail`
pub async fn detail(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    let id = path.execution()?;
    let query = query.only(&["runId", "stepsLimit", "stepsOffset"])?;
    let limit = query.number("stepsLimit", STEPS_MAX)?.unwrap_or(STEPS_MAX);
    let offset = usize::try_from(query.offset("stepsOffset")?).unwrap_or(usize::MAX);

    let Some(view) = api.views().execution(&id).await? else {
        return Err(EngineError::UnknownExecution(id).into());
    };
    let runs = runs_of(&api, &id).await?;
    let wanted = match query.text("runId") {
        None => view.run.clone(),
        Some(text) => match runs.iter().find(|run| run.run.as_str() == text) {
            Some(run) => run.run.clone(),
            None => return Err(unknown_run(&id, text)),
        },
    };
    let Some((facts, records)) = api.views().journal(&wanted).await? else {
        return Err(unknown_run(&id, wanted.as_str()));
    };
    let execution = executions::shown(&api, view);
    // Ten thousand steps take a while to fold and to write, which is not for a thread that others
    // wait for.
    let answer = tokio::task::spawn_blocking(move || {
        let run = Run::fold(facts, Policy::default(), &records);
        let runs = runs.into_iter().map(|run| wire::Run::new(&id, run)).collect();
        wire::json(StatusCode::OK, &wire::Detail::new(execution, runs, &run, offset, limit as usize))
    });
    answer.await.map_err(ApiError::internal)
}

pub(super) fn unknown_run(execution: &ExecutionId, run: &str) -> ApiError {
    let run: String = run.chars().take(280).collect();
    let message = format!(
        "the execution \"{execution}\" has no run {run:?}; see GET /admin/v1/executions/{{id}}/runs for those that it has"
    );
    ApiError::not_found("unknown_run", message)
}

/// `GET /executions/{id}/runs`
pub async fn runs(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let id = path.execution()?;
    let runs: Vec<wire::Run> =
        runs_of(&api, &id).await?.into_iter().map(|run| wire::Run::new(&id, run)).collect();
    Ok(wire::json(StatusCode::OK, &runs))
}

async fn runs_of(api: &Api, id: &ExecutionId) -> Result<Vec<RunView>, ApiError> {
    let runs = api.views().runs(id).await?;
    runs.ok_or_else(|| EngineError::UnknownExecution(id.clone()).into())
}
