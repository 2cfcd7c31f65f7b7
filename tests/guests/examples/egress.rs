//! A task that sends the requests of its payload and answers with what came back.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepbox_guest::{StepError, TaskError, http, step, task};

/// What the handler does.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Plan {
    /// Sent in steps, one after the other.
    #[serde(default)]
    requests: Vec<Ask>,
    /// Sent in one attempt of one step.
    flood: Option<Flood>,
    /// Sent by the handler itself, which no host lets it.
    outside: Option<Ask>,
}

/// One request again and again.
#[derive(Deserialize, Serialize, JsonSchema)]
struct Flood {
    request: Ask,
    times: u32,
}

#[derive(Clone, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
struct Ask {
    #[serde(default = "get")]
    method: String,
    url: String,
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Option<String>,
    timeout_ms: Option<u64>,
}

fn get() -> String {
    "GET".to_owned()
}

/// An answer, or why there is none.
#[derive(Debug, Default, Deserialize, Serialize, JsonSchema)]
struct Heard {
    status: Option<u16>,
    body: Option<String>,
    kind: Option<String>,
    error: Option<String>,
}

impl Ask {
    fn send(&self) -> Result<http::Response, http::Error> {
        let mut request = http::Request::new(&self.method, &self.url);
        for (name, value) in &self.headers {
            request = request.header(name, value);
        }
        if let Some(body) = &self.body {
            request = request.body(body.as_bytes());
        }
        if let Some(ms) = self.timeout_ms {
            request = request.timeout(std::time::Duration::from_millis(ms));
        }
        request.send()
    }
}

impl From<Result<http::Response, http::Error>> for Heard {
    fn from(heard: Result<http::Response, http::Error>) -> Self {
        match heard {
            Ok(answer) => {
                Heard { status: Some(answer.status), body: Some(answer.text()), ..Heard::default() }
            }
            Err(error) => Heard {
                kind: Some(format!("{:?}", error.kind())),
                error: Some(error.to_string()),
                ..Heard::default()
            },
        }
    }
}

/// What came back, whatever it is.
#[step]
fn ask(request: Ask) -> Result<Heard, StepError> {
    Ok(request.send().into())
}

/// Goes on whatever comes back: what the last one heard, with how many were answered for a body.
#[step]
fn flood(flood: Flood) -> Result<Heard, StepError> {
    let heard: Vec<_> = (0..flood.times).map(|_| flood.request.send()).collect();
    let answered = heard.iter().filter(|heard| heard.is_ok()).count();
    let last = heard.into_iter().last().map(Heard::from).unwrap_or_default();
    Ok(Heard { body: Some(answered.to_string()), ..last })
}

/// The body of a good answer; all else is an error.
#[step]
fn must(request: Ask) -> Result<String, StepError> {
    Ok(request.send()?.success()?.text())
}

/// So many requests, one after the other; how many were answered well.
#[step]
fn repeat(request: Ask, times: u32) -> Result<usize, StepError> {
    Ok((0..times).filter(|_| request.send().is_ok_and(|answer| answer.is_success())).count())
}

/// The environment of a step.
#[step]
fn environment() -> Result<BTreeMap<String, String>, StepError> {
    Ok(std::env::vars().collect())
}

/// Begins a request and returns without waiting for it.
#[step]
fn leave_behind(url: String) -> Result<(), StepError> {
    below::begin(&url);
    Ok(())
}

/// Puts ever more into the headers of a request.
#[step]
fn fill_headers() -> Result<(), StepError> {
    below::fill_headers();
    Ok(())
}

#[task]
fn egress(plan: Plan) -> Result<Vec<Heard>, TaskError> {
    if let Some(request) = plan.outside {
        let answer = request.send()?;
        return Ok(vec![Heard { status: Some(answer.status), ..Heard::default() }]);
    }
    let mut heard = Vec::new();
    if let Some(requests) = plan.flood {
        heard.push(flood(requests)?);
    }
    for request in plan.requests {
        heard.push(ask(request)?);
    }
    Ok(heard)
}

/// What the SDK's client does not do.
#[cfg(target_family = "wasm")]
mod below {
    use wasip2::http::{
        outgoing_handler::handle,
        types::{Fields, OutgoingRequest, Scheme},
    };

    pub fn begin(url: &str) {
        let authority = url.trim_start_matches("http://").split('/').next();
        let request = OutgoingRequest::new(Fields::new());
        let set = request.set_scheme(Some(&Scheme::Http)).and_then(|()| request.set_authority(authority));
        assert!(set.is_ok());
        std::mem::forget(handle(request, None));
    }

    pub fn fill_headers() {
        let fields = Fields::new();
        for n in 0.. {
            fields.append("x", format!("{n:01000}").as_bytes()).unwrap();
        }
    }
}

#[cfg(not(target_family = "wasm"))]
mod below {
    pub fn begin(_: &str) {}
    pub fn fill_headers() {}
}
