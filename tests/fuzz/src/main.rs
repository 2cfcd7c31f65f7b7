//! Throws what nobody would send at what a stranger can reach, and looks that nothing breaks.
//!
//! `fuzz upload --seed 7 --seconds 60`. Every input follows from the seed and its number alone: what
//! was found is printed with both, written to a file, and found again by `--seed 7 --only 1234`.
//!
//! | target | what is thrown | what must hold |
//! |---|---|---|
//! | `upload` | components: damaged, made by wasm-smith, calling the host with anything | an answer in bounded time, with words; no panic |
//! | `api` | requests to every route: mutated, or no HTTP at all | never a 500; every error is JSON with `error`; the host stays ready, the connection usable |
//! | `manifest` | manifests, nearly right | no panic; a refusal has words; what is accepted is read the same again |
//! | `grants` | patterns of hosts, ranges of addresses, grants, wants | no panic; what is written is read the same again; patterns keep their own logic |

mod api;
mod dice;
mod grants;
mod http;
mod json;
mod manifest;
mod run;
mod upload;
#[path = "../../../host/src/sandbox/testing/wat_guest.rs"]
#[expect(dead_code, reason = "the sandbox's tests need more of it")]
mod wat_guest;

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Args, Parser, ValueEnum};
use stepbox::{config::Config, logs, sandbox, serve};

/// Throws what nobody would send at what a stranger can reach.
#[derive(Parser)]
#[command(name = "fuzz")]
enum Cli {
    Upload(Options),
    Api(Options),
    Manifest(Options),
    Grants(Options),
    /// One after the other, the time or the count being for each
    All(Options),

    /// For this program's own use: the host that is thrown at
    #[command(hide = true)]
    Serve(Box<Config>),
    /// For this program's own use: compiles
    #[command(name = sandbox::COMPILE_COMMAND, hide = true)]
    CompileModule {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Args, Clone, Debug)]
pub struct Options {
    /// What all chance follows from
    #[arg(long, default_value_t = 1)]
    pub seed: u64,
    /// So many inputs
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    pub iterations: u64,
    /// Or as many as there is time for
    #[arg(long, default_value_t = 10)]
    pub seconds: u64,
    /// Just the input of this number
    #[arg(long)]
    pub only: Option<u64>,
    /// Folders with components to begin with
    #[arg(long)]
    pub corpus: Vec<PathBuf>,
    /// Where what was found is written to
    #[arg(long, default_value = "target/fuzz")]
    pub out: PathBuf,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Target {
    Upload,
    Api,
    Manifest,
    Grants,
}

fn main() -> ExitCode {
    let (targets, options) = match Cli::parse() {
        Cli::CompileModule { args } => sandbox::compile_main(args),
        Cli::Serve(config) => {
            let served = logs::init(&config.log).and_then(|()| runtime().block_on(serve::serve(*config)));
            return match served {
                Ok(()) => ExitCode::SUCCESS,
                Err(error) => {
                    eprintln!("fuzz: {error:#}");
                    ExitCode::from(2)
                }
            };
        }
        Cli::Upload(options) => (vec![Target::Upload], options),
        Cli::Api(options) => (vec![Target::Api], options),
        Cli::Manifest(options) => (vec![Target::Manifest], options),
        Cli::Grants(options) => (vec![Target::Grants], options),
        Cli::All(options) => (vec![Target::Manifest, Target::Grants, Target::Upload, Target::Api], options),
    };
    let mut found = 0;
    for target in targets {
        let mut run = run::Run::new(target, &options);
        match target {
            Target::Manifest => manifest::fuzz(&mut run),
            Target::Grants => grants::fuzz(&mut run),
            Target::Upload => runtime().block_on(upload::fuzz(&mut run, &options.corpus)),
            Target::Api => runtime().block_on(api::fuzz(&mut run)),
        }
        found += run.finish();
    }
    if found == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime can be made")
}
