use stepbox_guest::step;

#[step]
fn charge(cents: u64) -> u64 {
    cents
}

#[step]
fn ship(cents: u64) {
    let _ = cents;
}

#[step]
fn refund(cents: u64) -> Option<u64> {
    Some(cents)
}

fn main() {}
