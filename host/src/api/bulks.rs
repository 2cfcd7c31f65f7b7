//! Failures in groups, and the repair of many executions at once.

use axum::{extract::State, http::StatusCode, response::Response};
use stepbox_domain::{
    TaskName,
    bulk::{BulkAction, BulkPlan},
};

use super::{
    Api, ApiError,
    extract::{JsonObject, OptionalObject, PathIds},
    fields::{Fields, out_of_range},
    query::Query,
    repairs, wire,
};
use crate::{engine::EngineError, store::FailedSelection};

const GROUPS_DEFAULT: u32 = 100;
const GROUPS_MAX: u32 = 1_000;
const EXAMPLES_DEFAULT: u32 = 3;
const EXAMPLES_MAX: u32 = 20;

const RATE_DEFAULT_PER_S: u32 = 50;
const RATE_MAX_PER_S: u32 = 5_000;
const CANARY_DEFAULT: u32 = 10;
const CANARY_MAX: u32 = 10_000;
const FAILED_DEFAULT_PERCENT: u32 = 20;

/// `GET /failures`
pub async fn failures(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    let query = query.only(&["taskName", "moduleVersion", "from", "to", "search", "limit", "examples"])?;
    let selection = FailedSelection {
        fingerprint: None,
        task: query.value("taskName", "a task name", |text| TaskName::parse(text).ok())?,
        version: query.value("moduleVersion", "a version number", |text| text.parse().ok())?,
        from: query.time("from")?,
        to: query.time("to")?,
        search: query.text("search").map(str::to_owned),
    };
    let limit = query.number("limit", GROUPS_MAX)?.unwrap_or(GROUPS_DEFAULT);
    let examples = query.number("examples", EXAMPLES_MAX)?.unwrap_or(EXAMPLES_DEFAULT);
    let groups = api.views().troubles(&selection, limit, examples).await?;
    let groups: Vec<wire::FailureGroup> = groups.into_iter().map(Into::into).collect();
    Ok(wire::json(StatusCode::OK, &groups))
}

/// `POST /bulk`
pub async fn start(State(api): State<Api>, query: Query, body: JsonObject) -> Result<Response, ApiError> {
    let fields = body.fields()?;
    let dry_run = repairs::dry_run(query, &fields)?;
    let (selection, plan) = (selection(&fields)?, plan(&fields)?);
    if dry_run {
        let would_repair = api.views().count_selection(&selection).await?;
        return Ok(wire::json(StatusCode::OK, &wire::BulkCount { dry_run, would_repair }));
    }
    let bulk = api.engine().start_bulk(selection, plan).await?;
    Ok(wire::json(StatusCode::ACCEPTED, &wire::Bulk::from(bulk)))
}

/// What is misspelt here could mend more than was meant, so nothing is passed over.
fn selection(fields: &Fields) -> Result<FailedSelection, ApiError> {
    const FILTER: [&str; 5] = ["taskName", "moduleVersion", "from", "to", "search"];
    fields.only(
        "the body",
        &[
            "action",
            "fingerprint",
            "filter",
            "ratePerSecond",
            "canary",
            "failedShareMaxPercent",
            "attemptsMax",
            "timeoutMs",
            "moduleVersion",
            "dryRun",
            "triggeredBy",
            "reason",
        ],
    )?;
    let mut selection =
        FailedSelection { fingerprint: fields.parsed("fingerprint", fingerprint)?, ..Default::default() };
    if let Some(filter) = fields.object("filter")? {
        filter.only("`filter`", &FILTER)?;
        selection.task = filter.parsed("taskName", TaskName::parse)?;
        selection.version = repairs::version(&filter)?;
        selection.from = filter.time("from")?;
        selection.to = filter.time("to")?;
        selection.search = filter.text("search")?.filter(|text| !text.is_empty());
    }
    if selection == FailedSelection::default() {
        let message = format!(
            "give a `fingerprint` (GET /admin/v1/failures lists them) or a `filter` with at least one of {}: \
             without both it would be for every failed execution",
            FILTER.join(", ")
        );
        return Err(ApiError::unprocessable("empty_selection", message));
    }
    Ok(selection)
}

fn fingerprint(text: &str) -> Result<String, &'static str> {
    let is_one = text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    is_one
        .then(|| text.to_owned())
        .ok_or("must be 16 hexadecimal digits, as GET /admin/v1/failures lists them")
}

fn plan(fields: &Fields) -> Result<BulkPlan, ApiError> {
    let action = match fields.required_text("action")?.as_str() {
        "retry-step" => BulkAction::RetryStep,
        "restart" => BulkAction::Restart,
        _ => return Err(out_of_range("action", "must be retry-step or restart")),
    };
    if action == BulkAction::Restart {
        for name in ["attemptsMax", "timeoutMs", "moduleVersion"] {
            if fields.has(name) {
                let error =
                    "goes with retry-step only: a restart takes the active version and its own options";
                return Err(out_of_range(name, error));
            }
        }
    }
    let who = fields.who()?;
    Ok(BulkPlan {
        action,
        rate_per_s: fields.small_number("ratePerSecond", 1..=RATE_MAX_PER_S)?.unwrap_or(RATE_DEFAULT_PER_S),
        canary: fields.small_number("canary", 0..=CANARY_MAX)?.unwrap_or(CANARY_DEFAULT),
        failed_max_percent: fields
            .small_number("failedShareMaxPercent", 0..=100)?
            .unwrap_or(FAILED_DEFAULT_PERCENT),
        overrides: repairs::overrides(fields)?,
        version: repairs::version(fields)?,
        by: who.by,
        reason: who.reason,
    })
}

/// `GET /bulk`
pub async fn list(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let bulks: Vec<wire::Bulk> = api.views().bulks().await?.into_iter().map(Into::into).collect();
    Ok(wire::json(StatusCode::OK, &bulks))
}

/// `GET /bulk/{bulk}`
pub async fn one(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let id = path.bulk();
    match api.views().bulk(&id).await? {
        Some(bulk) => Ok(wire::json(StatusCode::OK, &wire::Bulk::from(bulk))),
        None => Err(EngineError::UnknownBulk(id).into()),
    }
}

/// `POST /bulk/{bulk}/cancel`
pub async fn cancel(
    State(api): State<Api>,
    path: PathIds,
    body: OptionalObject,
) -> Result<Response, ApiError> {
    let bulk = api.engine().cancel_bulk(&path.bulk(), body.fields()?.who()?).await?;
    Ok(wire::json(StatusCode::OK, &wire::Bulk::from(bulk)))
}
