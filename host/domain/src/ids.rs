//! Names and numbers, parsed once and then trusted.

use std::{fmt, sync::Arc};

use serde::{Deserialize, Serialize};

/// Why a text cannot be the name or id that it should be.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error("{what} must have 1 to {chars_max} characters, this one has {chars}")]
    Length { what: &'static str, chars: usize, chars_max: usize },
    #[error("{what} must be printable: the character {character:?} at position {position} is not allowed")]
    Character { what: &'static str, character: char, position: usize },
    #[error("{what} \"{text}\" must not end in # and a number: that is how repeats are told apart")]
    LooksRepeated { what: &'static str, text: String },
    #[error("{what} \"{text}\" is not 64 lower-case hexadecimal digits")]
    NotADigest { what: &'static str, text: String },
}

fn check(
    what: &'static str,
    text: &str,
    chars_max: usize,
    allowed: impl Fn(char) -> bool,
) -> Result<(), IdError> {
    let chars = text.chars().count();
    if chars == 0 || chars > chars_max {
        return Err(IdError::Length { what, chars, chars_max });
    }
    match text.chars().enumerate().find(|(_, c)| !allowed(*c)) {
        Some((position, character)) => Err(IdError::Character { what, character, position }),
        None => Ok(()),
    }
}

/// Anything but control characters and the invisible marks that could forge a line or turn its
/// direction (line and paragraph separators, bidirectional controls, byte order mark).
fn printable(c: char) -> bool {
    !(c.is_control()
        || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}'))
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(Arc<str>);

        impl $name {
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(text: String) -> Result<Self, IdError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0.as_ref().to_owned()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &self.0)
            }
        }
    };
}

text_id! {
    /// The client's name for what it asked for, and its idempotency key: 1 to 255 printable
    /// characters.
    ExecutionId
}

impl ExecutionId {
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check("an execution id", text, 255, printable)?;
        Ok(ExecutionId(text.into()))
    }
}

text_id! {
    /// One go at an execution: `<executionId>:run:<index>`.
    RunId
}

impl RunId {
    /// The name of run number `index` (from 0) of `execution`.
    pub fn new(execution: &ExecutionId, index: u32) -> Self {
        RunId(format!("{execution}:run:{index}").into())
    }

    /// Reads an id that [`RunId::new`] made; anything printable of that length passes, since an
    /// unknown run is found out by looking for it.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check("a run id", text, 280, printable)?;
        Ok(RunId(text.into()))
    }

    /// The execution that it is a go at; none for what [`RunId::new`] did not make.
    pub fn execution(&self) -> Option<ExecutionId> {
        let (execution, _) = self.0.rsplit_once(":run:")?;
        ExecutionId::parse(execution).ok()
    }
}

text_id! {
    /// The registered name of a handler: 1 to 128 of `A-Z a-z 0-9 . _ -`.
    TaskName
}

impl TaskName {
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check("a task name (letters, digits, '.', '_' and '-')", text, 128, |c| {
            c.is_ascii_alphanumeric() || matches!(c, '.' | '_' | '-')
        })?;
        Ok(TaskName(text.into()))
    }
}

text_id! {
    /// What an event is called: like a [`StepName`], since a wait bears the name of its event.
    EventName
}

impl EventName {
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check("an event name", text, 200, printable)?;
        not_a_repeat("an event name", text)?;
        Ok(EventName(text.into()))
    }
}

text_id! {
    /// What a guest calls a step, a sleep, a wait or a capture: 1 to 200 printable characters
    /// that do not end in `#` and a number.
    StepName
}

impl StepName {
    pub fn parse(text: &str) -> Result<Self, IdError> {
        check("a step name", text, 200, printable)?;
        not_a_repeat("a step name", text)?;
        Ok(StepName(text.into()))
    }
}

impl From<&EventName> for StepName {
    fn from(event: &EventName) -> Self {
        StepName(event.0.clone())
    }
}

fn not_a_repeat(what: &'static str, text: &str) -> Result<(), IdError> {
    match text.rsplit_once('#') {
        Some((_, tail)) if !tail.is_empty() && tail.bytes().all(|b| b.is_ascii_digit()) => {
            Err(IdError::LooksRepeated { what, text: text.to_owned() })
        }
        _ => Ok(()),
    }
}

text_id! {
    /// A step's name within its run: `charge`, and `charge#2` for the second call of that name.
    StepKey
}

impl StepKey {
    /// The key of the `nth` call (from 1) with `name`.
    pub fn new(name: &StepName, nth: u32) -> Self {
        match nth {
            0 | 1 => StepKey(name.0.clone()),
            _ => StepKey(format!("{name}#{nth}").into()),
        }
    }

    pub fn parse(text: &str) -> Result<Self, IdError> {
        check("a step key", text, 212, printable)?;
        Ok(StepKey(text.into()))
    }

    /// The name that it was made of.
    pub fn name(&self) -> &str {
        match self.0.rsplit_once('#') {
            Some((name, nth)) if !nth.is_empty() && nth.bytes().all(|byte| byte.is_ascii_digit()) => name,
            _ => &self.0,
        }
    }
}

text_id! {
    /// SHA-256 of a component's bytes, as 64 hexadecimal digits.
    Digest
}

impl Digest {
    pub fn of(bytes: &[u8]) -> Self {
        Digest(hex(&sha256(bytes)).into())
    }

    pub fn parse(text: &str) -> Result<Self, IdError> {
        if text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')) {
            return Ok(Digest(text.into()));
        }
        Err(IdError::NotADigest { what: "a digest", text: text.chars().take(80).collect() })
    }
}

/// SHA-256, the one hash of the domain: digests, input hashes and seeds.
pub(crate) fn sha256(bytes: &[u8]) -> [u8; 32] {
    use sha2::Digest as _;
    sha2::Sha256::digest(bytes).into()
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let digits = bytes.iter().flat_map(|byte| [byte >> 4, byte & 0xf]);
    digits.map(|digit| char::from(DIGITS[usize::from(digit)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_execution_id_has_1_to_255_printable_characters() {
        for good in ["a", "order 12/7", "é", &"ü".repeat(255)] {
            assert_eq!(ExecutionId::parse(good).unwrap().as_str(), good);
        }
        for bad in ["", "a\nb", "\0", "\u{7f}", "\u{202e}abc", &"x".repeat(256)] {
            assert!(ExecutionId::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn repeats_cannot_be_forged() {
        assert!(StepName::parse("charge#2").is_err());
        assert!(StepName::parse("issue #7a").is_ok());
        assert!(StepName::parse("c#").is_ok());
        let name = StepName::parse("charge").unwrap();
        assert_eq!(StepKey::new(&name, 1).as_str(), "charge");
        assert_eq!(StepKey::new(&name, 2).as_str(), "charge#2");
    }

    #[test]
    fn a_digest_is_sha_256_in_hex() {
        let digest = Digest::of(b"");
        assert_eq!(digest.as_str(), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
        assert!(Digest::parse(digest.as_str()).is_ok());
        assert!(Digest::parse("E3B0").is_err());
    }
}
