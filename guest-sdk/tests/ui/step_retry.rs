use stepbox_guest::{StepError, step};

#[step(retry = exponential(0, "2s"))]
fn no_attempts() -> Result<(), StepError> {
    Ok(())
}

#[step(retry = 3)]
fn a_number() -> Result<(), StepError> {
    Ok(())
}

#[step(retry = linear(3, "2s"))]
fn unknown_kind() -> Result<(), StepError> {
    Ok(())
}

#[step(retry = fixed(3))]
fn no_delay() -> Result<(), StepError> {
    Ok(())
}

#[step(retry = fixed(3, "2s", cap = "1m"))]
fn a_cap_for_a_fixed_delay() -> Result<(), StepError> {
    Ok(())
}

#[step(retry = exponential(3, "2s", multiplier = 0.5))]
fn a_delay_that_shrinks() -> Result<(), StepError> {
    Ok(())
}

fn main() {}
