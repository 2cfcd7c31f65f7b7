//! Runs a task natively, without a host: for unit tests.
//!
//! The journal of a test is the same state machine that the host runs on, so the two cannot
//! disagree about retries, deadlines, names or which event answers which wait. What differs: time
//! is virtual, so a sleep of a day takes none; steps run on this thread, and a test may put its
//! own function in the place of one.
//!
//! ```
//! use stepbox_guest::{StepError, TaskError, hours, minutes, sleep, step, task, wait_event};
//! use stepbox_guest::testing::TestRun;
//!
//! #[step(retry = exponential(3, "2s"))]
//! fn charge(cents: u64) -> Result<String, StepError> {
//!     Err(StepError::new(format!("no bank is there to take {cents}")))
//! }
//!
//! #[task]
//! fn order(cents: u64) -> Result<String, TaskError> {
//!     let receipt = charge(cents)?;
//!     sleep("settle", minutes(5));
//!     let carrier: String = wait_event("shipment", hours(24))?;
//!     Ok(format!("{receipt}, {carrier}"))
//! }
//!
//! # fn main() {
//! let run = TestRun::of::<order>()
//!     .payload(900)
//!     .step::<charge>(|(cents,), attempt| match attempt {
//!         1 => Err("the line is busy".into()),
//!         _ => Ok(format!("{cents} taken")),
//!     })
//!     .event_after(hours(2), "shipment", "Red Van")
//!     .run();
//!
//! assert_eq!(run.result().unwrap(), "900 taken, Red Van");
//! assert_eq!(run.calls(), ["charge", "settle", "shipment"]);
//! assert_eq!(run.step("charge").attempts, 2);
//! run.assert_replays();
//! # }
//! ```

mod convert;
mod finished;
pub(crate) mod session;

use std::collections::BTreeMap;
use std::marker::PhantomData;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use serde::Serialize;
use stepbox_domain::run::{Policy, RunFacts};
use stepbox_domain::{ExecutionId, Json, Manifest, RunId, TaskName, Timestamp};

use crate::data::Arguments;
use crate::http;
use crate::http::native::Server;
use crate::step::{Step, written};
use crate::time::{millis, since_1970_ms};
use crate::{StepError, Task};

pub use finished::{Finished, StepRun};

/// When a test's run starts, unless it says otherwise: 2026-01-01T00:00:00Z.
const STARTED_AT: Timestamp = Timestamp::from_ms(1_767_225_600_000);

/// A run of a task that is about to be tested. See the [module](self).
pub struct TestRun<T = ()> {
    pub(crate) setup: Setup,
    task: PhantomData<T>,
}

/// What a run is given, to be given again when it is replayed.
#[derive(Clone)]
pub(crate) struct Setup {
    facts: RunFacts,
    policy: Policy,
    payload: String,
    /// With the time after the start at which each comes.
    events: Vec<(Duration, String, Json)>,
    stubs: BTreeMap<&'static str, Stub>,
    /// Answers HTTP requests.
    server: Option<Server>,
    crashes: Crashes,
}

/// What runs in the place of a step's body: from its input in JSON, in one attempt, to its result.
type Stub = Rc<dyn Fn(&str, u32) -> Result<String, StepError>>;

/// When the host of a test dies.
#[derive(Clone, Default)]
pub(crate) struct Crashes {
    after_each_record: bool,
    /// Functions under whose first attempt it dies.
    during: Vec<&'static str>,
}

impl TestRun {
    /// A run of the task `T`, with the payload `null`.
    pub fn of<T: Task>() -> TestRun<T> {
        let name = TaskName::parse(T::NAME).unwrap_or_else(|error| panic!("task `{}`: {error}", T::NAME));
        let execution = ExecutionId::parse("test").unwrap_or_else(|error| panic!("{error}"));
        let facts = RunFacts {
            run: RunId::new(&execution, 0),
            execution,
            index: 0,
            task: name,
            version: 1,
            created_at: STARTED_AT,
            deadline: T::TIMEOUT_MS.map(|timeout_ms| STARTED_AT.plus_ms(timeout_ms)),
        };
        let setup = Setup {
            facts,
            policy: Policy::default(),
            payload: "null".to_owned(),
            events: Vec::new(),
            stubs: BTreeMap::new(),
            server: None,
            crashes: Crashes::default(),
        };
        TestRun { setup, task: PhantomData }
    }
}

impl<T: Task> TestRun<T> {
    /// What the client sends. It crosses as JSON, as it does to a component.
    ///
    /// Panics when it cannot be written as JSON.
    pub fn payload(mut self, payload: impl Serialize) -> Self {
        self.setup.payload = json(payload).as_str().to_owned();
        self
    }

    /// When the run starts; otherwise at the beginning of 2026.
    pub fn started_at(mut self, moment: SystemTime) -> Self {
        let facts = &mut self.setup.facts;
        let timeout_ms = facts.deadline.map(|deadline| deadline.ms_since(facts.created_at));
        facts.created_at = Timestamp::from_ms(i64::try_from(since_1970_ms(moment)).unwrap_or(i64::MAX));
        facts.deadline = timeout_ms.map(|timeout_ms| facts.created_at.plus_ms(timeout_ms));
        self
    }

    /// An event that was sent before the run started.
    pub fn event(self, name: &str, payload: impl Serialize) -> Self {
        self.event_after(Duration::ZERO, name, payload)
    }

    /// An event that is sent so long after the start, in virtual time.
    pub fn event_after(mut self, delay: Duration, name: &str, payload: impl Serialize) -> Self {
        self.setup.events.push((delay, name.to_owned(), json(payload)));
        self
    }

    /// Runs `body` wherever the task calls the step `S`, with its arguments and the number of the
    /// attempt, from 1. Without this the step's own body is run.
    pub fn step<S: Step>(
        mut self,
        body: impl Fn(S::Input, u32) -> Result<S::Output, S::Error> + 'static,
    ) -> Self {
        let stub = move |input: &str, attempt| {
            let input = Arguments::from_json(S::ARGUMENTS, input).map_err(StepError::fatal)?;
            written::<S>(body(input, attempt))
        };
        self.setup.stubs.insert(S::FUNCTION, Rc::new(stub));
        self
    }

    /// Answers all HTTP requests of the steps, in the place of the servers. Secrets are placeholders
    /// in what it is shown.
    ///
    /// ```
    /// use stepbox_guest::testing::TestRun;
    /// use stepbox_guest::{StepError, TaskError, http, step, task};
    ///
    /// #[step]
    /// fn price(sku: String) -> Result<u64, StepError> {
    ///     Ok(http::get(format!("https://prices.example/{sku}")).send()?.success()?.json()?)
    /// }
    ///
    /// #[task]
    /// fn order(sku: String) -> Result<u64, TaskError> {
    ///     Ok(price(sku)?)
    /// }
    ///
    /// # fn main() {
    /// let run = TestRun::of::<order>()
    ///     .payload("tea")
    ///     .http(|request| match request.url() {
    ///         "https://prices.example/tea" => Ok(http::Response::new(200).with_json(&450)),
    ///         _ => Ok(http::Response::new(404)),
    ///     })
    ///     .run();
    /// assert_eq!(run.result(), Ok(&450));
    /// # }
    /// ```
    pub fn http(
        mut self,
        server: impl Fn(&http::Request) -> Result<http::Response, http::Error> + 'static,
    ) -> Self {
        self.setup.server = Some(Rc::new(server));
        self
    }

    /// The host dies after each record that it wrote, and the handler is called again from the
    /// top: as many times as there are records.
    pub fn crash_after_each_record(mut self) -> Self {
        self.setup.crashes.after_each_record = true;
        self
    }

    /// The host dies at the end of the first attempt of `S`: what it did is done, but nobody
    /// knows. The step is attempted again.
    pub fn crash_during<S: Step>(mut self) -> Self {
        self.setup.crashes.during.push(S::FUNCTION);
        self
    }

    /// Runs the task until it is over, or until it waits for what never comes.
    pub fn run(self) -> Finished<T> {
        let (output, session) = session::run_to_rest::<T>(&self.setup, Vec::new());
        Finished::new(self.setup, output, session)
    }
}

/// Lets virtual time pass inside of a step: a step that takes longer than its timeout times out.
///
/// Panics outside of a [`TestRun`].
pub fn take(duration: Duration) {
    match session::current() {
        Some(session) => session.take_time(millis(duration)),
        None => panic!("virtual time passes only within a `TestRun`"),
    }
}

/// Calls `body` with `server` in the place of all servers, for testing the body of a step on its
/// own. See [`TestRun::http`].
pub fn with_http<R>(
    server: impl Fn(&http::Request) -> Result<http::Response, http::Error> + 'static,
    body: impl FnOnce() -> R,
) -> R {
    crate::http::native::with_server(Rc::new(server), body)
}

/// Calls `body` as attempt number `attempt` of a step, for testing a body on its own.
pub fn as_attempt<R>(attempt: u32, body: impl FnOnce() -> R) -> R {
    crate::context::in_attempt(attempt, body)
}

/// The manifest that a component made from this crate would have.
///
/// Panics when a host would refuse it: when there is no task in it or more than one, two steps of
/// the same name, and so on.
#[track_caller]
pub fn manifest() -> serde_json::Value {
    let manifest = crate::module::describe();
    match Manifest::parse(&manifest.to_string()) {
        Ok(_) => manifest,
        Err(refused) => panic!("a host would refuse this module: {refused}"),
    }
}

fn json(value: impl Serialize) -> Json {
    let text = serde_json::to_string(&value)
        .unwrap_or_else(|error| panic!("this cannot be written as JSON: {error}"));
    Json::parse(text).unwrap_or_else(|error| panic!("this cannot be written as JSON: {error}"))
}
