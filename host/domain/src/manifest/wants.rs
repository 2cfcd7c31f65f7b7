//! Reads `capabilities`: what the module wants to reach.

use serde_json::Value;

use super::{ManifestError, Object, name_of, shortened, wrong_shape};
use crate::capability::{
    EnvName, HostPattern, HttpRule, LIST_MAX, METHODS_MAX, Method, PatternError, Scheme, SecretName,
    SecretWant, Wants,
};

/// What `capabilities` of the manifest says; nothing where it is left out.
pub(super) fn wants(root: &Object<'_>) -> Result<Wants, ManifestError> {
    let Some(wanted) = root.object("capabilities")? else { return Ok(Wants::default()) };
    Ok(Wants {
        http: each(&wanted, "http", LIST_MAX, |item, field| http_rule(&object(item, field)?))?,
        secrets: each_once(
            &wanted,
            "secrets",
            |item, field| secret(&object(item, field)?),
            |want| want.name.as_str(),
        )?,
        env: each_once(&wanted, "env", |item, field| parsed(item, field, EnvName::parse), EnvName::as_str)?,
    })
}

fn http_rule(rule: &Object<'_>) -> Result<HttpRule, ManifestError> {
    let scheme = match rule.text("scheme")?.as_deref() {
        None | Some("https") => Scheme::Https,
        Some("http") => Scheme::Http,
        Some(other) => {
            let reason = format!("{:?} is neither \"https\" nor \"http\"", shortened(other));
            return Err(ManifestError::BadValue { field: rule.pointer_to("scheme"), reason });
        }
    };
    let port = match rule.optional_u64("port")? {
        None => None,
        Some(port) => match u16::try_from(port) {
            Ok(port) if port > 0 => Some(port),
            _ => {
                let reason = format!("{port} is no port: it must be from 1 to 65535");
                return Err(ManifestError::BadValue { field: rule.pointer_to("port"), reason });
            }
        },
    };
    Ok(HttpRule {
        scheme,
        host: required(rule, "host", "the host of the requests, as a string", HostPattern::parse)?,
        port,
        methods: each(rule, "methods", METHODS_MAX, |item, field| parsed(item, field, Method::parse))?,
    })
}

fn secret(secret: &Object<'_>) -> Result<SecretWant, ManifestError> {
    let name = required(secret, "name", "the name of the secret, as a string", SecretName::parse)?;
    let hosts = each(secret, "hosts", LIST_MAX, |item, field| parsed(item, field, HostPattern::parse))?;
    if hosts.is_empty() {
        let expected = "an array of the hosts that the secret is sent to, at least one";
        return Err(ManifestError::Missing { field: secret.pointer_to("hosts"), expected });
    }
    Ok(SecretWant { name, hosts })
}

/// What `read` makes of each item of an array that may be left out, given the item's pointer.
fn each<T>(
    within: &Object<'_>,
    name: &str,
    count_max: usize,
    read: impl Fn(&Value, String) -> Result<T, ManifestError>,
) -> Result<Vec<T>, ManifestError> {
    let Some(items) = within.array(name)? else { return Ok(Vec::new()) };
    let pointer = within.pointer_to(name);
    if items.len() > count_max {
        let reason = format!("{} entries are too many; at most {count_max} are allowed", items.len());
        return Err(ManifestError::BadValue { field: pointer, reason });
    }
    items.iter().enumerate().map(|(index, item)| read(item, format!("{pointer}/{index}"))).collect()
}

/// As [`each`], where none may be called as another.
fn each_once<T>(
    within: &Object<'_>,
    name: &str,
    read: impl Fn(&Value, String) -> Result<T, ManifestError>,
    called: impl Fn(&T) -> &str,
) -> Result<Vec<T>, ManifestError> {
    let items = each(within, name, LIST_MAX, read)?;
    for (index, item) in items.iter().enumerate() {
        if items[..index].iter().any(|other| called(other) == called(item)) {
            let field = format!("{}/{index}", within.pointer_to(name));
            let reason = format!("\"{}\" is in the list twice", called(item));
            return Err(ManifestError::BadValue { field, reason });
        }
    }
    Ok(items)
}

fn object(value: &Value, pointer: String) -> Result<Object<'_>, ManifestError> {
    match value {
        Value::Object(fields) => Ok(Object { fields, pointer }),
        other => Err(wrong_shape(pointer, "an object", other)),
    }
}

fn required<T>(
    within: &Object<'_>,
    name: &str,
    expected: &'static str,
    parse: fn(&str) -> Result<T, PatternError>,
) -> Result<T, ManifestError> {
    let field = within.pointer_to(name);
    match within.get(name) {
        None => Err(ManifestError::Missing { field, expected }),
        Some(value) => parsed(value, field, parse),
    }
}

fn parsed<T>(
    value: &Value,
    field: String,
    parse: fn(&str) -> Result<T, PatternError>,
) -> Result<T, ManifestError> {
    let Value::String(text) = value else {
        return Err(ManifestError::WrongShape { field, expected: "a string", found: name_of(value) });
    };
    parse(text).map_err(|error| ManifestError::BadValue { field, reason: error.to_string() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn read(capabilities: Value) -> Result<Wants, String> {
        let manifest = json!({ "stepbox": "0.1.0", "capabilities": capabilities }).to_string();
        Wants::of_manifest(&manifest).map_err(|error| error.to_string())
    }

    #[test]
    fn wants_are_read_with_what_holds_where_something_is_left_out() {
        let wants = read(json!({
            "http": [
                { "host": "API.example.com" },
                { "scheme": "http", "host": "*.a.com", "port": 8080, "methods": ["GET", "PUT"], "why": "later" },
                { "scheme": null, "host": "127.0.0.1", "port": null, "methods": null },
            ],
            "secrets": [{ "name": "KEY", "hosts": ["a.com", "*.b.com"] }],
            "env": ["REGION"],
            "disk": ["of another host"],
        }))
        .unwrap();
        let rules: Vec<String> = wants.http.iter().map(ToString::to_string).collect();
        assert_eq!(rules, ["https://api.example.com", "GET,PUT http://*.a.com:8080", "https://127.0.0.1"]);
        assert_eq!((wants.http[0].port(), wants.http[1].port()), (443, 8080));
        assert_eq!(wants.secrets[0].hosts[1].as_str(), "*.b.com");
        assert_eq!(wants.env[0].as_str(), "REGION");
        for nothing in [json!({}), json!(null), json!({ "http": [], "secrets": null })] {
            assert_eq!(read(nothing), Ok(Wants::default()));
        }
    }

    #[test]
    fn each_refusal_names_its_place() {
        let many = |count: usize| (0..count).map(|n| json!(format!("V{n}"))).collect::<Vec<_>>();
        assert_eq!(read(json!({ "env": many(100) })).unwrap().env.len(), 100);
        let methods = vec!["GET"; 21];
        let cases = [
            (json!([]), "`/capabilities` must be an object, this is an array"),
            (json!({ "http": {} }), "`/capabilities/http` must be an array, this is an object"),
            (json!({ "http": ["a.com"] }), "`/capabilities/http/0` must be an object, this is a string"),
            (
                json!({ "http": [{}] }),
                "`/capabilities/http/0/host` is missing: it must be the host of the requests, as a string",
            ),
            (
                json!({ "http": [{ "host": "a.com" }, { "host": "https://a.com" }] }),
                "`/capabilities/http/1/host`: \"https://a.com\" is no pattern of hosts: it is a name \
                 (`api.example.com`), an address, `*.` and a name, or `*`; without scheme, port or path",
            ),
            (
                json!({ "http": [{ "host": 7 }] }),
                "`/capabilities/http/0/host` must be a string, this is a number",
            ),
            (
                json!({ "http": [{ "host": "a.com", "scheme": "ftp" }] }),
                "`/capabilities/http/0/scheme`: \"ftp\" is neither \"https\" nor \"http\"",
            ),
            (
                json!({ "http": [{ "host": "a.com", "port": 65536 }] }),
                "`/capabilities/http/0/port`: 65536 is no port: it must be from 1 to 65535",
            ),
            (
                json!({ "http": [{ "host": "a.com", "port": 0 }] }),
                "`/capabilities/http/0/port`: 0 is no port: it must be from 1 to 65535",
            ),
            (
                json!({ "http": [{ "host": "a.com", "methods": ["GET", "get"] }] }),
                "`/capabilities/http/0/methods/1`: \"get\" is no method of HTTP: it has 1 to 20 capital letters, \
                 like GET",
            ),
            (
                json!({ "http": [{ "host": "a.com", "methods": methods }] }),
                "`/capabilities/http/0/methods`: 21 entries are too many; at most 20 are allowed",
            ),
            (
                json!({ "secrets": [{ "name": "K" }] }),
                "`/capabilities/secrets/0/hosts` is missing: it must be an array of the hosts that the secret is \
                 sent to, at least one",
            ),
            (
                json!({ "secrets": [{ "hosts": ["a.com"] }] }),
                "`/capabilities/secrets/0/name` is missing: it must be the name of the secret, as a string",
            ),
            (
                json!({ "secrets": [{ "name": "K", "hosts": ["a.com"] }, { "name": "K", "hosts": ["b.com"] }] }),
                "`/capabilities/secrets/1`: \"K\" is in the list twice",
            ),
            (
                json!({ "secrets": [{ "name": "K", "hosts": ["a.com", 1] }] }),
                "`/capabilities/secrets/0/hosts/1` must be a string, this is a number",
            ),
            (
                json!({ "env": ["A", "1A"] }),
                "`/capabilities/env/1`: \"1A\" is no name of a variable: it has 1 to 128 of A-Z a-z 0-9 _ and begins \
                 with no digit",
            ),
            (json!({ "env": ["A", "A"] }), "`/capabilities/env/1`: \"A\" is in the list twice"),
            (
                json!({ "env": many(101) }),
                "`/capabilities/env`: 101 entries are too many; at most 100 are allowed",
            ),
        ];
        for (capabilities, expected) in cases {
            assert_eq!(read(capabilities), Err(expected.to_owned()));
        }
    }
}
