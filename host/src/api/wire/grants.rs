//! What modules want, what tasks are granted, and how much they may take.

use std::collections::BTreeMap;

use serde::Serialize;
use stepbox_domain::{
    TaskName,
    capability::{self, AddressRange, EnvName, HostPattern, Method, Missing, Scheme, SecretName},
    limits::Limit,
};

use crate::{
    engine::LimitShown,
    store::{StoreError, VersionView},
};

/// What a version wants, has and lacks.
#[derive(Serialize)]
pub struct Capabilities {
    wanted: Wants,
    granted: Grants,
    missing: Wants,
}

impl Capabilities {
    pub fn new(view: &VersionView, granted: &capability::Grants) -> Result<Self, StoreError> {
        let wanted = view.wants()?;
        Ok(Capabilities {
            missing: granted.missing(&wanted).into(),
            wanted: wanted.into(),
            granted: granted.clone().into(),
        })
    }
}

/// In the shape of a manifest's `capabilities`.
#[derive(Serialize)]
pub struct Wants {
    http: Vec<HttpRule>,
    secrets: Vec<SecretWant>,
    env: Vec<EnvName>,
}

#[derive(Serialize)]
struct HttpRule {
    scheme: Scheme,
    host: HostPattern,
    port: u16,
    methods: Vec<Method>,
}

#[derive(Serialize)]
struct SecretWant {
    name: SecretName,
    hosts: Vec<HostPattern>,
}

impl From<capability::Wants> for Wants {
    fn from(wants: capability::Wants) -> Self {
        let secret = |want: capability::SecretWant| SecretWant { name: want.name, hosts: want.hosts };
        Wants {
            http: wants.http.into_iter().map(Into::into).collect(),
            secrets: wants.secrets.into_iter().map(secret).collect(),
            env: wants.env,
        }
    }
}

impl From<Missing> for Wants {
    fn from(Missing { http, secrets, env }: Missing) -> Self {
        capability::Wants { http, secrets, env }.into()
    }
}

impl From<capability::HttpRule> for HttpRule {
    fn from(rule: capability::HttpRule) -> Self {
        HttpRule { port: rule.port(), scheme: rule.scheme, host: rule.host, methods: rule.methods }
    }
}

/// What a task is granted: what `PUT …/grants` takes.
#[derive(Serialize)]
pub struct Grants {
    http: Vec<HttpRule>,
    addresses: Vec<AddressRange>,
    secrets: BTreeMap<SecretName, Vec<HostPattern>>,
    env: BTreeMap<EnvName, String>,
}

impl From<capability::Grants> for Grants {
    fn from(grants: capability::Grants) -> Self {
        Grants {
            http: grants.http.into_iter().map(Into::into).collect(),
            addresses: grants.addresses,
            secrets: grants.secrets,
            env: grants.env,
        }
    }
}

/// A version that becomes active when it is granted what it lacks.
#[derive(Serialize)]
pub struct WaitingVersion {
    version: u32,
    missing: Wants,
}

impl WaitingVersion {
    pub fn new(view: &VersionView, granted: &capability::Grants) -> Result<Self, StoreError> {
        let missing = granted.missing(&view.wants()?);
        Ok(WaitingVersion { version: view.version, missing: missing.into() })
    }
}

/// The answer to a change of grants.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct GrantsAnswer {
    pub task_name: TaskName,
    pub grants: Grants,
    /// What waited for just this and is active now.
    pub activated_version: Option<u32>,
    pub waiting_version: Option<WaitingVersion>,
}

/// A limit, for the task.
#[derive(Serialize)]
pub struct LimitValue {
    value: u64,
    default: u64,
    ceiling: u64,
    set: Option<u64>,
    meaning: &'static str,
}

pub fn limits(shown: Vec<LimitShown>) -> BTreeMap<Limit, LimitValue> {
    let value = |LimitShown { limit, value, default, ceiling, set }| {
        (limit, LimitValue { value, default, ceiling, set, meaning: limit.meaning() })
    };
    shown.into_iter().map(value).collect()
}
