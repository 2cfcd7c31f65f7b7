//! The real binary as a process: started, killed, stopped, started again on the same data.

mod data;
mod log;

use std::{
    fs::File,
    ops::Deref,
    os::unix::process::{CommandExt, ExitStatusExt},
    path::{Path, PathBuf},
    process::{Child, Command, ExitStatus, Stdio},
    sync::Mutex,
    time::{Duration, Instant},
};

use rustix::process::{Pid, Signal, kill_process, set_parent_process_death_signal};
use stepbox::fault::Fault;
use tempfile::TempDir;

use self::{
    data::{copy, data_in, new_folder, size_bytes, template},
    log::Logs,
};
use super::{Client, clock::OwnClock, disk::SmallDisk};

pub use self::log::Effect;

/// Until the process says that it listens, or is gone. A debug build on a busy machine is slow.
const START_PATIENCE: Duration = Duration::from_secs(60);
/// Until a process that was asked to stop is gone.
const STOP_PATIENCE: Duration = Duration::from_secs(60);

/// A running server with its data, and what it has logged. Derefs to a [`Client`] of it.
///
/// Dropping it kills the process, and fails the test if it logged an error that the test did
/// not expect, or panicked.
pub struct Server {
    client: Client,
    process: Option<Child>,
    /// What `data` lies on, if not on the disk of the tests. Goes before the folder.
    disk: Option<SmallDisk>,
    folder: TempDir,
    setup: Setup,
    logs: Mutex<Logs>,
    errors_expected: Vec<&'static str>,
}

/// How a server is started.
#[derive(Clone, Default)]
pub struct Setup {
    arguments: Vec<String>,
    variables: Vec<(String, String)>,
    fault: Option<String>,
    clock: Option<OwnClock>,
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

    /// Gives the process a wall clock of its own, which the test can set.
    pub fn with_clock(mut self, clock: OwnClock) -> Self {
        self.clock = Some(clock);
        self
    }

    /// Adds a variable to the environment.
    pub fn with_variable(mut self, name: &str, value: &str) -> Self {
        self.variables.push((name.to_owned(), value.to_owned()));
        self
    }

    /// A server with the tasks `scenario` and `raw`.
    pub async fn start(self) -> Server {
        let folder = new_folder();
        copy(template().await, &data_in(&folder));
        Server::begin(self, folder, None)
    }

    /// A server that has nothing yet.
    pub async fn start_empty(self) -> Server {
        Server::begin(self, new_folder(), None)
    }

    /// As [`Self::start`], on a disk of its own that has so much room left. None where nothing can
    /// be mounted.
    pub async fn start_on_small_disk(self, room_bytes: u64) -> Option<Server> {
        let (template, folder) = (template().await, new_folder());
        let disk = SmallDisk::mount(&data_in(&folder), size_bytes(template) + room_bytes)?;
        copy(template, &data_in(&folder));
        Some(Server::begin(self, folder, Some(disk)))
    }

    /// A server on a copy of `data`, to which `damage` was done before.
    pub async fn start_on_copy(self, data: &Path, damage: impl FnOnce(&Path)) -> Server {
        let folder = new_folder();
        copy(data, &data_in(&folder));
        damage(&data_in(&folder));
        Server::begin(self, folder, None)
    }

    fn command(&self, data: &Path) -> Command {
        let mut command = Command::new(binary());
        command.args(["serve", "--listen", "127.0.0.1:0", "--data"]).arg(data).args(&self.arguments);
        command.args(["--log", "info", "--log-format", "json"]).stdin(Stdio::null());
        command.envs(self.variables.iter().map(|(name, value)| (name, value)));
        command.envs(self.fault.iter().map(|fault| ("STEPBOX_FAULT", fault)));
        command.envs(self.clock.iter().flat_map(OwnClock::environment));
        // SAFETY: one system call between fork and exec, nothing is allocated. The server must
        // not outlive a test binary that was killed itself.
        unsafe {
            command.pre_exec(|| Ok(set_parent_process_death_signal(Some(Signal::KILL))?));
        }
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

    fn begin(setup: Setup, folder: TempDir, disk: Option<SmallDisk>) -> Server {
        let mut server = Server {
            client: Client::new("http://127.0.0.1:9".to_owned()),
            process: None,
            disk,
            folder,
            setup,
            logs: Mutex::default(),
            errors_expected: Vec::new(),
        };
        server.run();
        server
    }

    /// Starts the process and comes back when it listens.
    fn run(&mut self) {
        if let Err(status) = self.try_run() {
            panic!("the server does not listen ({status}); its log:\n{}", self.log_text());
        }
    }

    /// Starts the process and comes back when it listens, or has ended instead.
    fn try_run(&mut self) -> Result<(), ExitStatus> {
        assert!(self.process.is_none(), "it runs already");
        let stdout = self.file("stdout");
        let spawned = self.spawn();
        let process = self.process.insert(spawned);

        let end = Instant::now() + START_PATIENCE;
        loop {
            let said = std::fs::read_to_string(&stdout).unwrap();
            let listens = said.lines().find_map(|line| line.strip_prefix("stepbox listens on "));
            if let Some(base) = listens.filter(|_| said.ends_with('\n')) {
                self.client.moved_to(base.to_owned());
                return Ok(());
            }
            if let Some(status) = process.try_wait().expect("it can be waited for") {
                self.process = None;
                return Err(status);
            }
            assert!(Instant::now() < end, "the server does not listen; its log:\n{}", self.log_text());
            std::thread::sleep(Duration::from_millis(3));
        }
    }

    fn spawn(&self) -> Child {
        let mut command = self.setup.command(&self.data());
        let stderr = File::options().create(true).append(true).open(self.file("stderr"));
        command.stdout(File::create(self.file("stdout")).unwrap()).stderr(stderr.unwrap());
        command.spawn().expect("the server can be started")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    /// Ends the process where it stands.
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
        self
    }

    /// Starts the process again on the same data, with the same arguments.
    pub fn restart(&mut self) -> &mut Server {
        self.run();
        self
    }

    /// Starts the process again; Err: it has ended instead, and how.
    pub fn try_restart(&mut self) -> Result<(), ExitStatus> {
        self.try_run()
    }

    /// From its next start on the process ends itself when it comes to `fault` for the `nth` time.
    pub fn set_fault(&mut self, fault: Fault, nth: u32) -> &mut Server {
        self.setup.fault = Some(format!("{}:{nth}", fault.name()));
        self
    }

    /// From its next start on the process ends itself nowhere.
    pub fn clear_fault(&mut self) -> &mut Server {
        self.setup.fault = None;
        self
    }

    /// What its data lies on, given that it was started on a small disk.
    pub fn disk(&self) -> &SmallDisk {
        self.disk.as_ref().expect("it has a disk of its own")
    }

    /// Starts the process and ends it after `life`, wherever it has got to by then.
    pub fn start_and_kill_9(&mut self, life: Duration) {
        assert!(self.process.is_none(), "it runs already");
        let mut process = self.spawn();
        std::thread::sleep(life);
        process.kill().expect("it can be killed");
        process.wait().expect("it can be waited for");
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
        loop {
            if let Some(status) = process.try_wait().expect("it can be waited for") {
                return status;
            }
            if tokio::time::Instant::now() > end {
                drop(process.kill());
                panic!("the server does not stop; its log:\n{}", self.log_text());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Asks the process to stop and waits until it has.
    pub async fn terminate(&mut self) -> ExitStatus {
        self.ask_to_stop();
        self.ended().await
    }

    /// The number of its process.
    pub fn process_id(&self) -> u32 {
        self.process.as_ref().expect("it runs").id()
    }

    /// From its next start on the process has this environment besides, and no other that was added.
    pub fn set_variables(&mut self, variables: &[(&str, &str)]) -> &mut Server {
        let owned = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        self.setup.variables = owned.collect();
        self
    }

    /// The folder that it was given for its data.
    pub fn data(&self) -> PathBuf {
        data_in(&self.folder)
    }

    /// Runs another server over the same data while this one runs: how it ended, and what it said.
    pub fn second_on_the_same_data(&self) -> (ExitStatus, String) {
        let output = self.setup.command(&self.data()).output().expect("it can be run");
        let said = [output.stdout, output.stderr].concat();
        (output.status, String::from_utf8_lossy(&said).into_owned())
    }

    /// The test is about an error: lines with `text` in them are no reason to fail.
    pub fn expect_errors(&mut self, text: &'static str) {
        self.errors_expected.push(text);
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(mut process) = self.process.take() {
            drop(process.kill());
            drop(process.wait());
        }
        if std::thread::panicking() {
            eprintln!("the log of the server:\n{}", self.log_text());
            return;
        }
        let errors = self.unexpected_errors();
        assert!(errors.is_empty(), "the server logged errors:\n{}", errors.join("\n"));
    }
}

/// What is tested: the build beside this one, or the one that the environment names, so that a release
/// build can be measured by tests that are none.
fn binary() -> PathBuf {
    std::env::var_os("STEPBOX_TEST_BINARY")
        .map_or_else(|| env!("CARGO_BIN_EXE_stepbox").into(), PathBuf::from)
}
