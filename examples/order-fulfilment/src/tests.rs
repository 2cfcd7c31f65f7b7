use serde_json::{Value, json};
use stepbox_guest::testing::{TestRun, as_attempt, manifest};
use stepbox_guest::{FailureKind, StepError, days, hours, minutes};

use super::*;
use crate::steps::Booking;

fn order() -> Order {
    Order {
        order_id: "o-1001".into(),
        items: vec![Item { sku: "tea".into(), quantity: 2, unit_cents: 450 }],
        card: Card { number: "4242424242424242".into() },
        email: "ada@example.com".into(),
        simulation: Simulation::default(),
    }
}

fn red_van() -> PickedUp {
    PickedUp { carrier: "Red Van".into(), tracking_number: "RV-77".into() }
}

fn declined() -> Order {
    Order { card: Card { number: "4000000000000002".into() }, ..order() }
}

fn run(order: Order) -> TestRun<order_fulfilment> {
    TestRun::of::<order_fulfilment>().payload(order)
}

#[test]
fn an_order_is_charged_shipped_and_confirmed() {
    let run = run(order()).event_after(hours(3), "shipment", red_van()).run();

    let confirmation = run.result().unwrap();
    assert_eq!(confirmation.charged_cents, 900);
    assert_eq!(confirmation.tracking_number, "RV-77");
    assert_eq!(
        run.calls(),
        ["reserve", "charge", "settle", "book_carrier", "shipment", "confirm to ada@example.com"]
    );
    assert_eq!(run.step("settle").took, minutes(5));
    assert_eq!(run.took(), hours(3));
    run.assert_replays();
}

#[test]
fn a_bank_out_of_reach_is_tried_again() {
    let mut order = order();
    order.simulation.charge_failures = 2;
    let run = run(order).event("shipment", red_van()).run();

    assert_eq!(run.step("charge").attempts, 3);
    assert!(run.result().is_ok());
}

#[test]
fn a_bank_out_of_reach_for_good_fails_the_order_and_releases_the_goods() {
    let mut order = order();
    order.simulation.charge_failures = 9;
    let run = run(order).run();

    let failure = run.failure();
    assert_eq!(failure.kind, FailureKind::Exhausted);
    assert_eq!((failure.step.as_deref(), failure.attempt), (Some("charge"), Some(4)));
    assert_eq!(run.calls(), ["reserve", "charge", "release"]);
}

#[test]
fn a_declined_card_fails_the_order_with_the_reason() {
    let run = run(declined()).run();

    let failure = run.failure();
    assert_eq!(failure.kind, FailureKind::Error);
    assert_eq!(failure.details, Some(json!({ "orderId": "o-1001", "reason": "insufficient funds" })));
    assert_eq!(run.step("charge").attempts, 1, "the bank will say no again");
    assert_eq!(run.calls(), ["reserve", "charge", "release"]);
}

#[test]
fn nothing_is_charged_for_goods_that_are_not_there() {
    let mut order = order();
    order.items[0].quantity = 101;
    let run = run(order).run();

    assert_eq!(run.failure().message, "there are not 101 of tea in stock");
    assert_eq!(run.calls(), ["reserve"]);
}

#[test]
fn a_parcel_that_nobody_picks_up_is_refunded() {
    let run = run(order()).run();

    assert_eq!(run.failure().kind, FailureKind::TimedOut);
    assert_eq!(run.calls(), ["reserve", "charge", "settle", "book_carrier", "shipment", "refund"]);
    assert!(run.took() > days(1));
}

#[test]
fn each_deed_is_done_once_however_often_the_host_dies() {
    let run = run(order()).event("shipment", red_van()).crash_after_each_record().run();

    assert!(run.result().is_ok());
    for step in run.steps().iter().filter(|step| step.attempts > 0) {
        assert_eq!(step.bodies_run, 1, "{}", step.key);
    }
}

#[test]
fn a_charge_that_nobody_recorded_is_asked_for_under_the_same_id() {
    let run = run(order()).event("shipment", red_van()).crash_during::<charge>().run();

    assert_eq!(run.step("charge").bodies_run, 2);
    assert_eq!(run.result().unwrap().receipt_id, "test-charge");
}

#[test]
fn a_step_can_be_replaced_for_a_test() {
    let run = run(order())
        .step::<book_carrier>(|(order,), attempt| match attempt {
            1 => Err(StepError::new("the carrier's line is busy")),
            _ => Ok(Booking { booking_id: format!("for {}", order.order_id) }),
        })
        .event("shipment", red_van())
        .run();

    assert_eq!(run.result().unwrap().booking_id, "for o-1001");
}

#[test]
fn a_body_can_be_tested_on_its_own() {
    let mut order = order();
    order.simulation.charge_failures = 1;

    assert_eq!(as_attempt(1, || charge::body(order.clone())), Err(ChargeError::OutOfReach));
    assert_eq!(as_attempt(2, || charge::body(order.clone())).unwrap().cents, 900);
}

#[test]
fn the_manifest_tells_what_the_attributes_say() {
    let manifest = manifest();

    assert_eq!(manifest["task"]["timeoutMs"], 172_800_000);
    let functions: Vec<&Value> =
        manifest["steps"].as_array().unwrap().iter().map(|step| &step["function"]).collect();
    assert_eq!(functions, ["book_carrier", "charge", "confirm", "refund", "release", "reserve"]);
    assert_eq!(manifest["steps"][1]["retry"]["delayMaxMs"], 10_000);
}
