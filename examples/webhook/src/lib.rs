//! Tells another system that something has happened, once, however often it has to knock.
//!
//! The token is a secret of the host: this module has its name, the server gets its value. The server
//! is the one that it says it wants to reach; put yours in its place.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use stepbox_guest::{StepError, TaskError, context, http, seconds, step, task, wants};

// Nothing is granted by this: an admin reads it, and grants it or not. Until then the module waits.
wants! {
    http "POST https://hooks.example.com",
    secret "WEBHOOK_TOKEN" for "hooks.example.com",
}

/// What is to be told, and to whom.
#[derive(Debug, Clone, Serialize, Deserialize, JsonSchema)]
pub struct Notice {
    pub url: String,
    /// What has happened: `order.shipped`.
    pub event: String,
    #[serde(default)]
    pub data: Value,
}

/// The body of the request.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Message {
    id: String,
    event: String,
    data: Value,
}

/// How the other side took it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Delivery {
    pub status: u16,
    /// What the other side calls it, if it said so.
    pub receipt: Option<String>,
}

/// What the other side may answer; anything else is taken as well.
#[derive(Default, Deserialize)]
struct Taken {
    receipt: Option<String>,
}

/// Sends the message. The id is the same in each attempt, so that the other side can tell that it
/// has had it before.
#[step(retry = exponential(8, "1s", cap = "5m"), timeout = "30s", timeout_scope = per_attempt)]
fn deliver(notice: Notice) -> Result<Delivery, StepError> {
    let message = Message { id: context().execution_id, event: notice.event, data: notice.data };
    let answer = http::post(notice.url)
        .bearer(http::secret("WEBHOOK_TOKEN"))
        .header("idempotency-key", &message.id)
        .json(&message)
        .timeout(seconds(10))
        .send()?
        .success()?;
    let taken: Taken = answer.json().unwrap_or_default();
    Ok(Delivery { status: answer.status, receipt: taken.receipt })
}

/// Delivers one notice.
#[task]
pub fn webhook(notice: Notice) -> Result<Delivery, TaskError> {
    Ok(deliver(notice)?)
}

#[cfg(test)]
mod tests;
