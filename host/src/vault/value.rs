//! The value of a secret, on its way in.

use std::fmt;

use zeroize::Zeroizing;

/// What goes into a header: visible ASCII, blanks within. Overwritten when dropped, and shown nowhere.
pub struct SecretValue(Zeroizing<String>);

/// More than any token that servers take in a header.
pub const VALUE_MAX_BYTES: usize = 16 << 10;

/// Why a value cannot be kept. Says where, and never what.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadValue {
    #[error("the value is empty")]
    Empty,
    #[error("the value has more than {VALUE_MAX_BYTES} bytes")]
    TooLong,
    #[error(
        "byte {0} of the value (counted from 1) cannot stand in a header: visible ASCII and blanks within are \
         allowed, line breaks are not; encode what is binary in base64"
    )]
    NotVisible(usize),
}

impl SecretValue {
    /// One line end after the value is not part of it: files and `echo` put one there.
    pub fn parse(bytes: Zeroizing<Vec<u8>>) -> Result<Self, BadValue> {
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let text = text.strip_suffix(b"\r").unwrap_or(text);
        if text.is_empty() {
            return Err(BadValue::Empty);
        }
        if text.len() > VALUE_MAX_BYTES {
            return Err(BadValue::TooLong);
        }
        let last = text.len() - 1;
        let is_allowed =
            |at: usize, byte: u8| byte.is_ascii_graphic() || byte == b' ' && at != 0 && at != last;
        if let Some(at) = (0..=last).find(|at| !is_allowed(*at, text[*at])) {
            return Err(BadValue::NotVisible(at + 1));
        }
        // It is ASCII.
        Ok(SecretValue(Zeroizing::new(String::from_utf8_lossy(text).into_owned())))
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretValue(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &[u8]) -> Result<String, BadValue> {
        SecretValue::parse(Zeroizing::new(text.to_vec())).map(|value| value.reveal().to_owned())
    }

    #[test]
    fn what_can_stand_in_a_header_is_taken() {
        assert_eq!(parse(b"Bearer a+b/c="), Ok("Bearer a+b/c=".to_owned()));
        assert_eq!(parse(b"x\n"), Ok("x".to_owned()));
        assert_eq!(parse(b"x\r\n"), Ok("x".to_owned()));
        assert_eq!(parse(&vec![b'x'; VALUE_MAX_BYTES]).unwrap().len(), VALUE_MAX_BYTES);
    }

    #[test]
    fn what_cannot_is_refused_with_its_place() {
        assert_eq!(parse(b""), Err(BadValue::Empty));
        assert_eq!(parse(b"\n"), Err(BadValue::Empty));
        assert_eq!(parse(b"a\n\n"), Err(BadValue::NotVisible(2)));
        assert_eq!(parse(b"a\nb"), Err(BadValue::NotVisible(2)));
        assert_eq!(parse(b" a"), Err(BadValue::NotVisible(1)));
        assert_eq!(parse(b"a "), Err(BadValue::NotVisible(2)));
        assert_eq!(parse("aé".as_bytes()), Err(BadValue::NotVisible(2)));
        assert_eq!(parse(b"a\0"), Err(BadValue::NotVisible(2)));
        assert_eq!(parse(&vec![b'x'; VALUE_MAX_BYTES + 1]), Err(BadValue::TooLong));
    }

    #[test]
    fn it_is_not_shown() {
        let value = SecretValue::parse(Zeroizing::new(b"hunter2".to_vec())).unwrap();
        assert_eq!(format!("{value:?} {:?}", Some(&value)), "SecretValue(…) Some(SecretValue(…))");
    }
}
