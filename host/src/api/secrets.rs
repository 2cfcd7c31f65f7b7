//! Secrets: set, name, forget. None is ever shown.

use axum::{
    extract::{FromRequest, Request, State},
    http::StatusCode,
    response::Response,
};
use zeroize::Zeroizing;

use super::{
    Api, ApiError,
    extract::{self, BodyMax, PathIds},
    query::Query,
    wire,
};
use crate::vault::{SecretValue, VALUE_MAX_BYTES};

/// Who and why stand in the query: the body is the value and nothing else.
const WHO: [&str; 2] = ["triggeredBy", "reason"];

/// A body that is the value of a secret, to the letter, but for one line end after it.
pub struct Value(SecretValue);

impl FromRequest<Api> for Value {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &Api) -> Result<Self, ApiError> {
        // Text and no JSON: `curl --data-binary @file` sends the value without its ever being an
        // argument, and nobody has to quote it.
        extract::has_type(request.headers(), "text/plain", |essence| essence == "text/plain")?;
        // Room for the line end.
        let max = BodyMax { bytes: VALUE_MAX_BYTES + 2, how_to_raise: "nothing: a header has no more room" };
        let body = Zeroizing::new(Vec::from(extract::read(request, max).await?));
        SecretValue::parse(body).map(Value).map_err(|error| ApiError::unprocessable("bad_secret", error))
    }
}

/// `PUT /secrets/{name}`
pub async fn set(
    State(api): State<Api>,
    path: PathIds,
    query: Query,
    Value(value): Value,
) -> Result<Response, ApiError> {
    let who = query.only(&WHO)?.who()?;
    let name = path.new_secret()?;
    let is_new = api.vault().set(name.clone(), value, who).await?;
    let status = if is_new { StatusCode::CREATED } else { StatusCode::OK };
    let granted_to = api.engine().tasks_granted(&name);
    Ok(wire::json(status, &wire::SecretChanged { name, granted_to }))
}

/// `GET /secrets`
pub async fn list(State(api): State<Api>, query: Query) -> Result<Response, ApiError> {
    query.only(&[])?;
    let secrets: Vec<wire::Secret> = api
        .vault()
        .list()
        .await?
        .into_iter()
        .map(|secret| {
            let granted_to = api.engine().tasks_granted(&secret.name);
            wire::Secret::new(secret, granted_to)
        })
        .collect();
    Ok(wire::json(StatusCode::OK, &secrets))
}

/// `DELETE /secrets/{name}`. The answer says which grants name it, so that nobody is surprised.
pub async fn delete(State(api): State<Api>, path: PathIds, query: Query) -> Result<Response, ApiError> {
    let who = query.only(&WHO)?.who()?;
    let name = path.secret()?;
    api.vault().delete(name.clone(), who).await?;
    let granted_to = api.engine().tasks_granted(&name);
    Ok(wire::json(StatusCode::OK, &wire::SecretChanged { name, granted_to }))
}
