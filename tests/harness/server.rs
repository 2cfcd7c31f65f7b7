//! The real binary as a process: started, killed, stopped, started again on the same data.

use std::{
    io::{BufRead, BufReader, Read},
    ops::Deref,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::Path,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{
        Arc, Mutex,
        mpsc::{Receiver, channel},
    },
    time::Duration,
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::{Client, guests, until};

/// Until the process says that it listens, or is gone. A debug build on a busy machine is slow.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Until a process that was asked to stop is gone.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// A running server with its data, and what it has logged. Derefs to a [`Client`] of it.
///
/// Dropping it kills the process, and fails the test if it logged an error or panicked.
pub struct Server {
    client: Client,
    process: Option<Child>,
    data: Arc<TempDir>,
    setup: Setup,
    logs: Arc<Mutex<Vec<LogLine>>>,
    /// Threads that read the output of the process; they end with it.
    readers: Vec<std::thread::JoinHandle<()>>,
}

/// How a server is started.
#[derive(Clone, Default)]
pub struct Setup {
    arguments: Vec<String>,
}

/// A line that the server wrote to stderr.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// `ERROR`, `WARN`, `INFO`, …; empty for a line that is not JSON.
    pub level: String,
    pub text: String,
    /// What a guest wrote; empty for the server's own lines.
    pub message: String,
}

/// An attempt of a step that has begun, as seen from outside of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub execution: String,
    pub tag: String,
    pub attempt: u32,
    /// Drawn anew by each attempt.
    pub nonce: String,
}

impl Deref for Server {
    type Target = Client;
    fn deref(&self) -> &Client {
        &self.client
    }
}

impl Setup {
    /// Adds `--name value` to the command line.
    pub fn with(mut self, name: &str, value: impl ToString) -> Self {
        self.arguments.extend([format!("--{name}"), value.to_string()]);
        self
    }

    /// A server with the tasks `scenario` and `raw`.
    pub async fn start(self) -> Server {
        let data = Arc::new(new_folder());
        copy(template().await.path(), data.path());
        Server::begin(self, data)
    }

    /// A server that has nothing yet.
    pub async fn start_empty(self) -> Server {
        Server::begin(self, Arc::new(new_folder()))
    }

    fn spawn(&self, data: &Path) -> Child {
        let mut command = self.command(data);
        // SAFETY: one system call between fork and exec, nothing is allocated. The server must
        // not outlive a test binary that was killed itself.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
        command.spawn().expect("the server can be started")
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_stepbox"));
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(&self.arguments);
        command.args(["--log", "info", "--log-format", "json"]);
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }
}

impl Server {
    /// A server with the tasks `scenario` and `raw`, all else by default.
    pub async fn start() -> Server {
        Setup::default().start().await
    }

    /// A server that has nothing yet.
    pub async fn empty() -> Server {
        Setup::default().start_empty().await
    }

    pub fn with(name: &str, value: impl ToString) -> Setup {
        Setup::default().with(name, value)
    }

    fn begin(setup: Setup, data: Arc<TempDir>) -> Server {
        let mut server = Server {
            client: Client::new("http://127.0.0.1:9".to_owned()),
            process: None,
            data,
            setup,
            logs: Arc::default(),
            readers: Vec::new(),
        };
        server.run();
        server
    }

    /// Starts the process and comes back when it listens.
    fn run(&mut self) {
        assert!(self.process.is_none(), "it runs already");
        let mut process = self.setup.spawn(self.data.path());
        let stdout = self.read_stdout(process.stdout.take().expect("it is piped"));
        self.read_stderr(process.stderr.take().expect("it is piped"));
        self.process = Some(process);
        match stdout.recv_timeout(START_PATIENCE) {
            Ok(base) => self.client.moved_to(base),
            Err(_) => {
                let status = self.process.as_mut().map(Child::try_wait);
                panic!("the server does not listen ({status:?}); its log:\n{}", self.log_text());
            }
        }
    }

    fn read_stdout(&mut self, stdout: impl Read + Send + 'static) -> Receiver<String> {
        let (listens, receiver) = channel();
        self.readers.push(std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                if let Some(base) = line.strip_prefix("stepbox listens on ") {
                    drop(listens.send(base.trim().to_owned()));
                }
            }
        }));
        receiver
    }

    fn read_stderr(&mut self, stderr: impl Read + Send + 'static) {
        let logs = self.logs.clone();
        self.readers.push(std::thread::spawn(move || {
            for line in BufReader::new(stderr).split(b'\n').map_while(Result::ok) {
                logs.lock().unwrap().push(LogLine::read(&String::from_utf8_lossy(&line)));
            }
        }));
    }

    /// Ends the process where it stands, and comes back when all that it wrote is read.
    pub fn kill_9(&mut self) -> &mut Server {
        let mut process = self.process.take().expect("it runs");
        process.kill().expect("it can be killed");
        let status = process.wait().expect("it can be waited for");
        assert_eq!(
            status.signal(),
            Some(9),
            "it had ended by itself: {status}; its log:\n{}",
            self.log_text()
        );
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        self
    }

    /// Starts the process again on the same data, with the same arguments.
    pub fn restart(&mut self) -> &mut Server {
        self.run();
        self
    }

    /// Asks the process to stop, and comes back at once.
    pub fn ask_to_stop(&self) {
        let process = self.process.as_ref().expect("it runs");
        let id = Pid::from_raw(i32::try_from(process.id()).unwrap()).unwrap();
        kill_process(id, Signal::TERM).expect("it can be signalled");
    }

    /// How the process ended, which it does by itself.
    pub async fn ended(&mut self) -> ExitStatus {
        let mut process = self.process.take().expect("it runs");
        let end = tokio::time::Instant::now() + STOP_PATIENCE;
        let status = loop {
            if let Some(status) = process.try_wait().expect("it can be waited for") {
                break status;
            }
            if tokio::time::Instant::now() > end {
                drop(process.kill());
                panic!("the server does not stop; its log:\n{}", self.log_text());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        };
        self.readers.drain(..).for_each(|reader| drop(reader.join()));
        status
    }

    /// Asks the process to stop and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.ended().await
    }

    pub fn data(&self) -> Arc<TempDir> {
        self.data.clone()
    }

    /// Runs another server over the same data while this one runs: how it ended, and what it said.
    pub fn second_on_the_same_data(&self) -> (ExitStatus, String) {
        let output = self.setup.command(self.data.path()).output().expect("it can be run");
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }

    pub fn logs(&self) -> Vec<LogLine> {
        self.logs.lock().unwrap().clone()
    }

    pub fn log_text(&self) -> String {
        let lines: Vec<String> = self.logs().into_iter().map(|line| line.text).collect();
        let kept = lines.len().saturating_sub(200);
        lines[kept..].join("\n")
    }

    /// The attempts of steps that have begun so far, over all restarts, in order.
    pub fn effects(&self) -> Vec<Effect> {
        self.logs.lock().unwrap().iter().filter_map(|line| Effect::read(&line.message)).collect()
    }

    /// The attempts of `execution`, as `tag attempt`.
    pub fn effects_of(&self, execution: &str) -> Vec<String> {
        let mut effects = self.effects();
        effects.retain(|effect| effect.execution == execution);
        effects.iter().map(|effect| format!("{} {}", effect.tag, effect.attempt)).collect()
    }

    /// Comes back when an attempt of `execution` has begun, as `tag attempt`.
    pub async fn until_effect(&self, execution: &str, effect: &str) {
        let what = format!("{execution} has begun {effect}");
        until(&what, async || self.effects_of(execution), |effects| effects.iter().any(|e| e == effect))
            .await;
    }

    /// The lines that guests of `execution` wrote and that begin with `word`, without it.
    pub fn written(&self, execution: &str, word: &str) -> Vec<String> {
        let run = format!("\"run\":\"{execution}:run:");
        let logs = self.logs.lock().unwrap();
        let lines = logs.iter().filter(|line| line.text.contains(&run));
        lines.filter_map(|line| line.message.strip_prefix(word)).map(|rest| rest.trim().to_owned()).collect()
    }

    fn unexpected_errors(&self) -> Vec<String> {
        let errors = self.logs().into_iter().filter(|line| {
            // What a guest calls an error is none of the host's, and a panic writes no JSON.
            (line.level == "ERROR" && line.message.is_empty())
                || (line.level.is_empty() && line.text.contains("panicked"))
        });
        errors.map(|line| line.text).collect()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
            self.readers.drain(..).for_each(|reader| drop(reader.join()));
        }
        if std::thread::panicking() {
            eprintln!("the log of the server:\n{}", self.log_text());
            return;
        }
        let errors = self.unexpected_errors();
        assert!(errors.is_empty(), "the server logged errors:\n{}", errors.join("\n"));
    }
}

impl LogLine {
    fn read(text: &str) -> LogLine {
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_guest = json["target"] == "guest";
        let message = match &json["message"] {
            Value::String(message) if is_guest => message.clone(),
            _ => String::new(),
        };
        LogLine { level: word(&json["level"]), text: text.to_owned(), message }
    }
}

impl Effect {
    fn read(message: &str) -> Option<Effect> {
        let mut words = message.strip_prefix("effect ")?.split(' ');
        let mut word = || words.next().map(str::to_owned);
        Some(Effect { execution: word()?, tag: word()?, attempt: word()?.parse().ok()?, nonce: word()? })
    }
}

/// Data of a server that has the guests already: compiling them anew for each test would take
/// most of the time.
async fn template() -> &'static TempDir {
    static TEMPLATE: OnceCell<TempDir> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let mut server = Server::empty().await;
            server.upload("scenario", guests::scenario()).await.expect(201);
            server.upload("raw", guests::raw()).await.expect(201);
            let status = server.terminate().await;
            assert!(status.success(), "{status}");
            let data = server.data();
            drop(server);
            Arc::into_inner(data).expect("nobody else holds it")
        })
        .await
}

fn new_folder() -> TempDir {
    tempfile::Builder::new().prefix("stepbox-test-").tempdir().expect("a folder can be made")
}

fn copy(from: &Path, to: &Path) {
    for entry in std::fs::read_dir(from).expect("it can be read").map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            std::fs::create_dir_all(&to).unwrap();
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
