//! Secrets: everything but their values.

use serde::Serialize;
use stepbox_domain::{TaskName, capability::SecretName};

use super::Time;
use crate::vault::SecretView;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Secret {
    name: SecretName,
    created_at: Time,
    updated_at: Time,
    /// Whether requests can be given it: false without the key, or when what is stored is damaged.
    usable: bool,
    /// The tasks whose grants name it.
    granted_to: Vec<TaskName>,
}

impl Secret {
    pub fn new(secret: SecretView, granted_to: Vec<TaskName>) -> Self {
        Secret {
            name: secret.name,
            created_at: Time(secret.created_at),
            updated_at: Time(secret.updated_at),
            usable: secret.usable,
            granted_to,
        }
    }
}

/// The answer to a change.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct SecretChanged {
    pub name: SecretName,
    pub granted_to: Vec<TaskName>,
}
