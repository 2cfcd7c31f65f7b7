//! Which earlier results went into a step's input, as far as that can be seen from outside.
//!
//! The journal keeps no inputs, only hashes: of the whole, and of its parts. A part that is a part
//! of an earlier result as well is evidence that the one was made of the other. What a handler
//! computes from a result (a sum, a formatted text) leaves no such trace.

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

/// The parts of an input that are telling, in the order in which they stand in it.
pub fn parts_of_input(input: &Json) -> Vec<PartHash> {
    let mut parts = telling_parts(input);
    parts.truncate(KEPT_MAX);
    parts
}

/// The parts of a result that an input may have been made of.
pub fn parts_of_result(result: &Json) -> Vec<PartHash> {
    telling_parts(result)
}

fn telling_parts(value: &Json) -> Vec<PartHash> {
    let mut parts = Vec::new();
    if value.len_bytes() <= BYTES_MAX
        && let Some(value) = value.to_value()
    {
        let mut nodes = 0;
        collect(&value, 0, &mut nodes, &mut parts);
    }
    parts
}

fn collect(value: &serde_json::Value, depth: usize, nodes: &mut usize, parts: &mut Vec<PartHash>) {
    *nodes += 1;
    if depth > DEPTH_MAX || *nodes > NODES_MAX {
        return;
    }
    if is_telling(value) {
        let part = PartHash(hex(&sha256(value.to_string().as_bytes())[..6]));
        if !parts.contains(&part) {
            parts.push(part);
        }
    }
    match value {
        serde_json::Value::Array(items) => {
            items.iter().for_each(|item| collect(item, depth + 1, nodes, parts));
        }
        serde_json::Value::Object(fields) => {
            fields.values().for_each(|field| collect(field, depth + 1, nodes, parts));
        }
        _ => {}
    }
}

/// Whether it is unlikely that two values are this one by chance.
fn is_telling(value: &serde_json::Value) -> bool {
    match value {
        serde_json::Value::Null | serde_json::Value::Bool(_) => false,
        serde_json::Value::Number(number) => number.to_string().len() >= 4,
        serde_json::Value::String(text) => text.chars().count() >= 4,
        serde_json::Value::Array(items) => items.iter().any(is_telling),
        serde_json::Value::Object(fields) => fields.values().any(is_telling),
    }
}
