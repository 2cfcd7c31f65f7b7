//! Programs that are run beside the benchmark, and their ends.

use std::{
    net::TcpListener,
    path::Path,
    process::Stdio,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::process::{Child, Command};

/// A server in the background. Killed when it is dropped; [`Process::stop`] is kinder.
pub struct Process(Child);

impl Process {
    /// Starts `command` with what it prints in the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let program = command.as_std().get_program().display().to_string();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        Ok(Process(child))
    }

    /// Asks it to end, and insists after a while.
    pub async fn stop(mut self) {
        if let Some(id) = self.0.id() {
            // SIGINT: what PostgreSQL calls a fast shutdown.
            let _ = Command::new("kill").args(["-INT", &id.to_string()]).status().await;
            let _ = tokio::time::timeout(Duration::from_secs(10), self.0.wait()).await;
        }
        let _ = self.0.kill().await;
    }
}

/// Runs `command` to its end; an error with the last of what it printed if it does not succeed.
pub async fn run(command: &mut Command) -> anyhow::Result<()> {
    let program = command.as_std().get_program().display().to_string();
    let output = command
        .stdin(Stdio::null())
        .kill_on_drop(true)
        .output()
        .await
        .with_context(|| format!("{program} cannot be started"))?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        let lines: Vec<&str> = said.lines().collect();
        bail!("{program} failed: {}", lines[lines.len().saturating_sub(5)..].join(" / "));
    }
    Ok(())
}

/// A port of this machine that nobody listens on at this moment.
pub fn free_port() -> anyhow::Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

/// Comes back as soon as `ready` succeeds; its last error if it does not within half a minute.
pub async fn until<T, F: Future<Output = anyhow::Result<T>>>(ready: impl Fn() -> F) -> anyhow::Result<T> {
    let begin = Instant::now();
    loop {
        match ready().await {
            Ok(done) => return Ok(done),
            Err(error) if begin.elapsed() > Duration::from_secs(30) => return Err(error),
            Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
        }
    }
}
