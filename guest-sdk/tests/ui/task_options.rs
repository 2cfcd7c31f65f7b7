use stepbox_guest::{TaskError, task};

#[task(retry = fixed(3, "2s"))]
fn retried(order_id: String) -> Result<String, TaskError> {
    Ok(order_id)
}

mod other {
    use super::*;

    #[task(name = "order")]
    fn named(order_id: String) -> Result<String, TaskError> {
        Ok(order_id)
    }
}

fn main() {}
