//! Audits a `Cargo.lock`: one step to read it, one step per package, a summary at the end.
//!
//! Some four hundred steps for a real one. The host may die after any of them, and goes on with
//! the package that was next.

mod checks;
mod lockfile;
mod report;

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepbox_guest::{TaskError, task};

use checks::audit;
use lockfile::{Package, read_lockfile};
pub use report::Report;

#[derive(Debug, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// The text of a `Cargo.lock`.
    pub lockfile: String,
    /// How long each audit takes, so that there is time to watch, or to kill the host.
    #[serde(default)]
    pub step_delay_ms: u64,
}

/// Audits every package of a Cargo.lock.
#[task(timeout = "6h")]
pub fn lockfile_report(request: Request) -> Result<Report, TaskError> {
    let packages = read_lockfile(request.lockfile)?;
    let versions = versions_by_name(&packages);

    let mut report = Report::default();
    for package in packages {
        let others =
            versions[&package.name].iter().filter(|version| **version != package.version).cloned().collect();
        let audited = audit(package.clone(), others, request.step_delay_ms)?;
        report.add(&package, audited);
    }
    Ok(report)
}

/// A `BTreeMap`, so that a test that replays the handler sees the same order each time.
fn versions_by_name(packages: &[Package]) -> BTreeMap<String, Vec<String>> {
    let mut versions: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for package in packages {
        versions.entry(package.name.clone()).or_default().push(package.version.clone());
    }
    versions
}

#[cfg(test)]
mod tests;
