//! One order, from the warehouse to the customer: reserve, charge, settle, ship, confirm.

mod order;
mod steps;

use std::time::Duration;

use serde_json::json;
use stepbox_guest::{Failure, Outcome, TaskError, sleep, task, wait_event};

pub use order::{Card, Confirmation, Item, Order, PickedUp, Simulation};
use steps::{ChargeError, Receipt, book_carrier, charge, confirm, refund, release, reserve};

/// Charges, ships and confirms one order.
#[task(timeout = "2d")]
pub fn order_fulfilment(order: Order) -> Result<Confirmation, TaskError> {
    let reservation = reserve(order.clone())?;

    let receipt = match charge::outcome(order.clone()) {
        Outcome::Value(receipt) => receipt,
        Outcome::Error(ChargeError::Declined { reason }, _) => {
            release(reservation)?;
            return Err(TaskError::new("the card was declined")
                .with_details(json!({ "orderId": order.order_id, "reason": reason })));
        }
        Outcome::Error(_, failure) | Outcome::Failure(failure) => {
            release(reservation)?;
            return Err(failure.into());
        }
    };

    // The time in which a customer may think better of it. However long it is, it costs the host
    // next to nothing, and it goes on where it was after a restart.
    sleep("settle", Duration::from_millis(order.simulation.settle_ms));

    let booking = book_carrier(order.clone())?;
    let picked_up = match wait_for_carrier(&order) {
        Ok(picked_up) => picked_up,
        Err(failure) => return Err(give_back(receipt, failure)),
    };
    confirm(order.clone(), picked_up.clone())?;

    Ok(Confirmation {
        order_id: order.order_id,
        charged_cents: receipt.cents,
        receipt_id: receipt.receipt_id,
        booking_id: booking.booking_id,
        carrier: picked_up.carrier,
        tracking_number: picked_up.tracking_number,
    })
}

/// The carrier's message that it has the parcel comes from outside, as an event.
fn wait_for_carrier(order: &Order) -> Result<PickedUp, Failure> {
    wait_event("shipment", Duration::from_millis(order.simulation.shipment_timeout_ms))
}

/// Nobody came for the parcel: the customer gets the money back, and the run fails all the same.
fn give_back(receipt: Receipt, failure: Failure) -> TaskError {
    match refund(receipt) {
        Ok(_) => failure.into(),
        Err(refund_failed) => refund_failed.into(),
    }
}

#[cfg(test)]
mod tests;
