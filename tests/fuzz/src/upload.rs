//! Components: damaged, made up, and calling the host with anything.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use arbitrary::Unstructured;
use async_trait::async_trait;
use stepbox::sandbox::{
    Answer, CompileLimits, Compiler, EndHandler, Guest, GuestContext, GuestExit, HandlerSetup, HostCalls,
    LogLine, LogSink, NoSecrets, PoolSizes, Rejected, Sandbox, SandboxConfig, StepCall, StepExit, StepSetup,
};
use stepbox_domain::{
    Digest, EventName, Json, Limit, Limits, RunId, StepName, TaskName, Timestamp, decide::Until,
};
use tokio::time::timeout;

use super::{dice::Dice, run::Run, wat_guest::WatGuest};

/// Far more than the limits on compiling and describing allow: who takes longer hangs.
const PATIENCE: Duration = Duration::from_secs(120);

pub async fn fuzz(run: &mut Run, folders: &[PathBuf]) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let corpus = corpus(folders);
    let in_process = sandbox(folder.path().join("a"), Compiler::InProcess);
    // As the product does it; slower.
    let exe = std::env::current_exe().expect("this program has a path");
    let in_child = sandbox(folder.path().join("b"), Compiler::Child { exe });

    while let Some((number, mut dice)) = run.next() {
        let (kind, component) = input(&mut dice, &corpus);
        let sandbox = if dice.one_in(8) { &in_child } else { &in_process };
        match timeout(PATIENCE, tried(sandbox, &component)).await {
            Ok(Ok(outcome)) => run.count(format!("{kind}: {outcome}")),
            Ok(Err(broken)) => run.found(number, &broken, &component),
            Err(_) => run.found(number, &format!("no answer within {PATIENCE:?}"), &component),
        }
        for panic in Run::panics() {
            // In the product the compiler has a process of its own, which may die of this.
            match panic.contains("cranelift") || panic.contains("wasmtime-environ") {
                true => run.count(format!("{kind}: the compiler panicked")),
                false => run.found(number, &format!("it panicked: {panic}"), &component),
            }
        }
    }
}

fn sandbox(cache: PathBuf, compiler: Compiler) -> Arc<Sandbox> {
    let mut config = SandboxConfig::new(cache, compiler);
    config.pool = PoolSizes { handlers_max: 8, steps_max: 8, ..config.pool };
    config.compile = CompileLimits { cpu_max_s: 10, wall_max_ms: 60_000, ..config.compile };
    Sandbox::new(config, Arc::new(NoSecrets)).unwrap_or_else(|error| panic!("{error:#}"))
}

/// What begins as something real.
fn corpus(folders: &[PathBuf]) -> Vec<Vec<u8>> {
    let mut corpus = vec![WatGuest::default().build()];
    for folder in folders {
        let entries = fs::read_dir(folder).into_iter().flatten().flatten();
        let mut files: Vec<PathBuf> = entries.map(|entry| entry.path()).collect();
        files.retain(|path| path.extension().is_some_and(|extension| extension == "wasm"));
        files.sort();
        corpus.extend(files.iter().filter_map(|path| fs::read(path).ok()));
    }
    corpus
}

fn input(dice: &mut Dice, corpus: &[Vec<u8>]) -> (&'static str, Vec<u8>) {
    match dice.below(6) {
        0 | 1 => {
            // The small one more often: more of its bytes matter, and it compiles in no time.
            let at = if dice.one_in(4) { dice.below(corpus.len()) } else { 0 };
            let mut component = corpus[at].clone();
            dice.mutate(&mut component, corpus);
            ("damaged", component)
        }
        2 => {
            let chance = dice.bytes(4_096);
            let config = wasm_smith::Config { max_components: 3, ..wasm_smith::Config::default() };
            let made = wasm_smith::Component::new(config, &mut Unstructured::new(&chance));
            ("smith's component", made.map(|component| component.to_bytes()).unwrap_or_default())
        }
        3 => {
            let chance = dice.bytes(4_096);
            let config = wasm_smith::Config {
                max_memories: 3,
                allow_start_export: true,
                ..wasm_smith::Config::default()
            };
            let made = wasm_smith::Module::new(config, &mut Unstructured::new(&chance));
            let module = made.map(|module| module.to_bytes()).unwrap_or_default();
            if dice.one_in(10) {
                ("smith's module", module)
            } else {
                ("smith's module inside", wrapped(&module))
            }
        }
        4 => ("noise", {
            let mut noise = b"\0asm\x0d\0\x01\0".to_vec();
            let count = dice.below(300);
            noise.extend(dice.bytes(count));
            noise
        }),
        _ => ("caller", caller(dice)),
    }
}

/// A component that is nothing but this core module, which is so compiled.
fn wrapped(module: &[u8]) -> Vec<u8> {
    let mut component = b"\0asm\x0d\0\x01\0\x01".to_vec();
    let mut length = module.len();
    loop {
        let more = length >> 7 != 0;
        component.push(length as u8 & 0x7f | if more { 0x80 } else { 0 });
        length >>= 7;
        if !more {
            break;
        }
    }
    component.extend(module);
    component
}

/// Calls of the host, with how many numbers each takes: `i` for 32 bits, `l` for 64; what it leaves.
const CALLS: [(&str, &str, bool); 25] = [
    ("step", "iiiiiiiililiili", false),
    ("schedule", "iiiiiiiililiili", false),
    ("wait-all", "iii", false),
    ("wait-any", "iii", false),
    ("sleep", "iil", false),
    ("sleep-until", "iil", false),
    ("wait-event", "iiili", false),
    ("capture", "iiiii", false),
    ("start-execution", "iiiiiiiiii", false),
    ("wait-execution", "iiili", false),
    ("context", "i", false),
    ("log", "iiiii", false),
    ("block", "i", false),
    ("write", "iiii", false),
    ("now", "i", false),
    ("mono", "", true),
    ("subscribe", "l", true),
    ("subscribe-instant", "l", true),
    ("random", "", true),
    ("random-bytes", "li", false),
    ("insecure", "", true),
    ("seed", "i", false),
    ("env-vars", "i", false),
    ("stdout", "", true),
    ("stderr", "", true),
];

/// A module that is fine, and calls the host with numbers of all kinds.
fn caller(dice: &mut Dice) -> Vec<u8> {
    let run = calls(dice);
    let run_step = calls(dice);
    let mut guest = WatGuest::default();
    if !dice.one_in(4) {
        guest = guest.run(&format!("{run} $\"1\" call $ok"));
    }
    if !dice.one_in(4) {
        guest = guest.run_step(&format!("{run_step} $\"1\" call $step_ok"));
    }
    if dice.one_in(6) {
        guest = guest.describe(&format!("{} $\"{{}}\" call $text", calls(dice)));
    }
    guest.build()
}

fn calls(dice: &mut Dice) -> String {
    let mut text = String::new();
    for _ in 0..=dice.below(5) {
        let (name, parameters, leaves) = CALLS[dice.below(CALLS.len())];
        // Texts are often where they should be, so that more is reached than the first check.
        let mut parameters = parameters.chars().peekable();
        while let Some(parameter) = parameters.next() {
            match parameter {
                'i' if parameters.peek() == Some(&'i') && dice.one_in(2) => {
                    parameters.next();
                    let word = dice.pick(&["f", "null", "charge", "a b", "[1,2]", "", "{", "\\00", "e9"]);
                    text += &format!("$\"{word}\" ");
                }
                'i' => text += &format!("(i32.const {}) ", dice.number() as i32),
                _ => text += &format!("(i64.const {}) ", dice.number() as i64),
            }
        }
        text += &format!("call ${name} ");
        if leaves {
            text += "drop ";
        }
        if dice.one_in(5) {
            let address = dice.number() as i32;
            text += &format!("(i32.store (i32.const {address}) (i32.const {})) ", dice.number() as i32);
        }
    }
    text
}

/// Uploads it, and runs what is taken. Err: what does not hold.
async fn tried(sandbox: &Sandbox, component: &[u8]) -> Result<String, String> {
    let inspected = match sandbox.inspect(component).await {
        Ok(inspected) => inspected,
        Err(rejected) => {
            let words = rejected.to_string();
            let forges = |c: char| c.is_control() && c != '\n';
            if words.len() < 20 || words.contains(forges) {
                return Err(format!("the refusal says {words:?}"));
            }
            if let Rejected::Unavailable { reason } = rejected {
                return Err(format!("the host says that it is to blame: {reason}"));
            }
            let kind =
                format!("{rejected:?}").chars().take_while(|c| c.is_alphanumeric()).collect::<String>();
            return Ok(format!("refused: {kind}"));
        }
    };
    let bytes = component.to_vec();
    let guest = sandbox.load(&inspected.digest, async || Ok(bytes)).await;
    let guest = guest.map_err(|error| format!("it was accepted and cannot be loaded: {error}"))?;
    let ran = run(&guest).await;
    sandbox.forget(&Digest::of(component));
    ran
}

async fn run(guest: &Arc<dyn Guest>) -> Result<String, String> {
    let null = Json::null();
    let handler = HandlerSetup { context: context(), limits: limits(), meter: Arc::default() };
    let ended = match timeout(PATIENCE, guest.run(handler, &null, Box::new(Nulls))).await {
        Ok(GuestExit::Returned(_)) => "returned".to_owned(),
        Ok(GuestExit::Ended) => "ended".to_owned(),
        Ok(GuestExit::Failed(failure)) => format!("failed ({:?})", failure.kind),
        Ok(GuestExit::Unavailable(why)) => return Err(format!("the handler has no room: {why}")),
        Err(_) => return Err("the handler does not end".to_owned()),
    };
    let setup = StepSetup {
        context: context(),
        limits: limits(),
        grants: Arc::default(),
        meter: Arc::default(),
        gate: Arc::default(),
    };
    // A step may wait for as long as it likes; whoever runs it has a deadline.
    let step = timeout(Duration::from_millis(300), guest.steps(setup).run_step("f", &null, 1)).await;
    let step = match step {
        Ok(StepExit::Completed(_)) => "completed".to_owned(),
        Ok(StepExit::Failed(failure)) => format!("failed ({:?})", failure.kind),
        Ok(StepExit::Unavailable(why)) => return Err(format!("the step has no room: {why}")),
        Err(_) => "waits".to_owned(),
    };
    Ok(format!("accepted; handler {ended}, step {step}"))
}

fn limits() -> Arc<Limits> {
    let low =
        [(Limit::HandlerCpuMaxMs, 300), (Limit::AttemptCpuMaxMs, 300), (Limit::MemoryMaxBytes, 64 << 20)];
    Arc::new(Limits::default().with(&low.into_iter().collect()))
}

fn context() -> GuestContext {
    GuestContext {
        execution_id: "fuzz".to_owned(),
        run_id: RunId::parse("fuzz:run:0").unwrap_or_else(|error| panic!("{error}")),
        run_index: 0,
        task: TaskName::parse("fuzz").unwrap_or_else(|error| panic!("{error}")),
        version: 1,
        started_at: Timestamp::from_ms(1_700_000_000_000),
        logs: Arc::new(Nowhere),
    }
}

struct Nowhere;

impl LogSink for Nowhere {
    fn line(&self, line: LogLine<'_>) {
        let forges = |c: char| c.is_control() && c != '\t';
        assert!(!line.message.contains(forges), "a line of output forges: {:?}", line.message);
    }
}

/// Answers everything with `null`.
struct Nulls;

fn null() -> Result<Answer, EndHandler> {
    Ok(Answer { outcome: Ok(Json::null()), now: Timestamp::from_ms(1_700_000_000_001) })
}

#[async_trait]
impl HostCalls for Nulls {
    async fn step(&mut self, _: StepCall) -> Result<Answer, EndHandler> {
        null()
    }
    async fn sleep(&mut self, _: StepName, _: Until) -> Result<Answer, EndHandler> {
        null()
    }
    async fn wait_event(&mut self, _: EventName, _: Option<u64>) -> Result<Answer, EndHandler> {
        null()
    }
    async fn capture(&mut self, _: StepName, _: Json) -> Result<Answer, EndHandler> {
        null()
    }
}
