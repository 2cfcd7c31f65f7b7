//! Requests of real guests, through the sandbox, to a server of the test's own.
//!
//! What is promised of a request itself (addresses, spellings, TLS, bounds) is proved where it
//! leaves, in `host/src/sandbox/egress/tests`.

use std::sync::Arc;

use async_trait::async_trait;
use stepbox::sandbox::{
    Answer, Compiler, EndHandler, Gate, Guest, GuestContext, GuestExit, HandlerSetup, HostCalls, LogLine,
    LogSink, Meter, Sandbox, SandboxConfig, Secrets, StepCall, StepExit, StepRunner, StepSetup,
};
use stepbox_domain::{
    Digest, EventName, FailureKind, Json, Limit, Limits, RunId, StepName, TaskName, Timestamp,
    capability::{Grants, SecretName},
    decide::Until,
    limits::LimitSettings,
    receipt::Receipt,
};
use tokio::{io::AsyncReadExt as _, sync::OnceCell};
use zeroize::Zeroizing;

use crate::harness::{
    web::{self, Web, ok},
    *,
};

/// The guest `egress`, compiled once for all tests.
struct Bench {
    guest: Arc<dyn Guest>,
    // Keeps the machine code.
    _folder: tempfile::TempDir,
}

async fn bench() -> &'static Bench {
    static BENCH: OnceCell<Bench> = OnceCell::const_new();
    BENCH
        .get_or_init(async || {
            let folder = tempfile::tempdir().unwrap();
            let config = SandboxConfig::new(folder.path(), Compiler::InProcess);
            let sandbox = Sandbox::new(config, Arc::new(OneSecret)).unwrap();
            let component = guests::egress();
            let digest = Digest::of(&component);
            let guest = sandbox.load(&digest, async || Ok(component)).await.unwrap();
            Bench { guest, _folder: folder }
        })
        .await
}

const VALUE: &str = "the-value-of-the-secret";

struct OneSecret;

impl Secrets for OneSecret {
    fn reveal(&self, name: &SecretName) -> Option<Zeroizing<String>> {
        (name.as_str() == "KEY").then(|| Zeroizing::new(VALUE.to_owned()))
    }
}

struct Silence;

impl LogSink for Silence {
    fn line(&self, _: LogLine<'_>) {}
}

fn context() -> GuestContext {
    GuestContext {
        execution_id: "e".to_owned(),
        run_id: RunId::parse("e:run:0").unwrap(),
        run_index: 0,
        task: TaskName::parse("egress").unwrap(),
        version: 1,
        started_at: Timestamp::from_ms(0),
        logs: Arc::new(Silence),
    }
}

/// The steps of one leg, with their meter.
struct Leg {
    steps: Box<dyn StepRunner>,
    meter: Arc<Meter>,
    gate: Arc<Gate>,
}

impl Leg {
    async fn new(grants: Value) -> Leg {
        Leg::with_limits(grants, &[]).await
    }

    async fn with_limits(grants: Value, limits: &[(Limit, u64)]) -> Leg {
        let (meter, gate): (Arc<Meter>, Arc<Gate>) = Default::default();
        let settings: LimitSettings = limits.iter().copied().collect();
        let grants: Grants = serde_json::from_value(grants).unwrap();
        let setup = StepSetup {
            context: context(),
            limits: Arc::new(Limits::default().with(&settings)),
            grants: Arc::new(grants),
            meter: meter.clone(),
            gate: gate.clone(),
        };
        Leg { steps: bench().await.guest.steps(setup), meter, gate }
    }

    async fn exit(&mut self, function: &str, input: Value) -> StepExit {
        self.meter.begin();
        self.steps.run_step(function, &Json::parse(input.to_string()).unwrap(), 1).await
    }

    async fn run(&mut self, function: &str, input: Value) -> Value {
        match self.exit(function, input).await {
            StepExit::Completed(result) => serde_json::from_str(result.as_str()).unwrap(),
            other => panic!("not completed: {other:?}"),
        }
    }

    async fn ask(&mut self, request: Value) -> Value {
        self.run("ask", json!({ "request": request })).await
    }

    fn receipt(&self) -> Receipt {
        self.meter.receipt()
    }
}

/// Leave to reach `web` on this machine, and to send KEY there.
fn grants_for(web: &Web) -> Value {
    json!({
        "http": [{ "scheme": "http", "host": "127.0.0.1", "port": web.address.port() }],
        "addresses": ["127.0.0.1"],
        "secrets": { "KEY": ["127.0.0.1"] },
    })
}

#[tokio::test]
async fn a_guest_gets_its_answer_and_the_receipt_says_so() {
    let web = Web::start(|heard| web::status("201 Created", "", &String::from_utf8_lossy(&heard.body))).await;
    let mut leg = Leg::new(grants_for(&web)).await;
    let body = "x".repeat(100_000);

    let heard = leg.ask(json!({ "method": "POST", "url": web.url("/orders?q=1"), "body": body })).await;

    assert_eq!((&heard["status"], heard["body"].as_str()), (&json!(201), Some(body.as_str())));
    assert_eq!(web.heard()[0].header("content-length"), Some("100000"));
    let receipt = leg.receipt();
    // Each once as a body, and once within the step's input and result.
    let is_twice = |bytes: u64| (200_000..200_200).contains(&bytes);
    assert!(is_twice(receipt.bytes_out) && is_twice(receipt.bytes_in), "{receipt:?}");
    let [request] = &receipt.requests[..] else { panic!("{receipt:?}") };
    assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/orders"));
    assert_eq!((request.status, &request.error), (Some(201), &None));
    assert_eq!((request.bytes_out, request.bytes_in), (100_000, 100_000));
}

/// A request is an effect: what the step follows from has to be on disk before.
#[tokio::test]
async fn nothing_is_sent_while_the_gate_of_the_step_is_shut() {
    let web = Web::start(|_| ok("seen")).await;
    let mut leg = Leg::new(grants_for(&web)).await;
    let gate = leg.gate.clone();
    gate.shut();
    let request = json!({ "url": web.url("/") });
    let mut asked = std::pin::pin!(leg.ask(request));
    let patience = std::time::Duration::from_millis(100);
    assert!(tokio::time::timeout(patience, &mut asked).await.is_err());
    assert_eq!(web.counts().made, 0);
    gate.open();
    assert_eq!(asked.await["body"], "seen");
    assert_eq!(web.heard().len(), 1);
}

#[tokio::test]
async fn a_denied_request_is_an_error_that_the_guest_can_read_and_the_receipt_shows() {
    let web = Web::start(|_| ok("")).await;
    let mut leg = Leg::new(json!({})).await;
    let url = web.url("/x");
    let told = format!(
        "denied: no grant allows GET http://{}; grant it with PUT /admin/v1/modules/egress/grants (`http`)",
        web.address
    );

    let heard = leg.ask(json!({ "url": url })).await;
    assert_eq!((&heard["kind"], &heard["error"]), (&json!("Denied"), &json!(format!("GET {url}: {told}"))));
    assert_eq!(leg.receipt().requests[0].error.as_deref(), Some(told.as_str()));

    match leg.exit("must", json!({ "request": { "url": url } })).await {
        StepExit::Failed(failure) => {
            assert!(failure.message.contains(&told) && !failure.retryable, "{failure:?}")
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(web.counts().made, 0);
}

#[tokio::test]
async fn an_address_that_is_not_granted_is_denied_in_a_guest_too() {
    let web = Web::start(|_| ok("")).await;
    let mut grants = grants_for(&web);
    grants["addresses"] = json!([]);
    let mut leg = Leg::new(grants).await;
    let heard = leg.ask(json!({ "url": web.url("/") })).await;
    let error = heard["error"].as_str().unwrap();
    assert!(error.contains("denied: the address is 127.0.0.1, which is loopback"), "{error}");
    assert_eq!(web.counts().made, 0);
}

#[tokio::test]
async fn a_secret_is_a_placeholder_in_the_guest_and_a_value_at_the_server() {
    let web = Web::start(|_| ok("seen")).await;
    let mut leg = Leg::new(grants_for(&web)).await;
    let found = leg.run("environment", json!({})).await;
    assert_eq!(found, json!({ "KEY": "{{stepbox:secret:KEY}}" }));

    let headers = json!({ "authorization": format!("Bearer {}", found["KEY"].as_str().unwrap()) });
    leg.ask(json!({ "url": web.url("/"), "headers": headers })).await;
    assert_eq!(web.heard()[0].header("authorization"), Some(format!("Bearer {VALUE}").as_str()));
    assert!(!format!("{:?}", leg.receipt()).contains(VALUE));
}

#[tokio::test]
async fn a_handler_that_sends_a_request_is_ended_and_told_where_it_belongs() {
    let web = Web::start(|_| ok("")).await;
    let setup = HandlerSetup { context: context(), limits: Arc::default(), meter: Arc::default() };
    let payload = Json::parse(json!({ "outside": { "url": web.url("/") } }).to_string()).unwrap();
    match bench().await.guest.run(setup, &payload, Box::new(NoCalls)).await {
        GuestExit::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::Misuse);
            assert!(failure.message.contains("send it inside of a step"), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
    assert_eq!(web.counts().made, 0);
}

#[tokio::test]
async fn steps_of_one_leg_use_one_connection() {
    let web = Web::start(|_| ok("")).await;
    let mut leg = Leg::new(grants_for(&web)).await;
    for _ in 0..3 {
        let input = json!({ "request": { "url": web.url("/") }, "times": 10 });
        assert_eq!(leg.run("repeat", input).await, 10);
    }
    assert_eq!((web.counts().made, web.heard().len()), (1, 30));
    assert_eq!(leg.receipt().requests.len(), 10);
    drop(leg);
    web.until_all_are_closed().await;
}

#[tokio::test]
async fn a_bound_is_told_to_the_guest_and_a_server_error_is_worth_a_retry() {
    let web = Web::start(|heard| match heard.line().contains("/large") {
        true => ok(&"x".repeat(2_000)),
        false => web::status("503 Service Unavailable", "retry-after: 7\r\n", "later"),
    })
    .await;
    let mut leg = Leg::with_limits(grants_for(&web), &[(Limit::ResponseBodyMaxBytes, 1_000)]).await;
    let heard = leg.ask(json!({ "url": web.url("/large") })).await;
    assert_eq!(heard["kind"], "OverLimit");
    assert!(heard["error"].as_str().unwrap().contains("responseBodyMaxBytes is 1000"), "{heard}");

    match leg.exit("must", json!({ "request": { "url": web.url("/busy") } })).await {
        StepExit::Failed(failure) => {
            assert!(failure.message.ends_with("the server answered 503: later"), "{failure:?}");
            assert_eq!((failure.retryable, failure.retry_after_ms), (true, Some(7_000)));
        }
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn an_attempt_that_is_dropped_closes_its_connections_and_has_a_receipt() {
    let web = silent().await;
    let mut leg = Leg::new(grants_for(&web)).await;
    let input = json!({ "request": { "url": web.url("/") } });
    tokio::select! {
        exit = leg.exit("ask", input) => panic!("{exit:?}"),
        () = web.until("a connection", |counts| counts.open == 1) => {}
    }
    web.until_all_are_closed().await;
    let noted = leg.receipt().requests.pop().unwrap();
    assert_eq!(noted.error.as_deref(), Some("broken: the attempt ended before there was an answer"));
}

#[tokio::test]
async fn a_request_that_a_step_leaves_behind_does_not_outlive_it() {
    let web = silent().await;
    let mut leg = Leg::new(grants_for(&web)).await;
    leg.run("leave_behind", json!({ "url": web.url("/") })).await;
    web.until_all_are_closed().await;
    assert_eq!(leg.run("environment", json!({})).await["KEY"], "{{stepbox:secret:KEY}}");
}

#[tokio::test]
async fn headers_without_end_end_the_attempt() {
    let mut leg = Leg::new(json!({})).await;
    match leg.exit("fill_headers", json!({})).await {
        StepExit::Failed(failure) => {
            assert_eq!(failure.kind, FailureKind::OverLimit);
            assert!(failure.message.contains("64 KiB"), "{failure:?}");
        }
        other => panic!("{other:?}"),
    }
}

/// An author who sends nothing does not pay for it.
#[tokio::test]
async fn a_guest_that_sends_nothing_does_not_import_http() {
    let folder = tempfile::tempdir().unwrap();
    let config = SandboxConfig::new(folder.path(), Compiler::InProcess);
    let sandbox = Sandbox::new(config, Arc::new(OneSecret)).unwrap();
    for (component, sends) in [(guests::example("approval"), false), (guests::example("webhook"), true)] {
        let inspected = sandbox.inspect(&component).await.unwrap();
        let imports = inspected.imports.iter().any(|import| import.name.starts_with("wasi:http/"));
        assert_eq!(imports, sends, "{:?}", inspected.imports);
    }
}

/// Takes connections and says nothing.
async fn silent() -> Web {
    Web::raw(|mut wire| async move { while wire.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {} })
        .await
}

/// A handler that calls nothing.
struct NoCalls;

#[async_trait]
impl HostCalls for NoCalls {
    async fn step(&mut self, _: StepCall) -> Result<Answer, EndHandler> {
        Err(EndHandler)
    }

    async fn sleep(&mut self, _: StepName, _: Until) -> Result<Answer, EndHandler> {
        Err(EndHandler)
    }

    async fn wait_event(&mut self, _: EventName, _: Option<u64>) -> Result<Answer, EndHandler> {
        Err(EndHandler)
    }

    async fn capture(&mut self, _: StepName, _: Json) -> Result<Answer, EndHandler> {
        Err(EndHandler)
    }
}
