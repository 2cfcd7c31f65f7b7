//! `GET /api/v1/executions/{id}/wait`

use futures_util::future::join_all;

use crate::harness::*;

#[tokio::test]
async fn a_terminal_execution_is_answered_at_once() {
    let server = Server::start().await;
    let over = server.play("o-1", &script([])).await;
    // With no time to wait for it, it can only be at once.
    assert_eq!(server.wait("o-1", "0").await.expect(200), over);
    assert_eq!(server.get("/api/v1/executions/o-1/wait").await.expect(200), over);
}

#[tokio::test]
async fn an_unknown_execution_is_404() {
    let server = Server::start().await;
    server.wait("nobody", "1").await.error(404, "unknown_execution");
}

#[tokio::test]
async fn all_who_wait_hear_of_the_end_whichever_it_is() {
    let server = Server::start().await;
    let fail = json!({ "fail": { "message": "as asked" } });
    for (id, script, status) in [
        ("completes", script([wait_event("go")]), "completed"),
        ("fails", script([wait_event("go"), fail]), "failed"),
        ("cancelled", script([wait_event("go")]), "cancelled"),
    ] {
        server.run_script(id, &script).await;
        server.until_waiting(id, "event").await;
        let end = async {
            // Some wait already, some come while it ends.
            tokio::task::yield_now().await;
            match status {
                "cancelled" => server.cancel(id).await.expect_empty(204),
                _ => drop(server.event(id, "go", &Value::Null).await.expect(202)),
            }
        };
        let (answers, ()) = tokio::join!(join_all((0..50).map(|_| server.wait(id, "30"))), end);
        for answer in answers {
            assert_eq!(answer.expect(200)["status"], status);
        }
    }
}

#[tokio::test]
async fn when_the_time_is_up_the_answer_is_504() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    for query in ["timeoutSecs=0", "timeoutSecs=1", "timeout_secs=0", "timeout_secs=1"] {
        let answer = server.get(&format!("/api/v1/executions/o-1/wait?{query}")).await;
        let message = answer.any_error(504);
        assert!(message.contains("o-1"), "{message}");
    }
    assert_eq!(server.execution("o-1").await["status"], "running");
}

#[tokio::test]
async fn a_timeout_is_a_number_of_seconds_and_a_longer_one_is_capped() {
    let server = Server::start().await;
    server.play("o-1", &script([])).await;
    for good in ["31", "3600", "18446744073709551615"] {
        server.wait("o-1", good).await.expect(200);
    }
    for bad in ["soon", "-1", "1.5x", ""] {
        let message = server.wait("o-1", bad).await.any_error(400);
        assert!(message.contains("timeoutSecs"), "{message}");
    }
}

/// Zart looked every 500 ms. A hundred runs that wait for each other in turn would take it 50 s
/// and more, whatever the machine.
#[tokio::test]
async fn who_waits_is_woken_and_does_not_look_now_and_then() {
    let server = Server::start().await;
    let rounds = async {
        for n in 0..100 {
            let id = format!("o-{n}");
            server.start(&id, "raw", &Value::Null).await.expect(201);
            server.wait(&id, "30").await.expect(200);
        }
    };
    tokio::time::timeout(std::time::Duration::from_secs(40), rounds).await.expect("nobody polls");
}
