//! The command line.

use std::{ffi::OsString, path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};
use stepbox::{
    audit,
    config::Config,
    logs, sandbox,
    secret_command::{self, SecretCommand},
    serve, verdict,
};
use stepbox_domain::audit::AuditHash;

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

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

    /// Secrets: make a key, and set, list or delete what a running host keeps
    Secret {
        #[command(subcommand)]
        command: SecretCommand,
    },

    /// The audit trail: who changed what, when and why
    Audit {
        #[command(subcommand)]
        command: AuditCommand,
    },

    /// For this program's own use: compiles an upload in a process that can be bounded
    #[command(name = sandbox::COMPILE_COMMAND, hide = true)]
    CompileModule {
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

#[derive(Subcommand)]
enum AuditCommand {
    /// Walk along the chain of the trail; exit with 1 at the first entry that is not what was written
    ///
    /// Changes nothing, and may be run beside a host.
    Verify {
        /// The folder of the host whose trail it is
        #[arg(
            long = "data-dir",
            visible_alias = "data",
            env = "STEPBOX_DATA",
            value_name = "FOLDER",
            default_value = "./stepbox-data"
        )]
        data: PathBuf,
        /// A head that was noted earlier: fail if it is no longer in the chain, as after its end was
        /// cut off
        #[arg(long, value_name = "HASH", value_parser = head)]
        expect_head: Option<AuditHash>,
    },
}

fn head(text: &str) -> Result<AuditHash, &'static str> {
    let is_one = text.len() == 64 && text.bytes().all(|byte| byte.is_ascii_hexdigit());
    is_one
        .then(|| AuditHash::from_stored(text.to_ascii_lowercase()))
        .ok_or("a head has 64 hexadecimal digits")
}

fn main() -> ExitCode {
    // What it writes (payloads, results, what tasks print) is for its own user alone.
    rustix::process::umask(rustix::fs::Mode::RWXG | rustix::fs::Mode::RWXO);
    let done = match Cli::parse().command {
        Command::CompileModule { args } => sandbox::compile_main(args),
        Command::Serve(config) => {
            logs::init(&config.log).and_then(|()| run(serve::serve(config))).map(|()| ExitCode::SUCCESS)
        }
        Command::Audit { command: AuditCommand::Verify { data, expect_head } } => {
            run(audit::verify(&data, expect_head))
        }
        Command::Secret { command } => run(secret_command::run(command)),
        Command::Inspect { file, json } => run(verdict::print(&file, json)),
    };
    logs::finish();
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
