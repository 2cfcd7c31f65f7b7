//! The audit of one package.

use std::thread;
use std::time::Duration;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use stepbox_guest::{StepError, step};

use crate::lockfile::Package;

/// Where a package comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum Source {
    CratesIo,
    OtherRegistry,
    Git,
    Workspace,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Audited {
    pub source: Source,
    pub findings: Vec<Finding>,
}

/// What somebody should look at.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Finding {
    /// Nothing vouches for its contents.
    NoChecksum,
    /// It is built more than once.
    OtherVersions { versions: Vec<String> },
    /// Not meant for everyone, and often withdrawn (yanked) when the release is out.
    PreRelease,
    /// `0.0.x`: each release may break what depends on it.
    Unstable,
    /// No registry keeps it: it is gone when its repository is.
    FromGit { repository: String },
}

/// Looks at one package.
#[step(name = "audit {package.name} {package.version}", retry = exponential(3, "1s"), timeout = "5m")]
pub fn audit(package: Package, other_versions: Vec<String>, delay_ms: u64) -> Result<Audited, StepError> {
    thread::sleep(Duration::from_millis(delay_ms));

    let source = source(package.source.as_deref());
    let mut findings = Vec::new();
    if let (Source::Git, Some(repository)) = (source, &package.source) {
        findings.push(Finding::FromGit { repository: repository.clone() });
    }
    if matches!(source, Source::CratesIo | Source::OtherRegistry) && package.checksum.is_none() {
        findings.push(Finding::NoChecksum);
    }
    if !other_versions.is_empty() {
        findings.push(Finding::OtherVersions { versions: other_versions });
    }
    if is_pre_release(&package.version) {
        findings.push(Finding::PreRelease);
    }
    if package.version.starts_with("0.0.") {
        findings.push(Finding::Unstable);
    }
    Ok(Audited { source, findings })
}

fn source(source: Option<&str>) -> Source {
    match source {
        None => Source::Workspace,
        // What Cargo writes whatever protocol it speaks.
        Some("registry+https://github.com/rust-lang/crates.io-index") => Source::CratesIo,
        Some(source) if source.starts_with("git+") => Source::Git,
        Some(_) => Source::OtherRegistry,
    }
}

/// `1.0.0-rc.1` is one, `1.0.0+build-7` is not.
fn is_pre_release(version: &str) -> bool {
    version.split('+').next().is_some_and(|version| version.contains('-'))
}
