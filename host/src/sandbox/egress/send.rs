//! The path of one request.

use std::{sync::Arc, sync::atomic::Ordering::Relaxed, time::Duration};

use http_body_util::BodyExt as _;
use hyper::{
    body::Incoming,
    http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Uri, header},
};
use stepbox_domain::Limit;
use tokio::time::{Instant, timeout_at};
use wasmtime_wasi_http::{Error, RequestOptions, WasiBody};

use super::{
    Egress, HEADERS_MAX_BYTES,
    bill::Bill,
    body::{Allowance, AnswerBody, Patience, RequestBody, Upload, too_slow},
    pool::{Connection, Lease},
    target::Target,
    trouble::Trouble,
};

/// How long a connection may take where the guest does not say.
const CONNECT_MS: u64 = 10_000;

/// When things must have happened.
struct Times {
    deadline: Instant,
    max_ms: u64,
    connect: Duration,
    first_byte: Duration,
    between: Duration,
}

impl Times {
    /// As the guest asks, and never longer than the whole may take.
    fn new(max_ms: u64, options: RequestOptions) -> Self {
        let max = Duration::from_millis(max_ms);
        let now = Instant::now();
        Times {
            deadline: now.checked_add(max).unwrap_or(now),
            max_ms,
            connect: options.connect_timeout.unwrap_or(Duration::from_millis(CONNECT_MS)).min(max),
            first_byte: options.first_byte_timeout.unwrap_or(max).min(max),
            between: options.between_bytes_timeout.unwrap_or(max).min(max),
        }
    }

    fn within(&self, time: Duration) -> Instant {
        Instant::now().checked_add(time).unwrap_or(self.deadline).min(self.deadline)
    }
}

impl Egress {
    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        self: Arc<Self>,
        request: Request<WasiBody>,
        options: RequestOptions,
    ) -> Result<Response<WasiBody>, Error> {
        let target = Target::of(request.uri());
        let bill = Bill::begin(&self, request.method(), request.uri(), target.as_ref().ok());
        self.gate.passed().await;
        let times = Times::new(self.limits.get(Limit::RequestMaxMs), options);
        let sent = match target {
            Ok(target) => self.exchange(request, target, &bill, times).await,
            Err(what) => Err(Trouble::Denied(format!("the URI of the request cannot be used: {what}"))),
        };
        sent.map_err(|trouble| {
            bill.failed(&trouble);
            trouble.into()
        })
    }

    async fn exchange(
        &self,
        request: Request<WasiBody>,
        target: Target,
        bill: &Bill,
        times: Times,
    ) -> Result<Response<WasiBody>, Trouble> {
        self.check(&request, &target)?;
        let (mut head, body) = request.into_parts();
        head.headers.insert(header::HOST, host_header(&target)?);
        head.uri = as_in_the_request_line(&head.uri);
        let upload = Upload::default();
        let mut body = RequestBody {
            inner: body,
            upload: upload.clone(),
            bill: bill.for_the_upload(),
            allowance: Allowance::of_a_request(&self.limits),
        };
        loop {
            let (mut connection, used_before) = self.connection(&target, &times).await?;
            let mut request = Request::new(body);
            *request.method_mut() = head.method.clone();
            *request.uri_mut() = head.uri.clone();
            *request.headers_mut() = self.reveal_secrets(&head.headers, &target, connection.address)?;
            check_size(request.uri(), request.headers())?;

            let by = times.within(times.first_byte);
            match timeout_at(by, connection.sender.try_send_request(request)).await {
                Ok(Ok(response)) => return self.answer(response, connection, target, upload, bill, times),
                Ok(Err(mut error)) => match error.take_message() {
                    // Closed by the other side while nobody used it; nothing of this request left.
                    Some(unsent) if used_before => body = unsent.into_body(),
                    _ => return Err(upload.trouble().unwrap_or_else(|| Trouble::of_hyper(error.error()))),
                },
                Err(_) if by == times.deadline => return Err(too_slow(times.max_ms, "no answer came")),
                Err(_) => {
                    let ms = times.first_byte.as_millis();
                    return Err(Trouble::TimedOut(format!(
                        "no answer came within {ms} ms, which is what the guest asked for"
                    )));
                }
            }
        }
    }

    /// All that can be said of a request without asking anybody.
    fn check(&self, request: &Request<WasiBody>, target: &Target) -> Result<(), Trouble> {
        let requests_max = self.limits.get(Limit::RequestsMax);
        if self.requests.fetch_add(1, Relaxed) >= requests_max {
            let what = "the attempt has sent as many requests as it may";
            return Err(Trouble::limit(Limit::RequestsMax, requests_max, what));
        }
        let method = request.method();
        // The one makes a tunnel of the connection, the other sends headers back, secrets and all.
        if *method == Method::CONNECT || *method == Method::TRACE {
            return Err(Trouble::Denied(format!("{method} is not sent by this host")));
        }
        let host = target.host.as_granted();
        if !self.grants.allow_request(target.scheme, &host, target.port, method.as_str()) {
            let method: String = method.as_str().chars().take(20).collect();
            let hint = self.grant_hint("http");
            return Err(Trouble::Denied(format!("no grant allows {method} {target}; {hint}")));
        }
        check_size(request.uri(), request.headers())?;
        let announced = content_length(request.headers()).unwrap_or(0);
        Allowance::of_a_request(&self.limits).check(announced)?;
        self.check_secrets(request.headers(), target)
    }

    /// An open connection, and whether it was used before.
    async fn connection(&self, target: &Target, times: &Times) -> Result<(Connection, bool), Trouble> {
        match timeout_at(times.deadline, self.connections.lease(target)).await {
            Ok(Lease::Used(connection)) => Ok((connection, true)),
            Ok(Lease::New(permits)) => {
                let by = times.within(times.connect);
                Ok((self.connect(target, permits, by).await?, false))
            }
            Err(_) => {
                let what = format!("no connection became free within {} ms", times.max_ms);
                Err(Trouble::limit(Limit::ConnectionsMax, self.connections.max(), &what))
            }
        }
    }

    fn answer(
        &self,
        response: Response<Incoming>,
        connection: Connection,
        target: Target,
        upload: Upload,
        bill: &Bill,
        times: Times,
    ) -> Result<Response<WasiBody>, Trouble> {
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Trouble::Broken("the server switched to another protocol than HTTP".to_owned()));
        }
        let allowance = Allowance::of_an_answer(&self.limits);
        bill.answered(response.status().as_u16());
        allowance.check(hyper::body::Body::size_hint(response.body()).lower())?;
        let patience = Patience::until(times.deadline, times.max_ms, times.between);
        let kept = (target, upload, bill.clone());
        Ok(response.map(|incoming| {
            AnswerBody::new(incoming, connection, self.connections.clone(), kept, allowance, patience)
                .boxed_unsync()
        }))
    }

    /// What an admin would have to do.
    pub(super) fn grant_hint(&self, field: &str) -> String {
        format!("grant it with PUT /admin/v1/modules/{}/grants (`{field}`)", self.task)
    }
}

fn host_header(target: &Target) -> Result<HeaderValue, Trouble> {
    HeaderValue::from_str(&target.authority())
        .map_err(|_| Trouble::Denied("the host of the request cannot stand in a header".to_owned()))
}

/// Path and query alone: with scheme and host it would be a request to a proxy.
fn as_in_the_request_line(uri: &Uri) -> Uri {
    let mut parts = hyper::http::uri::Parts::default();
    parts.path_and_query = uri.path_and_query().cloned();
    Uri::from_parts(parts).unwrap_or_default()
}

fn check_size(uri: &Uri, headers: &HeaderMap) -> Result<(), Trouble> {
    let lines: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum();
    let path = uri.path_and_query().map_or(0, |path| path.as_str().len());
    match lines + path > HEADERS_MAX_BYTES {
        true => Err(Trouble::Limit(format!(
            "the path and the headers of the request have more than {HEADERS_MAX_BYTES} bytes"
        ))),
        false => Ok(()),
    }
}

fn content_length(headers: &HeaderMap) -> Option<u64> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
