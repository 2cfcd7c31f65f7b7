//! The same load on Stepbox and on its peers, in turns on the same machine; prints the ratios.

use std::path::PathBuf;

use anyhow::Context as _;
use clap::Parser;
use stepbox_drive::peers::{self, Peer, Polling, Restate, Stepbox, Zart};

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
    peers::compare(&all, &dir, args.rounds).await
}
