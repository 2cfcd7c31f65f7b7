//! An admin mends one execution: tries a step again, resolves it by hand, runs it all or in part
//! once more. With `dryRun=true` nothing changes, and the answer says what would.

use axum::{extract::State, http::StatusCode, response::Response};
use stepbox_domain::{Failure, FailureKind, Json, StepKey, step::Overrides};

use super::{
    Api, ApiError,
    extract::{JsonObject, OptionalObject, PathIds},
    fields::{Fields, out_of_range, wrong_shape},
    query::Query,
    wire,
};
use crate::engine::StepRetry;

const ATTEMPTS_MAX: u32 = 1_000;
/// 30 days: what takes longer is a wait, and not a step.
const TIMEOUT_MAX_MS: u64 = 30 * 24 * 3_600_000;

/// `POST /executions/{id}/retry-step`
pub async fn retry_step(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let (id, fields) = (path.execution()?, body.fields()?);
    let dry_run = dry_run(query, &fields)?;
    let name = fields.required_text("stepName")?;
    let retry = StepRetry {
        step: StepKey::parse(&name).map_err(|error| out_of_range("stepName", error))?,
        overrides: overrides(&fields)?,
        version: version(&fields)?,
    };
    let retried = api.engine().retry_step(&id, retry, fields.who()?, dry_run).await?;
    Ok(wire::json(StatusCode::OK, &wire::RetryAnswer::new(retried, dry_run)))
}

/// In the query, or in the body: asked for in the one place, it must not become a real one because
/// we look at the other.
pub fn dry_run(query: Query, fields: &Fields) -> Result<bool, ApiError> {
    let in_query = query.only(&["dryRun"])?.flag("dryRun")?;
    Ok(fields.flag("dryRun")? || in_query)
}

/// `attemptsMax` and `timeoutMs`.
pub fn overrides(fields: &Fields) -> Result<Overrides, ApiError> {
    Ok(Overrides {
        attempts_max: fields.small_number("attemptsMax", 1..=ATTEMPTS_MAX)?,
        timeout_ms: fields.number("timeoutMs", 1..=TIMEOUT_MAX_MS)?,
    })
}

/// `moduleVersion`.
pub fn version(fields: &Fields) -> Result<Option<u32>, ApiError> {
    fields.small_number("moduleVersion", 1..=u32::MAX)
}

/// `POST /executions/{id}/steps/{name}/resolve`
pub async fn resolve_step(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    body: JsonObject,
) -> Result<Response, ApiError> {
    let (id, step, fields) = (path.execution()?, path.step()?, body.fields()?);
    let dry_run = dry_run(query, &fields)?;
    let outcome = outcome(&fields)?;
    let resolved = api.engine().resolve_step(&id, step, outcome, fields.who()?, dry_run).await?;
    Ok(wire::json(StatusCode::OK, &wire::ResolveAnswer::new(resolved, dry_run)))
}

/// `result` or `failure`. A result may be `null`, so what counts is that it is there.
fn outcome(fields: &Fields) -> Result<Result<Json, Failure>, ApiError> {
    match (fields.has("result"), fields.object("failure")?) {
        (true, None) => Ok(Ok(fields.json("result")?)),
        (false, Some(failure)) => {
            let message = failure.required_text("message").map_err(|_| {
                wrong_shape("failure", "must have a `message`, which must be a string".to_owned())
            })?;
            let details = failure.has("details").then(|| failure.json("details")).transpose()?;
            Ok(Err(Failure::new(FailureKind::Error, message).with_details(details)))
        }
        (true, Some(_)) => {
            let message = "give `result` or `failure`, not both: a step has come to one of them";
            Err(ApiError::unprocessable("wrong_shape", message).with("field", "failure"))
        }
        (false, None) => {
            let message = "what the step has come to is missing: give `result` (any JSON) or `failure` (an \
                           object with `message`, and `details` if there are any)";
            Err(ApiError::unprocessable("wrong_shape", message).with("field", "result"))
        }
    }
}

/// `POST /executions/{id}/restart`
pub async fn restart(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    body: OptionalObject,
) -> Result<Response, ApiError> {
    let (id, fields) = (path.execution()?, body.fields()?);
    let dry_run = dry_run(query, &fields)?;
    // Clients of Zart write out as `null` what they leave out: then it is the one that the run
    // before had.
    let payload = Some(fields.json("payload")?).filter(|payload| *payload != Json::null());
    let restarted = api.engine().restart(&id, payload, fields.who()?, dry_run).await?;
    Ok(wire::json(StatusCode::OK, &wire::RestartAnswer::new(restarted, dry_run)))
}

/// `POST /executions/{id}/rerun`
pub async fn rerun(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    body: OptionalObject,
) -> Result<Response, ApiError> {
    let (id, fields) = (path.execution()?, body.fields()?);
    let dry_run = dry_run(query, &fields)?;
    let steps = fields.list("rerunSteps", StepKey::parse)?;
    let preserve = fields.list("preserveSteps", StepKey::parse)?;
    let rerun = api.engine().rerun(&id, steps, preserve, fields.who()?, dry_run).await?;
    Ok(wire::json(StatusCode::OK, &wire::RerunAnswer::new(rerun, dry_run)))
}
