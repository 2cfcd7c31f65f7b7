//! JSON as text that is known to parse.
//!
//! Values cross the host as text: nothing here looks inside a payload or a result, so nothing
//! pays for a tree. The text is kept as it came, number formats and key order included.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de, ser};
use serde_json::value::RawValue;

/// A JSON text that parses. Cheap to clone.
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct Json(Arc<str>);

/// Why a text is not JSON, with line and column.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct JsonError(String);

impl Json {
    /// The JSON `null`.
    pub fn null() -> Self {
        Json(Arc::from("null"))
    }

    /// Checks that `text` is one JSON value, nested at most 128 deep (serde_json's limit).
    pub fn parse(text: impl Into<Arc<str>>) -> Result<Self, JsonError> {
        let text = text.into();
        // `IgnoredAny` would not refuse deep nesting or numbers out of range; a tree does, but
        // costs. `RawValue` walks the text once, and the depth is checked beside it.
        let raw: &RawValue = serde_json::from_str(&text).map_err(|error| JsonError(error.to_string()))?;
        if depth(raw.get()) > DEPTH_MAX {
            return Err(JsonError(format!("nested more than {DEPTH_MAX} deep")));
        }
        Ok(Json(text))
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// As a tree; none for a text with a number that no `f64` can hold (`1e999`).
    pub fn to_value(&self) -> Option<serde_json::Value> {
        serde_json::from_str(&self.0).ok()
    }

    pub fn len_bytes(&self) -> usize {
        self.0.len()
    }
}

/// What serde_json itself allows when it builds a tree.
const DEPTH_MAX: usize = 127;

/// How deep `text`, which is known to be JSON, nests.
fn depth(text: &str) -> usize {
    let (mut now, mut most, mut in_string, mut escaped) = (0usize, 0usize, false, false);
    for byte in text.bytes() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if in_string => escaped = true,
            b'"' => in_string = !in_string,
            b'[' | b'{' if !in_string => {
                now += 1;
                most = most.max(now);
            }
            b']' | b'}' if !in_string => now -= 1,
            _ => {}
        }
    }
    most
}

impl From<serde_json::Value> for Json {
    fn from(value: serde_json::Value) -> Self {
        Json(Arc::from(value.to_string()))
    }
}

impl fmt::Debug for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Display for Json {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Written as the JSON that it is, not as a string.
impl Serialize for Json {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let raw: &RawValue = serde_json::from_str(&self.0).map_err(ser::Error::custom)?;
        raw.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Json {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Box<RawValue> = Box::deserialize(deserializer)?;
        Json::parse(raw.get()).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keeps_the_text_as_it_came() {
        for text in [r#"{"b":1.0,"a":12345678901234567890}"#, "null", r#""\u00e9\"[""#, "[1e2]"] {
            let json = Json::parse(text).unwrap();
            assert_eq!(json.as_str(), text);
            let line = serde_json::to_string(&json).unwrap();
            assert_eq!(line, text);
            assert_eq!(serde_json::from_str::<Json>(&line).unwrap(), json);
        }
    }

    #[test]
    fn refuses_what_is_not_one_json_value() {
        for text in ["", "{", "{}{}", "nul", "'a'", "\u{0}", "[1,]"] {
            assert!(Json::parse(text).is_err(), "{text:?}");
        }
    }

    #[test]
    fn refuses_what_no_tree_could_hold() {
        let nested = |n: usize| format!("{}{}", "[".repeat(n), "]".repeat(n));
        assert!(Json::parse(nested(127)).is_ok());
        assert!(Json::parse(nested(128)).is_err());
        assert!(Json::parse(nested(100_000)).is_err());
        assert!(Json::parse(format!("\"{}\"", "[".repeat(500))).is_ok());
    }
}
