//! The key, and what it seals.
//!
//! XChaCha20-Poly1305, whose nonces are long enough to be drawn by chance. The name of a secret is
//! sealed in with its value, so that who can write to the database cannot give one secret's value to
//! another's name.

use std::{fmt, path::Path};

use anyhow::Context as _;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{
    Key, XChaCha20Poly1305, XNonce,
    aead::{Aead as _, Generate as _, KeyInit as _, Payload},
};
use sha2::{Digest as _, Sha256};
use stepbox_domain::capability::SecretName;
use zeroize::Zeroizing;

const KEY_BYTES: usize = 32;
const ID_BYTES: usize = 8;
const NONCE_BYTES: usize = 24;

/// Of the form of a sealed value: this, the id of the key, the nonce, the ciphertext with its tag.
const FORMAT: u8 = 1;

/// The environment variable that has the key. There is no option for it: arguments are seen by all.
pub const KEY_VARIABLE: &str = "STEPBOX_SECRETS_KEY";

/// What seals the secrets of a host.
pub struct SecretsKey(Zeroizing<[u8; KEY_BYTES]>);

impl fmt::Debug for SecretsKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretsKey(…)")
    }
}

/// Why a text is no key. Says nothing of the text.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the key for secrets must be 32 bytes in base64, which are 44 characters; `stepbox secret keygen` prints a new one"
)]
pub struct NoKey;

/// Why a sealed value cannot be opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unopened {
    OtherKey,
    Damaged,
}

impl SecretsKey {
    /// A new one, by the system's chance.
    pub fn generate() -> Self {
        SecretsKey(Zeroizing::new(Key::generate().into()))
    }

    pub fn parse(text: &str) -> Result<Self, NoKey> {
        let bytes = Zeroizing::new(STANDARD.decode(text.trim_ascii()).map_err(|_| NoKey)?);
        let key: [u8; KEY_BYTES] = bytes.as_slice().try_into().map_err(|_| NoKey)?;
        Ok(SecretsKey(Zeroizing::new(key)))
    }

    /// As [`Self::parse`] takes it.
    pub fn to_text(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(*self.0))
    }

    /// The key that the host was given: in the file, or in the environment. None: it was given none.
    pub fn given(file: Option<&Path>) -> anyhow::Result<Option<Self>> {
        let variable = std::env::var(KEY_VARIABLE).ok().filter(|text| !text.is_empty()).map(Zeroizing::new);
        let text = match (file, variable) {
            (Some(_), Some(_)) => anyhow::bail!(
                "the key for secrets is given twice, by --secrets-key-file and by {KEY_VARIABLE}; leave one out"
            ),
            (Some(file), None) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("the key for secrets cannot be read from {}", file.display()))?;
                Zeroizing::new(text)
            }
            (None, Some(text)) => text,
            (None, None) => return Ok(None),
        };
        Ok(Some(SecretsKey::parse(&text)?))
    }

    /// Tells keys apart, and says nothing else of them.
    fn id(&self) -> [u8; ID_BYTES] {
        let mut hash = Sha256::new();
        hash.update(b"stepbox: the id of a key for secrets\0");
        hash.update(*self.0);
        let hash: [u8; 32] = hash.finalize().into();
        let mut id = [0; ID_BYTES];
        id.copy_from_slice(&hash[..ID_BYTES]);
        id
    }

    fn cipher(&self) -> XChaCha20Poly1305 {
        XChaCha20Poly1305::new(&Key::from(*self.0))
    }

    /// None: it is too long, by far.
    pub(super) fn seal(&self, name: &SecretName, value: &str) -> Option<Vec<u8>> {
        let nonce = XNonce::generate();
        let payload = Payload { msg: value.as_bytes(), aad: name.as_str().as_bytes() };
        let ciphertext = self.cipher().encrypt(&nonce, payload).ok()?;
        Some([&[FORMAT], self.id().as_slice(), nonce.as_slice(), &ciphertext].concat())
    }

    pub(super) fn open(&self, name: &SecretName, sealed: &[u8]) -> Result<Zeroizing<String>, Unopened> {
        let (id, rest) = match sealed.split_first() {
            Some((&FORMAT, rest)) => rest.split_at_checked(ID_BYTES).ok_or(Unopened::Damaged)?,
            _ => return Err(Unopened::Damaged),
        };
        if id != self.id() {
            return Err(Unopened::OtherKey);
        }
        let (nonce, ciphertext) = rest.split_at_checked(NONCE_BYTES).ok_or(Unopened::Damaged)?;
        let nonce: [u8; NONCE_BYTES] = nonce.try_into().map_err(|_| Unopened::Damaged)?;
        let payload = Payload { msg: ciphertext, aad: name.as_str().as_bytes() };
        let value = self.cipher().decrypt(&XNonce::from(nonce), payload).map_err(|_| Unopened::Damaged)?;
        String::from_utf8(value).map(Zeroizing::new).map_err(|_| Unopened::Damaged)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> SecretName {
        SecretName::parse(text).unwrap()
    }

    #[test]
    fn what_is_sealed_is_opened_by_the_same_key_under_the_same_name() {
        let (key, other) = (SecretsKey::generate(), SecretsKey::generate());
        let sealed = key.seal(&name("a"), "s3cret").unwrap();
        assert_eq!(*key.open(&name("a"), &sealed).unwrap(), "s3cret");
        assert_eq!(key.open(&name("b"), &sealed), Err(Unopened::Damaged), "rows cannot be swapped");
        assert_eq!(other.open(&name("a"), &sealed), Err(Unopened::OtherKey));
        let again = SecretsKey::parse(&key.to_text()).unwrap();
        assert_eq!(*again.open(&name("a"), &sealed).unwrap(), "s3cret");
        assert_ne!(sealed, key.seal(&name("a"), "s3cret").unwrap(), "a nonce is used once");
        assert!(!sealed.windows(6).any(|part| part == b"s3cret"));
    }

    #[test]
    fn whatever_is_changed_or_cut_off_is_found_out() {
        let key = SecretsKey::generate();
        let sealed = key.seal(&name("a"), "s3cret").unwrap();
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert!(key.open(&name("a"), &changed).is_err(), "byte {at}");
            assert!(key.open(&name("a"), &sealed[..at]).is_err(), "{at} bytes");
        }
    }

    #[test]
    fn what_is_no_key_is_refused_without_being_repeated() {
        for text in ["", "hunter2hunter2", &STANDARD.encode([7; 31]), &STANDARD.encode([7; 33]), "%%%%"] {
            let refused = SecretsKey::parse(text).unwrap_err().to_string();
            assert!(text.is_empty() || !refused.contains(text), "{refused}");
        }
        let key = SecretsKey::parse(&format!(" {}\n", STANDARD.encode([7; 32]))).unwrap();
        assert_eq!(format!("{key:?}"), "SecretsKey(…)");
        assert_ne!(*SecretsKey::generate().to_text(), *SecretsKey::generate().to_text());
    }
}
