//! Repairs of executions whose module is there no more.

use crate::harness::*;

#[tokio::test]
async fn what_cannot_run_is_refused_and_stays_as_it_is() {
    let server = Server::start().await;
    let lines = [step("before"), step_with("charge", json!({ "failures": 1 }))];
    server.play("o-1", &script(lines)).await;
    server.delete("/admin/v1/modules/scenario").await.expect_empty(204);
    let before = server.all_of("o-1").await;
    let retry = json!({ "stepName": "charge" });
    for body in [json!({}), json!({ "payload": script([]) })] {
        server.restart_run("o-1", &body).await.error(422, "unknown_task");
    }
    server.rerun("o-1", &json!({ "rerunSteps": ["charge"] })).await.error(422, "unknown_task");
    for answer in [
        server.retry_step("o-1", &retry).await,
        server.resolve_step("o-1", "charge", &json!({ "result": 1 })).await,
        server.dry_run("o-1", "retry-step", &retry).await,
    ] {
        let message = answer.error(409, "version_removed");
        assert!(message.contains("scenario"), "{message}");
    }
    assert_eq!(server.all_of("o-1").await, before);
}

/// Another component under the old number would go on with what the old one began.
#[tokio::test]
async fn one_that_comes_back_is_another_version() {
    let server = Server::start().await;
    let lines = [json!("variant"), step_with("charge", json!({ "failures": 1 }))];
    server.play("o-1", &script(lines)).await;
    server.delete("/admin/v1/modules/scenario").await.expect_empty(204);

    let version =
        server.upload("scenario", guests::scenario_marked("002")).await.expect(201)["version"].clone();

    assert_ne!(version, 1);
    let retry = json!({ "stepName": "charge" });
    server.retry_step("o-1", &retry).await.error(409, "version_removed");
    let retry = json!({ "stepName": "charge", "moduleVersion": version });
    server.retry_step("o-1", &retry).await.expect(200);
    assert_eq!(server.result("o-1").await, json!(["002", { "attempt": 2 }]));
}
