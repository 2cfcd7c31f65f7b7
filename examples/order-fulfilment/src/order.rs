//! What comes in and what goes out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Order {
    pub order_id: String,
    pub items: Vec<Item>,
    pub card: Card,
    /// Where the confirmation goes.
    pub email: String,
    #[serde(default)]
    pub simulation: Simulation,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Item {
    pub sku: String,
    pub quantity: u32,
    pub unit_cents: u64,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Card {
    /// One that ends in 0002 is declined.
    pub number: String,
}

/// This shop has no real warehouse, bank and carrier; what they do is asked for here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Simulation {
    /// How long the order settles before it is shipped; five minutes if left out.
    pub settle_ms: u64,
    /// How long the carrier has to pick up the parcel; a day if left out.
    pub shipment_timeout_ms: u64,
    /// So many first attempts of `charge` find the bank out of reach.
    pub charge_failures: u32,
    /// How long each step takes.
    pub step_delay_ms: u64,
}

impl Default for Simulation {
    fn default() -> Self {
        Simulation {
            settle_ms: 300_000,
            shipment_timeout_ms: 86_400_000,
            charge_failures: 0,
            step_delay_ms: 0,
        }
    }
}

/// The payload of the event `shipment`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PickedUp {
    pub carrier: String,
    pub tracking_number: String,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Confirmation {
    pub order_id: String,
    pub charged_cents: u64,
    pub receipt_id: String,
    pub booking_id: String,
    pub carrier: String,
    pub tracking_number: String,
}

impl Order {
    pub fn total_cents(&self) -> u64 {
        let cents = self.items.iter().map(|item| item.unit_cents.saturating_mul(item.quantity.into()));
        cents.fold(0, u64::saturating_add)
    }
}
