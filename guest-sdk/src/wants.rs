//! What `wants!` says, gathered from wherever it stands in the crates of a module.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Map, Value, json};

/// What one `wants!` has.
pub struct WantsDef {
    pub http: &'static [HttpWant],
    /// Each with its hosts.
    pub secrets: &'static [(&'static str, &'static [&'static str])],
    pub env: &'static [&'static str],
}

#[derive(PartialEq, Eq, PartialOrd, Ord)]
pub struct HttpWant {
    pub scheme: &'static str,
    pub host: &'static str,
    pub port: Option<u16>,
    pub methods: &'static [&'static str],
}

inventory::collect!(WantsDef);

/// `capabilities` of the manifest. In an order of its own: that of the linker is anybody's guess.
pub(crate) fn capabilities<'a>(all: impl IntoIterator<Item = &'a WantsDef>) -> Value {
    let mut http: BTreeSet<&HttpWant> = BTreeSet::new();
    let mut env: BTreeSet<&str> = BTreeSet::new();
    let mut secrets: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for wants in all {
        http.extend(wants.http);
        env.extend(wants.env);
        for (name, hosts) in wants.secrets {
            secrets.entry(name).or_default().extend(*hosts);
        }
    }
    let http: Vec<Value> = http.into_iter().map(rule).collect();
    let secrets: Vec<Value> =
        secrets.into_iter().map(|(name, hosts)| json!({ "name": name, "hosts": hosts })).collect();
    let mut capabilities = Map::new();
    for (field, wanted) in [("http", json!(http)), ("secrets", json!(secrets)), ("env", json!(env))] {
        if wanted != json!([]) {
            capabilities.insert(field.into(), wanted);
        }
    }
    capabilities.into()
}

fn rule(want: &HttpWant) -> Value {
    let mut rule = json!({ "scheme": want.scheme, "host": want.host });
    if let Some(port) = want.port {
        rule["port"] = port.into();
    }
    if !want.methods.is_empty() {
        rule["methods"] = json!(want.methods);
    }
    rule
}
