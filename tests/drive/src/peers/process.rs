//! Programs that are run beside the benchmark, and their ends.

use std::{
    net::TcpListener,
    path::Path,
    process::{Child, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use tokio::process::Command;

/// A server in the background. It is over when this has been dropped: whatever failed meanwhile,
/// its port is free and nobody writes to its folder.
pub struct Process(Child);

/// How long a server may take to end by itself.
const END_MAX: Duration = Duration::from_secs(10);

impl Process {
    /// Starts `command` with what it prints in the file `log`.
    pub fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let file = std::fs::File::create(log).with_context(|| format!("writing {}", log.display()))?;
        let command = command.as_std_mut();
        let program = command.get_program().display().to_string();
        let child = command
            .stdin(Stdio::null())
            .stdout(file.try_clone()?)
            .stderr(file)
            .spawn()
            .with_context(|| format!("{program} cannot be started"))?;
        Ok(Process(child))
    }
}

impl Drop for Process {
    /// Asks it to end, and insists after a while.
    fn drop(&mut self) {
        let over = |child: &mut Child| !matches!(child.try_wait(), Ok(None));
        if !over(&mut self.0) {
            // SIGINT: what PostgreSQL calls a fast shutdown.
            let _ = std::process::Command::new("kill").args(["-INT", &self.0.id().to_string()]).status();
        }
        let begin = Instant::now();
        while !over(&mut self.0) {
            if begin.elapsed() > END_MAX {
                let _ = self.0.kill();
                let _ = self.0.wait();
            } else {
                thread::sleep(Duration::from_millis(20));
            }
        }
    }
}

/// Runs `command` to its end, and answers what it printed; an error with the last of what it said
/// if it does not succeed.
pub async fn run(command: &mut Command) -> anyhow::Result<String> {
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
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
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
