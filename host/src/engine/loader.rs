//! Where runs get their guests from.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use async_trait::async_trait;
use stepbox_domain::{Digest, Limits};

use crate::{
    sandbox::{self, Guest, Inspected, Rejected, Sandbox},
    store::Store,
};

/// Checks uploads and brings modules to run. The sandbox over the store; scripted in tests.
#[async_trait]
pub trait Loader: Send + Sync {
    /// The verdict on an upload. What passes is ready to be loaded.
    /// The task that it is for has these limits.
    async fn inspect(&self, component: &[u8], limits: &Arc<Limits>) -> Result<Inspected, Rejected>;

    async fn load(&self, digest: &Digest) -> Result<Arc<dyn Guest>, LoadError>;

    /// Gives up what is kept in memory and on disk for a module that is no longer registered.
    fn forget(&self, digest: &Digest);
}

/// Why a module cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// Not now; it may work in a while.
    #[error("{0}")]
    Unavailable(String),
    /// Not here, whatever one waits: the component is gone or this host does not take it.
    #[error("{0}")]
    Unusable(String),
}

/// Modules from the store, through the sandbox.
pub struct StoredModules {
    pub sandbox: Arc<Sandbox>,
    pub store: Arc<dyn Store>,
}

#[async_trait]
impl Loader for StoredModules {
    async fn inspect(&self, component: &[u8], limits: &Arc<Limits>) -> Result<Inspected, Rejected> {
        self.sandbox.inspect_within(component, limits).await
    }

    async fn load(&self, digest: &Digest) -> Result<Arc<dyn Guest>, LoadError> {
        // A store that does not answer is another matter than one that has nothing.
        let unanswered = AtomicBool::new(false);
        let fetch = async || match self.store.component(digest).await {
            Ok(Some(component)) => Ok(component),
            Ok(None) => anyhow::bail!("the store has no component with this digest"),
            Err(error) => {
                unanswered.store(true, Ordering::Relaxed);
                Err(error.into())
            }
        };
        self.sandbox.load(digest, fetch).await.map_err(|error| match error {
            sandbox::LoadError::Unavailable { .. } => LoadError::Unavailable(error.to_string()),
            sandbox::LoadError::Fetch { .. } if unanswered.load(Ordering::Relaxed) => {
                LoadError::Unavailable(error.to_string())
            }
            sandbox::LoadError::Rejected { .. } | sandbox::LoadError::Fetch { .. } => {
                LoadError::Unusable(error.to_string())
            }
        })
    }

    fn forget(&self, digest: &Digest) {
        self.sandbox.forget(digest);
    }
}
