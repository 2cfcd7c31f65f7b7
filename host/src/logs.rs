//! What is logged, and where guests' output goes: to stderr, through `tracing`.

use anyhow::Context as _;
use tracing_subscriber::EnvFilter;

use crate::{
    config::{LogConfig, LogFormat},
    sandbox::{LogLevel, LogLine, LogSink},
};

/// Begins to log; once in a process.
pub fn init(config: &LogConfig) -> anyhow::Result<()> {
    let filter = EnvFilter::builder()
        .parse(&config.filter)
        .with_context(|| format!("the log filter {:?} makes no sense", config.filter))?;
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::IsTerminal::is_terminal(&std::io::stderr()))
        // They would be written to stderr, and panic when it is gone.
        .log_internal_errors(false);
    let done = match config.format {
        LogFormat::Text => lines.try_init(),
        LogFormat::Json => lines.json().try_init(),
    };
    done.map_err(|error| anyhow::anyhow!("the log cannot be set up: {error}"))
}

/// Guests' lines, under the target `guest`. The sandbox bounds them and makes them harmless.
pub struct GuestLogs;

impl LogSink for GuestLogs {
    fn line(&self, line: LogLine<'_>) {
        let LogLine { run, level, target, message } = line;
        // A level is part of what tracing knows of a place in the code, so there is one for each.
        match level {
            LogLevel::Trace => tracing::trace!(target: "guest", %run, from = target, "{message}"),
            LogLevel::Debug => tracing::debug!(target: "guest", %run, from = target, "{message}"),
            LogLevel::Info => tracing::info!(target: "guest", %run, from = target, "{message}"),
            LogLevel::Warn => tracing::warn!(target: "guest", %run, from = target, "{message}"),
            LogLevel::Error => tracing::error!(target: "guest", %run, from = target, "{message}"),
        }
    }
}
