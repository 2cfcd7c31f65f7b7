use stepbox_guest::{TaskError, task};

struct Order;
struct Confirmation;

#[task]
fn order(order: Order) -> Result<Confirmation, TaskError> {
    let _ = order;
    Ok(Confirmation)
}

mod other {
    use super::*;

    #[derive(Debug)]
    struct OwnError;

    #[task]
    fn refund(cents: u64) -> Result<u64, OwnError> {
        Ok(cents)
    }
}

fn main() {}
