//! Restate: its server from the npm registry, a handler with its Rust SDK.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, bail};
use serde_json::json;
use tokio::process::Command;

use super::{
    Adapter, Answer, Peer, Running, http, kept,
    process::{Process, free_port, run, until},
};

const SERVER: &str = "@restatedev/restate-server@1.7.12";

pub struct Restate {
    /// The folder of the handler's package.
    pub package: PathBuf,
    /// Where things are built and installed.
    pub dir: PathBuf,
}

struct Served {
    http: reqwest::Client,
    ingress: String,
}

impl Restate {
    fn server(&self) -> PathBuf {
        let modules = kept(&self.dir, "npm").join("node_modules/@restatedev");
        let platform = match std::env::consts::ARCH {
            "aarch64" => "restate-server-linux-arm64",
            _ => "restate-server-linux-x64",
        };
        modules.join(platform).join("bin/restate-server")
    }

    fn target(&self) -> PathBuf {
        kept(&self.dir, "restate")
    }
}

impl Peer for Restate {
    fn name(&self) -> String {
        "Restate 1.7 (native handler, Rust SDK 0.13)".to_owned()
    }

    fn set_up(&self) -> Answer<'_, ()> {
        Box::pin(async {
            let npm = kept(&self.dir, "npm");
            std::fs::create_dir_all(&npm)?;
            if !self.server().is_file() {
                let mut install = Command::new("npm");
                install.args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--prefix", "."]);
                run(install.arg(SERVER).current_dir(&npm)).await?;
            }
            let mut build = Command::new("cargo");
            build.args(["build", "--release", "--locked"]).current_dir(&self.package);
            run(build.env("CARGO_TARGET_DIR", self.target())).await?;
            Ok(())
        })
    }

    fn start<'a>(&'a self, data: &'a Path) -> Answer<'a, Running> {
        Box::pin(async move {
            let [handler, ingress, admin, node] = [free_port()?, free_port()?, free_port()?, free_port()?];
            let handlers = Process::start(
                Command::new(self.target().join("release/restate-peer"))
                    .env("LISTEN", format!("127.0.0.1:{handler}")),
                &data.join("handler.log"),
            )?;
            let mut serve = Command::new(self.server());
            serve
                .arg("--base-dir")
                .arg(data.join("restate"))
                .env("RESTATE_BIND_ADDRESS", format!("127.0.0.1:{node}"))
                .env("RESTATE_ADVERTISED_ADDRESS", format!("http://127.0.0.1:{node}"))
                .env("RESTATE_INGRESS__BIND_ADDRESS", format!("127.0.0.1:{ingress}"))
                .env("RESTATE_ADMIN__BIND_ADDRESS", format!("127.0.0.1:{admin}"))
                .env("RESTATE_DISABLE_TELEMETRY", "true")
                .env("RUST_LOG", "warn");
            let server = Process::start(&mut serve, &data.join("server.log"))?;
            let durability = durability(&run(serve.arg("--dump-config")).await?)?;
            let http = http()?;
            let deployments = format!("http://127.0.0.1:{admin}/deployments");
            let handler = json!({ "uri": format!("http://127.0.0.1:{handler}") });
            let adapter = Served { http: http.clone(), ingress: format!("http://127.0.0.1:{ingress}") };
            until(|| async {
                let answer = http.post(&deployments).json(&handler).send().await?;
                if !answer.status().is_success() {
                    bail!("the handler is not taken: {}", answer.text().await?);
                }
                Ok(())
            })
            .await?;
            until(|| adapter.execute("ready", 1)).await?;
            Ok(Running { adapter: Arc::new(adapter), durability, _processes: vec![server, handlers] })
        })
    }
}

/// What its configuration says about the log, where a step is on disk before the handler goes on.
fn durability(config: &str) -> anyhow::Result<String> {
    let fsync = config
        .lines()
        .skip_while(|line| *line != "[log-server]")
        .find(|line| line.starts_with("rocksdb-disable-wal-fsync"))
        .context("Restate's configuration does not say whether the log is synced")?;
    Ok(format!("defaults of one node: log-server.{fsync}"))
}

impl Adapter for Served {
    /// One request, answered with the result: the shortest way that it has. The header makes it
    /// an execution that is known by its id, as ours are.
    fn execute<'a>(&'a self, id: &'a str, steps: u32) -> Answer<'a, ()> {
        Box::pin(async move {
            let request = self.http.post(format!("{}/Bench/run", self.ingress));
            let answer = request.header("idempotency-key", id).json(&steps).send().await?;
            if !answer.status().is_success() {
                bail!("{id}: {}", answer.text().await?);
            }
            answer.bytes().await?;
            Ok(())
        })
    }
}
