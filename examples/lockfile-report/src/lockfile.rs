//! What a `Cargo.lock` says.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepbox_guest::{StepError, step};

/// An entry of a `Cargo.lock`; its dependencies are of no interest here.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Package {
    pub name: String,
    pub version: String,
    /// None for a package of the workspace itself.
    pub source: Option<String>,
    pub checksum: Option<String>,
}

#[derive(Deserialize)]
struct Lockfile {
    version: Option<u32>,
    #[serde(default)]
    package: Vec<Package>,
}

/// Formats from here on keep a package's checksum with the package.
const FORMAT_MIN: u32 = 3;

/// Reads the packages of a Cargo.lock.
///
/// In a step, since that is what is tried again, and what later code of this module (another
/// parser, say) does not do once more.
#[step]
pub fn read_lockfile(text: String) -> Result<Vec<Package>, StepError> {
    let lockfile: Lockfile =
        toml::from_str(&text).map_err(|error| StepError::fatal(format!("this is no Cargo.lock: {error}")))?;
    match lockfile.version {
        Some(version) if version >= FORMAT_MIN => Ok(lockfile.package),
        _ => Err(StepError::fatal(format!(
            "this Cargo.lock has a format before {FORMAT_MIN}; `cargo update --workspace` writes a newer one"
        ))),
    }
}
