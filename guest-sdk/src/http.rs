//! HTTP requests, in steps.
//!
//! ```no_run
//! # use serde::{Deserialize, Serialize};
//! # use stepbox_guest::{StepError, http, seconds, step};
//! # #[derive(Serialize)] struct Charge { cents: u64 }
//! # #[derive(Serialize, Deserialize, schemars::JsonSchema)] struct Receipt { id: String }
//! #[step(retry = exponential(5, "2s"))]
//! fn charge(cents: u64) -> Result<Receipt, StepError> {
//!     let answer = http::post("https://api.bank.example/v1/charges")
//!         .bearer(http::secret("BANK_KEY"))
//!         .json(&Charge { cents })
//!         .timeout(seconds(10))
//!         .send()?
//!         .success()?;
//!     Ok(answer.json()?)
//! }
//! ```
//!
//! What may be reached is granted to the task by an admin; what is not is an [`Error`] of the kind
//! [`Denied`](ErrorKind::Denied). The value of a [`secret`] is never in the guest: the host puts it
//! into the header as the request leaves. Outside of a step a request ends the run, since its
//! answer would be another in each replay.
//!
//! With `?` an [`Error`] becomes a [`StepError`](crate::StepError) that is retryable where another
//! attempt may go better: no connection, a timeout, a status of 500 and above, 408, 425 or 429
//! (with what `Retry-After` says).

#[cfg(target_family = "wasm")]
mod component;
#[cfg(target_family = "wasm")]
use component as sender;

#[cfg(not(target_family = "wasm"))]
pub(crate) mod native;
#[cfg(not(target_family = "wasm"))]
use native as sender;

mod error;
mod response;

use std::fmt;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

pub use error::{Error, ErrorKind};
pub use response::Response;

pub fn get(url: impl Into<String>) -> Request {
    Request::new("GET", url)
}

pub fn head(url: impl Into<String>) -> Request {
    Request::new("HEAD", url)
}

pub fn post(url: impl Into<String>) -> Request {
    Request::new("POST", url)
}

pub fn put(url: impl Into<String>) -> Request {
    Request::new("PUT", url)
}

pub fn patch(url: impl Into<String>) -> Request {
    Request::new("PATCH", url)
}

pub fn delete(url: impl Into<String>) -> Request {
    Request::new("DELETE", url)
}

/// What stands for the secret `name` in a header: the host puts its value in, if the task may send
/// it to the host of the request.
pub fn secret(name: impl Into<String>) -> Secret {
    Secret(name.into())
}

/// The place of a secret. Shows as its placeholder; there is no value to show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Secret(String);

impl fmt::Display for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{{stepbox:secret:{}}}}}", self.0)
    }
}

/// A request that is about to be sent.
#[must_use = "a request is sent by `send`"]
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    url: String,
    headers: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    timeout: Option<Duration>,
    connect_timeout: Option<Duration>,
    /// What went wrong in making it; told by `send`.
    flaw: Option<String>,
}

impl Request {
    /// With any method, in capitals.
    pub fn new(method: impl Into<String>, url: impl Into<String>) -> Request {
        Request {
            method: method.into(),
            url: url.into(),
            headers: Vec::new(),
            body: None,
            timeout: None,
            connect_timeout: None,
            flaw: None,
        }
    }

    /// Adds a header. A [`secret`] may stand anywhere in the value.
    pub fn header(mut self, name: &str, value: impl fmt::Display) -> Request {
        self.headers.push((name.to_owned(), value.to_string()));
        self
    }

    /// `Authorization: Bearer …`
    pub fn bearer(self, token: impl fmt::Display) -> Request {
        self.header("authorization", format_args!("Bearer {token}"))
    }

    /// `Authorization: Basic …`, with a user who has no colon in the name.
    pub fn basic(self, user: &str, password: &Secret) -> Request {
        let Secret(name) = password;
        self.header("authorization", format_args!("Basic {{{{stepbox:basic:{user}:{name}}}}}"))
    }

    pub fn body(mut self, body: impl Into<Vec<u8>>) -> Request {
        self.body = Some(body.into());
        self
    }

    /// `value` as JSON, with the content type that says so.
    pub fn json(mut self, value: &impl Serialize) -> Request {
        match serde_json::to_vec(value) {
            Ok(json) => self.header("content-type", "application/json").body(json),
            Err(error) => {
                self.flaw = Some(format!("its body cannot be written as JSON: {error}"));
                self
            }
        }
    }

    /// How long the connection, the answer's beginning, and each pause in the answer may take. The
    /// host has a limit for the whole.
    pub fn timeout(mut self, timeout: Duration) -> Request {
        self.timeout = Some(timeout);
        self
    }

    /// How long the connection alone may take.
    pub fn connect_timeout(mut self, timeout: Duration) -> Request {
        self.connect_timeout = Some(timeout);
        self
    }

    /// Sends it and waits for the whole answer, whatever its status: see [`Response::success`].
    pub fn send(self) -> Result<Response, Error> {
        match &self.flaw {
            Some(flaw) => Err(Error::new(ErrorKind::Unusable, format!("{}: {flaw}", self.subject()))),
            None => sender::send(&self).map_err(|error| error.about(&self.subject())),
        }
    }

    /// What errors begin with: method and URL, without the query, which may have what nobody
    /// should read.
    fn subject(&self) -> String {
        let url = self.url.split(['?', '#']).next().unwrap_or_default();
        format!("{} {url}", self.method)
    }
}

/// For who answers in the place of a server in a test.
impl Request {
    pub fn method(&self) -> &str {
        &self.method
    }

    pub fn url(&self) -> &str {
        &self.url
    }

    /// The value of the first header of that name, in any case.
    pub fn header_value(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn body_bytes(&self) -> &[u8] {
        self.body.as_deref().unwrap_or_default()
    }

    pub fn body_json<T: DeserializeOwned>(&self) -> Result<T, serde_json::Error> {
        serde_json::from_slice(self.body_bytes())
    }
}

/// Scheme, authority, path with query.
#[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "a component takes the URL apart"))]
fn parts(url: &str) -> Option<(&str, &str, String)> {
    let (scheme, rest) = url.split_once("://")?;
    let rest = rest.split('#').next().unwrap_or_default();
    let end = rest.find(['/', '?']).unwrap_or(rest.len());
    let (authority, path) = rest.split_at(end);
    let path = match path {
        "" => "/".to_owned(),
        path if path.starts_with('?') => format!("/{path}"),
        path => path.to_owned(),
    };
    (!authority.is_empty()).then_some((scheme, authority, path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_taken_apart_where_its_parts_end() {
        for (url, scheme, authority, path) in [
            ("https://a.example", "https", "a.example", "/"),
            ("https://a.example:8443/x/y?q=/#part", "https", "a.example:8443", "/x/y?q=/"),
            ("http://[::1]:80?q", "http", "[::1]:80", "/?q"),
            ("http://a.example#/not-a-path", "http", "a.example", "/"),
        ] {
            assert_eq!(parts(url), Some((scheme, authority, path.to_owned())), "{url}");
        }
        assert_eq!(parts("a.example/x"), None);
        assert_eq!(parts("https:///x"), None);
    }

    #[test]
    fn a_secret_is_a_placeholder_wherever_it_shows() {
        let request = get("https://a.example").bearer(secret("KEY"));
        assert_eq!(request.header_value("Authorization"), Some("Bearer {{stepbox:secret:KEY}}"));
        let request = get("https://a.example").basic("ada", &secret("PASSWORD"));
        assert_eq!(request.header_value("authorization"), Some("Basic {{stepbox:basic:ada:PASSWORD}}"));
    }
}
