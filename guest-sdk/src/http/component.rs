//! Requests through `wasi:http`.

use wasip2::http::outgoing_handler;
use wasip2::http::types::{
    ErrorCode, Fields, HeaderError, IncomingBody, IncomingResponse, Method, OutgoingBody, OutgoingRequest,
    RequestOptions, Scheme,
};
use wasip2::io::streams::{InputStream, OutputStream, StreamError};

use super::{Error, ErrorKind, Request, Response};

/// So much of a body is asked for at a time.
const READ_BYTES: u64 = 64 << 10;

pub(super) fn send(request: &Request) -> Result<Response, Error> {
    let outgoing = outgoing(request)?;
    let body = match &request.body {
        Some(bytes) => {
            let body = outgoing.body().map_err(|()| unusable("its body cannot be written"))?;
            Some((body, bytes))
        }
        None => None,
    };
    // First: nobody reads the body before.
    let answer = outgoing_handler::handle(outgoing, Some(options(request))).map_err(of_code)?;
    if let Some((body, bytes)) = body {
        write(body, bytes)?;
    }
    let ready = answer.subscribe();
    ready.block();
    drop(ready);
    match answer.get() {
        Some(Ok(Ok(answer))) => read(&answer),
        Some(Ok(Err(code))) => Err(of_code(code)),
        Some(Err(())) | None => Err(Error::new(ErrorKind::Broken, "the host gave no answer")),
    }
}

fn outgoing(request: &Request) -> Result<OutgoingRequest, Error> {
    let Some((scheme, authority, path)) = super::parts(&request.url) else {
        return Err(unusable("its URL is not like https://api.example.com/path"));
    };
    let fields = Fields::new();
    let append = |name: &str, value: &str| {
        fields.append(name, value.as_bytes()).map_err(|error| match error {
            HeaderError::Forbidden => unusable(&format!("the header `{name}` is the host's to set")),
            _ => unusable(&format!("the header `{name}` has a name or a value that no header can have")),
        })
    };
    for (name, value) in &request.headers {
        append(name, value)?;
    }
    if let Some(body) = &request.body {
        append("content-length", &body.len().to_string())?;
    }
    let outgoing = OutgoingRequest::new(fields);
    let scheme = match scheme.to_ascii_lowercase().as_str() {
        "https" => Scheme::Https,
        "http" => Scheme::Http,
        _ => return Err(unusable("its scheme is neither https nor http")),
    };
    let set = outgoing
        .set_method(&method(&request.method))
        .and_then(|()| outgoing.set_scheme(Some(&scheme)))
        .and_then(|()| outgoing.set_authority(Some(authority)))
        .and_then(|()| outgoing.set_path_with_query(Some(&path)));
    set.map_err(|()| unusable("its method or its URL has characters that cannot be sent"))?;
    Ok(outgoing)
}

fn method(name: &str) -> Method {
    match name {
        "GET" => Method::Get,
        "HEAD" => Method::Head,
        "POST" => Method::Post,
        "PUT" => Method::Put,
        "DELETE" => Method::Delete,
        "OPTIONS" => Method::Options,
        "PATCH" => Method::Patch,
        other => Method::Other(other.to_owned()),
    }
}

fn options(request: &Request) -> RequestOptions {
    let options = RequestOptions::new();
    let ns = |time: std::time::Duration| u64::try_from(time.as_nanos()).unwrap_or(u64::MAX);
    let whole = request.timeout.map(ns);
    let connect = request.connect_timeout.map(ns).or(whole);
    // A host that does not offer one of them has its own.
    let _ = options.set_connect_timeout(connect);
    let _ = options.set_first_byte_timeout(whole);
    let _ = options.set_between_bytes_timeout(whole);
    options
}

/// Writes the body. Where nobody wants more of it, the answer says why.
fn write(body: OutgoingBody, bytes: &[u8]) -> Result<(), Error> {
    let stream = body.write().map_err(|()| unusable("its body cannot be written"))?;
    let complete = write_all(&stream, bytes).is_ok();
    drop(stream);
    if complete {
        OutgoingBody::finish(body, None).map_err(of_code)?;
    }
    Ok(())
}

fn write_all(stream: &OutputStream, mut bytes: &[u8]) -> Result<(), StreamError> {
    while !bytes.is_empty() {
        match usize::try_from(stream.check_write()?).unwrap_or(usize::MAX) {
            0 => stream.subscribe().block(),
            room => {
                let (piece, rest) = bytes.split_at(room.min(bytes.len()));
                stream.write(piece)?;
                bytes = rest;
            }
        }
    }
    Ok(())
}

fn read(answer: &IncomingResponse) -> Result<Response, Error> {
    let headers = answer.headers().entries().into_iter();
    let headers = headers.map(|(name, value)| (name, String::from_utf8_lossy(&value).into_owned()));
    let mut response = Response { status: answer.status(), headers: headers.collect(), body: Vec::new() };
    let body: IncomingBody = answer.consume().map_err(|()| no_body())?;
    let stream: InputStream = body.stream().map_err(|()| no_body())?;
    loop {
        match stream.blocking_read(READ_BYTES) {
            Ok(bytes) => response.body.extend_from_slice(&bytes),
            Err(StreamError::Closed) => return Ok(response),
            Err(StreamError::LastOperationFailed(error)) => {
                return Err(Error::said_by_host(&error.to_debug_string()));
            }
        }
    }
}

fn no_body() -> Error {
    Error::new(ErrorKind::Broken, "the host gave the answer without its body")
}

fn unusable(what: &str) -> Error {
    Error::new(ErrorKind::Unusable, what)
}

/// This host says everything as an `internal-error` with a text; another may use the other codes.
fn of_code(code: ErrorCode) -> Error {
    let kind = match &code {
        ErrorCode::InternalError(Some(text)) => return Error::said_by_host(text),
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => ErrorKind::Denied,
        ErrorCode::HttpRequestUriInvalid
        | ErrorCode::HttpRequestMethodInvalid
        | ErrorCode::HttpRequestUriTooLong => ErrorKind::Unusable,
        ErrorCode::DnsTimeout
        | ErrorCode::ConnectionTimeout
        | ErrorCode::ConnectionReadTimeout
        | ErrorCode::ConnectionWriteTimeout
        | ErrorCode::HttpResponseTimeout => ErrorKind::TimedOut,
        ErrorCode::TlsCertificateError => ErrorKind::Untrusted,
        ErrorCode::DnsError(_)
        | ErrorCode::DestinationNotFound
        | ErrorCode::DestinationUnavailable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionTerminated => ErrorKind::Unreachable,
        ErrorCode::ConnectionLimitReached
        | ErrorCode::HttpRequestBodySize(_)
        | ErrorCode::HttpResponseBodySize(_) => ErrorKind::OverLimit,
        _ => ErrorKind::Broken,
    };
    Error::new(kind, format!("{code:?}"))
}
