//! What holds on every route.

use crate::harness::*;

#[tokio::test]
async fn an_unknown_route_is_404_with_an_error_body() {
    let server = Server::empty().await;
    for path in
        ["/", "/api", "/api/v1", "/api/v2/executions", "/api/v1/executions/o/nonsense", "/admin/v1/nonsense"]
    {
        for method in ["GET", "POST", "DELETE", "PUT", "PATCH"] {
            // The user interface may live at the root.
            if path != "/" || method != "GET" {
                server.send(server.request(method, path)).await.any_error(404);
            }
        }
    }
}

#[tokio::test]
async fn a_wrong_method_is_405_with_an_error_body_and_names_the_right_ones() {
    let server = Server::empty().await;
    for (method, path, allowed) in [
        ("DELETE", "/api/v1/executions", "GET POST"),
        ("PUT", "/api/v1/executions", "GET POST"),
        ("POST", "/api/v1/executions/o-1", "GET"),
        ("GET", "/api/v1/executions/o-1/cancel", "POST"),
        ("POST", "/api/v1/executions/o-1/wait", "GET"),
        ("GET", "/api/v1/events/o-1/go", "POST"),
        ("POST", "/api/v1/stats", "GET"),
        ("POST", "/healthz", "GET"),
        ("POST", "/readyz", "GET"),
        ("DELETE", "/metrics", "GET"),
        ("POST", "/admin/v1/modules", "GET"),
        ("POST", "/admin/v1/modules/task", "GET PUT DELETE"),
        ("PUT", "/zart/admin/v1/modules/task/versions", "GET"),
        ("GET", "/zart/admin/v1/modules/task/versions/1/activate", "POST"),
        ("PATCH", "/api/v1/stats", "GET"),
    ] {
        let answer = server.send(server.request(method, path)).await;
        answer.any_error(405);
        let allow = answer.header("allow").unwrap_or_default();
        for allowed in allowed.split(' ') {
            assert!(allow.contains(allowed), "{method} {path}: `allow: {allow}` lacks {allowed}");
        }
    }
}

#[tokio::test]
async fn both_admin_prefixes_answer_alike() {
    let server = Server::start().await;
    for path in ["/modules", "/modules/scenario", "/modules/scenario/versions", "/modules/nobody"] {
        let (old, new) = (
            server.get(&format!("/admin/v1{path}")).await,
            server.get(&format!("/zart/admin/v1{path}")).await,
        );
        assert_eq!((old.status, old.text), (new.status, new.text), "{path}");
    }
}

/// Zart sends `access-control-allow-origin: *` for everything, and has no authentication.
#[tokio::test]
async fn pages_of_other_origins_are_not_let_in() {
    let server = Server::empty().await;
    let request = server.request("GET", "/api/v1/stats").header("origin", "https://elsewhere.example");
    assert_eq!(server.send(request).await.header("access-control-allow-origin"), None);
}

/// Who is still sending sees the answer, and not a connection that was closed under it.
#[tokio::test]
async fn a_refusal_reaches_who_is_still_sending() {
    let server = Server::empty().await;
    let body = vec![b'x'; 8 << 20];
    for (method, path, kind, status) in [
        ("PUT", "/admin/v1/modules/task", "application/json", 415),
        ("PUT", "/admin/v1/modules/no%20name", "application/wasm", 422),
        ("PUT", "/admin/v1/nonsense", "application/wasm", 404),
        ("PUT", "/api/v1/stats", "application/json", 405),
        ("POST", "/api/v1/executions", "text/plain", 415),
        ("POST", "/api/v1/executions", "application/json", 413),
        ("POST", "/api/v1/events/nobody/go", "application/json", 413),
        ("POST", "/api/v1/executions/nobody/cancel", "application/json", 413),
    ] {
        let request = server.request(method, path).header("content-type", kind).body(body.clone());
        server.send(request).await.any_error(status);
    }
}
