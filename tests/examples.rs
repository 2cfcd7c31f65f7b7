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
