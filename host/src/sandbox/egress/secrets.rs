//! Secrets, put into the headers of a request as it leaves.
//!
//! A guest has placeholders, never values. The header with the value is made for one request on
//! one connection and marked as sensitive, so that it is not shown by anything that prints headers;
//! it is no part of receipts, logs or errors. What a server answers is not searched for values that
//! it echoes: whoever is granted a secret trusts the hosts that it is granted for.

use std::net::IpAddr;

use base64::Engine as _;
use hyper::http::{HeaderMap, HeaderValue};
use stepbox_domain::capability::{Scheme, SecretName};
use zeroize::Zeroizing;

use super::{Egress, target::Target, trouble::Trouble};
use crate::sandbox::output::{cut, printable};

const BEGINS: &str = "{{stepbox:";
const ENDS: &str = "}}";

/// What stands for the secret `name` in a header.
pub(super) fn placeholder(name: &SecretName) -> String {
    format!("{BEGINS}secret:{name}{ENDS}")
}

/// A piece of a header's value.
enum Piece<'a> {
    Text(&'a [u8]),
    Secret(SecretName),
    /// `user:secret` in Base64, as in Basic authentication.
    Basic {
        user: &'a str,
        secret: SecretName,
    },
}

/// The pieces of `value`. None: it has no placeholder.
fn pieces(value: &[u8]) -> Result<Option<Vec<Piece<'_>>>, String> {
    let find = |text: &[u8], word: &str| text.windows(word.len()).position(|part| part == word.as_bytes());
    let mut pieces = Vec::new();
    let mut rest = value;
    while let Some(start) = find(rest, BEGINS) {
        let (before, from) = rest.split_at(start);
        let inner = &from[BEGINS.len()..];
        let end = find(inner, ENDS).ok_or("a placeholder has no end (`}}`)")?;
        pieces.push(Piece::Text(before));
        pieces.push(piece(&inner[..end])?);
        rest = &inner[end + ENDS.len()..];
    }
    if pieces.is_empty() {
        return Ok(None);
    }
    pieces.push(Piece::Text(rest));
    Ok(Some(pieces))
}

fn piece(inner: &[u8]) -> Result<Piece<'_>, String> {
    let text = std::str::from_utf8(inner).map_err(|_| "a placeholder is not UTF-8")?;
    let name = |name: &str| SecretName::parse(name).map_err(|error| error.to_string());
    match text.split_once(':') {
        Some(("secret", secret)) => Ok(Piece::Secret(name(secret)?)),
        Some(("basic", rest)) => {
            let (user, secret) = rest.rsplit_once(':').ok_or("a placeholder for Basic has no user")?;
            // A colon would end the user earlier for the server than it does here.
            if user.contains(':') {
                return Err("the user of Basic authentication has no colon".to_owned());
            }
            Ok(Piece::Basic { user, secret: name(secret)? })
        }
        _ => Err(format!(
            "`{{{{stepbox:{}}}}}` is no placeholder; there are `{{{{stepbox:secret:NAME}}}}` and \
             `{{{{stepbox:basic:USER:NAME}}}}`",
            printable(cut(text, 100))
        )),
    }
}

impl Egress {
    /// Finds out before a connection is made whether the secrets in `headers` may go to `target`.
    pub(super) fn check_secrets(&self, headers: &HeaderMap, target: &Target) -> Result<(), Trouble> {
        self.each_secret(headers, |name, header| {
            let host = target.host.as_granted();
            if !self.grants.allow_secret(name, &host) {
                return Err(Trouble::Denied(format!(
                    "the secret {name} in the header `{header}` may not be sent to {host}; {}",
                    self.grant_hint("secrets")
                )));
            }
            Ok(())
        })
    }

    /// The headers with the values of their secrets, for a connection to `address`.
    ///
    /// Over http only to an address that the task was granted by itself: somebody has said that
    /// this is a network where that is all right. Everybody on the way could read it elsewhere.
    pub(super) fn reveal_secrets(
        &self,
        headers: &HeaderMap,
        target: &Target,
        address: IpAddr,
    ) -> Result<HeaderMap, Trouble> {
        self.each_secret(headers, |name, header| {
            if target.scheme == Scheme::Http && !self.grants.allow_address(address) {
                return Err(Trouble::Denied(format!(
                    "the secret {name} in the header `{header}` is sent to {} over https only; over http only to an \
                     address that the task was granted by itself",
                    target.host
                )));
            }
            Ok(())
        })?;
        let mut revealed = headers.clone();
        for (header, value) in revealed.iter_mut() {
            let Some(pieces) = pieces(value.as_bytes()).map_err(Trouble::Denied)? else { continue };
            *value = self.joined(&pieces, header.as_str())?;
        }
        Ok(revealed)
    }

    fn joined(&self, pieces: &[Piece<'_>], header: &str) -> Result<HeaderValue, Trouble> {
        let mut joined: Zeroizing<Vec<u8>> = Zeroizing::default();
        for piece in pieces {
            match piece {
                Piece::Text(text) => joined.extend_from_slice(text),
                Piece::Secret(name) => joined.extend_from_slice(self.value(name)?.as_bytes()),
                Piece::Basic { user, secret } => {
                    let value = self.value(secret)?;
                    let pair = Zeroizing::new([user.as_bytes(), b":", value.as_bytes()].concat());
                    let encoded = Zeroizing::new(base64::engine::general_purpose::STANDARD.encode(&*pair));
                    joined.extend_from_slice(encoded.as_bytes());
                }
            }
        }
        let mut value = HeaderValue::from_bytes(&joined).map_err(|_| {
            Trouble::Denied(format!(
                "the value of a secret in the header `{header}` has characters that no header can have, such as \
                 the end of a line"
            ))
        })?;
        value.set_sensitive(true);
        Ok(value)
    }

    fn value(&self, name: &SecretName) -> Result<Zeroizing<String>, Trouble> {
        let absent = || {
            let hint = format!("set it with PUT /admin/v1/secrets/{name}");
            Trouble::Denied(format!(
                "the secret {name} is granted, but this host has no value for it; {hint}"
            ))
        };
        self.outside.secrets.reveal(name).ok_or_else(absent)
    }

    fn each_secret(
        &self,
        headers: &HeaderMap,
        mut check: impl FnMut(&SecretName, &str) -> Result<(), Trouble>,
    ) -> Result<(), Trouble> {
        for (header, value) in headers {
            for piece in pieces(value.as_bytes()).map_err(Trouble::Denied)?.into_iter().flatten() {
                match piece {
                    Piece::Text(_) => {}
                    Piece::Secret(name) | Piece::Basic { secret: name, .. } => check(&name, header.as_str())?,
                }
            }
        }
        Ok(())
    }
}
