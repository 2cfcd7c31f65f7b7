use stepbox_guest::step;

#[step(retryable = may_pass)]
fn charge(cents: u64) -> Result<u64, String> {
    Ok(cents)
}

fn may_pass(error: &u32) -> bool {
    *error > 3
}

fn main() {}
