use stepbox_guest::{StepError, step};

#[step]
fn charge((order, cents): (String, u64)) -> Result<u64, StepError> {
    let _ = order;
    Ok(cents)
}

fn main() {}
