//! The same load on Stepbox and on its peers, in turns on the same machine; prints the ratios.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use stepbox_drive::peers::{self, Peer, Polling, Restate, Stepbox, Zart};
use tokio::signal::unix::{SignalKind, signal};

#[derive(Parser)]
struct Args {
    /// The stepbox to measure.
    #[arg(long)]
    stepbox: PathBuf,
    /// The component of `bench-guest`.
    #[arg(long)]
    guest: PathBuf,
    /// Where the handlers of the peers are.
    #[arg(long, default_value = "tests/peers")]
    peers: PathBuf,
    /// Where peers are built and installed, and where databases go.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// How often each takes its turn; the medians are printed.
    #[arg(long, default_value_t = 3)]
    rounds: usize,
    /// Only servers whose name contains this; Stepbox always.
    #[arg(long, default_value = "")]
    only: String,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let component =
        std::fs::read(&args.guest).with_context(|| format!("reading {}", args.guest.display()))?;
    let dir = args.dir.canonicalize().with_context(|| format!("there is no {}", args.dir.display()))?;
    let zart = |polling| Zart { package: args.peers.join("zart"), dir: dir.clone(), polling };
    let others: [Box<dyn Peer>; 3] = [
        Box::new(Restate { package: args.peers.join("restate"), dir: dir.clone() }),
        Box::new(zart(Polling::Fast)),
        Box::new(zart(Polling::Default)),
    ];
    let mut all: Vec<Box<dyn Peer>> = vec![Box::new(Stepbox { binary: args.stepbox, component })];
    all.extend(others.into_iter().filter(|peer| peer.name().contains(&args.only)));

    if cfg!(debug_assertions) {
        println!("note: this is no release build; the figures mean nothing");
    }
    if let Ok(load) = std::fs::read_to_string("/proc/loadavg") {
        let load = load.split(' ').next().unwrap_or_default();
        println!("load average before: {load}; what others do at the same time is in the figures");
    }
    let everybody = tokio::select! {
        all = peers::compare(&all, &dir, args.rounds) => all?,
        // What is given up is dropped: the servers end, and their folders go.
        signal = interrupted() => anyhow::bail!("ended by {}", signal?),
    };
    anyhow::ensure!(everybody, "not everybody could be measured");
    Ok(())
}

/// Comes back when somebody wants us to end.
async fn interrupted() -> std::io::Result<&'static str> {
    let (mut interrupt, mut terminate, mut hangup) =
        (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?, signal(SignalKind::hangup())?);
    Ok(tokio::select! {
        _ = interrupt.recv() => "SIGINT",
        _ = terminate.recv() => "SIGTERM",
        _ = hangup.recv() => "SIGHUP",
    })
}
