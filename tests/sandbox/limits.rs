//! Each limit of a task: with which words it ends what, and that host and neighbours do not notice.

use std::{collections::BTreeSet, process::Command};

use stepbox_domain::Limit;
use tokio::{io::AsyncWriteExt as _, net::TcpStream};

use crate::harness::{server::Setup, *};

/// A host on which this holds for every task.
async fn server_with(limit: &str) -> Server {
    Setup::default().with("limit", limit).start().await
}

/// Host and neighbours are as they were: another task goes through, and so does the next run of the
/// same one.
async fn assert_unharmed(server: &Server) {
    server.start("neighbour", "raw", &json!({ "calls": [] })).await.expect(201);
    server.result("neighbour").await;
    server.run_script("next", &script([step("charge")])).await;
    assert_eq!(server.result("next").await, json!([{ "attempt": 1 }]));
    assert_eq!(server.get("/readyz").await.status, 200);
}

fn acts(act: Value) -> Value {
    script([step_with("greedy", json!({ "act": act }))])
}

/// What `payload` fails with under `limit`.
async fn failure_with(limit: &str, payload: Value) -> Value {
    let server = server_with(limit).await;
    server.run_script("greedy", &payload).await;
    let failure = server.failure("greedy").await;
    assert_unharmed(&server).await;
    failure
}

#[tokio::test]
async fn memory() {
    for payload in [
        acts(json!({ "allocate": { "bytes": 64 << 20 } })),
        script([json!({ "do": { "allocate": { "bytes": 64 << 20 } } })]),
    ] {
        let failure = failure_with("memoryMaxBytes=33554432", payload).await;
        assert_eq!(failure["kind"], "over_limit");
        let message = failure["message"].as_str().unwrap();
        let end = "bytes of memory; an instance may have 33554432 bytes (32 MiB) in all its memories \
                   (memoryMaxBytes)";
        assert!(message.ends_with(end), "{message}");
    }
}

/// An admin who gives a task more makes room for modules that need it from the start.
#[tokio::test]
async fn an_upload_describes_itself_within_the_memory_of_its_task() {
    // Less than Rust guests begin with.
    let server = server_with("memoryMaxBytes=1048576").await;
    let message = server.upload("wide", guests::raw()).await.error(422, "describe_failed");
    assert!(message.contains("an instance may have 1048576 bytes (1 MiB)"), "{message}");
    let limits = server.request("PUT", "/admin/v1/modules/wide/limits");
    server.send(limits.json(&json!({ "memoryMaxBytes": 64 << 20 }))).await.expect(200);
    server.upload("wide", guests::raw()).await.expect(201);
    server.start("wide", "wide", &json!({ "calls": [] })).await.expect(201);
    server.result("wide").await;
}

#[tokio::test]
async fn tables() {
    let server = server_with("tableMaxElements=100").await;
    server.run_script("greedy", &script([])).await;
    let failure = server.failure("greedy").await;
    assert_eq!(failure["kind"], "over_limit");
    let message = failure["message"].as_str().unwrap();
    assert!(message.ends_with("an instance may have 100 in all its tables (tableMaxElements)"), "{message}");
    assert_eq!(server.get("/readyz").await.status, 200);
}

#[tokio::test]
async fn cpu_time_of_an_attempt() {
    let failure = failure_with("attemptCpuMaxMs=100", acts(json!("spin"))).await;
    assert_eq!((&failure["kind"], &failure["step"]), (&json!("over_limit"), &json!("greedy")));
    assert_eq!(
        failure["message"],
        "the step function `act` was stopped: it computed for more than 100 ms of CPU time (attemptCpuMaxMs)"
    );
}

#[tokio::test]
async fn cpu_time_of_a_leg_of_the_handler() {
    let failure = failure_with("handlerCpuMaxMs=200", script([json!({ "do": "spin" })])).await;
    assert_eq!((&failure["kind"], &failure["step"]), (&json!("over_limit"), &Value::Null));
    assert_eq!(
        failure["message"],
        "the handler was stopped: it computed for more than 200 ms of CPU time (handlerCpuMaxMs); put computing \
         into steps, and note that a handler's clock stands still between two calls"
    );
}

#[tokio::test]
async fn time_by_the_clock_of_a_leg_of_the_handler() {
    let failure = failure_with("handlerWallMaxMs=300", script([json!({ "do": "spin" })])).await;
    assert_eq!(failure["kind"], "over_limit");
    assert_eq!(
        failure["message"],
        "the handler was stopped: it took more than 300 ms by the clock, without what it waited for in calls of \
         the host (handlerWallMaxMs)"
    );
}

#[tokio::test]
async fn time_by_the_clock_of_an_attempt() {
    let server = server_with("attemptWallMaxMs=200").await;
    let naps = json!({ "reallySleep": { "ms": 600_000 } });
    for (id, more) in [("none", json!({})), ("longer", json!({ "timeoutMs": 300_000 }))] {
        let mut naps = json!({ "act": naps });
        naps.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.run_script(id, &script([step_with("naps", naps)])).await;
        let failure = server.failure(id).await;
        assert_eq!(failure["kind"], "over_limit", "{id}");
        assert_eq!(
            failure["message"],
            "step \"naps\" was interrupted in attempt 1: it took more than 200 ms by the clock (attemptWallMaxMs)"
        );
    }
    // Its own timeout, where it comes first, is another matter.
    let naps = json!({ "act": naps, "timeoutMs": 50, "retry": { "attempts": 3 } });
    server.run_script("shorter", &script([step_with("naps", naps)])).await;
    let failure = server.failure("shorter").await;
    assert_eq!(failure["kind"], "timed_out");
    assert_eq!(failure["message"], "step \"naps\" was interrupted in attempt 1: its timeout has passed");
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn sizes_of_values() {
    let server = server_with("valueMaxBytes=2048").await;
    let huge = json!({ "huge": { "bytes": 3_000 } });
    server.run_script("step", &acts(huge.clone())).await;
    server.run_script("handler", &script([json!({ "do": huge })])).await;
    let end =
        "a value may have 2048 bytes (valueMaxBytes): keep large data elsewhere and pass a reference to it";
    for (id, begin) in [
        ("step", "the result of the step function `act` has 3002 bytes; "),
        ("handler", "the result of the handler has 3004 bytes; "),
    ] {
        let failure = server.failure(id).await;
        assert_eq!(failure["kind"], "over_limit", "{id}");
        assert_eq!(failure["message"], format!("{begin}{end}"));
    }
    let answer = server
        .start("payload", "scenario", &script([json!({ "print": { "text": "x".repeat(2_048) } })]))
        .await;
    let message = answer.error(413, "too_large");
    assert!(
        message.contains("a value of task \"scenario\" may have 2048 bytes (valueMaxBytes)"),
        "{message}"
    );
    server.run_script("event", &script([wait_event("go")])).await;
    let answer = server.event("event", "go", &json!("x".repeat(2_047))).await;
    let message = answer.error(413, "too_large");
    assert_eq!(
        message,
        "the event has 2049 bytes; a value of task \"scenario\" may have 2048 bytes (valueMaxBytes): keep large \
         data elsewhere and pass a reference to it, or raise the limit with PUT \
         /admin/v1/modules/scenario/limits"
    );
    assert_eq!(answer.json()["maxBytes"], 2_048);
    server.event("event", "other", &json!("x".repeat(2_046))).await.expect(202);
    server.event("event", "go", &Value::Null).await.expect(202);
    server.result("event").await;
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn output() {
    let server = server_with("outputMaxBytes=1000").await;
    let flood = json!({ "flood": { "lines": 1_000 } });
    server
        .run_script("floods", &script([step_with("s", json!({ "act": flood })), json!({ "do": flood })]))
        .await;
    server.result("floods").await;
    let told = server.written("floods", "more than 1000 bytes of output: the rest is dropped");
    assert_eq!(told.len(), 2, "once for the attempt, once for the leg");
    assert!(server.written("floods", "flood ").len() < 60);
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn steps_of_a_run() {
    let forever = json!({ "repeat": { "times": 1_000_000, "lines": [step("bomb")] } });
    let failure = failure_with("stepsMax=20", script([forever])).await;
    assert_eq!(failure["kind"], "over_limit");
    assert_eq!(
        failure["message"],
        "the run made more than 20 durable calls, the limit of its task (stepsMax); \"bomb#21\" was one too many"
    );
}

#[tokio::test]
async fn calls_of_the_host() {
    let flood = json!({ "flood": { "lines": 100_000 } });
    let failure = failure_with("hostCallsPerSecondMax=2000", acts(flood.clone())).await;
    assert_eq!(failure["kind"], "over_limit");
    assert_eq!(
        failure["message"],
        "the step function `act` was stopped: it called the host more than 2000 times in a second \
         (hostCallsPerSecondMax)"
    );
    let failure = failure_with("hostCallsPerSecondMax=2000", script([json!({ "do": flood })])).await;
    assert_eq!(failure["kind"], "over_limit");
}

#[tokio::test]
async fn runs_of_a_task_at_the_same_time() {
    let server = server_with("liveMax=1").await;
    let naps = acts(json!({ "reallySleep": { "ms": 600_000 } }));
    server.run_script("first", &naps).await;
    server.until_effect("first", "greedy 1").await;
    let queued: Vec<String> = (0..50).map(|n| format!("queued-{n}")).collect();
    for id in &queued {
        server.run_script(id, &script([step("charge")])).await;
    }
    for id in &queued {
        let execution = server.execution(id).await;
        assert_eq!(execution["waitingFor"], json!({ "type": "capacity", "liveMax": 1 }), "{execution}");
        assert_eq!(execution["status"], "scheduled");
    }
    let message = server.wait("queued-0", "0").await.any_error(504);
    assert!(
        message.contains("no more than 1 runs of its task go on at the same time (liveMax)"),
        "{message}"
    );
    // Another task is none the worse for it.
    server.start("neighbour", "raw", &json!({ "calls": [] })).await.expect(201);
    server.result("neighbour").await;

    server.cancel("queued-1").await.expect_empty(204);
    server.cancel("first").await.expect_empty(204);
    for id in queued.iter().filter(|id| *id != "queued-1") {
        server.result(id).await;
    }
    assert_eq!(server.execution("queued-1").await["status"], "cancelled");
}

#[tokio::test]
async fn runs_that_stand_still_with_their_instance() {
    let server = server_with("parkedMax=0").await;
    server.run_script("naps", &script([sleep("nap", 20), step("charge")])).await;
    server.result("naps").await;
    let suspended = |metrics: &String| metrics.lines().any(|line| line == "stepbox_runs_suspended_total 1");
    until("it was suspended", async || server.get("/metrics").await.text, suspended).await;
}

/// What a task's guests took is counted by task.
#[tokio::test]
async fn what_guests_took_is_shown_by_task() {
    let server = Server::start().await;
    server.run_script("computes", &acts(json!({ "compute": { "rounds": 1_000_000 } }))).await;
    server.result("computes").await;
    // A leg is counted when it is over, which is a moment after its run.
    let counted = |metrics: &String| {
        ["handler", "steps"].iter().all(|part| {
            let begin = format!("stepbox_guest_cpu_seconds_total{{task=\"scenario\",part=\"{part}\"}} ");
            let seconds = metrics.lines().find_map(|line| line.strip_prefix(&begin));
            seconds.is_some_and(|seconds| seconds.parse::<f64>().unwrap() > 0.0)
        })
    };
    until("both parts are counted", async || server.get("/metrics").await.text, counted).await;
}

/// However many compute without end, those that are short and the API do not wait for them.
#[tokio::test]
async fn a_hundred_endless_loops_leave_room_for_others() {
    let server = Server::start().await;
    for n in 0..50 {
        server.run_script(&format!("step-{n}"), &acts(json!("spin"))).await;
        server.run_script(&format!("handler-{n}"), &script([json!({ "do": "spin" })])).await;
    }
    for n in 0..5 {
        server.until_effect(&format!("step-{n}"), "greedy 1").await;
    }
    assert_unharmed(&server).await;
    for n in 0..50 {
        server.cancel(&format!("step-{n}")).await;
        server.cancel(&format!("handler-{n}")).await;
    }
    let stats = server.stats().await;
    assert_eq!(stats["running"], 0, "{stats}");
}

/// Half a MB of loops, at each of which all of a thousand locals may have changed.
fn bomb() -> Vec<u8> {
    let locals = " i32".repeat(1_000);
    let loops: String = (0..40_000)
        .map(|n| {
            format!(
                "(loop (local.set {0} (i32.add (local.get {0}) (i32.const 1))) (br_if 0 (local.get 0)))",
                n % 1_000
            )
        })
        .collect();
    guests::wat(&format!("(component (core module (func (param i32) (local {locals}) {loops})))"))
}

#[tokio::test]
async fn compiling() {
    let server = Setup::default().with("compile-cpu-max-s", 1).start().await;
    let message = server.upload("bomb", bomb()).await.error(422, "compile_limit");
    assert_eq!(
        message,
        "the module is refused: the component takes too much to compile: more than 1 s of CPU time"
    );
    server.get("/admin/v1/modules/bomb").await.error(404, "unknown_module");
    assert_unharmed(&server).await;
}

#[tokio::test]
async fn uploads_under_way() {
    let server = Setup::default().with("uploads-max", 1).start().await;
    let head = "PUT /admin/v1/modules/slow HTTP/1.1\r\nhost: x\r\ncontent-type: application/wasm\r\n\
                content-length: 1000000\r\n\r\n\0asm";
    let upload = || server.upload("scenario", guests::scenario());
    // Whoever of the two comes second is refused, the slow one too: then there is another slow one.
    let mut slow = Vec::new();
    let slow_then_upload = async || {
        let mut another = TcpStream::connect(server.address()).await.unwrap();
        another.write_all(head.as_bytes()).await.unwrap();
        slow.push(another);
        upload().await
    };
    let answer =
        until("the one that is slow has its place", slow_then_upload, |answer| answer.status == 503).await;
    let message = answer.error(503, "too_many_uploads");
    assert!(message.starts_with("as many uploads are under way as may be: 1 (--uploads-max"), "{message}");
    assert!(answer.header("retry-after").is_some());
    drop(slow);
    until("its place is free again", async || upload().await, |answer| answer.status == 200).await;
}

/// What the program says when it is started so, and does not serve.
fn refused_start(arguments: &[&str]) -> String {
    let folder = tempfile::tempdir().unwrap();
    let mut stepbox = Command::new(env!("CARGO_BIN_EXE_stepbox"));
    stepbox.arg("serve").arg("--data").arg(folder.path()).args(arguments);
    let output = stepbox.output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
    String::from_utf8(output.stderr).unwrap()
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_at_the_start() {
    let said = refused_start(&["--limit", "stepsMax=300000"]);
    assert!(said.contains("stepsMax may be 200000 at most on this host, this is 300000"), "{said}");
    let said = refused_start(&["--limit", "steps=1"]);
    assert!(said.contains("there is no limit \"steps\"; there are memoryMaxBytes,"), "{said}");
    let said = refused_start(&["--ceiling", "memoryMaxBytes=8589934592"]);
    assert!(said.contains("4 GiB"), "{said}");
    let said = refused_start(&["--without-limits-for-bench", "--listen", "0.0.0.0:0"]);
    assert!(said.contains("lets every guest hurt this host"), "{said}");
}

/// docs/limits.md has every limit of a task, with the numbers that hold, and every option of the
/// host that is one.
#[test]
fn the_page_on_limits_is_true() {
    let page = std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../docs/limits.md")).unwrap();
    for limit in Limit::ALL {
        let (default, ceiling) = (limit.default_value(), limit.default_ceiling());
        let row = format!("| `{limit}` | {default} | {ceiling} | {} | ", limit.least());
        assert!(page.lines().any(|line| line.starts_with(&row)), "docs/limits.md lacks {row:?}");
    }
    let help = Command::new(env!("CARGO_BIN_EXE_stepbox")).args(["serve", "--help"]).output().unwrap();
    let help = String::from_utf8(help.stdout).unwrap();
    let options = |text: &str| -> BTreeSet<String> {
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '-'));
        words.filter(|word| word.starts_with("--") && word.contains("-max")).map(str::to_owned).collect()
    };
    let (there, shown) = (options(&help), options(&page));
    assert!(there.len() > 8, "{there:?}");
    assert_eq!(shown, there, "docs/limits.md shows other options than `stepbox serve --help`");
}
