//! What the test guests have in common: words that the harness can change in a built component.
//!
//! Building a component takes seconds, patching one takes none. So what must differ between two
//! versions of a guest stands in a static of fixed size, which `tests/harness/guests.rs` finds
//! by its first bytes and overwrites.

/// Tells two versions of the same guest apart: `variant-mark:` and three characters.
#[used]
static VARIANT: [u8; 16] = *b"variant-mark:001";

/// The last three characters of the mark: `001`, or what the harness put there.
pub fn variant() -> String {
    read(&VARIANT[13..])
}

/// Reads `bytes` as they stand in memory, not as they stood at compile time.
pub fn read(bytes: &[u8]) -> String {
    let bytes: Vec<u8> = bytes
        .iter()
        // SAFETY: a reference can be read from.
        .map(|byte| unsafe { std::ptr::read_volatile(byte) })
        .collect();
    String::from_utf8_lossy(&bytes).trim_end().to_owned()
}

/// Calls itself until the stack is used up. The sum keeps it from becoming a loop.
#[expect(unconditional_recursion, reason = "that is what it is for")]
pub fn recurse(depth: u64) -> u64 {
    let here = std::hint::black_box([depth; 32]);
    here[31].wrapping_add(recurse(depth + 1)).wrapping_add(here[0])
}

/// Never comes back.
pub fn spin() -> ! {
    loop {
        compute(u64::MAX);
    }
}

/// Does nothing useful for `rounds` rounds.
pub fn compute(rounds: u64) -> u64 {
    (0..rounds).fold(0, |sum, n| std::hint::black_box(sum ^ n))
}

/// Takes memory, page by page, until it has `bytes` of it; answers how many it has.
pub fn allocate(bytes: u64) -> u64 {
    let mut held: Vec<Vec<u8>> = Vec::new();
    let mut sum = 0;
    while sum < bytes {
        held.push(std::hint::black_box(vec![1; 1 << 20]));
        sum += 1 << 20;
    }
    sum
}
