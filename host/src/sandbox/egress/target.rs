//! Whom a request is for, read from its URI in the one spelling that everybody here understands
//! alike: the grants, the resolver, TLS and the server.

use std::{fmt, net::IpAddr};

use hyper::http::Uri;
use stepbox_domain::capability::Scheme;

/// Scheme, host and port of a request. Equal targets may share a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub scheme: Scheme,
    pub host: Host,
    pub port: u16,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Host {
    /// In small letters, without a dot at its end.
    Name(String),
    Address(IpAddr),
}

impl Host {
    /// As in grants: an IPv6 address without brackets.
    pub(super) fn as_granted(&self) -> String {
        match self {
            Host::Name(name) => name.clone(),
            Host::Address(address) => address.to_string(),
        }
    }
}

/// As in a URI.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Host::Name(name) => f.write_str(name),
            Host::Address(IpAddr::V6(address)) => write!(f, "[{address}]"),
            Host::Address(address) => write!(f, "{address}"),
        }
    }
}

/// Its origin: `https://api.example.com:8443`.
impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}", self.scheme.as_str(), self.authority())
    }
}

impl Target {
    /// The error says what is wrong with the URI.
    pub(super) fn of(uri: &Uri) -> Result<Self, String> {
        let scheme = match uri.scheme_str() {
            Some("https") => Scheme::Https,
            Some("http") => Scheme::Http,
            _ => return Err("its scheme is neither https nor http".to_owned()),
        };
        let authority = uri.authority().ok_or("it names no host")?;
        if authority.as_str().contains('@') {
            return Err("it has a user before its host; send credentials in a header".to_owned());
        }
        let port = match authority.port() {
            None => scheme.port(),
            Some(port) if port.as_str().is_empty() => scheme.port(),
            Some(port) => match port.as_str().parse() {
                Ok(0) | Err(_) => return Err(format!("{:?} is no port", port.as_str())),
                Ok(port) => port,
            },
        };
        Ok(Target { scheme, host: host(authority.host())?, port })
    }

    /// As in the header `Host`: the port where it is not the scheme's own.
    pub(super) fn authority(&self) -> String {
        match self.port {
            port if port == self.scheme.port() => self.host.to_string(),
            port => format!("{}:{port}", self.host),
        }
    }
}

fn host(text: &str) -> Result<Host, String> {
    if let Some(inner) = text.strip_prefix('[') {
        let address = inner.strip_suffix(']').and_then(|inner| inner.parse().ok());
        return address
            .map(|address| Host::Address(IpAddr::V6(address)))
            .ok_or_else(|| format!("{text:?} is no IPv6 address"));
    }
    let name = text.strip_suffix('.').unwrap_or(text).to_ascii_lowercase();
    if let Ok(address) = name.parse() {
        return Ok(Host::Address(IpAddr::V4(address)));
    }
    let label_is_good = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
    };
    if name.len() > 253 || !name.split('.').all(label_is_good) {
        return Err(format!(
            "{text:?} is no name of a host: letters, digits, `-` and dots, as in api.example.com; names in other \
             scripts are written as xn--…"
        ));
    }
    // What resolvers take for an IPv4 address, each in its own way: 127.1, 0x7f.1, 2130706433.
    let last = name.rsplit('.').next().unwrap_or_default();
    let hexadecimal = last.strip_prefix("0x").is_some_and(|rest| rest.bytes().all(|b| b.is_ascii_hexdigit()));
    if hexadecimal || last.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(format!("{text:?} is no IPv4 address; one is written as four numbers from 0 to 255"));
    }
    Ok(Host::Name(name))
}
