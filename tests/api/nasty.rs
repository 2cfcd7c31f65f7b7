//! Nothing that a client sends makes a 500, and nothing of it leaves a trace.

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Duration, timeout},
};

use crate::harness::*;

/// Sends `bytes` as they are and reads what comes back until the server closes.
async fn raw_request(server: &Server, bytes: &[u8]) -> String {
    let mut stream = TcpStream::connect(server.address()).await.expect("it listens");
    // It may close before it has read all.
    drop(stream.write_all(bytes).await);
    drop(stream.shutdown().await);
    let mut answer = Vec::new();
    drop(
        timeout(Duration::from_secs(30), stream.read_to_end(&mut answer))
            .await
            .expect("it answers or closes"),
    );
    String::from_utf8_lossy(&answer).into_owned()
}

/// A request with `body`, in the words of HTTP.
fn request(line: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut text = format!("{line} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n");
    for (name, value) in headers {
        text.push_str(&format!("{name}: {value}\r\n"));
    }
    text.push_str(&format!("content-length: {}\r\n\r\n", body.len()));
    [text.as_bytes(), body].concat()
}

fn start(body: impl AsRef<[u8]>) -> Vec<u8> {
    request("POST /api/v1/executions", &[("content-type", "application/json")], body.as_ref())
}

fn deep(n: usize) -> String {
    format!(r#"{{"taskName":"nobody","payload":{}{}}}"#, "[".repeat(n), "]".repeat(n))
}

fn table() -> Vec<(&'static str, Vec<u8>)> {
    let long = "x".repeat(10_000);
    let very_long = "x".repeat(1 << 20);
    let get = |path: &str| request(&format!("GET {path}"), &[], b"");
    let post = |path: &str| request(&format!("POST {path}"), &[], b"");
    let json = [("content-type", "application/json")];
    vec![
        ("a path that is not UTF-8", get("/api/v1/executions/%ff%fe")),
        ("an overlong encoding", get("/api/v1/executions/%c0%af")),
        ("a surrogate in UTF-8", get("/api/v1/executions/%ed%a0%80")),
        ("a NUL in a path", get("/api/v1/executions/a%00b")),
        ("a control character in a path", get("/api/v1/executions/a%0d%0ab")),
        ("half an escape", get("/api/v1/executions/%4")),
        ("no escape", get("/api/v1/executions/%zz")),
        ("a slash in an id", get("/api/v1/executions/a%2Fb")),
        ("dots", get("/api/v1/executions/../../../etc/passwd")),
        ("dots in escapes", get("/api/v1/executions/%2e%2e%2f%2e%2e%2fetc%2fpasswd")),
        ("a long id", get(&format!("/api/v1/executions/{long}"))),
        ("no id", get("/api/v1/executions/")),
        ("no id to wait for", get("/api/v1/executions//wait")),
        ("a wait with a path that is not UTF-8", get("/api/v1/executions/%ff/wait")),
        ("a query that is not UTF-8", get("/api/v1/executions?search=%ff")),
        ("a NUL in a search", get("/api/v1/executions?search=%00")),
        ("a NUL in a status", get("/api/v1/executions?status=%00")),
        ("half an escape in a query", get("/api/v1/executions?search=%4")),
        ("a filter twice", get("/api/v1/executions?status=failed&status=running")),
        ("a limit below zero", get("/api/v1/executions?limit=-1")),
        ("a huge limit", get("/api/v1/executions?limit=99999999999999999999999999")),
        ("a huge offset", get("/api/v1/executions?offset=18446744073709551615")),
        ("a limit of nothing", get("/api/v1/executions?limit=")),
        ("a limit of hope", get("/api/v1/executions?limit=NaN")),
        ("a far year", get("/api/v1/executions?from=%2B262142-12-31T23:59:59Z")),
        ("a leap second", get("/api/v1/executions?from=2016-12-31T23:59:60Z")),
        ("a year before all", get("/api/v1/executions?to=-262143-01-01T00:00:00Z")),
        ("a query of ampersands", get(&format!("/api/v1/executions?{}", "&".repeat(5_000)))),
        ("a search of wild cards", get(&format!("/api/v1/executions?search={}", "%25".repeat(2_000)))),
        ("SQL", get("/api/v1/executions?search='%20or%201=1;--&taskName=';drop%20table%20runs")),
        ("a wait below zero", get("/api/v1/executions/a/wait?timeoutSecs=-1")),
        ("a huge wait", get("/api/v1/executions/a/wait?timeoutSecs=1e400")),
        ("a path that is not UTF-8, to cancel", post("/api/v1/executions/%ff/cancel")),
        ("a NUL to cancel", post("/api/v1/executions/%00/cancel")),
        ("an event with a NUL", post("/api/v1/events/a/%00")),
        ("an event that is not UTF-8", post("/api/v1/events/%ff/%fe")),
        ("an event with a long name", post(&format!("/api/v1/events/a/{long}"))),
        ("an event without a name", post("/api/v1/events/a/")),
        (
            "a number that no number holds",
            start(r#"{"executionId":"n","taskName":"nobody","payload":1e999}"#),
        ),
        ("a number for scenario", start(r#"{"executionId":"n","taskName":"scenario","payload":1e999}"#)),
        (
            "a deep number for scenario",
            start(r#"{"executionId":"n","taskName":"scenario","payload":{"script":[-1e999]}}"#),
        ),
        ("a long number", start(format!(r#"{{"taskName":"scenario","payload":{}}}"#, "9".repeat(100_000)))),
        ("a lone surrogate in an id", start(r#"{"executionId":"\ud800","taskName":"nobody"}"#)),
        ("a lone surrogate in a payload", start(r#"{"taskName":"scenario","payload":"\ud800"}"#)),
        ("a lone surrogate in a key", start(r#"{"taskName":"scenario","payload":{"\udfff":1}}"#)),
        ("a NUL in an id", start(r#"{"executionId":"a\u0000b","taskName":"nobody"}"#)),
        ("a NUL in a task", start(r#"{"executionId":"a","taskName":"a\u0000b"}"#)),
        ("a NUL in a payload", start(r#"{"taskName":"scenario","payload":"\u0000"}"#)),
        ("a bare NUL", start("{\"taskName\":\"nobody\",\"payload\":\"\0\"}")),
        ("a key twice", start(r#"{"taskName":"nobody","taskName":"scenario","payload":{},"payload":[]}"#)),
        ("bytes that are not UTF-8", start(b"{\"taskName\":\"\xff\xfe\"}")),
        ("an array as the body", start("[]")),
        ("a deep payload", start(deep(120))),
        ("a deeper payload", start(deep(200))),
        ("a payload without ground", start(deep(500_000))),
        ("a body without ground", start("[".repeat(500_000))),
        ("a body of opened objects", start(r#"{"a":"#.repeat(100_000))),
        ("many keys", start(format!("{{{}\"z\":1}}", "\"a\":1,".repeat(50_000)))),
        ("a long task", start(format!(r#"{{"taskName":"{very_long}"}}"#))),
        ("a long id", start(format!(r#"{{"taskName":"nobody","executionId":"{very_long}"}}"#))),
        ("white space", start(" ".repeat(1 << 20))),
        ("a body that is shorter than it says", {
            b"POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{".to_vec()
        }),
        ("a length that is none", {
            b"POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: many\r\n\r\n{}".to_vec()
        }),
        ("a length below zero", {
            b"POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: -5\r\n\r\n{}".to_vec()
        }),
        ("two lengths", {
            b"POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-length: 2\r\ncontent-length: 3\r\n\r\n{}"
                .to_vec()
        }),
        ("a huge length", {
            b"POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\nconnection: close\r\ncontent-length: 18446744073709551615\r\n\r\n{}".to_vec()
        }),
        ("chunks that are none", {
            b"POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n{}\r\n0\r\n\r\n".to_vec()
        }),
        ("a chunk without end", {
            b"POST /api/v1/executions HTTP/1.1\r\nhost: a\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{".to_vec()
        }),
        ("huge headers", request("GET /api/v1/stats", &[("x-long", &very_long)], b"")),
        ("many headers", request("GET /api/v1/stats", &vec![("x-many", "x"); 1_000], b"")),
        ("a header that is not ASCII", request("GET /api/v1/stats", &[("x-name", "\u{e9}\u{1f980}")], b"")),
        (
            "a content type that is not ASCII",
            request("POST /api/v1/executions", &[("content-type", "\u{e9}")], b"{}"),
        ),
        ("a compressed body", {
            request("POST /api/v1/executions", &[json[0], ("content-encoding", "gzip")], b"\x1f\x8b\x08")
        }),
        ("an unknown method", request("BREW /api/v1/executions", &[], b"")),
        ("a method of nonsense", request("\u{1}\u{2} /api/v1/executions", &[], b"")),
        ("TRACE", request("TRACE /api/v1/executions", &[], b"")),
        ("OPTIONS of all", request("OPTIONS *", &[], b"")),
        ("CONNECT", request("CONNECT example.com:443", &[], b"")),
        ("an address in the line", request("GET http://elsewhere.example/api/v1/stats", &[], b"")),
        ("a path without a slash", request("GET api/v1/stats", &[], b"")),
        ("a very long path", get(&format!("/{very_long}"))),
        ("an old protocol", b"GET /api/v1/executions/%ff HTTP/1.0\r\n\r\n".to_vec()),
        ("a protocol to come", b"GET / HTTP/9.9\r\nhost: a\r\n\r\n".to_vec()),
        ("no HTTP at all", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 a TLS hello".to_vec()),
        ("nothing", b"".to_vec()),
        ("an upload without a body", {
            request("PUT /admin/v1/modules/task", &[("content-type", "application/wasm")], b"")
        }),
        ("an upload under a name that is not UTF-8", {
            request("PUT /admin/v1/modules/%ff", &[("content-type", "application/wasm")], b"\0asm")
        }),
        ("an upload that stops half-way", {
            b"PUT /admin/v1/modules/task HTTP/1.1\r\nhost: a\r\ncontent-type: application/wasm\r\ncontent-length: 1000000\r\n\r\n\0asm".to_vec()
        }),
        ("an activation of nonsense", post("/admin/v1/modules/scenario/versions/%ff/activate")),
        (
            "an activation of too much",
            post("/admin/v1/modules/scenario/versions/99999999999999999999/activate"),
        ),
        ("an activation below zero", post("/admin/v1/modules/scenario/versions/-1/activate")),
        ("a removal under a name that is not UTF-8", request("DELETE /admin/v1/modules/%ff", &[], b"")),
    ]
}

#[tokio::test]
async fn nothing_that_a_client_sends_makes_a_500_and_nothing_of_it_leaves_a_trace() {
    let server = Server::start().await;
    server.play("o-1", &script([])).await;
    let state = async || {
        (server.list("").await, server.stats().await, server.get("/admin/v1/modules").await.expect(200))
    };
    let before = state().await;

    for (what, bytes) in table() {
        let answer = raw_request(&server, &bytes).await;
        let Some(status) = answer.strip_prefix("HTTP/1.").and_then(|rest| rest.get(2..5)) else {
            assert_eq!(answer, "", "{what}: neither an answer nor a closed connection");
            continue;
        };
        let status: u16 = status.parse().unwrap();
        assert!((200..500).contains(&status), "{what}: {answer}");
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        // What is not HTTP is refused below the routes, without a body.
        if status >= 400 && !body.is_empty() {
            assert!(head.to_lowercase().contains("content-type: application/json"), "{what}: {answer}");
            let body: Value =
                serde_json::from_str(body).unwrap_or_else(|error| panic!("{what}: {error} in {body}"));
            assert!(body["error"].as_str().is_some_and(|error| error.len() > 10), "{what}: {body}");
            assert!(body["code"].is_string(), "{what}: {body}");
        }
        println!("{what}: {status}");
    }
    assert_eq!(state().await, before);
    server.play("o-2", &script([step("charge")])).await;
}

#[tokio::test]
async fn a_client_that_goes_away_half_way_leaves_no_trace() {
    let server = Server::start().await;
    for _ in 0..50 {
        let mut stream = TcpStream::connect(server.address()).await.unwrap();
        let bytes = start(r#"{"executionId":"o-1","taskName":"raw"}"#);
        stream.write_all(&bytes[..bytes.len() - 5]).await.unwrap();
        drop(stream);
    }
    assert_eq!(server.list("").await, (vec![], 0));
}
