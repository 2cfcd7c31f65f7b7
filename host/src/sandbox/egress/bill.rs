//! What is noted of a request: in the receipt of its attempt, as it goes.

use std::sync::Arc;

use hyper::http::{Method, Uri};
use stepbox_domain::receipt::Request as Noted;
use tokio::time::Instant;

use super::{Egress, PATH_SHOWN_MAX_BYTES, target::Target, trouble::Trouble};
use crate::sandbox::{
    Meter,
    meter::RequestPlace,
    output::{cut, printable},
};

/// One request's line in the receipt. No header, no query and no body gets here.
#[derive(Clone)]
pub(super) struct Bill {
    meter: Arc<Meter>,
    place: RequestPlace,
    begun: Instant,
    /// As long as there is one, the attempt has left something behind.
    _under_way: Arc<()>,
}

impl Bill {
    pub(super) fn begin(egress: &Egress, method: &Method, uri: &Uri, target: Option<&Target>) -> Self {
        let origin = match target {
            Some(target) => target.to_string(),
            // Without what may stand before the host: a user and a password.
            None => format!("{}://{}", uri.scheme_str().unwrap_or_default(), uri.host().unwrap_or_default()),
        };
        let place = egress.meter.request(Noted {
            method: printable(cut(method.as_str(), 20)),
            origin: printable(cut(&origin, 300)),
            path: printable(cut(uri.path(), PATH_SHOWN_MAX_BYTES)),
            // Stands where the attempt ends first.
            error: Some("broken: the attempt ended before there was an answer".to_owned()),
            ..Noted::default()
        });
        Bill {
            meter: egress.meter.clone(),
            place,
            begun: Instant::now(),
            _under_way: egress.under_way.clone(),
        }
    }

    /// For the part of a request that outlives its answer, and must not look like something that
    /// the attempt waits for.
    pub(super) fn for_the_upload(&self) -> Self {
        Bill { _under_way: Arc::default(), ..self.clone() }
    }

    pub(super) fn answered(&self, status: u16) {
        self.note(|request| {
            request.status = Some(status);
            request.error = None;
        });
    }

    pub(super) fn sent(&self, bytes: usize) {
        self.meter.went_out(bytes);
        self.note(|request| request.bytes_out += bytes as u64);
    }

    pub(super) fn received(&self, bytes: usize) {
        self.meter.came_in(bytes);
        self.note(|request| request.bytes_in += bytes as u64);
    }

    pub(super) fn failed(&self, trouble: &Trouble) {
        let text = trouble.to_string();
        self.note(|request| request.error = Some(cut(&text, 500).to_owned()));
    }

    /// The answer is complete, or nobody wants it any more.
    pub(super) fn ended(&self) {
        self.note(|_| {});
    }

    fn note(&self, change: impl FnOnce(&mut Noted)) {
        let ms = u64::try_from(self.begun.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.meter.request_went_on(self.place, |request| {
            change(request);
            request.ms = ms;
        });
    }
}
