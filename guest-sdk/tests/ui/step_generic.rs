use stepbox_guest::{StepError, step};

#[step]
fn charge<T: Into<u64>>(cents: T) -> Result<u64, StepError> {
    Ok(cents.into())
}

#[step]
fn refund(cents: impl Into<u64>) -> Result<u64, StepError> {
    Ok(cents.into())
}

fn main() {}
