//! What comes in behind the `?`. Nothing there is silently ignored.

use axum::{extract::FromRequestParts, http::request::Parts};
use percent_encoding::percent_decode_str;

use stepbox_domain::Timestamp;

use super::{
    ApiError,
    fields::{ACTOR_CHARS_MAX, REASON_CHARS_MAX, at_most, beginning},
    wire,
};
use crate::engine::Who;

/// The parameters of a query, decoded, in their order.
pub struct Query(Vec<(String, String)>);

impl<S: Sync> FromRequestParts<S> for Query {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        Query::parse(parts.uri.query().unwrap_or_default())
    }
}

impl Query {
    fn parse(text: &str) -> Result<Self, ApiError> {
        let decoded = |text: &str| -> Result<String, ApiError> {
            let text = text.replace('+', " ");
            let text = percent_decode_str(&text).decode_utf8().map_err(|_| {
                ApiError::bad_request("bad_query", "what is percent-encoded in the query must be UTF-8")
            })?;
            Ok(text.into_owned())
        };
        let parameters = text.split('&').filter(|parameter| !parameter.is_empty());
        let pairs = parameters.map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            Ok((decoded(name)?, decoded(value)?))
        });
        pairs.collect::<Result<_, _>>().map(Query)
    }

    /// Refuses every parameter but `allowed`, and what is given twice.
    pub fn only(self, allowed: &[&str]) -> Result<Self, ApiError> {
        for (index, (name, _)) in self.0.iter().enumerate() {
            let shown = beginning(name);
            if !allowed.contains(&name.as_str()) {
                let allowed = match allowed {
                    [] => "there are none here".to_owned(),
                    some => format!("allowed are {}", some.join(", ")),
                };
                let message = format!("there is no query parameter {shown:?}; {allowed}");
                return Err(ApiError::bad_request("bad_query", message).with("parameter", shown));
            }
            if self.0[..index].iter().any(|(other, _)| other == name) {
                let message = format!("the query parameter {shown:?} is given twice; give it once");
                return Err(ApiError::bad_request("bad_query", message).with("parameter", shown));
            }
        }
        Ok(self)
    }

    /// `true` or `false`; false where it is left out.
    pub fn flag(&self, name: &str) -> Result<bool, ApiError> {
        let read = |text: &str| text.parse().ok();
        Ok(self.value(name, "true or false", read)?.unwrap_or(false))
    }

    /// A moment.
    pub fn time(&self, name: &str) -> Result<Option<Timestamp>, ApiError> {
        const EXPECTED: &str = "a time like 2026-01-31T12:00:00.000Z (RFC 3339; write + as %2B)";
        self.value(name, EXPECTED, wire::parse_time)
    }

    /// A whole number from 0 to `max`.
    pub fn number(&self, name: &str, max: u32) -> Result<Option<u32>, ApiError> {
        let read = |text: &str| text.parse().ok().filter(|number| *number <= max);
        self.value(name, &format!("a whole number from 0 to {max}"), read)
    }

    /// How many entries of a list are passed over; 0 where it is left out.
    pub fn offset(&self, name: &str) -> Result<u64, ApiError> {
        let read = |text: &str| text.parse().ok().filter(|offset| i64::try_from(*offset).is_ok());
        Ok(self.value(name, "a whole number from 0 to 2^63-1", read)?.unwrap_or(0))
    }

    /// Who asks for an admin write, and why: for routes whose body is no JSON.
    pub fn who(&self) -> Result<Who, ApiError> {
        let read = |name, chars_max| {
            let expected = format!("a text of at most {chars_max} characters");
            self.value(name, &expected, |text| at_most(text, chars_max).ok()).map(Option::flatten)
        };
        Ok(Who { by: read("triggeredBy", ACTOR_CHARS_MAX)?, reason: read("reason", REASON_CHARS_MAX)? })
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    /// What `read` makes of a parameter; none where it is left out. `expected` says what `read`
    /// takes.
    pub fn value<T>(
        &self,
        name: &str,
        expected: &str,
        read: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, ApiError> {
        let Some(text) = self.text(name) else { return Ok(None) };
        read(text).map(Some).ok_or_else(|| {
            let shown: String = text.chars().take(80).collect();
            let message = format!("{name} must be {expected}, this is {shown:?}");
            ApiError::bad_request("bad_query", message).with("parameter", name)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_decoded_as_a_form_is() {
        let query = Query::parse("search=a%20b+c%2B&x&&status=%C3%BC").unwrap();
        assert_eq!(query.text("search"), Some("a b c+"));
        assert_eq!(query.text("x"), Some(""));
        assert_eq!(query.text("status"), Some("ü"));
        assert!(Query::parse("search=%ff").is_err());
    }

    #[test]
    fn nothing_is_ignored() {
        let only = |text: &str| Query::parse(text).unwrap().only(&["a", "b"]).map(drop);
        assert!(only("a=1&b=2").is_ok());
        assert_eq!(only("c=1").unwrap_err().message, "there is no query parameter \"c\"; allowed are a, b");
        assert!(only("a=1&a=1").unwrap_err().message.contains("twice"));
    }
}
