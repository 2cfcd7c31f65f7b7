//! Wires store, sandbox, engine and API together: the order of start and stop on one screen.

use std::{io::Write as _, net::SocketAddr, path::PathBuf, sync::Arc};

use anyhow::Context as _;
use tokio::{
    net::TcpListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

use crate::{
    api::{self, Api},
    config::Config,
    engine::{Engine, clock::Clock, loader::StoredModules},
    guest_logs::{GuestLogs, QueueBounds},
    logs,
    sandbox::{Compiler, Sandbox},
    store::{logs::sqlite::SqliteLogs, sqlite},
    vault::{SecretsKey, Vault},
};

/// Serves until a signal says stop. Errors: it could not start, in one sentence.
pub async fn serve(config: Config) -> anyhow::Result<()> {
    config.check()?;
    let secrets_key = SecretsKey::given(config.secrets_key_file.as_deref())?;
    let mut signals = Signals::listen()?;
    // First, since it is what most often fails. Who connects before all is ready waits.
    let (listener, address) = bind(&config.listen).await?;
    // Its sentence has its cause in it.
    let store = sqlite::open(&config.store()).await.map_err(anyhow::Error::msg)?;
    let clock = Clock::system();
    let vault = Vault::open(store.clone(), secrets_key, clock.clone()).await?;
    let sandbox =
        Sandbox::new(config.sandbox(Compiler::Child { exe: this_program()? }), Arc::new(vault.clone()))
            .context("the sandbox cannot be set up")?;
    let loader = Arc::new(StoredModules { sandbox, store: store.clone() });
    let log_store = SqliteLogs::open(&config.data, config.log_bounds(), clock.now()).await;
    let guest_logs = GuestLogs::begin(Arc::new(log_store), clock.clone(), QueueBounds::default());
    let engine = Engine::new(store.clone(), loader, Arc::new(guest_logs.clone()), clock, config.engine());
    engine.begin().await.context("the store cannot be read")?;

    let (stop, stopping) = watch::channel(false);
    let api =
        Api::new(engine.clone(), store.clone(), guest_logs.clone(), vault, config.bodies, stopping.clone());
    let mut http = tokio::spawn(api::serve(listener, api::router(api), stopping, config.stop_patience()));
    announce(address);

    let ended_early = tokio::select! {
        () = signals.next() => false,
        _ = &mut http => true,
    };
    tracing::info!("stopping; a second signal stops at once");
    tokio::spawn(async move {
        signals.next().await;
        tracing::warn!("stopped at once; what was under way is picked up at the next start");
        logs::finish();
        std::process::exit(1);
    });
    // Waiting requests are sent away, others may finish; no run is begun, steps may finish.
    stop.send_replace(true);
    engine.stop(config.stop_patience()).await;
    if !ended_early {
        // It keeps to the same patience, and has had it.
        let _ = http.await;
    }
    // What a guest printed last before it was let go of is there too.
    guest_logs.close().await;
    store.close().await;
    anyhow::ensure!(!ended_early, "the HTTP server ended by itself; the log says why");
    tracing::info!("stopped");
    Ok(())
}

async fn bind(listen: &str) -> anyhow::Result<(TcpListener, SocketAddr)> {
    let listener = TcpListener::bind(listen)
        .await
        .with_context(|| format!("cannot listen on {listen} (choose another address with --listen)"))?;
    let address = listener.local_addr()?;
    Ok((listener, address))
}

/// To be started as a child for compiling. On Linux by a path that stays good when the file is
/// replaced under a running host.
fn this_program() -> anyhow::Result<PathBuf> {
    let itself = PathBuf::from("/proc/self/exe");
    match itself.exists() {
        true => Ok(itself),
        false => std::env::current_exe().context("the path of this program cannot be found out"),
    }
}

/// Says where, for people and for whoever started this with port 0.
fn announce(address: SocketAddr) {
    tracing::info!(%address, "listening");
    let mut stdout = std::io::stdout();
    // Nobody has to read it.
    let _ = writeln!(stdout, "stepbox listens on http://{address}").and_then(|()| stdout.flush());
}

/// The signals that ask for a stop.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> anyhow::Result<Self> {
        Ok(Signals {
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}
