//! The examples do what their pages say.

use crate::harness::*;

async fn with_example(package: &str) -> Server {
    let server = Server::start().await;
    server.upload(package, guests::example(package)).await.expect(201);
    server
}

fn order(simulation: Value) -> Value {
    json!({
        "orderId": "o-1001",
        "items": [{ "sku": "tea", "quantity": 2, "unitCents": 450 }],
        "card": { "number": "4242424242424242" },
        "email": "ada@example.com",
        "simulation": simulation,
    })
}

#[tokio::test]
async fn an_order_is_fulfilled_over_a_crash_and_a_bank_out_of_reach() {
    let mut server = with_example("order-fulfilment").await;
    let payload = order(json!({ "settleMs": 300, "chargeFailures": 1, "stepDelayMs": 30 }));
    server.start("o-1001", "order-fulfilment", &payload).await.expect(201);
    server.until("o-1001", "has begun", |execution| execution["status"] == "running").await;
    server.kill_9().restart();
    server.until("o-1001", "waits for the carrier", |e| e["waitingFor"]["event"] == "shipment").await;
    server.kill_9().restart();
    let shipment = json!({ "carrier": "Red Van", "trackingNumber": "RV-77" });
    assert_eq!(server.event("o-1001", "shipment", &shipment).await.expect(202)["status"], "delivered");

    let result = server.result("o-1001").await;

    assert_eq!((&result["chargedCents"], &result["trackingNumber"]), (&json!(900), &json!("RV-77")));
    assert_eq!(result["receiptId"], "o-1001-charge");
}

#[tokio::test]
async fn an_order_on_a_declined_card_fails_with_the_reason() {
    let server = with_example("order-fulfilment").await;
    let mut payload = order(json!({}));
    payload["card"]["number"] = json!("4000000000000002");
    server.start("o-1", "order-fulfilment", &payload).await.expect(201);
    let failure = server.failure("o-1").await;
    assert_eq!(failure["details"]["reason"], "insufficient funds");
    assert_eq!(server.written("o-1", "reservation "), ["o-1-reserve released"]);
}

#[tokio::test]
async fn an_order_without_items_is_refused_before_it_begins() {
    let server = with_example("order-fulfilment").await;
    let mut payload = order(json!({}));
    payload["items"] = json!("none");
    let answer = server.start("o-1", "order-fulfilment", &payload).await;
    answer.error(422, "payload_refused");
    assert_eq!(answer.json()["pointer"], "/items");
}

#[tokio::test]
async fn an_approval_is_given_refused_or_comes_too_late() {
    let server = with_example("approval").await;
    let request = |remind_ms: u64, timeout_ms: u64| {
        json!({
            "title": "a second monitor", "author": "ada@example.com", "approver": "bob@example.com",
            "remindAfterMs": remind_ms, "timeoutMs": timeout_ms,
        })
    };
    for (id, approved, verdict) in [("yes", true, "approved"), ("no", false, "rejected")] {
        server.start(id, "approval", &request(3_600_000, 7_200_000)).await.expect(201);
        server.until_waiting(id, "event").await;
        let answer = json!({ "approved": approved, "by": "bob", "comment": "well" });
        server.event(id, "approval", &answer).await.expect(202);
        let result = server.result(id).await;
        assert_eq!((&result["verdict"], &result["reminded"]), (&json!(verdict), &json!(false)));
    }
    server.start("late", "approval", &request(50, 150)).await.expect(201);
    assert_eq!(server.result("late").await, json!({ "verdict": "timedOut", "reminded": true }));
}

#[tokio::test]
async fn a_lockfile_report_goes_on_with_the_package_that_was_next() {
    let mut server = with_example("lockfile-report").await;
    let lockfile = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../Cargo.lock")).unwrap();
    let packages = lockfile.matches("[[package]]").count();
    let payload = json!({ "lockfile": lockfile, "stepDelayMs": 1 });
    server.start("report", "lockfile-report", &payload).await.expect(201);
    server.until("report", "has begun", |execution| execution["status"] == "running").await;
    server.kill_9().restart();
    assert_eq!(server.result("report").await["packages"], packages);
}

#[tokio::test]
async fn a_webhook_is_delivered_with_its_secret_and_tried_again_where_that_helps() {
    let busy = std::sync::atomic::AtomicBool::new(true);
    let web = web::Web::start(move |_| match busy.swap(false, std::sync::atomic::Ordering::SeqCst) {
        true => web::status("503 Service Unavailable", "retry-after: 0\r\n", "not now"),
        false => web::status("202 Accepted", "", r#"{"receipt":"r-1"}"#),
    })
    .await;
    let folder = tempfile::tempdir().unwrap();
    let key = folder.path().join("key");
    std::fs::write(&key, "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\n").unwrap();
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
    let server = Server::with("secrets-key-file", key.display()).start_empty().await;
    let uploaded = server.upload("webhook", guests::example("webhook")).await.expect(201);
    assert_eq!((&uploaded["active"], &uploaded["waiting"]), (&json!(false), &json!(true)));
    let notice = json!({ "url": web.url("/orders"), "event": "order.shipped", "data": { "order": "o-7" } });
    let refused = server.start("w-1", "webhook", &notice).await.error(422, "waits_for_grants");
    assert!(refused.contains("secret WEBHOOK_TOKEN for hooks.example.com"), "{refused}");
    // What it wants, and the server of this test.
    let here =
        json!({ "scheme": "http", "host": "127.0.0.1", "port": web.address.port(), "methods": ["POST"] });
    let grants = json!({
        "http": [{ "host": "hooks.example.com", "methods": ["POST"] }, here],
        "addresses": ["127.0.0.1"],
        "secrets": { "WEBHOOK_TOKEN": ["hooks.example.com", "127.0.0.1"] },
    });
    let granted = server.request("PUT", "/admin/v1/modules/webhook/grants").json(&grants);
    assert_eq!(server.send(granted).await.expect(200)["activatedVersion"], 1);
    let secret =
        server.request("PUT", "/admin/v1/secrets/WEBHOOK_TOKEN").header("content-type", "text/plain");
    server.send(secret.body("the-token")).await.expect(201);

    server.start("w-1", "webhook", &notice).await.expect(201);

    assert_eq!(server.result("w-1").await, json!({ "status": 202, "receipt": "r-1" }));
    let heard = web.heard();
    assert_eq!(heard.len(), 2);
    for heard in heard {
        assert_eq!(heard.header("authorization"), Some("Bearer the-token"));
        assert_eq!(heard.header("idempotency-key"), Some("w-1"));
        let body: Value = serde_json::from_slice(&heard.body).unwrap();
        assert_eq!(body, json!({ "id": "w-1", "event": "order.shipped", "data": { "order": "o-7" } }));
    }
    assert!(!server.detail("w-1").await.to_string().contains("the-token"));
}
