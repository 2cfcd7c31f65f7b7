use stepbox_guest::{StepError, step};

#[step]
fn charge(cents: u64) -> Result<u64, StepError> {
    Ok(cents)
}

fn main() {
    let _ = charge::outcome(900);
}
