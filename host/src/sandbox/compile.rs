//! From a component to machine code, within bounds.
//!
//! Compiling is the largest surface that an upload can attack: some hundred kB of valid Wasm can
//! take a minute and gigabytes, and nothing in the compiler can be limited or cancelled. So it
//! runs in a child process, this same program started as `compile-module`, which bounds itself
//! before it looks at the component and is killed when it takes too long. The child runs nothing of
//! the component: it reads one file, checks it and compiles it, and writes another. It has no
//! environment and no stdin, may have few files open, write none that is larger than machine code may
//! be, and what it says is heard up to a bound.

use std::{
    ffi::OsString,
    fs::File,
    io::Write as _,
    os::unix::{fs::OpenOptionsExt as _, process::ExitStatusExt as _},
    path::{Path, PathBuf},
    process::{ExitStatus, Stdio},
    time::Duration,
};

use rustix::process::{Resource, Rlimit, setrlimit};
use tokio::{
    io::{AsyncRead, AsyncReadExt as _},
    process::{Child, Command},
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};
use wasmtime::Engine;

use super::{
    CompileLimits, Compiler,
    output::{cut, printable},
    runtime::engine_config,
};

/// The hidden command under which [`compile_main`] is reached.
pub const COMPILE_COMMAND: &str = "compile-module";

/// Why there is no machine code.
#[derive(Debug)]
pub(super) enum CompileError {
    /// The compiler says no, and why.
    Refused(String),
    /// It took more than it may: what and how much.
    Limit(String),
    /// Something is wrong here, not with the component.
    Host(String),
}

pub(super) struct CompileService {
    compiler: Compiler,
    limits: CompileLimits,
    turns: Semaphore,
}

impl CompileService {
    pub(super) fn new(compiler: Compiler, limits: CompileLimits) -> Self {
        let turns = Semaphore::new(limits.at_once_max.max(1));
        CompileService { compiler, limits, turns }
    }

    pub(super) fn upload_max_bytes(&self) -> usize {
        self.limits.upload_max_bytes
    }

    /// Comes back when it is one's turn to compile, which lasts until it is dropped. To be taken
    /// before the component is fetched: who waits should hold nothing.
    pub(super) async fn turn(&self) -> CompileTurn<'_> {
        CompileTurn {
            service: self,
            _place: self.turns.acquire().await.expect("the semaphore is never closed"),
        }
    }
}

/// The permission to compile.
pub(super) struct CompileTurn<'a> {
    service: &'a CompileService,
    _place: SemaphorePermit<'a>,
}

impl CompileTurn<'_> {
    /// Compiles `component` and writes the machine code to `out`. `scratch` is a file of the
    /// caller's that may be used meanwhile.
    pub(super) async fn compile(
        &self,
        engine: &Engine,
        component: &[u8],
        scratch: &Path,
        out: &Path,
    ) -> Result<(), CompileError> {
        let service = self.service;
        match &service.compiler {
            Compiler::Child { exe } => service.in_child(exe, component, scratch, out).await,
            Compiler::InProcess => {
                let (engine, component) = (engine.clone(), component.to_vec());
                let (out, max_bytes) = (out.to_owned(), service.limits.machine_code_max_bytes);
                tokio::task::spawn_blocking(move || compile_to_file(&engine, &component, &out, max_bytes))
                    .await
                    .unwrap_or_else(|panic| {
                        Err(CompileError::Refused(format!("the compiler gave up: {panic}")))
                    })
            }
        }
    }
}

impl CompileService {
    async fn in_child(
        &self,
        exe: &Path,
        component: &[u8],
        scratch: &Path,
        out: &Path,
    ) -> Result<(), CompileError> {
        let host = |what: &str| {
            let what = what.to_owned();
            move |error: std::io::Error| CompileError::Host(format!("{what}: {error}"))
        };
        tokio::fs::write(scratch, component)
            .await
            .map_err(host("the component could not be written down"))?;

        let limits = &self.limits;
        let threads = std::thread::available_parallelism().map_or(1, usize::from).min(COMPILE_THREADS_MAX);
        let child = Command::new(exe)
            .arg(COMPILE_COMMAND)
            .args([scratch, out])
            .args(
                [limits.memory_max_bytes, limits.cpu_max_s, limits.machine_code_max_bytes]
                    .map(|n| n.to_string()),
            )
            .env_clear()
            // Address space is what is limited, and what an allocator reserves beforehand would use
            // it up: of mimalloc 32 MiB at a time (in KiB) instead of a GiB, of glibc few heaps.
            .env("MIMALLOC_ARENA_RESERVE", "32768")
            .env("MALLOC_ARENA_MAX", "2")
            .env("RAYON_NUM_THREADS", threads.to_string())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            // Also when an upload is given up half-way.
            .kill_on_drop(true)
            .spawn()
            .map_err(host("the compiler could not be started"))?;

        match timeout(Duration::from_millis(limits.wall_max_ms), outcome(child)).await {
            Err(_) => Err(CompileError::Limit(format!("more than {} ms by the clock", limits.wall_max_ms))),
            Ok(Err(error)) => Err(host("the compiler could not be waited for")(error)),
            Ok(Ok((status, stdout, stderr))) => self.verdict(status, &stdout, &stderr),
        }
    }

    fn verdict(&self, status: ExitStatus, stdout: &[u8], stderr: &[u8]) -> Result<(), CompileError> {
        let limits = &self.limits;
        let said = String::from_utf8_lossy(stdout).into_owned();
        let stderr = String::from_utf8_lossy(stderr);
        let memory = || format!("more than {} MiB of memory", limits.memory_max_bytes >> 20);
        match (status.code(), status.signal()) {
            (Some(0), _) => Ok(()),
            (Some(EXIT_REFUSED), _) => Err(CompileError::Refused(said)),
            (Some(EXIT_LIMIT), _) => Err(CompileError::Limit(said)),
            (Some(EXIT_HOST), _) => Err(CompileError::Host(said)),
            (_, Some(SIGXCPU)) => {
                Err(CompileError::Limit(format!("more than {} s of CPU time", limits.cpu_max_s)))
            }
            _ if stderr.contains("memory allocation of") || stderr.contains("annot allocate memory") => {
                Err(CompileError::Limit(memory()))
            }
            (_, Some(SIGKILL)) => Err(CompileError::Limit(format!(
                "more memory than there is, or than {} s of CPU time (the compiler was killed)",
                limits.cpu_max_s
            ))),
            _ => Err(CompileError::Refused(format!(
                "the compiler gave up on it ({status}): {}",
                printable(cut(stderr.trim(), 1_000))
            ))),
        }
    }
}

/// How the child ended, and the beginning of what it said.
async fn outcome(mut child: Child) -> std::io::Result<(ExitStatus, Vec<u8>, Vec<u8>)> {
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (status, stdout, stderr) = tokio::join!(child.wait(), beginning(stdout), beginning(stderr));
    Ok((status?, stdout, stderr))
}

/// Whatever has taken the compiler over can make it talk, but not fill this process with it.
const SAID_MAX_BYTES: u64 = 64 << 10;

/// What comes, up to the bound; the pipe is closed then.
async fn beginning(pipe: Option<impl AsyncRead + Unpin>) -> Vec<u8> {
    let mut said = Vec::new();
    if let Some(pipe) = pipe {
        // What can be read up to an error is all that there is.
        let _ = pipe.take(SAID_MAX_BYTES).read_to_end(&mut said).await;
    }
    said
}

/// More threads are hardly faster, and each costs address space.
const COMPILE_THREADS_MAX: usize = 8;

// How the child tells its outcomes apart; its words are on stdout.
const EXIT_REFUSED: i32 = 3;
const EXIT_LIMIT: i32 = 4;
const EXIT_HOST: i32 = 5;

const SIGKILL: i32 = 9;
const SIGXCPU: i32 = 24;

/// What the child does: `compile-module IN OUT MEMORY_MAX_BYTES CPU_MAX_S MACHINE_CODE_MAX_BYTES`.
/// `args` are those after the command. Never returns.
pub fn compile_main(args: impl IntoIterator<Item = OsString>) -> ! {
    let (code, words) = match child(args) {
        Ok(()) => (0, String::new()),
        Err(CompileError::Refused(reason)) => (EXIT_REFUSED, reason),
        Err(CompileError::Limit(limit)) => (EXIT_LIMIT, limit),
        Err(CompileError::Host(reason)) => (EXIT_HOST, reason),
    };
    // With nobody left to read it, there is nobody left to tell.
    let _ = std::io::stdout().write_all(cut(&words, 8_000).as_bytes());
    std::process::exit(code);
}

fn child(args: impl IntoIterator<Item = OsString>) -> Result<(), CompileError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let usage = || CompileError::Host(format!("{COMPILE_COMMAND} is for this program's own use"));
    let [component, out, memory_max_bytes, cpu_max_s, code_max_bytes] = &args[..] else {
        return Err(usage());
    };
    let number = |text: &OsString| text.to_str().and_then(|text| text.parse().ok()).ok_or_else(usage);
    let code_max_bytes = number(code_max_bytes)?;

    bound_this_process(number(memory_max_bytes)?, number(cpu_max_s)?, code_max_bytes)
        .map_err(|error| CompileError::Host(format!("the compiler could not be bounded: {error}")))?;
    let component = std::fs::read(component)
        .map_err(|error| CompileError::Host(format!("the component could not be read: {error}")))?;
    let engine = Engine::new(&engine_config())
        .map_err(|error| CompileError::Host(format!("the compiler could not be set up: {error:#}")))?;
    compile_to_file(&engine, &component, &PathBuf::from(out), code_max_bytes)
}

fn bound_this_process(memory_max_bytes: u64, cpu_max_s: u64, code_max_bytes: u64) -> std::io::Result<()> {
    let both = |max| Rlimit { current: Some(max), maximum: Some(max) };
    setrlimit(Resource::As, both(memory_max_bytes))?;
    // The first limit is a signal that says what it was; the second kills.
    setrlimit(Resource::Cpu, Rlimit { current: Some(cpu_max_s), maximum: Some(cpu_max_s + 5) })?;
    setrlimit(Resource::Core, both(0))?;
    setrlimit(Resource::Nofile, both(64))?;
    setrlimit(Resource::Fsize, both(code_max_bytes))?;
    Ok(())
}

fn compile_to_file(
    engine: &Engine,
    component: &[u8],
    out: &Path,
    max_bytes: u64,
) -> Result<(), CompileError> {
    let code = engine
        .precompile_component(component)
        .map_err(|error| CompileError::Refused(printable(cut(&format!("{error:#}"), 4_000))))?;
    if code.len() as u64 > max_bytes {
        let limit = format!("{} MiB of machine code, with {} allowed", code.len() >> 20, max_bytes >> 20);
        return Err(CompileError::Limit(limit));
    }
    write_private(out, &code)
        .map_err(|error| CompileError::Host(format!("the machine code could not be written: {error}")))
}

/// Writes a file that nobody else can read, down to the disk.
pub(super) fn write_private(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let mut file: File = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}
