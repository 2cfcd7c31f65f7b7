use stepbox_guest::{TaskError, task};

#[task]
fn order(order_id: String) -> Result<String, TaskError> {
    Ok(order_id)
}

#[task]
fn refund(order_id: String) -> Result<String, TaskError> {
    Ok(order_id)
}

fn main() {}
