//! Modules, their versions, and what is set for tasks.

use super::*;

impl Tables {
    pub(super) fn unfinished(&self, task: &TaskName, version: Option<u32>) -> u64 {
        let of_it = |view: &&ExecutionView| {
            view.task == *task
                && version.is_none_or(|version| view.version == version)
                && !view.status.is_terminal()
        };
        self.executions.values().map(|execution| &execution.view).filter(of_it).count() as u64
    }

    /// One that has versions; a module that was removed has none.
    pub(super) fn registered(&self, task: &TaskName) -> Option<&Module> {
        self.modules.get(task).filter(|module| !module.versions.is_empty())
    }

    pub(super) fn version(&self, task: &TaskName, version: u32) -> Option<VersionView> {
        let module = self.registered(task)?;
        let mut view = module.versions.get(&version)?.clone();
        view.active = module.active == Some(version);
        view.unfinished = self.unfinished(task, Some(version));
        Some(view)
    }

    pub(super) fn module(&self, task: &TaskName) -> Option<ModuleView> {
        let module = self.registered(task)?;
        let newest = *module.versions.keys().next_back()?;
        let waiting = module.versions.values().rev().find(|version| version.waiting);
        Some(ModuleView {
            task: task.clone(),
            shown: self.version(task, module.active.unwrap_or(newest))?,
            waiting: waiting.and_then(|waiting| self.version(task, waiting.version)),
            versions: u32::try_from(module.versions.len()).unwrap_or(u32::MAX),
            unfinished: self.unfinished(task, None),
        })
    }

    pub(super) fn add_version(
        &mut self,
        new: NewVersion,
        audit: AuditEntry,
    ) -> Result<VersionAdded, StoreError> {
        if let Some(ModuleView { shown, waiting, .. }) = self.module(&new.task) {
            if shown.active && shown.digest == new.digest {
                return Ok(VersionAdded::Same(shown));
            }
            if let Some(waiting) = waiting.filter(|waiting| waiting.digest == new.digest) {
                return Ok(VersionAdded::Same(waiting));
            }
        }
        let module = self.modules.entry(new.task.clone()).or_default();
        module.versions_given += 1;
        let version = module.versions_given;
        let view = VersionView {
            task: new.task.clone(),
            version,
            active: false,
            waiting: new.waits,
            digest: new.digest.clone(),
            size_bytes: new.component.len() as u64,
            compiled_in_ms: new.compiled_in_ms,
            created_at: new.now,
            manifest: new.manifest,
            unfinished: 0,
        };
        module.versions.insert(version, view);
        if !new.waits {
            module.make_active(version);
        }
        self.components.insert(new.digest, new.component);
        self.write_audit(trail::of_version(audit, version));
        let added = self.version(&new.task, version);
        added.map(VersionAdded::New).ok_or_else(|| StoreError::Corrupt("it is gone at once".to_owned()))
    }

    pub(super) fn activate_version(
        &mut self,
        task: &TaskName,
        version: u32,
        audit: AuditEntry,
    ) -> Option<VersionView> {
        if self.version(task, version)?.active {
            return self.version(task, version);
        }
        self.modules.get_mut(task)?.make_active(version);
        self.write_audit(audit);
        self.version(task, version)
    }

    pub(super) fn put_settings(&mut self, change: SettingsChange) -> Option<VersionView> {
        let SettingsChange { task, settings, audit, activate } = change;
        self.settings.insert(task.clone(), settings);
        self.write_audit(audit);
        let (version, audit) = activate?;
        self.activate_version(&task, version, audit)
    }

    pub(super) fn remove_module(&mut self, task: &TaskName, audit: AuditEntry) -> Removal {
        if self.registered(task).is_none() {
            return Removal::NoSuchModule;
        }
        let unfinished = self.unfinished(task, None);
        if unfinished > 0 {
            return Removal::InUse(unfinished);
        }
        if let Some(module) = self.modules.get_mut(task) {
            module.active = None;
            module.versions.clear();
        }
        self.settings.remove(task);
        let Tables { modules, components, .. } = self;
        components.retain(|digest, _| {
            modules.values().any(|module| module.versions.values().any(|version| version.digest == *digest))
        });
        self.write_audit(audit);
        Removal::Removed
    }
}

impl Module {
    fn make_active(&mut self, version: u32) {
        self.active = Some(version);
        for (_, earlier) in self.versions.range_mut(..=version) {
            earlier.waiting = false;
        }
    }
}
