use stepbox_guest::{StepError, step};

#[step(timeout = "30sec")]
fn unknown_unit() -> Result<(), StepError> {
    Ok(())
}

#[step(timeout = 30)]
fn no_unit() -> Result<(), StepError> {
    Ok(())
}

#[step(timeout = "0s")]
fn zero() -> Result<(), StepError> {
    Ok(())
}

fn main() {}
