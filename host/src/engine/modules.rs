//! Which version of which task new runs get, and what payloads it takes.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use serde_json::{Value, json};
use stepbox_domain::{
    Digest, Json, Manifest, TaskName,
    audit::{AuditAction, AuditEntry},
    capability::Grants,
};

use super::{
    Engine, EngineError, Inner, Who, carried_through,
    grants::{check_granted, grant},
};
use crate::{
    sandbox::Rejected,
    store::{ModuleView, NewVersion, Removal, StoreError, VersionAdded, VersionView},
};

/// What an upload came to.
#[derive(Clone, Debug, PartialEq)]
pub struct Uploaded {
    pub version: VersionView,
    /// Whether it was not there before.
    pub is_new: bool,
}

/// The active version of each task, in memory; the store has the truth.
#[derive(Default)]
pub(crate) struct Modules {
    active: HashMap<TaskName, Arc<Active>>,
}

/// What a start has to know of a task.
pub(crate) struct Active {
    pub version: u32,
    pub digest: Digest,
    pub timeout_ms: Option<u64>,
    payload: Option<jsonschema::Validator>,
}

impl Modules {
    pub fn active(&self, task: &TaskName) -> Option<Arc<Active>> {
        self.active.get(task).cloned()
    }

    /// As the audit trail shows what a module was like.
    pub fn shown(&self, task: &TaskName) -> Value {
        match self.active(task) {
            None => Value::Null,
            Some(active) => json!({ "activeVersion": active.version }),
        }
    }

    /// Takes note of the module's active version, if it has one.
    pub fn take_note(&mut self, module: &ModuleView) -> Result<(), StoreError> {
        match module.shown.active {
            true => self.set(&module.shown).map_err(StoreError::Corrupt),
            false => Ok(()),
        }
    }

    /// Takes note of a version that the store has made active.
    pub fn set(&mut self, version: &VersionView) -> Result<(), String> {
        let manifest = Manifest::parse(version.manifest.as_str()).map_err(|error| error.to_string())?;
        let active = Active {
            version: version.version,
            digest: version.digest.clone(),
            timeout_ms: manifest.task.timeout_ms,
            payload: manifest.task.payload.as_ref().map(validator).transpose()?,
        };
        self.active.insert(version.task.clone(), Arc::new(active));
        Ok(())
    }
}

/// The schemas come with uploads and must not hurt: nothing is fetched, and patterns run in
/// linear time.
fn validator(schema: &serde_json::Value) -> Result<jsonschema::Validator, String> {
    jsonschema::options()
        .with_draft(jsonschema::Draft::Draft202012)
        .with_pattern_options(jsonschema::PatternOptions::regex())
        .build(schema)
        .map_err(|error| error.to_string())
}

impl Active {
    /// Err: the payload is refused, with the place in it and why.
    pub fn accepts(&self, payload: &Json) -> Result<(), EngineError> {
        let Some(validator) = &self.payload else { return Ok(()) };
        let Some(value) = payload.to_value() else {
            return Err(EngineError::PayloadRefused {
                pointer: String::new(),
                reason: "it holds a number that is out of range".to_owned(),
            });
        };
        validator.validate(&value).map_err(|error| EngineError::PayloadRefused {
            pointer: error.instance_path().to_string(),
            reason: shortened(&error.to_string()),
        })
    }
}

/// Schema errors quote the instance, which may be a megabyte.
fn shortened(text: &str) -> String {
    const CHARS_MAX: usize = 400;
    match text.char_indices().nth(CHARS_MAX) {
        None => text.to_owned(),
        Some((end, _)) => format!("{}…", &text[..end]),
    }
}

impl Engine {
    /// Checks and compiles a component, and makes it the active version of `task`, unless it wants
    /// more than the task is granted: then it waits. With `grant_wanted` it is granted what it wants
    /// (but for variables, which have no value yet).
    pub async fn upload(
        &self,
        task: TaskName,
        component: Vec<u8>,
        grant_wanted: bool,
        who: Who,
    ) -> Result<Uploaded, EngineError> {
        let engine = &self.0;
        let limits = engine.settings.of(&task).limits.clone();
        let inspected = engine.loader.inspect(&component, &limits).await.map_err(EngineError::Rejected)?;
        if let Some(schema) = &inspected.manifest.task.payload {
            validator(schema).map_err(|reason| EngineError::Rejected(Rejected::BadSchema { reason }))?;
        }
        let wants = inspected.manifest.wants;
        let new = NewVersion {
            task: task.clone(),
            digest: inspected.digest,
            component,
            manifest: inspected.manifest_text,
            compiled_in_ms: inspected.compiled_in_ms,
            now: engine.clock.now(),
            waits: false,
        };
        let engine = Arc::clone(engine);
        carried_through(async move {
            let mut modules = engine.modules.write().await;
            let granted = engine.settings.of(&task).grants.clone();
            let missing = granted.missing(&wants);
            let to_grant = match grant_wanted && !missing.is_nothing() {
                true => Some(Grants::clone(&granted).and_wanted(&wants).checked()?),
                false => None,
            };
            let mut after = json!({ "digest": new.digest.to_string(), "sizeBytes": new.component.len() });
            if !missing.is_nothing() {
                after["waitsFor"] = json!(missing.to_string());
            }
            let audit = AuditEntry {
                task: Some(task.clone()),
                before: Json::from(modules.shown(&task)),
                after: Json::from(after),
                ..who.entry(AuditAction::UploadModule, new.now)
            };
            let new = NewVersion { waits: !missing.is_nothing(), ..new };
            let (mut version, is_new) = match engine.store.add_version(new, audit).await? {
                VersionAdded::New(version) => (version, true),
                VersionAdded::Same(version) => (version, false),
            };
            if is_new && version.active {
                modules.set(&version).map_err(StoreError::Corrupt)?;
            }
            if let Some(grants) = to_grant {
                // Should it come to nothing, the version waits, and can be uploaded again.
                grant(&engine, &mut modules, &task, grants, &who).await?;
                let number = version.version;
                version = engine.store.version(&task, number).await?.unwrap_or(version);
            }
            Ok(Uploaded { version, is_new })
        })
        .await
    }

    /// New runs of `task` get `version` from now on; runs under way keep theirs.
    pub async fn activate(
        &self,
        task: &TaskName,
        version: u32,
        who: Who,
    ) -> Result<VersionView, EngineError> {
        let (engine, task) = (Arc::clone(&self.0), task.clone());
        carried_through(async move {
            let mut modules = engine.modules.write().await;
            if let Some(view) = engine.store.version(&task, version).await? {
                check_granted(&engine, &view)?;
            }
            let audit = AuditEntry {
                task: Some(task.clone()),
                target: Some(version.to_string()),
                before: Json::from(modules.shown(&task)),
                after: Json::from(json!({ "activeVersion": version })),
                ..who.entry(AuditAction::ActivateVersion, engine.clock.now())
            };
            match engine.store.activate_version(&task, version, audit).await? {
                None => Err(EngineError::UnknownVersion { task, version }),
                Some(view) => {
                    modules.set(&view).map_err(StoreError::Corrupt)?;
                    Ok(view)
                }
            }
        })
        .await
    }

    /// Forgets `task` and all its versions.
    pub async fn remove_module(&self, task: &TaskName, who: Who) -> Result<(), EngineError> {
        let (engine, task) = (Arc::clone(&self.0), task.clone());
        carried_through(async move { remove_module(&engine, task, who).await }).await
    }
}

/// What the audit trail keeps of a module that was removed: its versions, the newest ones by digest.
fn removed(modules: &Modules, task: &TaskName, versions: &[VersionView]) -> Value {
    const SHOWN_MAX: usize = 20;
    let newest: Vec<Value> = versions
        .iter()
        .take(SHOWN_MAX)
        .map(|view| json!({ "version": view.version, "digest": view.digest.to_string() }))
        .collect();
    let mut shown = modules.shown(task);
    shown["versionCount"] = json!(versions.len());
    shown["newest"] = json!(newest);
    shown
}

async fn remove_module(engine: &Inner, task: TaskName, who: Who) -> Result<(), EngineError> {
    let mut modules = engine.modules.write().await;
    let versions = engine.store.versions(&task).await?.unwrap_or_default();
    let mut before = removed(&modules, &task, &versions);
    let settings = engine.store.settings_of(&task).await?;
    before["grants"] = json!(settings.grants);
    before["limits"] = json!(settings.limits);
    let audit = AuditEntry {
        task: Some(task.clone()),
        before: Json::from(before),
        ..who.entry(AuditAction::RemoveModule, engine.clock.now())
    };
    match engine.store.remove_module(&task, audit).await? {
        Removal::NoSuchModule => Err(EngineError::UnknownModule(task)),
        Removal::InUse(executions) => Err(EngineError::ModuleInUse { task, executions }),
        Removal::Removed => {
            modules.active.remove(&task);
            // Who uploads another module under its name is not handed what this one was granted.
            engine.settings.forget(&task);
            // Another task may have the same component: what the store still has stays.
            for digest in versions.into_iter().map(|version| version.digest).collect::<HashSet<_>>() {
                if engine.store.component(&digest).await?.is_none() {
                    engine.loader.forget(&digest);
                }
            }
            Ok(())
        }
    }
}
