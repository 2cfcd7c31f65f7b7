use stepbox_guest::{StepError, step};

#[step]
fn charge(card: &str) -> Result<u64, StepError> {
    Ok(card.len() as u64)
}

#[step]
fn refund(cards: Vec<&'static str>) -> Result<u64, StepError> {
    Ok(cards.len() as u64)
}

fn main() {}
