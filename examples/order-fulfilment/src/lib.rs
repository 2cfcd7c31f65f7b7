use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepbox_guest::{TaskError, minutes, sleep, step, task};

#[derive(Serialize, Deserialize, JsonSchema, Clone)]
pub struct Order { pub id: String, pub cents: u64 }

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Receipt { pub id: String }

#[derive(Debug, Serialize, Deserialize)]
pub enum ChargeError { Declined }
impl std::fmt::Display for ChargeError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result { f.write_str("declined") }
}

/// Takes the money.
#[step(retry = exponential(3, "2s"), timeout = "30s", name = "charge {order.id}")]
fn charge(order: Order) -> Result<Receipt, ChargeError> {
    if order.cents == 13 { return Err(ChargeError::Declined) }
    Ok(Receipt { id: order.id })
}

/// Charges one order.
#[task(timeout = "30m")]
fn order(order: Order) -> Result<Receipt, TaskError> {
    let receipt = charge(order)?;
    sleep("settle", minutes(5));
    Ok(receipt)
}
