//! Modules and their versions, and the verdict on one that is not uploaded.

use serde::Serialize;
use stepbox_domain::{Digest, Json, TaskName, capability::Grants};

use super::{
    Time,
    grants::{Capabilities, WaitingVersion, Wants},
};
use crate::{
    api::ApiError,
    sandbox::{Inspected, InterfaceItem},
    store::{ModuleView, StoreError, VersionView},
};

/// A version of a module.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ModuleVersion {
    task_name: TaskName,
    version: u32,
    digest: Digest,
    size_bytes: u64,
    compiled_in_ms: u64,
    created_at: Time,
    manifest: Json,
    /// Whether new runs get it.
    active: bool,
    /// Executions that are not over and run on it.
    unfinished_executions: u64,
    /// Whether it becomes active by itself when it is granted what it lacks.
    waiting: bool,
    capabilities: Capabilities,
}

impl ModuleVersion {
    pub fn new(view: VersionView, granted: &Grants) -> Result<Self, StoreError> {
        Ok(ModuleVersion {
            capabilities: Capabilities::new(&view, granted)?,
            waiting: view.waiting,
            task_name: view.task,
            version: view.version,
            digest: view.digest,
            size_bytes: view.size_bytes,
            compiled_in_ms: view.compiled_in_ms,
            created_at: Time(view.created_at),
            manifest: view.manifest,
            active: view.active,
            unfinished_executions: view.unfinished,
        })
    }
}

/// A module: its active version (the newest, while none has been granted what it wants), and what is
/// said of all of them.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Module {
    #[serde(flatten)]
    shown_version: ModuleVersion,
    /// How many versions it has.
    versions: u32,
    /// Executions that are not over, on whatever version.
    unfinished_executions_of_all_versions: u64,
    /// The newest that waits for grants.
    waiting_version: Option<WaitingVersion>,
}

impl Module {
    pub fn new(view: ModuleView, granted: &Grants) -> Result<Self, StoreError> {
        let waiting = view.waiting.map(|waiting| WaitingVersion::new(&waiting, granted));
        Ok(Module {
            shown_version: ModuleVersion::new(view.shown, granted)?,
            versions: view.versions,
            unfinished_executions_of_all_versions: view.unfinished,
            waiting_version: waiting.transpose()?,
        })
    }
}

/// The verdict of `stepbox inspect --json` on a component that is a task module.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Inspection {
    accepted: bool,
    digest: Digest,
    size_bytes: usize,
    compiled_in_ms: u64,
    imports: Vec<Interface>,
    exports: Vec<Interface>,
    manifest: Json,
    /// What it wants to reach.
    wanted: Wants,
}

/// What a component imports or exports under one name.
#[derive(Serialize)]
struct Interface {
    name: String,
    functions: Vec<String>,
}

impl From<InterfaceItem> for Interface {
    fn from(item: InterfaceItem) -> Self {
        Interface { name: item.name, functions: item.functions }
    }
}

impl From<Inspected> for Inspection {
    fn from(inspected: Inspected) -> Self {
        Inspection {
            accepted: true,
            digest: inspected.digest,
            size_bytes: inspected.size_bytes,
            compiled_in_ms: inspected.compiled_in_ms,
            imports: inspected.imports.into_iter().map(Into::into).collect(),
            exports: inspected.exports.into_iter().map(Into::into).collect(),
            manifest: inspected.manifest_text,
            wanted: inspected.manifest.wants.into(),
        }
    }
}

/// The verdict of `stepbox inspect --json` on one that is none.
#[derive(Serialize)]
pub struct Refusal<'a> {
    accepted: bool,
    error: &'a str,
    code: &'a str,
}

impl<'a> From<&'a ApiError> for Refusal<'a> {
    fn from(error: &'a ApiError) -> Self {
        Refusal { accepted: false, error: &error.message, code: error.code }
    }
}
