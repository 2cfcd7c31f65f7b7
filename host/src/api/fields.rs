//! What a JSON object in a body has in it, read field by field, so that what is wrong has a name.

use std::{collections::HashMap, fmt, ops::RangeInclusive};

use serde::{
    Deserialize, Deserializer,
    de::{DeserializeOwned, Error as _, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use stepbox_domain::{Json, Timestamp};

use super::{ApiError, wire};
use crate::engine::Who;

/// The fields of an object. Those that nobody asks for are passed over, since clients of Zart
/// may send them.
pub struct Fields<'a>(HashMap<String, &'a RawValue>);

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Read;

        impl<'de> Visitor<'de> for Read {
            type Value = HashMap<String, &'de RawValue>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a JSON object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut fields = HashMap::new();
                while let Some((name, value)) = map.next_entry::<String, &RawValue>()? {
                    if fields.contains_key(&name) {
                        return Err(A::Error::custom(format!("the field `{name}` is there twice")));
                    }
                    fields.insert(name, value);
                }
                Ok(fields)
            }
        }

        deserializer.deserialize_map(Read).map(Fields)
    }
}

impl<'a> Fields<'a> {
    /// Those of `object`, which is known to be JSON. Fails for its shape: no object, or a field twice.
    pub fn parse(object: &'a str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(object)
    }

    /// Refuses every field but `allowed`: for bodies in which a misspelt one would make more of
    /// what is asked for. `within` is what has the fields: "the body", "`filter`".
    pub fn only(&self, within: &str, allowed: &[&str]) -> Result<(), ApiError> {
        let mut unknown: Vec<&str> =
            self.0.keys().map(String::as_str).filter(|name| !allowed.contains(name)).collect();
        unknown.sort_unstable();
        match unknown.first() {
            None => Ok(()),
            Some(name) => {
                let name = beginning(name);
                let message = format!("{within} has no field {name:?}; allowed are {}", allowed.join(", "));
                Err(ApiError::unprocessable("wrong_shape", message).with("field", name))
            }
        }
    }

    /// Whether it is there at all, be it as `null`.
    pub fn has(&self, name: &str) -> bool {
        self.0.contains_key(name)
    }

    /// The text of a field; none where it is left out or `null`.
    fn raw(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).map(|raw| raw.get()).filter(|raw| *raw != "null")
    }

    /// A text; none where it is left out or `null`.
    pub fn text(&self, name: &str) -> Result<Option<String>, ApiError> {
        self.raw(name).map(|raw| string(name, "", raw)).transpose()
    }

    pub fn required_text(&self, name: &str) -> Result<String, ApiError> {
        self.text(name)?.ok_or_else(|| wrong_shape(name, "is missing: it must be a string".to_owned()))
    }

    /// What `read` makes of a text; none where it is left out or `null`.
    pub fn parsed<T, E: fmt::Display>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, E>,
    ) -> Result<Option<T>, ApiError> {
        let text = self.text(name)?;
        text.map(|text| read(&text).map_err(|error| out_of_range(name, error))).transpose()
    }

    /// A list of strings, each as `read` takes it; empty where it is left out or `null`.
    pub fn list<T, E: fmt::Display>(
        &self,
        name: &str,
        read: impl Fn(&str) -> Result<T, E>,
    ) -> Result<Vec<T>, ApiError> {
        let Some(raw) = self.raw(name) else { return Ok(Vec::new()) };
        let Ok(items) = serde_json::from_str::<Vec<&RawValue>>(raw) else {
            return Err(wrong_shape(name, format!("must be an array of strings, this is {}", name_of(raw))));
        };
        let items = items.into_iter().enumerate();
        items
            .map(|(place, item)| {
                let text = string(name, &format!("[{place}]"), item.get())?;
                read(&text).map_err(|error| out_of_range(name, format_args!("item {place}: {error}")))
            })
            .collect()
    }

    /// `true` or `false`; false where it is left out or `null`.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        match self.raw(name) {
            None | Some("false") => Ok(false),
            Some("true") => Ok(true),
            Some(raw) => Err(wrong_shape(name, format!("must be true or false, this is {}", name_of(raw)))),
        }
    }

    /// A whole number within `range`; none where it is left out or `null`.
    pub fn number(&self, name: &str, range: RangeInclusive<u64>) -> Result<Option<u64>, ApiError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if !raw.starts_with(|first: char| first == '-' || first.is_ascii_digit()) {
            return Err(wrong_shape(name, format!("must be a whole number, this is {}", name_of(raw))));
        }
        match raw.parse::<u64>() {
            Ok(number) if range.contains(&number) => Ok(Some(number)),
            _ => {
                let shown: String = raw.chars().take(40).collect();
                let (from, to) = range.into_inner();
                Err(out_of_range(
                    name,
                    format_args!("must be a whole number from {from} to {to}, this is {shown}"),
                ))
            }
        }
    }

    /// As [`Fields::number`], where the range is within 32 bits.
    pub fn small_number(&self, name: &str, range: RangeInclusive<u32>) -> Result<Option<u32>, ApiError> {
        let (from, to) = range.into_inner();
        let number = self.number(name, u64::from(from)..=u64::from(to))?;
        Ok(number.and_then(|number| u32::try_from(number).ok()))
    }

    /// A moment; none where it is left out or `null`.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        self.parsed(name, |text| {
            wire::parse_time(text).ok_or("must be a time like 2026-01-31T12:00:00.000Z (RFC 3339)")
        })
    }

    /// The fields of an object within; none where it is left out or `null`.
    pub fn object(&self, name: &str) -> Result<Option<Fields<'a>>, ApiError> {
        let Some(raw) = self.raw(name) else { return Ok(None) };
        if !raw.starts_with('{') {
            return Err(wrong_shape(name, format!("must be an object, this is {}", name_of(raw))));
        }
        Fields::parse(raw).map(Some).map_err(|error| wrong_shape(name, format!(": {error}")))
    }

    /// Who asks for an admin write, and why.
    pub fn who(&self) -> Result<Who, ApiError> {
        Ok(Who {
            by: self.parsed("triggeredBy", |text| at_most(text, ACTOR_CHARS_MAX))?.flatten(),
            reason: self.parsed("reason", |text| at_most(text, REASON_CHARS_MAX))?.flatten(),
        })
    }

    /// What serde makes of a field, strictly; nothing where it is left out or `null`.
    pub fn typed<T: DeserializeOwned + Default>(&self, name: &str) -> Result<T, ApiError> {
        let Some(raw) = self.raw(name) else { return Ok(T::default()) };
        serde_json::from_str(raw).map_err(|error| wrong_shape(name, format!("cannot be taken: {error}")))
    }

    /// Whatever JSON; `null` where it is left out.
    pub fn json(&self, name: &str) -> Result<Json, ApiError> {
        match self.0.get(name) {
            None => Ok(Json::null()),
            Some(raw) => Json::parse(raw.get()).map_err(|error| out_of_range(name, error)),
        }
    }
}

/// The string that `raw` is. `place` says where in the field it stands.
fn string(field: &str, place: &str, raw: &str) -> Result<String, ApiError> {
    serde_json::from_str(raw).map_err(|_| {
        let found = if raw.starts_with('"') { "half of a surrogate pair" } else { name_of(raw) };
        ApiError::unprocessable("wrong_shape", format!("`{field}{place}` must be a string, this is {found}"))
            .with("field", field)
    })
}

/// Who and why are kept for ever, and read in lists.
pub const ACTOR_CHARS_MAX: usize = 255;
pub const REASON_CHARS_MAX: usize = 2_000;

/// None for an empty text: nobody said anything.
pub fn at_most(text: &str, chars_max: usize) -> Result<Option<String>, String> {
    match text.chars().count() {
        0 => Ok(None),
        chars if chars <= chars_max => Ok(Some(text.to_owned())),
        chars => Err(format!("must have at most {chars_max} characters, this has {chars}")),
    }
}

/// As much of a name that somebody sent as an answer repeats.
pub fn beginning(name: &str) -> &str {
    const SHOWN_CHARS_MAX: usize = 100;
    name.char_indices().nth(SHOWN_CHARS_MAX).map_or(name, |(end, _)| &name[..end])
}

pub fn wrong_shape(field: &str, what: String) -> ApiError {
    ApiError::unprocessable("wrong_shape", format!("`{field}` {what}")).with("field", field)
}

/// A value of the right shape that cannot be taken.
pub fn out_of_range(field: &str, error: impl fmt::Display) -> ApiError {
    ApiError::unprocessable("out_of_range", format!("`{field}`: {error}")).with("field", field)
}

/// What a JSON text is, in words.
pub fn name_of(json: &str) -> &'static str {
    match json.trim_ascii_start().as_bytes().first() {
        Some(b'{') => "an object",
        Some(b'[') => "an array",
        Some(b'"') => "a string",
        Some(b't' | b'f') => "a boolean",
        Some(b'n') => "null",
        _ => "a number",
    }
}
