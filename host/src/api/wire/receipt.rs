//! What an attempt took.

use serde::Serialize;
use stepbox_domain::receipt::{Receipt as Bill, Request as Sent};

/// Times are in milliseconds with their fractions: most attempts take less than one.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Receipt<'a> {
    cpu_ms: f64,
    wall_ms: f64,
    memory_peak_bytes: u64,
    host_calls: u64,
    bytes_in: u64,
    bytes_out: u64,
    /// In the order of their start.
    requests: Vec<Request<'a>>,
    /// How many more there were than are listed.
    requests_unlisted: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Request<'a> {
    method: &'a str,
    origin: &'a str,
    /// Without its query.
    path: &'a str,
    status: Option<u16>,
    error: Option<&'a str>,
    bytes_out: u64,
    bytes_in: u64,
    ms: u64,
}

impl<'a> From<&'a Bill> for Receipt<'a> {
    fn from(bill: &'a Bill) -> Self {
        Receipt {
            cpu_ms: in_ms(bill.cpu_us),
            wall_ms: in_ms(bill.wall_us),
            memory_peak_bytes: bill.memory_peak_bytes,
            host_calls: bill.host_calls,
            bytes_in: bill.bytes_in,
            bytes_out: bill.bytes_out,
            requests: bill.requests.iter().map(Request::from).collect(),
            requests_unlisted: bill.requests_unlisted,
        }
    }
}

impl<'a> From<&'a Sent> for Request<'a> {
    fn from(sent: &'a Sent) -> Self {
        Request {
            method: &sent.method,
            origin: &sent.origin,
            path: &sent.path,
            status: sent.status,
            error: sent.error.as_deref(),
            bytes_out: sent.bytes_out,
            bytes_in: sent.bytes_in,
            ms: sent.ms,
        }
    }
}

fn in_ms(us: u64) -> f64 {
    us as f64 / 1_000.0
}
