//! The way in: what is uploaded is inspected, what is to run is loaded.

use std::{
    collections::HashMap,
    future::Future,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use stepbox_domain::{Digest, Json, Limits, Manifest, manifest::ManifestError};
use tokio::sync::OnceCell;
use wasmtime::component::Component;

use super::{
    Guest, Inspected, Rejected, SandboxConfig, Secrets,
    cache::{Cache, NotLoaded},
    compile::{CompileError, CompileService, CompileTurn},
    ending::Ending,
    inspect::{self, looks_like_a_component},
    instance::Module,
    output::printable,
    runtime::Runtime,
};

/// Compiles, checks and runs what people upload. One for the process: it holds the address space
/// of all instances.
pub struct Sandbox {
    runtime: Arc<Runtime>,
    cache: Arc<Cache>,
    compiler: CompileService,
    /// Ready to run. A cell for each, so that two that want the same module prepare it once.
    modules: Mutex<HashMap<Digest, Arc<OnceCell<Prepared>>>>,
}

/// Why a module cannot be run.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// It was accepted once, and this version of the host does not accept it: a matter for people.
    #[error("module {digest} is not accepted any more: {rejected}")]
    Rejected { digest: Digest, rejected: Rejected },
    /// Its bytes could not be had, or are not what they were.
    #[error("the component of module {digest} could not be had: {reason}")]
    Fetch { digest: Digest, reason: String },
    /// To be tried again.
    #[error("module {digest} could not be loaded now: {reason}")]
    Unavailable { digest: Digest, reason: String },
}

#[derive(Clone)]
struct Prepared {
    module: Arc<Module>,
    component: Component,
    compiled_in: Duration,
}

impl Sandbox {
    pub fn new(config: SandboxConfig, secrets: Arc<dyn Secrets>) -> anyhow::Result<Arc<Self>> {
        let runtime = Runtime::new(&config, secrets).map_err(|error| anyhow::anyhow!("{error:#}"))?;
        let cache = Cache::open(&config.cache_dir, &runtime.engine).with_context(|| {
            format!("the folder for machine code, {}, cannot be used", config.cache_dir.display())
        })?;
        Ok(Arc::new(Sandbox {
            runtime,
            cache: Arc::new(cache),
            compiler: CompileService::new(config.compiler, config.compile),
            modules: Mutex::default(),
        }))
    }

    /// Finds out whether `component` is a task module and what it says of itself. Of what is
    /// accepted the machine code is kept, and the module is ready to be loaded.
    ///
    /// It describes itself within the limits of a task for which nothing is set.
    pub async fn inspect(&self, component: &[u8]) -> Result<Inspected, Rejected> {
        self.inspect_within(component, &self.runtime.default_limits).await
    }

    /// The same, within the limits of the task that it is for: what that task could run can describe
    /// itself as well.
    pub async fn inspect_within(
        &self,
        component: &[u8],
        limits: &Arc<Limits>,
    ) -> Result<Inspected, Rejected> {
        let max_bytes = self.compiler.upload_max_bytes();
        if component.len() > max_bytes {
            return Err(Rejected::TooLarge { bytes: component.len(), max_bytes });
        }
        looks_like_a_component(component)?;

        let digest = Digest::of(component);
        let known = self.modules().contains_key(&digest);
        let inspected = self.inspect_as(&digest, component, limits).await;
        if inspected.is_err() && !known {
            self.forget(&digest);
        }
        inspected
    }

    async fn inspect_as(
        &self,
        digest: &Digest,
        component: &[u8],
        limits: &Arc<Limits>,
    ) -> Result<Inspected, Rejected> {
        let prepared = self.prepared(digest, async || Ok(component.to_vec())).await?;
        let text = self.description(&prepared.module, limits).await?;
        let manifest = Manifest::parse(&text)?;
        let manifest_text = Json::parse(text).map_err(|error| ManifestError::NotJson(error.to_string()))?;
        Ok(Inspected {
            digest: digest.clone(),
            size_bytes: component.len(),
            compiled_in_ms: u64::try_from(prepared.compiled_in.as_millis()).unwrap_or(u64::MAX),
            manifest_text,
            manifest,
            imports: inspect::imports(&self.runtime.engine, &prepared.component),
            exports: inspect::exports(&self.runtime.engine, &prepared.component),
        })
    }

    async fn description(&self, module: &Module, limits: &Arc<Limits>) -> Result<String, Rejected> {
        let wall_max_ms = self.runtime.limits.describe_wall_max_ms;
        let describing = module.describe(limits.clone());
        let described = tokio::time::timeout(Duration::from_millis(wall_max_ms), describing).await;
        match described {
            Ok(Ok(text)) => Ok(text),
            Ok(Err(Ending::Failed(failure))) => {
                Err(Rejected::DescribeFailed { reason: failure.message, backtrace: failure.backtrace })
            }
            Ok(Err(Ending::Unavailable(reason))) => Err(Rejected::Unavailable { reason }),
            Ok(Err(Ending::Ended)) => {
                Err(Rejected::Unavailable { reason: "`describe` was ended".to_owned() })
            }
            Err(_) => {
                let reason = format!("`describe` took more than {wall_max_ms} ms");
                Err(Rejected::DescribeFailed { reason, backtrace: None })
            }
        }
    }

    /// The module with this digest, ready to run. `fetch` brings the component where its machine
    /// code is not there, or does not fit this version of the host.
    pub async fn load<F, R>(&self, digest: &Digest, fetch: F) -> Result<Arc<dyn Guest>, LoadError>
    where
        F: FnOnce() -> R + Send,
        R: Future<Output = anyhow::Result<Vec<u8>>> + Send,
    {
        let fetch = async || {
            let component = fetch().await.map_err(|error| format!("{error:#}"))?;
            match Digest::of(&component) {
                found if found == *digest => Ok(component),
                found => Err(format!("its bytes have the digest {found}")),
            }
        };
        let digest = digest.clone();
        match self.prepared(&digest, fetch).await {
            Ok(prepared) => Ok(prepared.module),
            Err(NotPrepared::Fetch(reason)) => Err(LoadError::Fetch { digest, reason }),
            Err(NotPrepared::Rejected(Rejected::Unavailable { reason })) => {
                Err(LoadError::Unavailable { digest, reason })
            }
            Err(NotPrepared::Rejected(rejected)) => Err(LoadError::Rejected { digest, rejected }),
        }
    }

    /// Lets go of a module that is not wanted any more, machine code and all. Runs that are under
    /// way go on.
    pub fn forget(&self, digest: &Digest) {
        self.modules().remove(digest);
        self.cache.forget(digest);
    }

    /// How many modules are ready to run.
    #[cfg(test)]
    pub(super) fn loaded(&self) -> usize {
        self.modules().len()
    }

    async fn prepared(
        &self,
        digest: &Digest,
        fetch: impl AsyncFnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Prepared, NotPrepared> {
        let cell = self.modules().entry(digest.clone()).or_default().clone();
        let prepared = cell.get_or_try_init(async || self.prepare(digest, fetch).await).await;
        if prepared.is_err() {
            // Whoever comes next tries again.
            self.modules().retain(|_, cell| cell.initialized() || Arc::strong_count(cell) > 2);
        }
        prepared.cloned()
    }

    async fn prepare(
        &self,
        digest: &Digest,
        fetch: impl AsyncFnOnce() -> Result<Vec<u8>, String>,
    ) -> Result<Prepared, NotPrepared> {
        let (component, compiled_in) = match self.cached(digest).await {
            Ok(component) => (component, Duration::ZERO),
            Err(_) => {
                let turn = self.compiler.turn().await;
                let bytes = fetch().await.map_err(NotPrepared::Fetch)?;
                let start = Instant::now();
                self.compile(turn, digest, &bytes).await?;
                let compiled_in = start.elapsed();
                let component = self.cached(digest).await.map_err(|error| match error {
                    // It fits this compiler, so what does not fit is what it asks of the pool.
                    NotLoaded::Unfit(reason) => Rejected::DoesNotCompile {
                        reason: format!("it asks for more than an instance may have: {}", printable(&reason)),
                    },
                    NotLoaded::Absent => Rejected::Unavailable {
                        reason: "the machine code that was just made cannot be read".to_owned(),
                    },
                })?;
                (component, compiled_in)
            }
        };
        let module = Arc::new(inspect::link(&self.runtime, &component)?);
        Ok(Prepared { module, component, compiled_in })
    }

    async fn cached(&self, digest: &Digest) -> Result<Component, NotLoaded> {
        let (cache, engine, digest) = (self.cache.clone(), self.runtime.engine.clone(), digest.clone());
        // Reads tens of MB for a large guest.
        tokio::task::spawn_blocking(move || cache.load(&engine, &digest))
            .await
            .unwrap_or_else(|panic| Err(NotLoaded::Unfit(panic.to_string())))
    }

    async fn compile(
        &self,
        turn: CompileTurn<'_>,
        digest: &Digest,
        component: &[u8],
    ) -> Result<(), Rejected> {
        let (scratch, made) = (self.cache.scratch(), self.cache.scratch());
        let compiled = turn.compile(&self.runtime.engine, component, scratch.path(), made.path()).await;
        drop(turn);
        compiled.map_err(|error| match error {
            CompileError::Refused(reason) => Rejected::DoesNotCompile { reason },
            CompileError::Limit(limit) => Rejected::CompileLimit { limit },
            CompileError::Host(reason) => Rejected::Unavailable { reason },
        })?;
        let (cache, digest) = (self.cache.clone(), digest.clone());
        let kept = tokio::task::spawn_blocking(move || cache.keep(&digest, &made)).await;
        let unavailable = |error: String| Rejected::Unavailable {
            reason: format!("the machine code could not be kept: {error}"),
        };
        kept.map_err(|panic| unavailable(panic.to_string()))?.map_err(|error| unavailable(error.to_string()))
    }

    fn modules(&self) -> MutexGuard<'_, HashMap<Digest, Arc<OnceCell<Prepared>>>> {
        self.modules.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Why there is no module to run.
enum NotPrepared {
    Fetch(String),
    Rejected(Rejected),
}

impl From<Rejected> for NotPrepared {
    fn from(rejected: Rejected) -> Self {
        NotPrepared::Rejected(rejected)
    }
}

impl From<NotPrepared> for Rejected {
    fn from(why: NotPrepared) -> Self {
        match why {
            NotPrepared::Rejected(rejected) => rejected,
            NotPrepared::Fetch(reason) => Rejected::Unavailable { reason },
        }
    }
}
