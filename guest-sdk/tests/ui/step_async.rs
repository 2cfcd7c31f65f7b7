use stepbox_guest::{StepError, step};

#[step]
async fn charge(cents: u64) -> Result<u64, StepError> {
    Ok(cents)
}

fn main() {}
