use stepbox_guest::{StepError, step};

struct Order;
struct Receipt;
#[derive(Debug)]
struct ChargeError;

#[step]
fn argument(order: Order) -> Result<u64, StepError> {
    let _ = order;
    Ok(1)
}

#[step]
fn value(cents: u64) -> Result<Receipt, StepError> {
    let _ = cents;
    Ok(Receipt)
}

#[step]
fn error(cents: u64) -> Result<u64, ChargeError> {
    Ok(cents)
}

fn main() {}
