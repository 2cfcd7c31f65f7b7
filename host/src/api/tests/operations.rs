//! Health, metrics, and what happens when the host itself is in trouble.

use std::time::Duration;

use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::harness::*;
use crate::{
    api::{ApiError, serve},
    store::StoreError,
};

#[tokio::test]
async fn the_host_is_live_ready_and_counts() {
    let host = Host::start().await;
    for path in ["/healthz", "/readyz"] {
        let answer = host.get(path).await;
        assert_eq!((answer.status, answer.json()), (200, json!({ "status": "ok" })));
    }
    host.begin("e", json!(null)).await;
    host.get("/api/v1/executions/e/wait").await;
    let metrics = host.get("/metrics").await;
    assert_eq!(metrics.status, 200);
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in
        ["stepbox_executions_started_total 1", "stepbox_executions_ended_total{status=\"completed\"} 1"]
    {
        assert!(metrics.text.lines().any(|there| there == line), "{line} is missing in {}", metrics.text);
    }
}

#[tokio::test]
async fn a_store_that_cannot_write_is_503_and_not_ready() {
    let host = Host::start().await;
    host.close_store().await;
    let start = host.begin("e", json!(null)).await;
    assert_eq!(start.refusal(), "503 store_unavailable: the store cannot be used now: it is closed");
    assert_eq!(start.header("retry-after"), "1");
    assert_eq!(
        host.get("/readyz").await.refusal(),
        "503 not_ready: the store cannot be used now: it is closed"
    );
    assert_eq!(host.get("/healthz").await.status, 200, "a restart would not help");
}

#[tokio::test]
async fn what_is_broken_here_is_500_without_details() {
    let expected = "500 internal: something is broken on this host; its log says what";
    let host = Host::start().await;
    assert_eq!(host.call("PUT", "/admin/v1/modules/order", WASM, "panic").await.refusal(), expected);
    assert_eq!(host.get("/readyz").await.status, 200, "the others do not notice");
    for error in [StoreError::Corrupt("secret".to_owned()), StoreError::ClaimLost] {
        let error = ApiError::from(error);
        assert_eq!(format!("{} {}: {}", error.status.as_u16(), error.code, error.message), expected);
    }
}

/// A host that is served over TCP.
async fn served() -> (Host, String, tokio::task::JoinHandle<()>) {
    let host = Host::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let server = serve(listener, host.router.clone(), host.stopping.clone(), Duration::from_secs(5));
    let server = tokio::spawn(server);
    (host, address, server)
}

#[tokio::test]
async fn a_stop_sends_away_who_waits_and_closes_idle_connections() {
    let (host, address, server) = served().await;
    host.begin("e", json!({ "do": "wait" })).await;
    let mut idle = TcpStream::connect(&address).await.unwrap();
    idle.write_all(b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    assert!(idle.read(&mut [0; 1_000]).await.unwrap() > 0);
    let wait = tokio::spawn(reqwest::get(format!("http://{address}/api/v1/executions/e/wait")));
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert!(!wait.is_finished());

    host.stop.send_replace(true);
    let answer = wait.await.unwrap().unwrap();
    assert_eq!(answer.status(), 503);
    assert!(answer.text().await.unwrap().contains("the host is stopping"));
    tokio::time::timeout(Duration::from_secs(2), server).await.expect("nothing holds it").unwrap();
    assert_eq!(idle.read(&mut [0; 10]).await.unwrap(), 0, "closed in good order");
    assert_eq!(host.get("/readyz").await.refusal(), "503 not_ready: the host is stopping");
}

#[tokio::test]
async fn a_client_that_is_still_sending_sees_its_answer() {
    let (_host, address, _server) = served().await;
    let client = reqwest::Client::new();
    for (path, content_type, status) in [
        ("/admin/v1/modules/order", WASM, 413),
        ("/admin/v1/modules/order", "text/plain", 415),
        ("/admin/v1/modules", WASM, 405),
        ("/none", WASM, 404),
    ] {
        for _ in 0..3 {
            let request = client.put(format!("http://{address}{path}")).header("content-type", content_type);
            let answer = request.body(vec![0; 8 << 20]).send().await;
            assert_eq!(answer.unwrap().status(), status, "{path}");
        }
    }
}

#[tokio::test]
async fn a_client_that_asks_first_is_told_before_it_sends() {
    let (_host, address, _server) = served().await;
    let mut stream = TcpStream::connect(&address).await.unwrap();
    let head = "PUT /admin/v1/modules/order HTTP/1.1\r\nhost: x\r\ncontent-type: application/wasm\r\n\
                content-length: 9000\r\nexpect: 100-continue\r\n\r\n";
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = [0; 12];
    stream.read_exact(&mut answer).await.unwrap();
    assert_eq!(&answer, b"HTTP/1.1 413");
}
