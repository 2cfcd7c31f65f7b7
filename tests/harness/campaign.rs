//! What campaigns have in common: how long they are, with which dice they play, and that they tell.

use std::{io::Write as _, time::SystemTime};

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

/// What the environment says for `name`, a number.
pub fn setting(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().unwrap_or_else(|_| panic!("{name}={text} is no number")))
}

/// The seed that the environment asks for, or one that nobody had before.
pub fn seed(name: &str) -> u64 {
    setting(name).unwrap_or_else(|| {
        SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64
    })
}

/// Says it although the test passes: counts are the point of a campaign.
pub fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// Chance that can be repeated.
pub struct Dice(ChaCha8Rng);

impl Dice {
    /// Those of player `player`: each has its own, so that the order of their turns is all that a
    /// seed does not fix.
    pub fn new(seed: u64, player: usize) -> Dice {
        Dice(ChaCha8Rng::seed_from_u64(seed.wrapping_add(player as u64)))
    }

    /// From 0 to `sides`, that excluded.
    pub fn below(&mut self, sides: usize) -> usize {
        self.0.next_u32() as usize % sides
    }

    /// True once in so many throws.
    pub fn one_in(&mut self, throws: usize) -> bool {
        self.below(throws) == 0
    }

    pub fn pick<'a, T>(&mut self, among: &'a [T]) -> &'a T {
        &among[self.below(among.len())]
    }
}
