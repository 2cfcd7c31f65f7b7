//! What an admin has set for a task: what its modules may reach, and how much they may take.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use stepbox_domain::{
    Json, Limit, Limits, TaskName,
    capability::{Grants, SecretName},
    limits::LimitSettings,
};

use super::{
    EngineError,
    changes::{Changes, Seen},
};

/// The settings of all tasks, in memory; the store has the truth.
pub(crate) struct Settings {
    /// Of a task for which nothing is set.
    default: Arc<TaskSettings>,
    ceilings: Limits,
    tasks: RwLock<HashMap<TaskName, Arc<TaskSettings>>>,
    changes: Changes,
}

/// What holds for the runs of one task. Replaced as a whole, so that who holds one sees by its
/// pointer whether it still holds.
pub(crate) struct TaskSettings {
    pub grants: Arc<Grants>,
    pub limits: Arc<Limits>,
}

/// Whether a value may come to `task` from outside, by the same limit as those of its own.
pub(crate) fn check_value(
    limits: &Limits,
    task: &TaskName,
    what: &'static str,
    value: &Json,
) -> Result<(), EngineError> {
    let (bytes, max_bytes) = (value.as_str().len(), limits.get(Limit::ValueMaxBytes));
    match bytes as u64 > max_bytes {
        true => Err(EngineError::ValueTooLarge { what, task: task.clone(), bytes, max_bytes }),
        false => Ok(()),
    }
}

impl Settings {
    pub fn new(defaults: &Limits, ceilings: &Limits) -> Self {
        let limits = Arc::new(defaults.capped(ceilings));
        Settings {
            default: Arc::new(TaskSettings { grants: Arc::default(), limits }),
            ceilings: ceilings.clone(),
            tasks: RwLock::default(),
            changes: Changes::default(),
        }
    }

    pub fn of(&self, task: &TaskName) -> Arc<TaskSettings> {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.get(task).unwrap_or(&self.default).clone()
    }

    /// From now on: attempts that begin later see it, those under way keep what they have.
    pub fn set(&self, task: TaskName, grants: Grants, limits: &LimitSettings) {
        let limits = Arc::new(self.limits(limits));
        let settings = Arc::new(TaskSettings { grants: Arc::new(grants), limits });
        self.tasks.write().unwrap_or_else(PoisonError::into_inner).insert(task, settings);
        self.changes.tell();
    }

    /// Hears of whatever is set from now on.
    pub fn seen(&self) -> Seen<'_> {
        self.changes.seen()
    }

    /// Nothing is set for the task any more.
    pub fn forget(&self, task: &TaskName) {
        self.tasks.write().unwrap_or_else(PoisonError::into_inner).remove(task);
        self.changes.tell();
    }

    /// What holds where `set` is set.
    pub fn limits(&self, set: &LimitSettings) -> Limits {
        // A ceiling may have come down since.
        self.default.limits.with(set).capped(&self.ceilings)
    }

    /// What holds where nothing is set.
    pub fn default_limits(&self) -> &Limits {
        &self.default.limits
    }

    /// The tasks whose grants name the secret, by name.
    pub fn tasks_granted(&self, secret: &SecretName) -> Vec<TaskName> {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        let named = tasks.iter().filter(|(_, settings)| settings.grants.secrets.contains_key(secret));
        let mut named: Vec<TaskName> = named.map(|(task, _)| task.clone()).collect();
        named.sort();
        named
    }

    /// What no task may be set above.
    pub fn ceilings(&self) -> &Limits {
        &self.ceilings
    }
}
