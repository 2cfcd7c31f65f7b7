//! What a step finds in its environment.

use std::collections::BTreeMap;

use stepbox_domain::capability::{EnvName, Grants};

use super::secrets;

/// The granted variables, and each granted secret under its name, where that can be the name of a
/// variable: a placeholder, since the value is no guest's to see. A variable that was given a value
/// has that.
pub(in crate::sandbox) fn of_steps(grants: &Grants) -> BTreeMap<EnvName, String> {
    let of_secrets = grants.secrets.keys().filter_map(|secret| {
        let variable = EnvName::parse(secret.as_str()).ok()?;
        Some((variable, secrets::placeholder(secret)))
    });
    let of_grants = grants.env.iter().map(|(name, value)| (name.clone(), value.clone()));
    of_secrets.chain(of_grants).collect()
}
