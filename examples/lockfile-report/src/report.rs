//! The result: what all the audits come to.

use schemars::JsonSchema;
use serde::Serialize;

use crate::checks::{Audited, Finding, Source};
use crate::lockfile::Package;

#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Report {
    pub packages: u32,
    pub sources: Sources,
    pub findings: Vec<PackageFinding>,
}

/// How many packages come from where.
#[derive(Debug, Default, PartialEq, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Sources {
    pub crates_io: u32,
    pub other_registry: u32,
    pub git: u32,
    pub workspace: u32,
}

#[derive(Debug, PartialEq, Serialize, JsonSchema)]
pub struct PackageFinding {
    pub package: String,
    pub version: String,
    #[serde(flatten)]
    pub finding: Finding,
}

impl Report {
    pub fn add(&mut self, package: &Package, audited: Audited) {
        self.packages += 1;
        *match audited.source {
            Source::CratesIo => &mut self.sources.crates_io,
            Source::OtherRegistry => &mut self.sources.other_registry,
            Source::Git => &mut self.sources.git,
            Source::Workspace => &mut self.sources.workspace,
        } += 1;
        self.findings.extend(audited.findings.into_iter().map(|finding| PackageFinding {
            package: package.name.clone(),
            version: package.version.clone(),
            finding,
        }));
    }
}
