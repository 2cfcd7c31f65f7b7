//! Zart: native handlers on a PostgreSQL of their own.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use serde_json::{Value, json};
use tokio::{process::Command, task::JoinSet};

use super::{
    Adapter, Answer, Loads, Peer, Running, http, kept,
    process::{Process, free_port, run, until},
};

/// PostgreSQL refuses to run as root; then it runs as this user.
const POSTGRES_USER: &str = "postgres";

pub struct Zart {
    /// The folder of the handler's package.
    pub package: PathBuf,
    /// Where things are built.
    pub dir: PathBuf,
    pub polling: Polling,
}

/// Waits until a client looks again that has looked since `begin`: the longer it takes, the rarer,
/// so that looking is neither what is measured (at most 2 %) nor what the database is busy with.
async fn before_looking_again(begin: Instant) {
    tokio::time::sleep((begin.elapsed() / 50).max(Duration::from_millis(2))).await;
}

/// How often it looks for work.
#[derive(Clone, Copy, PartialEq)]
pub enum Polling {
    /// Every 5 seconds, for at most ten tasks; results by its `wait` route.
    Default,
    /// Every 5 ms, for at most 64; results by looking every few milliseconds.
    Fast,
}

struct Served {
    http: reqwest::Client,
    url: String,
    polling: Polling,
}

impl Zart {
    fn target(&self) -> PathBuf {
        kept(&self.dir, "zart")
    }
}

impl Peer for Zart {
    fn name(&self) -> String {
        match self.polling {
            Polling::Default => "Zart 0.2 (native, PostgreSQL), defaults".to_owned(),
            Polling::Fast => "Zart 0.2, polling every 5 ms, 64 at once".to_owned(),
        }
    }

    /// With its defaults each step takes seconds.
    fn loads(&self) -> Loads {
        match self.polling {
            Polling::Default => {
                Loads { sequential: 1, sequential_steps: 4, executions: 20, steps_each: 1, samples: 2 }
            }
            Polling::Fast => Loads::default(),
        }
    }

    fn set_up(&self) -> Answer<'_, ()> {
        Box::pin(async {
            program("initdb")?;
            let mut build = Command::new("cargo");
            build.args(["build", "--release", "--locked"]).current_dir(&self.package);
            run(build.env("CARGO_TARGET_DIR", self.target())).await?;
            Ok(())
        })
    }

    fn start<'a>(&'a self, data: &'a Path) -> Answer<'a, Running> {
        Box::pin(async move {
            let (database, url) = postgres(data).await?;
            let durability = durability(&url).await?;
            let port = free_port()?;
            let mut serve = Command::new(self.target().join("release/zart-peer"));
            serve.env("LISTEN", format!("127.0.0.1:{port}")).env("DATABASE_URL", url);
            if self.polling == Polling::Fast {
                serve.env("POLL_MS", "5").env("AT_ONCE", "64");
            }
            let server = Process::start(&mut serve, &data.join("zart.log"))?;
            let (http, url) = (http()?, format!("http://127.0.0.1:{port}"));
            until(|| async { Ok(http.get(format!("{url}/readyz")).send().await?.error_for_status()?) })
                .await?;
            let adapter = Served { http, url, polling: self.polling };
            Ok(Running { adapter: Arc::new(adapter), durability, _processes: vec![server, database] })
        })
    }
}

impl Served {
    async fn submit(&self, id: &str, steps: u32) -> anyhow::Result<()> {
        let body = json!({ "executionId": id, "taskName": "bench", "payload": { "steps": steps } });
        let answer = self.http.post(format!("{}/api/v1/executions", self.url)).json(&body).send().await?;
        if !answer.status().is_success() {
            bail!("start of {id}: {}", answer.text().await?);
        }
        answer.bytes().await?;
        Ok(())
    }

    async fn get(&self, path: &str) -> anyhow::Result<Value> {
        Ok(self.http.get(format!("{}/api/v1/{path}", self.url)).send().await?.json().await?)
    }
}

impl Adapter for Served {
    fn execute<'a>(&'a self, id: &'a str, steps: u32) -> Answer<'a, ()> {
        Box::pin(async move {
            let begin = Instant::now();
            self.submit(id, steps).await?;
            let wait = if self.polling == Polling::Default { "/wait" } else { "" };
            loop {
                let body = self.get(&format!("executions/{id}{wait}")).await?;
                match body["status"].as_str() {
                    Some("completed") => return Ok(()),
                    Some("failed" | "cancelled") => bail!("{id} did not complete: {body}"),
                    _ => before_looking_again(begin).await,
                }
            }
        })
    }

    /// A client for each would look for its result again and again, and that would be what is
    /// measured: one looks for all of them, in the counts.
    fn execute_all(self: Arc<Self>, executions: usize, steps: u32) -> Answer<'static, ()> {
        Box::pin(async move {
            let begin = Instant::now();
            let mut all = JoinSet::new();
            for number in 0..executions {
                let adapter = self.clone();
                all.spawn(async move { adapter.submit(&format!("many-{number}"), steps).await });
            }
            while let Some(one) = all.join_next().await {
                one??;
            }
            loop {
                let counts = self.get("stats").await?;
                let count =
                    |status: &str| counts[status].as_u64().with_context(|| format!("no {status}: {counts}"));
                if count("failed")? + count("cancelled")? > 0 {
                    bail!("not all completed: {counts}");
                }
                if count("scheduled")? + count("running")? == 0 {
                    return Ok(());
                }
                before_looking_again(begin).await;
            }
        })
    }
}

/// What the database itself says about what is on disk when a commit is answered.
async fn durability(url: &str) -> anyhow::Result<String> {
    let query = "select 'PostgreSQL ' || current_setting('server_version_num')::int / 10000 || ' with '
        || string_agg(name || '=' || setting, ', ' order by name) from pg_settings
        where name in ('fsync', 'full_page_writes', 'synchronous_commit')";
    run(Command::new(program("psql")?).args([url, "-At", "-c", query])).await
}

/// A PostgreSQL with its own defaults, and its URL.
async fn postgres(data: &Path) -> anyhow::Result<(Process, String)> {
    let folder = data.join("postgres");
    std::fs::create_dir(&folder)?;
    if is_root() {
        // The folder above was made for us alone.
        run(Command::new("chmod").arg("711").arg(data)).await?;
        run(Command::new("chown").arg(POSTGRES_USER).arg(&folder)).await?;
    }
    let folder = folder.canonicalize()?;
    run(as_user("initdb")?.args(["--auth=trust", "--no-sync", "-D"]).arg(&folder)).await?;
    let port = free_port()?;
    let mut serve = as_user("postgres")?;
    serve
        .arg("-D")
        .arg(&folder)
        .args(["-p", &port.to_string(), "-c", "listen_addresses=127.0.0.1", "-c"])
        .arg("unix_socket_directories=");
    let database = Process::start(&mut serve, &data.join("postgres.log"))?;
    let (ready, number) = (program("pg_isready")?, port.to_string());
    until(|| async { run(Command::new(&ready).args(["-h", "127.0.0.1", "-p", &number])).await }).await?;
    let user = if is_root() { POSTGRES_USER.to_owned() } else { whoami()? };
    Ok((database, format!("postgres://{user}@127.0.0.1:{port}/postgres")))
}

/// `name` of PostgreSQL's programs, as somebody whom it accepts.
fn as_user(name: &str) -> anyhow::Result<Command> {
    let program = program(name)?;
    let mut command = if is_root() {
        // It becomes the program itself, so that a signal reaches it.
        let mut command = Command::new("setpriv");
        command
            .args(["--reuid", POSTGRES_USER, "--regid", POSTGRES_USER, "--clear-groups", "--"])
            .arg(program);
        command
    } else {
        Command::new(program)
    };
    command.current_dir("/");
    Ok(command)
}

fn program(name: &str) -> anyhow::Result<PathBuf> {
    let mut versions: Vec<PathBuf> = std::fs::read_dir("/usr/lib/postgresql")
        .context("the programs of PostgreSQL are not there; apt-get install postgresql")?
        .filter_map(|entry| Some(entry.ok()?.path().join("bin").join(name)))
        .filter(|program| program.is_file())
        .collect();
    versions.sort();
    versions.pop().with_context(|| format!("PostgreSQL's {name} is not there"))
}

fn is_root() -> bool {
    std::fs::metadata("/proc/self").is_ok_and(|own| std::os::unix::fs::MetadataExt::uid(&own) == 0)
}

fn whoami() -> anyhow::Result<String> {
    std::env::var("USER").context("USER does not say who we are")
}
