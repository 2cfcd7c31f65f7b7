//! Which earlier results went into a step's input, as far as that can be seen from outside.
//!
//! The journal keeps no inputs, only hashes: of the whole, and of its parts. A part that is a part
//! of an earlier result as well is evidence that the one was made of the other. What a handler
//! computes from a result (a sum, a formatted text) leaves no such trace.

use std::collections::HashSet;

use serde::{Deserialize, Serialize};

use crate::{
    Json,
    ids::{hex, sha256},
};

/// 6 bytes of SHA-256 over a JSON value that stands inside an input.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PartHash(String);

/// So many parts of one input are kept.
const KEPT_MAX: usize = 12;
/// Nor is a larger value looked into, nor further down, nor at more of its parts.
const BYTES_MAX: usize = 64 << 10;
const DEPTH_MAX: usize = 4;
const NODES_MAX: usize = 256;
/// Characters of a text, or digits of a number, that chance does not make twice.
const TELLING_MIN: usize = 4;

/// The parts of an input that are telling, in the order in which they stand in it.
pub fn parts_of_input(input: &Json) -> Vec<PartHash> {
    telling_parts(input, KEPT_MAX)
}

/// The parts of a result that an input may have been made of.
pub fn parts_of_result(result: &Json) -> Vec<PartHash> {
    telling_parts(result, NODES_MAX)
}

fn telling_parts(value: &Json, wanted: usize) -> Vec<PartHash> {
    let mut found = Found { wanted, nodes_left: NODES_MAX, parts: Vec::new(), seen: HashSet::new() };
    // A short text has nothing telling in it, a long one is not worth its parsing.
    if (TELLING_MIN..=BYTES_MAX).contains(&value.len_bytes())
        && let Some(value) = value.to_value()
    {
        found.look_into(&value, 0);
    }
    found.parts
}

struct Found {
    wanted: usize,
    nodes_left: usize,
    parts: Vec<PartHash>,
    seen: HashSet<PartHash>,
}

impl Found {
    fn look_into(&mut self, value: &serde_json::Value, depth: usize) {
        if depth > DEPTH_MAX || self.is_enough() {
            return;
        }
        self.nodes_left -= 1;
        if is_telling(value) {
            let part = PartHash(hex(&sha256(value.to_string().as_bytes())[..6]));
            if self.seen.insert(part.clone()) {
                self.parts.push(part);
            }
        }
        let enough = |inside: &serde_json::Value| {
            self.look_into(inside, depth + 1);
            self.is_enough()
        };
        match value {
            serde_json::Value::Array(items) => items.iter().any(enough),
            serde_json::Value::Object(fields) => fields.values().any(enough),
            _ => false,
        };
    }

    fn is_enough(&self) -> bool {
        self.nodes_left == 0 || self.parts.len() >= self.wanted
    }
}

/// Whether it is unlikely that two values are this one by chance.
fn is_telling(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(_) => false,
        serde_json::Value::Number(number) => number.to_string().len() >= TELLING_MIN,
        serde_json::Value::String(text) => text.chars().nth(TELLING_MIN - 1).is_some(),
        serde_json::Value::Array(items) => items.iter().any(is_telling),
        serde_json::Value::Object(fields) => fields.values().any(is_telling),
    }
}
