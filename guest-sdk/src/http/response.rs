//! An answer, complete.

use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{Error, ErrorKind};

/// What a server answered.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Response {
    pub status: u16,
    /// In their order; names in small letters.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
}

/// So much of a body is told with an error.
const BODY_TOLD_MAX_CHARS: usize = 200;

impl Response {
    /// An empty answer, for tests.
    pub fn new(status: u16) -> Response {
        Response { status, ..Response::default() }
    }

    /// With `value` as its body, for tests. What cannot be written as JSON is left out.
    pub fn with_json(mut self, value: &impl Serialize) -> Response {
        self.body = serde_json::to_vec(value).unwrap_or_default();
        self.with_header("content-type", "application/json")
    }

    /// With one header more, for tests.
    pub fn with_header(mut self, name: &str, value: &str) -> Response {
        self.headers.push((name.to_ascii_lowercase(), value.to_owned()));
        self
    }

    /// The value of the first header of that name, in any case.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut headers = self.headers.iter();
        headers.find(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// This answer if its status is 200 to 299, else an error with the beginning of its body.
    pub fn success(self) -> Result<Response, Error> {
        if self.is_success() {
            return Ok(self);
        }
        let told: String = self.text().chars().take(BODY_TOLD_MAX_CHARS).collect();
        let message = match told.trim() {
            "" => format!("the server answered {}", self.status),
            told => format!("the server answered {}: {told}", self.status),
        };
        // In seconds; a date is left to the retry policy, which has a clock to look at.
        let seconds = self.header("retry-after").and_then(|seconds| seconds.trim().parse().ok());
        Err(Error::new(ErrorKind::Status(self.status), message).after(seconds.map(Duration::from_secs)))
    }

    /// The body, with what is no UTF-8 replaced.
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body).map_err(|error| {
            Error::new(ErrorKind::NotJson, format!("the answer is not the JSON expected: {error}"))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StepError;

    #[test]
    fn a_status_is_an_error_only_when_asked() {
        let busy = Response::new(503).with_header("Retry-After", "7");
        assert!(!busy.is_success());
        let error = StepError::from(busy.success().unwrap_err());
        assert_eq!(error, StepError::new("the server answered 503").retry_after(Duration::from_secs(7)));

        let gone = Response { body: b"no such charge".to_vec(), ..Response::new(404) };
        let error = StepError::from(gone.success().unwrap_err());
        assert_eq!(error, StepError::fatal("the server answered 404: no such charge"));
        assert!(Response::new(204).success().is_ok());
    }
}
