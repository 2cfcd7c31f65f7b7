//! Why a request did not do what it was sent for.

use std::fmt;
use std::time::Duration;

use crate::StepError;

/// Why there is no answer, or none that could be used.
#[derive(Clone, Debug, PartialEq)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    retry_after: Option<Duration>,
}

/// What a caller may want to tell apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ErrorKind {
    /// Not granted to this task. Asking again does not help; an admin does.
    Denied,
    /// More than the task may take: bodies, headers, requests, connections.
    OverLimit,
    TimedOut,
    /// No such name, or nobody answers there.
    Unreachable,
    /// The server could not show by its certificate that it is who it should be.
    Untrusted,
    /// What came is no HTTP, or ended too early.
    Broken,
    /// An answer whose status is no success; see [`Response::success`](super::Response::success).
    Status(u16),
    /// The answer's body is not the JSON that was expected.
    NotJson,
    /// The request itself makes no sense: its URL, a header, its body.
    Unusable,
}

impl Error {
    pub fn new(kind: ErrorKind, message: impl fmt::Display) -> Error {
        Error { kind, message: message.to_string(), retry_after: None }
    }

    pub fn kind(&self) -> ErrorKind {
        self.kind
    }

    /// Whether another attempt may go better.
    pub fn is_retryable(&self) -> bool {
        match self.kind {
            ErrorKind::TimedOut | ErrorKind::Unreachable | ErrorKind::Broken => true,
            ErrorKind::Status(status) => status >= 500 || matches!(status, 408 | 425 | 429),
            ErrorKind::Denied | ErrorKind::OverLimit | ErrorKind::Untrusted => false,
            ErrorKind::NotJson | ErrorKind::Unusable => false,
        }
    }

    pub(super) fn after(mut self, retry_after: Option<Duration>) -> Error {
        self.retry_after = retry_after;
        self
    }

    pub(super) fn about(mut self, subject: &str) -> Error {
        self.message = format!("{subject}: {}", self.message);
        self
    }

    /// What the host said of a request: the first word tells the kind.
    #[cfg_attr(not(target_family = "wasm"), allow(dead_code, reason = "there is no host natively"))]
    pub(super) fn said_by_host(text: &str) -> Error {
        let text = text.strip_prefix("internal error: ").unwrap_or(text);
        let kind = match text.split(':').next() {
            Some("denied") => ErrorKind::Denied,
            Some("limit") => ErrorKind::OverLimit,
            Some("timeout") => ErrorKind::TimedOut,
            Some("unreachable") => ErrorKind::Unreachable,
            Some("tls") => ErrorKind::Untrusted,
            _ => ErrorKind::Broken,
        };
        Error::new(kind, text)
    }

    pub(crate) fn into_step_error(self) -> StepError {
        let error = StepError::new(&self);
        match (self.is_retryable(), self.retry_after) {
            (false, _) => error.no_retry(),
            (true, Some(delay)) => error.retry_after(delay),
            (true, None) => error,
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hosts_first_word_is_the_kind() {
        for (text, kind) in [
            ("denied: no grant allows GET https://a.example", ErrorKind::Denied),
            ("internal error: limit: the body of the answer is too large", ErrorKind::OverLimit),
            ("timeout: no answer came", ErrorKind::TimedOut),
            ("unreachable: https://a.example: connection refused", ErrorKind::Unreachable),
            ("tls: https://a.example: expired", ErrorKind::Untrusted),
            ("broken: connection closed", ErrorKind::Broken),
            ("anything else", ErrorKind::Broken),
        ] {
            assert_eq!(Error::said_by_host(text).kind(), kind, "{text}");
        }
    }

    #[test]
    fn an_error_passed_on_is_retried_where_that_may_help() {
        let retried = |kind| {
            let passed_on = || -> Result<(), StepError> { Err(Error::new(kind, "no"))? };
            passed_on().unwrap_err().is_retryable()
        };
        assert!(
            retried(ErrorKind::Unreachable) && retried(ErrorKind::TimedOut) && retried(ErrorKind::Broken)
        );
        assert!(retried(ErrorKind::Status(503)) && retried(ErrorKind::Status(429)));
        assert!(
            !retried(ErrorKind::Denied) && !retried(ErrorKind::Status(404)) && !retried(ErrorKind::NotJson)
        );
    }
}
