use stepbox_guest::{TaskError, task};

#[task]
fn order(order_id: String, cents: u64) -> Result<String, TaskError> {
    let _ = cents;
    Ok(order_id)
}

fn main() {}
