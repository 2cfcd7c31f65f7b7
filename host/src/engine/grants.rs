//! An admin says what the modules of a task may reach, and how much they may take.
//!
//! Both are read where an attempt begins ([`super::settings`]), so what is set holds from the next
//! attempt on. Versions that want more than is granted wait; here is where they come to their turn.

use std::sync::Arc;

use serde_json::json;
use stepbox_domain::{
    Json, TaskName,
    audit::{AuditAction, AuditEntry},
    capability::{Grants, Missing, Wants},
    limits::{Limit, LimitSettings},
};

use super::{Engine, EngineError, Inner, Who, carried_through, modules::Modules};
use crate::store::{ModuleView, SettingsChange, SettingsView, StoreError, VersionView};

/// A limit as it stands for a task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LimitShown {
    pub limit: Limit,
    /// What holds.
    pub value: u64,
    /// What holds for tasks for which it is not set.
    pub default: u64,
    pub ceiling: u64,
    /// What an admin has set for the task.
    pub set: Option<u64>,
}

impl Engine {
    /// Replaces what `task` is granted. Answers with the version that waited for just this and is
    /// active now.
    pub async fn set_grants(
        &self,
        task: &TaskName,
        grants: Grants,
        who: Who,
    ) -> Result<Option<u32>, EngineError> {
        let (engine, task) = (Arc::clone(&self.0), task.clone());
        carried_through(async move {
            let mut modules = engine.modules.write().await;
            grant(&engine, &mut modules, &task, grants, &who).await
        })
        .await
    }

    /// Replaces what is set of the limits of `task`.
    pub async fn set_limits(
        &self,
        task: &TaskName,
        limits: LimitSettings,
        who: Who,
    ) -> Result<(), EngineError> {
        let (engine, task) = (Arc::clone(&self.0), task.clone());
        carried_through(async move {
            limits.check(engine.settings.ceilings())?;
            // Held against others who change the settings of the task.
            let _modules = engine.modules.write().await;
            let before = engine.store.settings_of(&task).await?;
            let audit = AuditEntry {
                task: Some(task.clone()),
                before: Json::from(json!(before.limits)),
                after: Json::from(json!(limits)),
                ..who.entry(AuditAction::SetLimits, engine.clock.now())
            };
            let unchanged = before.limits == limits;
            let settings = SettingsView { limits, ..before };
            if !unchanged {
                let (task, settings) = (task.clone(), settings.clone());
                engine.store.put_settings(SettingsChange { task, settings, audit, activate: None }).await?;
            }
            engine.settings.set(task, settings.grants, &settings.limits);
            Ok(())
        })
        .await
    }

    /// Every limit as it stands for a task for which `set` is set.
    pub fn limits(&self, set: &LimitSettings) -> Vec<LimitShown> {
        let settings = &self.0.settings;
        let holds = settings.limits(set);
        let shown = |limit| LimitShown {
            limit,
            value: holds.get(limit),
            default: settings.default_limits().get(limit),
            ceiling: settings.ceilings().get(limit),
            set: set.get(limit),
        };
        Limit::ALL.into_iter().map(shown).collect()
    }
}

/// Replaces what `task` is granted, and activates the newest waiting version that it suffices for.
pub(super) async fn grant(
    engine: &Inner,
    modules: &mut Modules,
    task: &TaskName,
    grants: Grants,
    who: &Who,
) -> Result<Option<u32>, EngineError> {
    let grants = grants.checked()?;
    let before = engine.store.settings_of(task).await?;
    if before.grants == grants {
        // Who asks again because the answer was lost must find it done here too.
        engine.settings.set(task.clone(), before.grants, &before.limits);
        if let Some(module) = engine.store.module(task).await? {
            modules.take_note(&module)?;
        }
        return Ok(None);
    }
    let now = engine.clock.now();
    let activate = next_active(engine, task, &grants).await?.map(|version| {
        let audit = AuditEntry {
            task: Some(task.clone()),
            target: Some(version.to_string()),
            before: Json::from(modules.shown(task)),
            after: Json::from(json!({ "activeVersion": version })),
            ..who.entry(AuditAction::ActivateVersion, now)
        };
        (version, audit)
    });
    let audit = AuditEntry {
        task: Some(task.clone()),
        before: Json::from(json!(before.grants)),
        after: Json::from(json!(grants)),
        ..who.entry(AuditAction::SetGrants, now)
    };
    let settings = SettingsView { grants, ..before };
    let change = SettingsChange { task: task.clone(), settings: settings.clone(), audit, activate };
    let activated = engine.store.put_settings(change).await?;
    engine.settings.set(task.clone(), settings.grants, &settings.limits);
    if let Some(view) = &activated {
        modules.set(view).map_err(StoreError::Corrupt)?;
    }
    Ok(activated.map(|view| view.version))
}

async fn next_active(engine: &Inner, task: &TaskName, grants: &Grants) -> Result<Option<u32>, StoreError> {
    let versions = engine.store.versions(task).await?.unwrap_or_default();
    for view in versions.iter().filter(|view| view.waiting) {
        if missing(view, grants)?.is_nothing() {
            return Ok(Some(view.version));
        }
    }
    Ok(None)
}

/// What the version wants and `grants` do not have.
fn missing(view: &VersionView, grants: &Grants) -> Result<Missing, StoreError> {
    Ok(grants.missing(&view.wants()?))
}

impl VersionView {
    /// What it wants to reach, by its manifest.
    pub fn wants(&self) -> Result<Wants, StoreError> {
        Wants::of_manifest(self.manifest.as_str()).map_err(|error| {
            let VersionView { task, version, .. } = self;
            StoreError::Corrupt(format!("the manifest of version {version} of task \"{task}\": {error}"))
        })
    }
}

/// Refuses a version that lacks grants. The active one has its place already: what was taken away
/// from it since, it is denied when it asks for it.
pub(super) fn check_granted(engine: &Inner, view: &VersionView) -> Result<(), EngineError> {
    let missing = missing(view, &engine.settings.of(&view.task).grants)?;
    if view.active || missing.is_nothing() {
        return Ok(());
    }
    let (task, version) = (view.task.clone(), view.version);
    Err(EngineError::NotGranted { task, version, missing: Box::new(missing) })
}

/// Why a task without an active version cannot be started.
pub(super) async fn why_not_active(engine: &Inner, task: TaskName) -> EngineError {
    match engine.store.module(&task).await {
        Ok(Some(ModuleView { waiting: Some(view), .. })) => {
            match missing(&view, &engine.settings.of(&task).grants) {
                Ok(missing) => {
                    EngineError::TaskWaits { task, version: view.version, missing: Box::new(missing) }
                }
                Err(error) => error.into(),
            }
        }
        Ok(_) => EngineError::UnknownTask(task),
        Err(error) => error.into(),
    }
}
