use std::cell::Cell;

use serde_json::json;
use stepbox_guest::http::{Error, ErrorKind, Response};
use stepbox_guest::testing::TestRun;

use super::*;

fn notice() -> TestRun<webhook> {
    TestRun::of::<webhook>().payload(json!({
        "url": "https://hooks.example.com/orders", "event": "order.shipped", "data": { "order": "o-7" },
    }))
}

#[test]
fn the_notice_is_sent_with_the_place_of_the_secret_and_an_id() {
    let run = notice()
        .http(|request| {
            assert_eq!((request.method(), request.url()), ("POST", "https://hooks.example.com/orders"));
            assert_eq!(
                request.header_value("authorization"),
                Some("Bearer {{stepbox:secret:WEBHOOK_TOKEN}}")
            );
            assert_eq!(request.header_value("idempotency-key"), Some("test"));
            let message: Message = request.body_json().unwrap();
            assert_eq!((message.id.as_str(), message.event.as_str()), ("test", "order.shipped"));
            Ok(Response::new(202).with_json(&json!({ "receipt": "r-1" })))
        })
        .run();

    assert_eq!(run.result(), Ok(&Delivery { status: 202, receipt: Some("r-1".into()) }));
    run.assert_replays();
}

#[test]
fn a_server_that_is_busy_or_out_of_reach_is_tried_again() {
    let knocks = Cell::new(0);
    let run = notice()
        .http(move |_| {
            knocks.set(knocks.get() + 1);
            match knocks.get() {
                1 => Err(Error::new(ErrorKind::Unreachable, "unreachable: nobody answers")),
                2 => Ok(Response::new(503)),
                _ => Ok(Response::new(204)),
            }
        })
        .run();

    assert_eq!(run.result(), Ok(&Delivery { status: 204, receipt: None }));
    assert_eq!(run.step("deliver").attempts, 3);
}

#[test]
fn what_was_not_granted_or_not_wanted_is_not_tried_again() {
    let denied = notice().http(|_| Err(Error::new(ErrorKind::Denied, "denied: no grant allows it"))).run();
    assert_eq!(denied.step("deliver").attempts, 1);
    let gone = notice().http(|_| Ok(Response::new(410))).run();
    assert_eq!(gone.step("deliver").attempts, 1);
}
