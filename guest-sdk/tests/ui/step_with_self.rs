use stepbox_guest::{StepError, step};

struct Shop;

impl Shop {
    #[step]
    fn charge(&self, cents: u64) -> Result<u64, StepError> {
        Ok(cents)
    }
}

fn main() {}
