//! What a module wants to reach, and what an admin lets it.
//!
//! Nothing is granted by wanting. Grants belong to a task and outlive its versions; a version that
//! wants more than is granted can be kept but not run. At run time only the grants count.

use core::net::IpAddr;
use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

/// So many entries has each list of wants or grants at most: they are looked through at each
/// request, and shown whole.
pub const LIST_MAX: usize = 100;
pub const METHODS_MAX: usize = 20;
/// A variable's value.
pub const ENV_VALUE_MAX_BYTES: usize = 4_096;

/// What a module wants: `capabilities` in its manifest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wants {
    pub http: Vec<HttpRule>,
    pub secrets: Vec<SecretWant>,
    pub env: Vec<EnvName>,
}

/// A secret that a module wants to send, and to whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SecretWant {
    pub name: SecretName,
    pub hosts: Vec<HostPattern>,
}

/// What an admin has granted to a task. The serde names are those on disk and in the API.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Grants {
    #[serde(default)]
    pub http: Vec<HttpRule>,
    /// Addresses that requests may go to although they are not of the public internet.
    #[serde(default)]
    pub addresses: Vec<AddressRange>,
    /// Each secret with the hosts that it may be sent to.
    #[serde(default)]
    pub secrets: BTreeMap<SecretName, Vec<HostPattern>>,
    /// Variables of the step's environment, with their values.
    #[serde(default)]
    pub env: BTreeMap<EnvName, String>,
}

/// Requests that a rule is about.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct HttpRule {
    #[serde(default)]
    pub scheme: Scheme,
    pub host: HostPattern,
    /// The scheme's own where it is left out.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub port: Option<u16>,
    /// Any where it is empty or left out.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub methods: Vec<Method>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Scheme {
    #[default]
    Https,
    Http,
}

impl Scheme {
    pub fn as_str(self) -> &'static str {
        match self {
            Scheme::Https => "https",
            Scheme::Http => "http",
        }
    }

    pub fn port(self) -> u16 {
        match self {
            Scheme::Https => 443,
            Scheme::Http => 80,
        }
    }
}

impl HttpRule {
    /// The port that it is about.
    pub fn port(&self) -> u16 {
        self.port.unwrap_or(self.scheme.port())
    }

    /// Whether it lets this request pass. `host` as in the request's URI.
    pub fn allows(&self, scheme: Scheme, host: &str, port: u16, method: &str) -> bool {
        self.scheme == scheme
            && self.port() == port
            && self.host.matches(host)
            && (self.methods.is_empty() || self.methods.iter().any(|allowed| allowed.as_str() == method))
    }

    /// Whether everything that `wanted` is about is also about this, methods apart.
    fn spans(&self, wanted: &HttpRule) -> bool {
        self.scheme == wanted.scheme && self.port() == wanted.port() && self.host.covers(&wanted.host)
    }
}

impl fmt::Display for HttpRule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.methods.is_empty() {
            let methods: Vec<&str> = self.methods.iter().map(Method::as_str).collect();
            write!(f, "{} ", methods.join(","))?;
        }
        write!(f, "{}://{}", self.scheme.as_str(), self.host)?;
        match self.port {
            Some(port) if port != self.scheme.port() => write!(f, ":{port}"),
            _ => Ok(()),
        }
    }
}

/// Why a text is none of the names and patterns of this module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is no {what}: {expected}")]
pub struct PatternError {
    pub what: &'static str,
    pub text: String,
    pub expected: &'static str,
}

macro_rules! parsed_text {
    ($(#[$doc:meta])* $name:ident, $what:literal, $expected:literal, $check:expr) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            pub fn parse(text: &str) -> Result<Self, PatternError> {
                let check: fn(&str) -> Option<String> = $check;
                check(text).map($name).ok_or_else(|| PatternError {
                    what: $what,
                    text: text.chars().take(80).collect(),
                    expected: $expected,
                })
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = PatternError;
            fn try_from(text: String) -> Result<Self, PatternError> {
                Self::parse(&text)
            }
        }

        impl From<$name> for String {
            fn from(name: $name) -> String {
                name.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", self.0)
            }
        }
    };
}

fn sized(text: &str, chars_max: usize) -> bool {
    !text.is_empty() && text.len() <= chars_max
}

parsed_text! {
    /// What a secret is called.
    SecretName, "name of a secret", "it has 1 to 128 of A-Z a-z 0-9 . _ -",
    |text| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
        (sized(text, 128) && text.bytes().all(allowed)).then(|| text.to_owned())
    }
}

parsed_text! {
    /// A variable of the environment.
    EnvName, "name of a variable", "it has 1 to 128 of A-Z a-z 0-9 _ and begins with no digit",
    |text| {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let begins_well = !text.starts_with(|first: char| first.is_ascii_digit());
        (sized(text, 128) && begins_well && text.bytes().all(allowed)).then(|| text.to_owned())
    }
}

parsed_text! {
    /// A method of HTTP, in capitals.
    Method, "method of HTTP", "it has 1 to 20 capital letters, like GET",
    |text| {
        (sized(text, 20) && text.bytes().all(|byte| byte.is_ascii_uppercase())).then(|| text.to_owned())
    }
}

parsed_text! {
    /// Hosts: one by name or address, `*.example.com` for all names below that one, `*` for any.
    HostPattern, "pattern of hosts",
    "it is a name (`api.example.com`), an address, `*.` and a name, or `*`; without scheme, port or path",
    |text| {
        let text = normal_host(text);
        let name = text.strip_prefix("*.").unwrap_or(&text);
        let is_name = |name: &str| {
            sized(name, 253)
                && name.split('.').all(|label| {
                    sized(label, 63)
                        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
                })
        };
        let is_address = |name: &str| name.parse::<IpAddr>().is_ok();
        (text == "*" || is_name(name) || is_address(&text)).then_some(text)
    }
}

/// In small letters, without the dot that a full name may end in and the brackets of an IPv6 address.
fn normal_host(host: &str) -> String {
    let host = host.strip_prefix('[').and_then(|inner| inner.strip_suffix(']')).unwrap_or(host);
    let host = host.strip_suffix('.').unwrap_or(host);
    host.to_ascii_lowercase()
}

impl HostPattern {
    /// Whether `host`, as in a request's URI, is meant.
    pub fn matches(&self, host: &str) -> bool {
        let host = normal_host(host);
        match self.0.strip_prefix('*') {
            Some("") => !host.is_empty(),
            // With its dot: `*.example.com` is neither example.com nor badexample.com.
            Some(suffix) => host.len() > suffix.len() && host.ends_with(suffix),
            None => self.0 == host,
        }
    }

    /// Whether it means every host that `other` means.
    pub fn covers(&self, other: &HostPattern) -> bool {
        match (self.0.strip_prefix('*'), other.0.strip_prefix('*')) {
            (Some(""), _) => true,
            (Some(_), None) => self.matches(&other.0),
            (Some(suffix), Some(narrower)) => narrower.ends_with(suffix),
            (None, _) => self.0 == other.0,
        }
    }
}

/// Why grants cannot be kept. `field` is a JSON pointer into them.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{field}`: {reason}")]
pub struct GrantsError {
    pub field: String,
    pub reason: String,
}

/// Addresses by their first bits: `10.0.0.0/8`, `fd00::/8`, or one by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct AddressRange {
    address: IpAddr,
    bits: u8,
}

impl AddressRange {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let wrong = || PatternError {
            what: "range of addresses",
            text: text.chars().take(80).collect(),
            expected: "it is an address (`10.1.2.3`), or one with the number of bits that count (`10.0.0.0/8`)",
        };
        let (address, bits) = match text.split_once('/') {
            Some((address, bits)) => (address, Some(bits)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| wrong())?;
        let all = if address.is_ipv4() { 32 } else { 128 };
        let bits = bits.map_or(Ok(all), |bits| bits.parse().map_err(|_| wrong()))?;
        if bits > all { Err(wrong()) } else { Ok(AddressRange { address, bits }) }
    }

    pub fn contains(&self, address: IpAddr) -> bool {
        let number = |address: IpAddr| match address {
            // Shifted up, so that the first bits are the first bits in both.
            IpAddr::V4(v4) => u128::from(u32::from(v4)) << 96,
            IpAddr::V6(v6) => u128::from(v6),
        };
        let differ = number(self.address) ^ number(address);
        self.address.is_ipv4() == address.is_ipv4()
            && (self.bits == 0 || differ >> (128 - u32::from(self.bits)) == 0)
    }
}

impl TryFrom<String> for AddressRange {
    type Error = PatternError;
    fn try_from(text: String) -> Result<Self, PatternError> {
        Self::parse(&text)
    }
}

impl From<AddressRange> for String {
    fn from(range: AddressRange) -> String {
        range.to_string()
    }
}

impl fmt::Display for AddressRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.address, self.bits)
    }
}

/// What is wanted and not granted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Missing {
    /// With the methods that no grant has, where some are missing.
    pub http: Vec<HttpRule>,
    /// With the hosts that the secret may not be sent to.
    pub secrets: Vec<SecretWant>,
    pub env: Vec<EnvName>,
}

impl Missing {
    pub fn is_nothing(&self) -> bool {
        *self == Missing::default()
    }
}

/// For a sentence: of long lists only the beginning.
impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let http = self.http.iter().map(|rule| format!("http {rule}"));
        let secrets = self.secrets.iter().map(|want| {
            let hosts = want.hosts.iter().map(|host| host.as_str().to_owned());
            format!("secret {} for {}", want.name, listed(hosts, ","))
        });
        let env = self.env.iter().map(|name| format!("env {name}"));
        f.write_str(&listed(http.chain(secrets).chain(env), "; "))
    }
}

fn listed(items: impl Iterator<Item = String>, between: &str) -> String {
    const SHOWN_MAX: usize = 10;
    let (mut shown, mut more) = (Vec::new(), 0);
    for item in items {
        match shown.len() < SHOWN_MAX {
            true => shown.push(item),
            false => more += 1,
        }
    }
    if more > 0 {
        shown.push(format!("and {more} more"));
    }
    shown.join(between)
}

impl Grants {
    /// These as they are kept: within bounds, and written in one way only.
    pub fn checked(mut self) -> Result<Grants, GrantsError> {
        let bounded = |field: &str, count: usize, count_max: usize| match count > count_max {
            true => Err(GrantsError {
                field: field.to_owned(),
                reason: format!("{count} entries are too many; at most {count_max} are allowed"),
            }),
            false => Ok(()),
        };
        bounded("/http", self.http.len(), LIST_MAX)?;
        bounded("/addresses", self.addresses.len(), LIST_MAX)?;
        bounded("/secrets", self.secrets.len(), LIST_MAX)?;
        bounded("/env", self.env.len(), LIST_MAX)?;
        for (index, rule) in self.http.iter_mut().enumerate() {
            bounded(&format!("/http/{index}/methods"), rule.methods.len(), METHODS_MAX)?;
            if rule.port == Some(0) {
                let (field, reason) =
                    (format!("/http/{index}/port"), "it must be from 1 to 65535".to_owned());
                return Err(GrantsError { field, reason });
            }
            rule.port = rule.port.filter(|port| *port != rule.scheme.port());
        }
        for (name, hosts) in &self.secrets {
            bounded(&format!("/secrets/{name}"), hosts.len(), LIST_MAX)?;
        }
        for (name, value) in &self.env {
            let reason = match value.len() {
                bytes if bytes > ENV_VALUE_MAX_BYTES => {
                    format!("{bytes} bytes are too many; at most {ENV_VALUE_MAX_BYTES} are allowed")
                }
                _ if value.contains('\0') => {
                    "the character NUL ends a variable and cannot be in it".to_owned()
                }
                _ => continue,
            };
            return Err(GrantsError { field: format!("/env/{name}"), reason });
        }
        Ok(self)
    }

    /// Whether a request may be made, by its name. The address that the name stands for is another
    /// matter.
    pub fn allow_request(&self, scheme: Scheme, host: &str, port: u16, method: &str) -> bool {
        self.http.iter().any(|rule| rule.allows(scheme, host, port, method))
    }

    /// Whether the secret may be sent to `host`.
    pub fn allow_secret(&self, name: &SecretName, host: &str) -> bool {
        self.secrets.get(name).is_some_and(|hosts| hosts.iter().any(|pattern| pattern.matches(host)))
    }

    /// Whether requests may go to `address` although it is not of the public internet.
    pub fn allow_address(&self, address: IpAddr) -> bool {
        self.addresses.iter().any(|range| range.contains(address))
    }

    /// What of `wants` is not granted.
    pub fn missing(&self, wants: &Wants) -> Missing {
        Missing {
            http: wants.http.iter().filter_map(|want| self.missing_of(want)).collect(),
            secrets: wants
                .secrets
                .iter()
                .filter_map(|want| {
                    let granted = self.secrets.get(&want.name).map(Vec::as_slice).unwrap_or_default();
                    let mut hosts = want.hosts.clone();
                    hosts.retain(|host| !granted.iter().any(|pattern| pattern.covers(host)));
                    let some = !hosts.is_empty() || !self.secrets.contains_key(&want.name);
                    some.then(|| SecretWant { name: want.name.clone(), hosts })
                })
                .collect(),
            env: wants.env.iter().filter(|name| !self.env.contains_key(name)).cloned().collect(),
        }
    }

    fn missing_of(&self, want: &HttpRule) -> Option<HttpRule> {
        let spanning = || self.http.iter().filter(|rule| rule.spans(want));
        if spanning().any(|rule| rule.methods.is_empty()) {
            return None;
        }
        if want.methods.is_empty() {
            return Some(want.clone());
        }
        let mut methods = want.methods.clone();
        methods.retain(|method| !spanning().any(|rule| rule.methods.contains(method)));
        (!methods.is_empty()).then(|| HttpRule { methods, ..want.clone() })
    }

    /// These, and all that `wants` asks for that can be granted without a word of the admin's: a
    /// variable has no value yet.
    pub fn and_wanted(mut self, wants: &Wants) -> Grants {
        let missing = self.missing(wants);
        self.http.extend(missing.http);
        for want in missing.secrets {
            self.secrets.entry(want.name).or_default().extend(want.hosts);
        }
        self
    }
}

#[cfg(test)]
mod tests;
