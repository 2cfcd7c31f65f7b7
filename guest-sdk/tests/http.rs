//! Requests in unit tests: answered by the test, in steps and nowhere else.

use std::cell::RefCell;
use std::rc::Rc;

use stepbox_guest::http::{ErrorKind, Response};
use stepbox_guest::testing::{TestRun, with_http};
use stepbox_guest::{StepError, TaskError, http, step, task};

#[step]
fn price(sku: String) -> Result<u64, StepError> {
    Ok(http::get(format!("https://prices.example/{sku}")).send()?.success()?.json()?)
}

#[task]
fn order(skus: Vec<String>) -> Result<u64, TaskError> {
    let mut sum = 0;
    for sku in skus {
        // The name of a place where no step is: the handler itself asks.
        sum += match sku.as_str() {
            "outside" => http::get("https://prices.example/tea").send()?.json()?,
            _ => price(sku)?,
        };
    }
    Ok(sum)
}

#[test]
fn a_server_of_the_test_answers_and_a_replay_asks_it_nothing() {
    let asked = Rc::new(RefCell::new(Vec::new()));
    let heard = asked.clone();
    let run = TestRun::of::<order>()
        .payload(["tea", "pot"])
        .http(move |request| {
            heard.borrow_mut().push(format!("{} {}", request.method(), request.url()));
            Ok(Response::new(200).with_json(&request.url().len()))
        })
        .run();

    assert_eq!(run.result(), Ok(&52));
    assert_eq!(*asked.borrow(), ["GET https://prices.example/tea", "GET https://prices.example/pot"]);
    run.assert_replays();
    assert_eq!(asked.borrow().len(), 2);
}

#[test]
fn outside_of_a_step_a_request_ends_the_run() {
    let run =
        TestRun::of::<order>().payload(["outside"]).http(|_| Ok(Response::new(200).with_json(&1))).run();
    let failure = run.failure();
    assert!(failure.message.contains("send it inside of one"), "{failure:?}");
}

#[test]
fn a_body_on_its_own_is_answered_too_and_without_a_server_nothing_is_reached() {
    let asked = with_http(|_| Ok(Response::new(200).with_json(&7)), || price::body("tea".into()));
    assert_eq!(asked, Ok(7));
    let error = http::get("https://prices.example/tea?token=hidden").send().unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unreachable);
    assert!(error.to_string().starts_with("GET https://prices.example/tea: there is no network"), "{error}");
}
