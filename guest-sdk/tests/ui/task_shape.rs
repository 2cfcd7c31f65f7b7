use stepbox_guest::{TaskError, task};

mod asynchronous {
    use super::*;

    #[task]
    async fn order(order_id: String) -> Result<String, TaskError> {
        Ok(order_id)
    }
}

mod without_result {
    use super::*;

    #[task]
    fn order(order_id: String) -> String {
        order_id
    }
}

mod borrowing {
    use super::*;

    #[task]
    fn order(order_id: &str) -> Result<String, TaskError> {
        Ok(order_id.to_owned())
    }
}

fn main() {}
