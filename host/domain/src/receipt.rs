//! What one attempt took of its host, and whom it talked to.

use serde::{Deserialize, Serialize};

/// So many requests of an attempt are listed one by one; the rest is counted.
pub const REQUESTS_LISTED_MAX: usize = 50;

/// The bill of one attempt. The short names are those on disk: every step has one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// Time that it computed, in microseconds, without what the host did for it.
    #[serde(rename = "cpu")]
    pub cpu_us: u64,
    /// Time by the clock from its start to its end, in microseconds.
    #[serde(rename = "wall")]
    pub wall_us: u64,
    /// The most memory that its instance had in all its linear memories.
    #[serde(rename = "mem")]
    pub memory_peak_bytes: u64,
    /// Calls of the host, those of WASI included.
    #[serde(rename = "calls")]
    pub host_calls: u64,
    /// Bytes that came in: its input, and the bodies of answers.
    #[serde(rename = "in")]
    pub bytes_in: u64,
    /// Bytes that went out: its result, and the bodies of requests.
    #[serde(rename = "out")]
    pub bytes_out: u64,
    /// The first [`REQUESTS_LISTED_MAX`] requests, in the order of their start.
    #[serde(rename = "req", default, skip_serializing_if = "Vec::is_empty")]
    pub requests: Vec<Request>,
    /// How many more there were.
    #[serde(rename = "more", default, skip_serializing_if = "is_zero")]
    pub requests_unlisted: u32,
}

fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// An outgoing request, without anything that could hold a secret: no headers, no query, no body.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    pub method: String,
    /// `https://api.example.com:8443`; the port where it is not the scheme's own.
    pub origin: String,
    /// Without the query.
    pub path: String,
    /// None where no answer came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub status: Option<u16>,
    /// Why there was no answer, or why its body broke off: denied, no connection, too large.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// Bytes of the request's body.
    #[serde(rename = "out")]
    pub bytes_out: u64,
    /// Bytes of the answer's body.
    #[serde(rename = "in")]
    pub bytes_in: u64,
    /// Milliseconds from the start to the end of the answer's body, or to the error.
    pub ms: u64,
}
