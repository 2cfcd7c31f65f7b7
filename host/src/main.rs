//! The command line.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use stepbox::{config::Config, logs, sandbox, serve, verdict};

/// A WebAssembly-sandboxed durable task host in one binary.
#[derive(Parser)]
#[command(name = "stepbox", version, arg_required_else_help = true)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Serve the HTTP API and run tasks, until SIGTERM or SIGINT
    Serve(Config),

    /// Say whether a component would be accepted as a module, and what it says of itself
    Inspect {
        /// The component, as `cargo build --target wasm32-wasip2` makes it
        #[arg(value_name = "FILE.wasm")]
        file: PathBuf,
        /// Print the verdict as JSON
        #[arg(long)]
        json: bool,
    },

    /// For this program's own use: compiles an upload in a process that can be bounded
    #[command(name = sandbox::COMPILE_COMMAND, hide = true)]
    CompileModule {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let done = match Cli::parse().command {
        Command::CompileModule { args } => sandbox::compile_main(args),
        Command::Serve(config) => {
            logs::init(&config.log).and_then(|()| run(serve::serve(config))).map(|()| ExitCode::SUCCESS)
        }
        Command::Inspect { file, json } => run(verdict::print(&file, json)),
    };
    done.unwrap_or_else(|error| {
        eprintln!("stepbox: {error:#}");
        ExitCode::from(2)
    })
}

fn run<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().thread_name("stepbox").build()?;
    let done = runtime.block_on(work);
    // What still blocks a thread then, such as a read of machine code, is not waited for.
    runtime.shutdown_background();
    done
}
