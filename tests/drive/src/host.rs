//! A stepbox process under test, and a client of it.

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::Stdio,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    sync::Notify,
};

pub struct Host {
    binary: PathBuf,
    data: PathBuf,
    child: Child,
    pub url: String,
    log: Arc<Log>,
}

/// What the process has logged since it started.
#[derive(Default)]
struct Log {
    lines: Mutex<Vec<(Instant, Value)>>,
    grown: Notify,
}

impl Log {
    fn lines(&self) -> MutexGuard<'_, Vec<(Instant, Value)>> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Host {
    /// Starts `binary` on a free port with its data in `data`, logging what `log` asks for.
    pub async fn start(binary: &Path, data: &Path, log: &str) -> anyhow::Result<Self> {
        Self::start_with(binary, data, log, &[]).await
    }

    /// The same, with further arguments for `serve`.
    pub async fn start_with(binary: &Path, data: &Path, log: &str, args: &[&str]) -> anyhow::Result<Self> {
        let mut child = Command::new(binary)
            .args(["serve", "--listen", "127.0.0.1:0", "--data"])
            .arg(data)
            .args(args)
            .env("STEPBOX_LOG", log)
            .env("STEPBOX_LOG_FORMAT", "json")
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("{} cannot be started", binary.display()))?;

        let log = Arc::<Log>::default();
        let stderr = child.stderr.take().context("stderr is piped")?;
        let kept = log.clone();
        tokio::spawn(async move {
            let mut stderr = BufReader::new(stderr).lines();
            let mut warned = HashSet::new();
            while let Ok(Some(line)) = stderr.next_line().await {
                let now = Instant::now();
                match serde_json::from_str::<Value>(&line) {
                    // Each kind once: what is slow under load says so a thousand times.
                    Ok(line) if line["level"] == "ERROR" || line["level"] == "WARN" => {
                        let message = line["fields"]["message"].as_str().unwrap_or_default();
                        if warned.insert(message.to_owned()) {
                            eprintln!("host: {line}");
                        }
                    }
                    Ok(line) => {
                        kept.lines().push((now, line));
                        kept.grown.notify_waiters();
                    }
                    Err(_) => eprintln!("host: {line}"),
                }
            }
        });

        let stdout = child.stdout.take().context("stdout is piped")?;
        let mut stdout = BufReader::new(stdout).lines();
        let url = loop {
            let line = stdout.next_line().await?.context("the host ended before it listened")?;
            if let Some((_, url)) = line.split_once("stepbox listens on ") {
                break url.trim().to_owned();
            }
        };
        tokio::spawn(async move { while let Ok(Some(_)) = stdout.next_line().await {} });
        Ok(Host { binary: binary.to_owned(), data: data.to_owned(), child, url, log })
    }

    /// What `pick` finds in the log, line by line.
    pub fn log<T>(&self, pick: impl Fn(&Value) -> Option<T>) -> Vec<T> {
        self.log.lines().iter().filter_map(|(_, line)| pick(line)).collect()
    }

    /// When the first line came that `wanted` wants, which may be yet to come.
    pub async fn line(&self, wanted: impl Fn(&Value) -> bool) -> anyhow::Result<Instant> {
        let mut seen = 0;
        let found = async {
            loop {
                // Armed before the look: a line that comes between the two would be missed.
                let grown = self.log.grown.notified();
                {
                    let lines = self.log.lines();
                    if let Some((at, _)) = lines[seen..].iter().find(|(_, line)| wanted(line)) {
                        return *at;
                    }
                    seen = lines.len();
                }
                grown.await;
            }
        };
        tokio::time::timeout(Duration::from_secs(60), found).await.context("no such line within a minute")
    }

    pub async fn kill_9(mut self) -> anyhow::Result<(PathBuf, PathBuf)> {
        self.child.kill().await?;
        Ok((self.binary, self.data))
    }

    /// Resident memory, in bytes.
    pub fn resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmRSS")
    }

    /// The most resident memory that there has been, in bytes.
    pub fn peak_resident_bytes(&self) -> anyhow::Result<u64> {
        self.memory("VmHWM")
    }

    fn memory(&self, what: &str) -> anyhow::Result<u64> {
        let id = self.child.id().context("the host runs")?;
        let status = std::fs::read_to_string(format!("/proc/{id}/status"))?;
        let line =
            status.lines().find(|line| line.starts_with(what)).context("no such line in its status")?;
        let kib: u64 = line.split_whitespace().nth(1).context("a number")?.parse()?;
        Ok(kib << 10)
    }
}

/// Where a host has its database, given its folder.
pub fn database(data: &Path) -> PathBuf {
    data.join("stepbox.db")
}

#[derive(Clone)]
pub struct Client {
    http: reqwest::Client,
    url: String,
}

/// The result of the execution `id`, which is over.
fn completed(id: &str, mut execution: Value) -> anyhow::Result<Value> {
    if execution["status"] != "completed" {
        bail!("{id} did not complete: {execution}");
    }
    Ok(execution["result"].take())
}

impl Client {
    pub fn new(host: &Host) -> anyhow::Result<Self> {
        let http = reqwest::Client::builder().tcp_nodelay(true).pool_max_idle_per_host(1_000).build()?;
        Ok(Client { http, url: host.url.clone() })
    }

    pub async fn upload(&self, task: &str, component: Vec<u8>) -> anyhow::Result<Value> {
        let url = format!("{}/admin/v1/modules/{task}", self.url);
        let request = self.http.put(url).header("content-type", "application/wasm").body(component);
        let answer = request.send().await?;
        let status = answer.status();
        let body: Value = answer.json().await?;
        if !status.is_success() {
            bail!("the upload was refused: {body}");
        }
        Ok(body)
    }

    pub async fn put_json(&self, path: &str, body: &Value) -> anyhow::Result<reqwest::Response> {
        Ok(self.http.put(format!("{}{path}", self.url)).json(body).send().await?)
    }

    /// Starts a new execution.
    pub async fn start(&self, id: &str, task: &str, payload: &Value) -> anyhow::Result<()> {
        self.started(id, task, payload).await.map(|_| ())
    }

    /// Starts it. Its result, as soon as it is over: with the answer of the start, or else waited for. An
    /// error unless it completed.
    pub async fn run(&self, id: &str, task: &str, payload: &Value) -> anyhow::Result<Value> {
        let execution = self.started(id, task, payload).await?;
        match execution["status"].as_str() {
            Some("scheduled" | "running") => self.result(id).await,
            _ => completed(id, execution),
        }
    }

    async fn started(&self, id: &str, task: &str, payload: &Value) -> anyhow::Result<Value> {
        let body = json!({ "executionId": id, "taskName": task, "payload": payload });
        let answer = self.http.post(format!("{}/api/v1/executions", self.url)).json(&body).send().await?;
        if answer.status() != 201 {
            bail!("start of {id}: {}", answer.text().await?);
        }
        Ok(answer.json().await?)
    }

    /// How it stands now.
    pub async fn execution(&self, id: &str) -> anyhow::Result<Value> {
        Ok(self.http.get(format!("{}/api/v1/executions/{id}", self.url)).send().await?.json().await?)
    }

    /// Its result, as soon as it is over; an error unless it completed.
    pub async fn result(&self, id: &str) -> anyhow::Result<Value> {
        let end = Instant::now() + Duration::from_secs(300);
        while Instant::now() < end {
            let answer = self.http.get(format!("{}/api/v1/executions/{id}/wait", self.url)).send().await?;
            if answer.status() == 504 {
                continue;
            }
            return completed(id, answer.json().await?);
        }
        bail!("{id} is not over after five minutes")
    }

    pub async fn event(&self, id: &str, name: &str, payload: &Value) -> anyhow::Result<()> {
        let answer =
            self.http.post(format!("{}/api/v1/events/{id}/{name}", self.url)).json(payload).send().await?;
        if answer.status() != 202 {
            bail!("event for {id}: {}", answer.text().await?);
        }
        Ok(())
    }

    pub async fn cancel(&self, id: &str) -> anyhow::Result<()> {
        let answer = self.http.post(format!("{}/api/v1/executions/{id}/cancel", self.url)).send().await?;
        if answer.status() != 204 {
            bail!("cancel of {id}: {}", answer.text().await?);
        }
        Ok(())
    }

    /// What `path` answers, as it comes over the wire.
    pub async fn get(&self, path: &str) -> anyhow::Result<Vec<u8>> {
        let answer = self.http.get(format!("{}{path}", self.url)).send().await?;
        if !answer.status().is_success() {
            bail!("GET {path}: {}", answer.text().await?);
        }
        Ok(answer.bytes().await?.into())
    }

    pub async fn get_json(&self, path: &str) -> anyhow::Result<Value> {
        Ok(serde_json::from_slice(&self.get(path).await?)?)
    }

    pub async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        let answer = self.http.post(format!("{}{path}", self.url)).json(body).send().await?;
        if !answer.status().is_success() {
            bail!("POST {path}: {}", answer.text().await?);
        }
        Ok(answer.json().await?)
    }

    pub async fn metric(&self, name: &str) -> anyhow::Result<f64> {
        let text = self.http.get(format!("{}/metrics", self.url)).send().await?.text().await?;
        let line =
            text.lines().find(|line| line.starts_with(name)).with_context(|| format!("no metric {name}"))?;
        Ok(line.rsplit(' ').next().unwrap_or_default().parse()?)
    }
}
