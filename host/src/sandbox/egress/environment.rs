//! What a step finds in its environment.

use std::collections::BTreeMap;

use stepbox_domain::capability::{EnvName, Grants};

use super::secrets;

/// The granted variables, and each granted secret under its name, where that can be the name of a
/// variable: a placeholder, since the value is no guest's to see. A variable that was given a value
/// has that.
pub(in crate::sandbox) fn of_steps(grants: &Grants) -> BTreeMap<String, String> {
    let secrets = grants.secrets.keys().filter(|name| EnvName::parse(name.as_str()).is_ok());
    let mut variables: BTreeMap<String, String> =
        secrets.map(|name| (name.to_string(), secrets::placeholder(name))).collect();
    variables.extend(grants.env.iter().map(|(name, value)| (name.to_string(), value.clone())));
    variables
}
