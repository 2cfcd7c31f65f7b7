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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(text: &str) -> Json {
        Json::parse(text).unwrap()
    }

    /// Whether a result shows in an input.
    fn shows(result: &str, input: &str) -> bool {
        let parts = parts_of_input(&json(input));
        parts_of_result(&json(result)).iter().any(|part| parts.contains(part))
    }

    #[test]
    fn a_part_of_a_result_shows_in_an_input() {
        for (result, input) in [
            (r#""order-17""#, r#"["order-17"]"#),
            (r#"{"id":"order-17","ok":true}"#, r#"{"order":"order-17"}"#),
            (r#"{"b":1,"a":"long"}"#, r#"{"x":{"a":"long","b":1}}"#),
            ("[[20451]]", r#"{"amount":20451}"#),
            (r#""grün""#, r#"["grün"]"#),
        ] {
            assert!(shows(result, input), "{result} in {input}");
        }
    }

    #[test]
    fn what_many_values_have_says_nothing() {
        for (result, input) in [
            ("true", "[true]"),
            ("null", "null"),
            ("17", "[17]"),
            (r#"{"ok":true}"#, r#"{"ok":true}"#),
            (r#""EUR""#, r#"["EUR"]"#),
            (r#"{"orders":1}"#, r#"["orders"]"#),
            ("[]", "[]"),
        ] {
            assert!(!shows(result, input), "{result} in {input}");
        }
    }

    #[test]
    fn what_is_large_or_deep_costs_no_more_than_its_bounds() {
        let many: Vec<String> = (0..9_000).map(|number| format!("n{number:05}")).collect();
        let many = Json::from(serde_json::json!(many));
        assert_eq!(parts_of_input(&many), []);
        let some: Vec<String> = (0..2_000).map(|number| format!("n{number:05}")).collect();
        let some = Json::from(serde_json::json!(some));
        assert_eq!(parts_of_input(&some).len(), KEPT_MAX);
        assert_eq!(parts_of_result(&some).len(), NODES_MAX);
        let deep = json(&format!("{}\"deep down\"{}", "[".repeat(127), "]".repeat(127)));
        assert_eq!(parts_of_result(&deep).len(), DEPTH_MAX + 1);
        assert_eq!(parts_of_input(&json("[1e999, \"some text\"]")), []);
    }

    proptest! {
        /// The first ones in the order of the text, each once.
        #[test]
        fn an_inputs_parts_are_the_first_of_a_results(texts in proptest::collection::vec("[a-c]{3,5}", 0..40)) {
            let value = Json::from(serde_json::json!(texts));
            let (mut all, kept) = (parts_of_result(&value), parts_of_input(&value));
            let distinct: HashSet<_> = all.iter().cloned().collect();
            prop_assert_eq!(distinct.len(), all.len());
            all.truncate(KEPT_MAX);
            prop_assert_eq!(kept, all);
        }
    }
}
