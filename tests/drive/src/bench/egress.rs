//! Requests of a step through the host, next to those of a client in this process to the same
//! server in the same run. One after the other, on one connection each.

use std::time::Instant;

use anyhow::Context as _;
use serde_json::json;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

use super::{Bench, Row, stats::median};
use crate::host::Client;

/// Of one step; as many as an attempt may send where nothing else is set.
const REQUESTS: u32 = 1_000;

pub async fn measure(bench: &Bench) -> anyhow::Result<Vec<Row>> {
    let (_host, client) = bench.host("egress").await?;
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(serve(listener));
    let rule = json!({ "scheme": "http", "host": "127.0.0.1", "port": port, "methods": ["GET"] });
    client.grant("bench", &json!({ "http": [rule], "addresses": ["127.0.0.1"] })).await?;

    let url = format!("http://127.0.0.1:{port}/");
    let direct = reqwest::Client::builder().tcp_nodelay(true).no_proxy().build()?;
    let (mut through, mut beside) = (Vec::new(), Vec::new());
    for round in 0..=bench.rounds {
        let begin = Instant::now();
        for _ in 0..REQUESTS {
            direct.get(&url).send().await?.bytes().await?;
        }
        let floor = f64::from(REQUESTS) / begin.elapsed().as_secs_f64();

        let id = format!("egress-{round}");
        let begin = Instant::now();
        let load = json!({ "steps": 0, "fetch": { "url": url, "times": REQUESTS } });
        client.run(&id, "bench", &load).await?;
        let rate = f64::from(REQUESTS) / begin.elapsed().as_secs_f64();
        // The first round warms up.
        if round > 0 {
            through.push(rate);
            beside.push(floor);
        }
    }
    let (through, beside) = (median(&mut through), median(&mut beside));
    let row = Row::new("1,000 requests of one step", through, "requests/s")
        .beside(format!("{:.2} of {beside:.0} requests/s of a direct client", through / beside));
    Ok(vec![row])
}

async fn serve(listener: TcpListener) {
    while let Ok((stream, _)) = listener.accept().await {
        tokio::spawn(async move {
            // Whoever hangs up has what it wanted.
            let _ = answer_all(stream).await;
        });
    }
}

/// Answers every request on a connection with a hundred bytes.
async fn answer_all(mut stream: TcpStream) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{}", "x".repeat(100));
    let mut heard = Vec::new();
    loop {
        while let Some(end) = heard.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            heard.drain(..end + 4);
            stream.write_all(answer.as_bytes()).await?;
        }
        anyhow::ensure!(stream.read_buf(&mut heard).await? > 0, "closed");
        anyhow::ensure!(heard.len() < 1 << 16, "a request without end");
    }
}

impl Client {
    async fn grant(&self, task: &str, grants: &serde_json::Value) -> anyhow::Result<()> {
        let answer = self.put_json(&format!("/admin/v1/modules/{task}/grants"), grants).await?;
        let granted = answer.status().is_success();
        let text = answer.text().await?;
        granted.then_some(()).with_context(|| format!("the grants were refused: {text}"))
    }
}
