//! What an admin has set for a task: what its modules may reach, and how much they may take.

use std::{
    collections::HashMap,
    sync::{Arc, PoisonError, RwLock},
};

use stepbox_domain::{Limits, TaskName, capability::Grants, limits::LimitSettings};
use tokio::sync::watch;

/// The settings of all tasks, in memory; the store has the truth.
pub(crate) struct Settings {
    /// Of a task for which nothing is set.
    default: Arc<TaskSettings>,
    ceilings: Limits,
    tasks: RwLock<HashMap<TaskName, Arc<TaskSettings>>>,
    changed: watch::Sender<()>,
}

/// What holds for the runs of one task. Replaced as a whole, so that who holds one sees by its
/// pointer whether it still holds.
pub(crate) struct TaskSettings {
    pub grants: Arc<Grants>,
    pub limits: Arc<Limits>,
}

impl Settings {
    pub fn new(defaults: &Limits, ceilings: &Limits) -> Self {
        let limits = Arc::new(defaults.capped(ceilings));
        Settings {
            default: Arc::new(TaskSettings { grants: Arc::default(), limits }),
            ceilings: ceilings.clone(),
            tasks: RwLock::default(),
            changed: watch::Sender::new(()),
        }
    }

    pub fn of(&self, task: &TaskName) -> Arc<TaskSettings> {
        let tasks = self.tasks.read().unwrap_or_else(PoisonError::into_inner);
        tasks.get(task).unwrap_or(&self.default).clone()
    }

    /// From now on: attempts that begin later see it, those under way keep what they have.
    pub fn set(&self, task: TaskName, grants: Grants, limits: &LimitSettings) {
        // A ceiling may have come down since they were set.
        let limits = Arc::new(self.default.limits.with(limits).capped(&self.ceilings));
        let settings = Arc::new(TaskSettings { grants: Arc::new(grants), limits });
        self.tasks.write().unwrap_or_else(PoisonError::into_inner).insert(task, settings);
        self.changed.send_replace(());
    }

    /// Notified whenever something has been set.
    pub fn changed(&self) -> watch::Receiver<()> {
        self.changed.subscribe()
    }

    /// What no task may be set above.
    pub fn ceilings(&self) -> &Limits {
        &self.ceilings
    }
}
