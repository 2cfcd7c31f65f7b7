//! Chance that follows from a seed and a number.

use rand_chacha::{
    ChaCha8Rng,
    rand_core::{Rng, SeedableRng},
};

pub struct Dice(ChaCha8Rng);

/// Numbers at which something ends or begins.
const EDGES: [u64; 20] = [
    0,
    1,
    2,
    7,
    8,
    127,
    128,
    255,
    256,
    1_000,
    65_535,
    65_536,
    131_072,
    1 << 31,
    (1 << 32) - 1,
    1 << 32,
    (1 << 53) + 1,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

impl Dice {
    pub fn new(seed: u64, number: u64) -> Dice {
        let mut dice = ChaCha8Rng::seed_from_u64(seed);
        dice.set_stream(number);
        Dice(dice)
    }

    pub fn below(&mut self, bound: usize) -> usize {
        (self.0.next_u64() % bound.max(1) as u64) as usize
    }

    pub fn one_in(&mut self, throws: usize) -> bool {
        self.below(throws) == 0
    }

    pub fn pick<'a, T: ?Sized>(&mut self, among: &'a [&'a T]) -> &'a T {
        among[self.below(among.len())]
    }

    pub fn byte(&mut self) -> u8 {
        self.below(256) as u8
    }

    pub fn bytes(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.fill_bytes(&mut bytes);
        bytes
    }

    /// Any number, those at edges more often.
    pub fn number(&mut self) -> u64 {
        match self.below(4) {
            0 => self.0.next_u64(),
            1 => self.below(100) as u64,
            _ => EDGES[self.below(EDGES.len())],
        }
    }

    /// A short text, of letters or of what breaks things.
    pub fn text(&mut self) -> String {
        const PIECES: [&str; 34] = [
            "a",
            "charge",
            "Z9",
            "-",
            "_",
            ".",
            "*",
            "/",
            "..",
            "%",
            "%00",
            "#2",
            "\u{0}",
            "\n",
            "\r",
            "\t",
            "\u{1b}[31m",
            "\"",
            "\\",
            "{",
            "}",
            "'",
            "\u{2028}",
            "\u{202e}",
            "ä",
            "🦀",
            "\u{fffd}",
            "127.0.0.1",
            "::1",
            "example.com",
            "null",
            "1e999",
            "[",
            "?",
        ];
        if self.one_in(200) {
            return "x".repeat(self.below(70_000));
        }
        (0..self.below(6)).map(|_| self.pick(&PIECES)).collect()
    }

    /// Damages `bytes`, a few times; takes pieces of `others` too.
    pub fn mutate(&mut self, bytes: &mut Vec<u8>, others: &[Vec<u8>]) {
        for _ in 0..=self.below(6) {
            if bytes.is_empty() {
                bytes.push(self.byte());
            }
            let at = self.below(bytes.len());
            let to = (at + self.below(64)).min(bytes.len());
            match self.below(9) {
                0 => bytes[at] ^= 1 << self.below(8),
                1 => bytes[at] = self.byte(),
                2 => bytes[at] = self.pick(&[&0_u8, &0x7f, &0x80, &0xff]).to_owned(),
                3 => drop(bytes.drain(at..to)),
                4 => {
                    let piece = bytes[at..to].to_vec();
                    let place = self.below(bytes.len());
                    bytes.splice(place..place, piece);
                }
                5 => {
                    let count = self.below(16);
                    let noise = self.bytes(count);
                    bytes.splice(at..at, noise);
                }
                6 => bytes.truncate(at),
                7 if !others.is_empty() => {
                    let other = &others[self.below(others.len())];
                    let from = self.below(other.len());
                    let until = (from + self.below(512)).min(other.len());
                    bytes.splice(at..to, other[from..until].iter().copied());
                }
                // A length that promises more than there is: LEB128.
                _ => drop(bytes.splice(at..(at + 1).min(bytes.len()), [0xff, 0xff, 0xff, 0xff, 0x0f])),
            }
        }
    }
}
