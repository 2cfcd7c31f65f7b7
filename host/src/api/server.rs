//! Takes connections in and serves them until it is told to stop.
//!
//! `axum::serve` would do but for three things: a client that never finishes its headers, a bound
//! on stopping, and an answer that should leave at once.

use std::{convert::Infallible, pin::pin, time::Duration};

use axum::{Router, body::Body, extract::Request};
use hyper::{body::Incoming, server::conn::http1};
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::watch,
    task::JoinSet,
};
use tower::ServiceExt as _;

/// For the headers of a request, counted from the end of the one before: also how long an idle
/// connection is kept. Longer than clients keep theirs (90 s are common), so that it is they who
/// close, and no request is on its way into a closed connection.
const HEADERS_MAX: Duration = Duration::from_secs(120);

/// After an accept that failed for want of something that others hold, such as file descriptors.
const ACCEPT_AGAIN: Duration = Duration::from_millis(50);

/// Serves `router` on `listener` until `stopping` turns true; then takes no more connections, lets
/// requests under way finish for `patience`, and cuts the rest off.
pub async fn serve(
    listener: TcpListener,
    router: Router,
    mut stopping: watch::Receiver<bool>,
    patience: Duration,
) {
    let mut connections = JoinSet::new();
    let stop = stopping.clone();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = connections.join_next() => continue,
            () = told(&mut stopping) => break,
        };
        match accepted {
            Ok((stream, _)) => _ = connections.spawn(connection(stream, router.clone(), stop.clone())),
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                tokio::time::sleep(ACCEPT_AGAIN).await;
            }
        }
    }
    drop(listener);
    let all = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(patience, all).await.is_err() {
        tracing::warn!(connections = connections.len(), "cutting off requests that are still under way");
    }
}

async fn connection(stream: TcpStream, router: Router, mut stopping: watch::Receiver<bool>) {
    // An answer leaves at once, and does not wait for more to go with it.
    if let Err(error) = stream.set_nodelay(true) {
        tracing::debug!(%error, "TCP_NODELAY could not be set");
    }
    let service = router
        .map_request(|request: Request<Incoming>| request.map(Body::new))
        .map_err(|never: Infallible| match never {});
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADERS_MAX)
        .serve_connection(TokioIo::new(stream), TowerToHyperService::new(service));
    let mut connection = pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = told(&mut stopping) => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // The client's doing: it went away, or does not speak HTTP.
        tracing::debug!(%error, "a connection ended in an error");
    }
}

/// Comes back when it is told to stop; an error means that whoever would say so is gone.
async fn told(stopping: &mut watch::Receiver<bool>) {
    let _ = stopping.wait_for(|stopping| *stopping).await;
}
