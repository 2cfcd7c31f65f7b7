//! `GET /api/v1/stats`, `/healthz`, `/readyz`, `/metrics`

use crate::harness::*;

#[tokio::test]
async fn stats_count_the_executions_of_each_status() {
    let server = Server::start().await;
    let none = json!({ "scheduled": 0, "running": 0, "completed": 0, "failed": 0, "cancelled": 0 });
    assert_eq!(server.stats().await, none);

    for id in ["c-1", "c-2", "c-3"] {
        server.play(id, &script([])).await;
    }
    server.play("f-1", &script([json!({ "fail": { "message": "as asked" } })])).await;
    for id in ["w-1", "w-2", "x-1"] {
        server.run_script(id, &script([wait_event("go")])).await;
        server.until_waiting(id, "event").await;
    }
    server.cancel("x-1").await.expect_empty(204);

    let stats = json!({ "scheduled": 0, "running": 2, "completed": 3, "failed": 1, "cancelled": 1 });
    assert_eq!(server.stats().await, stats);
}

#[tokio::test]
async fn a_server_that_moves_is_alive_and_ready() {
    let server = Server::empty().await;
    for path in ["/healthz", "/readyz"] {
        let answer = server.get(path).await;
        assert_eq!(answer.status, 200, "{answer:#?}");
    }
}

#[tokio::test]
async fn metrics_are_in_the_text_format_of_prometheus_and_count() {
    let server = Server::start().await;
    server.play("o-1", &script([step("charge")])).await;

    let answer = server.get("/metrics").await;

    assert_eq!(answer.status, 200);
    let kind = answer.header("content-type").unwrap();
    assert!(kind.starts_with("text/plain") || kind.starts_with("application/openmetrics-text"), "{kind}");
    let mut counted = false;
    for line in answer.text.lines().filter(|line| !line.starts_with('#') && !line.is_empty()) {
        let (name, value) = line.rsplit_once(' ').unwrap_or_else(|| panic!("no value in {line:?}"));
        assert!(value.parse::<f64>().is_ok(), "no number in {line:?}");
        assert!(name.starts_with("stepbox_"), "{line:?} has a name of its own");
        counted |= name.starts_with("stepbox_executions_started") && value == "1";
    }
    assert!(counted, "one execution was started, which is not in:\n{}", answer.text);
}
