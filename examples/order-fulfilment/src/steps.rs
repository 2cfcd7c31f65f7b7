//! What touches the world: the warehouse, the bank, the carrier, the post.
//!
//! A step may run twice, since a crash can come between the deed and its record. So each of them
//! asks the other side with an id that is the same every time; see [`deed_id`].

use std::fmt;
use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepbox_guest::{StepError, attempt, context, step};

use crate::order::{Order, PickedUp};

/// More of one thing than this is not in stock.
const STOCK: u32 = 100;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Reservation {
    pub reservation_id: String,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub receipt_id: String,
    pub cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Booking {
    pub booking_id: String,
}

/// Why the bank gave no money. It is `Serialize`, so the handler gets it back as it was.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum ChargeError {
    /// The bank says no; it will say no again.
    Declined {
        reason: String,
    },
    OutOfReach,
}

impl ChargeError {
    fn may_pass(&self) -> bool {
        matches!(self, ChargeError::OutOfReach)
    }
}

impl fmt::Display for ChargeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ChargeError::Declined { reason } => write!(f, "the bank declined the card: {reason}"),
            ChargeError::OutOfReach => f.write_str("the bank cannot be reached"),
        }
    }
}

/// Sets the goods aside.
#[step(retry = fixed(3, "500ms"))]
pub fn reserve(order: Order) -> Result<Reservation, StepError> {
    work(&order);
    match order.items.iter().find(|item| item.quantity > STOCK) {
        Some(item) => {
            Err(StepError::fatal(format!("there are not {} of {} in stock", item.quantity, item.sku))
                .with_details(item))
        }
        None => Ok(Reservation { reservation_id: deed_id("reserve") }),
    }
}

/// Puts the goods back.
#[step(retry = exponential(10, "1s", cap = "5m"))]
pub fn release(reservation: Reservation) -> Result<(), StepError> {
    log::info!("reservation {} released", reservation.reservation_id);
    Ok(())
}

/// Takes the money.
#[step(retry = exponential(4, "1s", cap = "10s"), timeout = "2m", retryable = ChargeError::may_pass)]
pub fn charge(order: Order) -> Result<Receipt, ChargeError> {
    work(&order);
    if attempt() <= order.simulation.charge_failures {
        return Err(ChargeError::OutOfReach);
    }
    if order.card.number.ends_with("0002") {
        return Err(ChargeError::Declined { reason: "insufficient funds".into() });
    }
    let receipt = Receipt { receipt_id: deed_id("charge"), cents: order.total_cents() };
    log::info!("charged {} cents, receipt {}", receipt.cents, receipt.receipt_id);
    Ok(receipt)
}

/// Gives the money back.
#[step(retry = exponential(10, "1s", cap = "5m"))]
pub fn refund(receipt: Receipt) -> Result<(), StepError> {
    log::info!("refunded {} cents, receipt {}", receipt.cents, receipt.receipt_id);
    Ok(())
}

/// Asks a carrier to come for the parcel.
#[step(retry = exponential(5, "1s"), timeout = "1m", timeout_scope = per_attempt)]
pub fn book_carrier(order: Order) -> Result<Booking, StepError> {
    work(&order);
    Ok(Booking { booking_id: deed_id("book") })
}

/// Tells the customer.
#[step(retry = exponential(5, "1s"), name = "confirm to {order.email}")]
pub fn confirm(order: Order, picked_up: PickedUp) -> Result<(), StepError> {
    work(&order);
    log::info!("told {} that {} has the parcel", order.email, picked_up.carrier);
    Ok(())
}

/// The id under which the other side knows this deed: the same on every attempt, and after a
/// crash in the middle of one, so that it is done once.
fn deed_id(deed: &str) -> String {
    format!("{}-{deed}", context().execution_id)
}

fn work(order: &Order) {
    thread::sleep(Duration::from_millis(order.simulation.step_delay_ms));
}
