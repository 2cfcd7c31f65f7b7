//! Why a request has no answer, or only part of one.

use stepbox_domain::Limit;
use wasmtime_wasi_http::Error;

use crate::sandbox::output::{cut, printable};

/// The first word is what a program goes by; the SDKs do. The rest is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Trouble {
    /// Not granted, or not sent by this host at all. Trying again does not help.
    #[error("denied: {0}")]
    Denied(String),
    /// More than the task may take.
    #[error("limit: {0}")]
    Limit(String),
    #[error("timeout: {0}")]
    TimedOut(String),
    /// There is no such name, or nobody answers there.
    #[error("unreachable: {0}")]
    Unreachable(String),
    /// The other side could not show that it is who it should be.
    #[error("tls: {0}")]
    Tls(String),
    /// What came is no HTTP, or ended too early.
    #[error("broken: {0}")]
    Broken(String),
}

impl Trouble {
    pub(super) fn limit(limit: Limit, max: u64, what: &str) -> Self {
        Trouble::Limit(format!("{what}; {limit} is {max}"))
    }

    /// What hyper says of a connection.
    pub(super) fn of_hyper(error: &hyper::Error) -> Self {
        let text = in_words(error);
        if error.is_parse_too_large() {
            return Trouble::Limit(format!(
                "the headers of the answer have more than {} bytes or {} lines",
                super::HEADERS_MAX_BYTES,
                super::HEADERS_MAX
            ));
        }
        if error.is_closed() || error.is_canceled() {
            return Trouble::Unreachable(text);
        }
        Trouble::Broken(text)
    }
}

/// What hyper says, with its cause.
pub(super) fn in_words(error: &hyper::Error) -> String {
    let text = match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    };
    printable(cut(&text, 300))
}

/// `internal-error` is the code of `wasi:http` that has a text, and the text says more than any of
/// the others could: which grant is missing, which limit was hit.
impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Self {
        Error::InternalError(Some(trouble.to_string()))
    }
}
