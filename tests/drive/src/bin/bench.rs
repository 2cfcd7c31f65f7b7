//! The benchmark: a real stepbox over HTTP, each figure beside its floor from the same run on the
//! same disk, and beside what it should come to.

use std::path::PathBuf;

use clap::Parser;
use stepbox_drive::bench::{self, FIGURES, Report};

#[derive(Parser)]
struct Args {
    /// The stepbox to measure.
    #[arg(long)]
    stepbox: PathBuf,
    /// The component of `bench-guest`.
    #[arg(long)]
    guest: PathBuf,
    /// Where databases go: the disk that is measured.
    #[arg(long, default_value = "target")]
    dir: PathBuf,
    /// How often each figure is taken that varies from time to time; the median is printed.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Only figures whose name contains this.
    #[arg(long, default_value = "")]
    only: String,
    /// Write the rows to this file too, as JSON.
    #[arg(long)]
    json: Option<PathBuf>,
    /// Say which figures there are, and how each is measured.
    #[arg(long)]
    list: bool,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    if args.list {
        for figure in FIGURES {
            println!("{:<14} {}; beside: {}", figure.name, figure.how, figure.floor);
        }
        return Ok(());
    }
    if cfg!(debug_assertions) {
        println!("note: this is no release build; the ratios still tell, the figures do not");
    }
    if let Ok(load) = std::fs::read_to_string("/proc/loadavg") {
        let load = load.split(' ').next().unwrap_or_default();
        println!("load average before: {load}; what others do at the same time is in the figures");
    }
    let bench = bench::in_dir(&args.dir, args.stepbox, &args.guest, args.rounds)?;
    let mut report = Report::default();
    let all = bench.run(&args.only, &mut report).await?;
    if let Some(file) = &args.json {
        report.write_json(file)?;
    }
    anyhow::ensure!(all, "not every figure could be taken");
    Ok(())
}
