use stepbox_guest::{StepError, step};

#[step(retries = 3)]
fn unknown_option() -> Result<(), StepError> {
    Ok(())
}

#[step(timeout)]
fn no_value() -> Result<(), StepError> {
    Ok(())
}

#[step(timeout = "30s", timeout = "40s")]
fn twice() -> Result<(), StepError> {
    Ok(())
}

#[step(timeout_scope = per_attempt)]
fn scope_without_timeout() -> Result<(), StepError> {
    Ok(())
}

#[step(timeout = "30s", timeout_scope = each)]
fn unknown_scope() -> Result<(), StepError> {
    Ok(())
}

fn main() {}
