//! `stepbox secret …`: a key, and the secrets of a running host.
//!
//! A value comes in by stdin and goes out in the body of a request: never an argument, which every
//! user of the machine can see, and never printed.

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{Method, Request, StatusCode, body::Bytes, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};
use serde_json::Value;
use stepbox_domain::capability::SecretName;
use tokio::net::TcpStream;
use zeroize::Zeroizing;

use crate::vault::{SecretValue, SecretsKey, VALUE_MAX_BYTES};

#[derive(Subcommand)]
pub enum SecretCommand {
    /// Print a new key: give it to the host as STEPBOX_SECRETS_KEY or by --secrets-key-file
    Keygen,

    /// Set a secret; its value is read from stdin
    Set(Change),

    /// List the secrets: names and times, never a value
    List {
        #[command(flatten)]
        host: HostArgs,
    },

    /// Forget a secret, at once, whoever has a grant for it
    Delete(Change),
}

/// Of which secret, by whom, on which host.
#[derive(Args)]
pub struct Change {
    #[arg(value_parser = name)]
    name: SecretName,
    #[command(flatten)]
    who: WhoArgs,
    #[command(flatten)]
    host: HostArgs,
}

/// Which host.
#[derive(Args)]
pub struct HostArgs {
    /// Where the host listens
    #[arg(long, env = "STEPBOX_URL", value_name = "URL", default_value = "http://127.0.0.1:8080")]
    url: String,
}

/// For the audit trail.
#[derive(Args)]
pub struct WhoArgs {
    /// Who does it
    #[arg(long = "triggered-by", value_name = "NAME")]
    by: Option<String>,
    /// Why
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

fn name(text: &str) -> Result<SecretName, String> {
    SecretName::parse(text).map_err(|error| error.to_string())
}

/// Longer than a host that is busy takes.
const PATIENCE: Duration = Duration::from_secs(30);
const ANSWER_MAX_BYTES: usize = 4 << 20;

/// Does it, and prints what came of it.
pub async fn run(command: SecretCommand) -> anyhow::Result<ExitCode> {
    let mut out = std::io::stdout();
    match command {
        SecretCommand::Keygen => writeln!(out, "{}", *SecretsKey::generate().to_text())?,
        SecretCommand::Set(change) => {
            let (status, _) = change.ask(Method::PUT, Some(value_from_stdin()?)).await?;
            let done = if status == StatusCode::CREATED { "is set" } else { "is replaced" };
            writeln!(out, "the secret \"{}\" {done}", change.name)?;
        }
        SecretCommand::List { host } => {
            let (_, secrets) = ask(&host, Method::GET, "/admin/v1/secrets", None).await?;
            for secret in secrets.as_array().into_iter().flatten() {
                let word = |field: &str| secret[field].as_str().unwrap_or("?");
                let usable = if secret["usable"] == true { "" } else { "  not usable" };
                writeln!(out, "{}  set {}{}{usable}", word("name"), word("updatedAt"), granted(secret))?;
            }
        }
        SecretCommand::Delete(change) => {
            let (_, deleted) = change.ask(Method::DELETE, None).await?;
            writeln!(out, "the secret \"{}\" is gone{}", change.name, granted(&deleted))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn granted(secret: &Value) -> String {
    let tasks: Vec<&str> =
        secret["grantedTo"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
    if tasks.is_empty() { String::new() } else { format!("  granted to {}", tasks.join(", ")) }
}

impl Change {
    async fn ask(
        &self,
        method: Method,
        value: Option<Zeroizing<Vec<u8>>>,
    ) -> anyhow::Result<(StatusCode, Value)> {
        let mut path = format!("/admin/v1/secrets/{}", self.name);
        let given = [("triggeredBy", &self.who.by), ("reason", &self.who.reason)];
        for (field, value) in given.into_iter().filter_map(|(field, value)| Some((field, value.as_ref()?))) {
            path.push(if path.contains('?') { '&' } else { '?' });
            path.push_str(&format!("{field}={}", utf8_percent_encode(value, NON_ALPHANUMERIC)));
        }
        ask(&self.host, method, &path, value).await
    }
}

fn value_from_stdin() -> anyhow::Result<Zeroizing<Vec<u8>>> {
    let stdin = std::io::stdin();
    ensure!(
        !stdin.is_terminal(),
        "the value is read from stdin, and a terminal would show it: `stepbox secret set NAME < FILE`, or \
         `read -rs value; printf %s \"$value\" | stepbox secret set NAME`"
    );
    let most = VALUE_MAX_BYTES + 3;
    // Never grows, so that no copy is left behind.
    let mut value = Zeroizing::new(Vec::with_capacity(most + 1));
    stdin.lock().take(most as u64).read_to_end(&mut value).context("the value cannot be read from stdin")?;
    // Found out here, it does not travel.
    SecretValue::parse(value.clone())?;
    Ok(value)
}

/// The answer, if it says yes.
async fn ask(
    host: &HostArgs,
    method: Method,
    path: &str,
    body: Option<Zeroizing<Vec<u8>>>,
) -> anyhow::Result<(StatusCode, Value)> {
    let asked = tokio::time::timeout(PATIENCE, send(&host.url, method, path, body)).await;
    let (status, text) = asked.with_context(|| format!("{} does not answer", host.url))??;
    let answer: Value = serde_json::from_slice(&text).unwrap_or_default();
    if !status.is_success() {
        match answer["error"].as_str() {
            Some(error) => bail!("{error}"),
            None => bail!("{} answered {status}; is it a Stepbox host?", host.url),
        }
    }
    Ok((status, answer))
}

async fn send(
    url: &str,
    method: Method,
    path: &str,
    body: Option<Zeroizing<Vec<u8>>>,
) -> anyhow::Result<(StatusCode, Bytes)> {
    let address = url.strip_prefix("http://").map(|address| address.trim_end_matches('/'));
    let address = address.filter(|address| !address.contains(['/', '@'])).with_context(|| {
        format!(
            "{url:?} is no address of a host; it is like http://127.0.0.1:8080 (https is not spoken here)"
        )
    })?;
    let with_port = if address.contains(':') { address.to_owned() } else { format!("{address}:80") };
    let stream = TcpStream::connect(&with_port)
        .await
        .with_context(|| format!("nobody listens on {address}; name the host's address with --url"))?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    let driving = tokio::spawn(connection);
    let mut request = Request::builder().method(method).uri(path).header(header::HOST, address);
    if body.is_some() {
        request = request.header(header::CONTENT_TYPE, "text/plain");
    }
    let body = body.map_or_else(Bytes::new, Bytes::from_owner);
    let response = sender.send_request(request.body(Full::new(body))?).await?;
    let status = response.status();
    let text = Limited::new(response.into_body(), ANSWER_MAX_BYTES).collect().await;
    let text = text.map_err(|error| anyhow::anyhow!("the answer cannot be read: {error}"))?;
    driving.abort();
    Ok((status, text.to_bytes()))
}
