//! Requests to every route of a running host: mutated, and some that are no HTTP at all.

use std::{path::Path, process::Stdio, time::Duration};

use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    process::{Child, Command},
    time::timeout,
};

use super::{
    dice::Dice,
    http::{Connection, Response},
    json as any_json,
    run::Run,
    wat_guest::WatGuest,
};

pub async fn fuzz(run: &mut Run) {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let (mut host, address) = start(folder.path()).await;
    let mut connection = Connection::new(&address);
    prepare(&mut connection).await;
    while let Some((number, mut dice)) = run.next() {
        let thrown = request(&mut dice);
        match answered(&mut connection, &thrown).await {
            Ok(outcome) => run.count(outcome),
            Err(broken) => {
                run.found(number, &broken, &thrown.bytes);
                connection.close();
            }
        }
        if number % 50 == 0
            && let Err(broken) = ready(&mut connection).await
        {
            run.found(number, &broken, &thrown.bytes);
        }
        if let Ok(Some(status)) = host.try_wait() {
            run.found(number, &format!("the host has ended: {status}"), &thrown.bytes);
            (host, connection) = {
                let (host, address) = start(folder.path()).await;
                (host, Connection::new(&address))
            };
        }
    }
    if let Err(broken) = ready(&mut connection).await {
        run.found(u64::MAX, &format!("at the end: {broken}"), b"");
    }
    let log = std::fs::read_to_string(folder.path().join("log")).unwrap_or_default();
    for line in log.lines().filter(|line| line.contains("panicked") || line.contains("ERROR")) {
        run.found(u64::MAX, "the host's log has an error", line.as_bytes());
    }
}

async fn start(folder: &Path) -> (Child, String) {
    let log = std::fs::File::options()
        .create(true)
        .append(true)
        .open(folder.join("log"))
        .expect("a file can be made");
    let exe = std::env::current_exe().expect("this program has a path");
    let mut host = Command::new(exe)
        .args(["serve", "--listen", "127.0.0.1:0", "--log", "warn", "--body-max-bytes", "100000", "--data"])
        .arg(folder.join("data"))
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(log)
        .kill_on_drop(true)
        .spawn()
        .expect("the host can be started");
    let stdout = host.stdout.take().expect("it has one");
    let mut lines = BufReader::new(stdout).lines();
    let said = timeout(Duration::from_secs(60), lines.next_line()).await;
    let line = said.ok().and_then(Result::ok).flatten().unwrap_or_default();
    let address =
        line.strip_prefix("stepbox listens on http://").unwrap_or_else(|| panic!("the host says {line:?}"));
    (host, address.to_owned())
}

/// Modules and executions that the requests can be about.
async fn prepare(connection: &mut Connection) {
    let waits = r#"$"go" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-event call $answer"#;
    let fails = r#"$"no" call $err"#;
    for (task, guest) in [
        ("echo", WatGuest::default()),
        ("waits", WatGuest::default().run(waits)),
        ("fails", WatGuest::default().run(fails)),
    ] {
        let sent =
            Thrown::new("PUT", &format!("/admin/v1/modules/{task}"), "application/wasm", &guest.build());
        let answer = connection.exchange(&sent.bytes, false).await;
        let is_taken = matches!(&answer, Ok(Some(response)) if response.status == 201);
        assert!(is_taken, "the module {task} is not taken: {answer:?}");
        for n in 0..3 {
            let body =
                json!({ "executionId": format!("{task}-{n}"), "taskName": task, "payload": n }).to_string();
            let sent = Thrown::new("POST", "/api/v1/executions", "application/json", body.as_bytes());
            let answer = connection.exchange(&sent.bytes, false).await;
            assert!(matches!(&answer, Ok(Some(response)) if response.status == 201), "{answer:?}");
        }
    }
}

async fn ready(connection: &mut Connection) -> Result<(), String> {
    let asked = Thrown::new("GET", "/readyz", "", b"");
    match connection.exchange(&asked.bytes, false).await {
        Ok(Some(response)) if response.status == 200 => Ok(()),
        other => Err(format!("the host is not ready: {other:?}")),
    }
}

struct Thrown {
    bytes: Vec<u8>,
    is_head: bool,
    /// It is HTTP, so that an answer is owed.
    is_whole: bool,
    route: &'static str,
}

impl Thrown {
    fn new(method: &str, path: &str, kind: &str, body: &[u8]) -> Thrown {
        let mut bytes = format!("{method} {path} HTTP/1.1\r\nhost: fuzz\r\n").into_bytes();
        if !kind.is_empty() {
            bytes.extend(format!("content-type: {kind}\r\n").bytes());
        }
        bytes.extend(format!("content-length: {}\r\n\r\n", body.len()).bytes());
        bytes.extend(body);
        Thrown { bytes, is_head: method == "HEAD", is_whole: true, route: "" }
    }
}

async fn answered(connection: &mut Connection, thrown: &Thrown) -> Result<String, String> {
    if !thrown.is_whole {
        let answer = connection.exchange_and_end(&thrown.bytes).await;
        connection.close();
        return match answer {
            Ok(Some(response)) if response.status >= 500 => Err(format!("no HTTP, and {response:?}")),
            Ok(_) => Ok("no HTTP".to_owned()),
            // Damaged or not, it may still be a HEAD, whose answer has no body.
            Err(_) if thrown.bytes.starts_with(b"HEAD ") => Ok("no HTTP".to_owned()),
            Err(error) => Err(error.to_string()),
        };
    }
    let answer = connection.exchange(&thrown.bytes, thrown.is_head).await;
    match answer {
        Err(error) => Err(error.to_string()),
        Ok(None) => Err("closed without an answer".to_owned()),
        Ok(Some(response)) => {
            check(&response, thrown.is_head)?;
            Ok(format!("{} {}", thrown.route, response.status))
        }
    }
}

fn check(response: &Response, is_head: bool) -> Result<(), String> {
    let said = || format!("{}{}", response.head, String::from_utf8_lossy(&response.body));
    if matches!(response.status, 500..=503 | 505..) {
        return Err(format!("{}: {}", response.status, said()));
    }
    if response.status < 400 || is_head {
        return Ok(());
    }
    let body: Value =
        serde_json::from_slice(&response.body).map_err(|error| format!("{error}: {}", said()))?;
    let words = body["error"].as_str().unwrap_or_default();
    let has_code = body["code"].as_str().is_some_and(|code| !code.is_empty());
    if words.len() < 10 || words.len() > 10_000 || !has_code {
        return Err(format!("an error without words or code, or with too many: {}", said()));
    }
    Ok(())
}

/// Every route, its methods, what its query and its body may have. `{id}` and the like are filled in.
fn routes() -> Vec<(&'static str, &'static str, &'static str, Value)> {
    let who = json!({ "triggeredBy": "fuzz", "reason": "to see" });
    let merged = |more: Value| {
        let mut all = who.clone();
        for (name, value) in more.as_object().into_iter().flatten() {
            all[name] = value.clone();
        }
        all
    };
    vec![
        (
            "POST",
            "/api/v1/executions",
            "",
            json!({ "executionId": "new", "taskName": "echo", "payload": { "a": [1] } }),
        ),
        (
            "GET",
            "/api/v1/executions",
            "status=running&taskName=echo&from=2026-01-01T00:00:00Z&search=e&sortBy=status&sortOrder=desc&limit=5&offset=1",
            Value::Null,
        ),
        ("GET", "/api/v1/executions/{id}", "", Value::Null),
        ("POST", "/api/v1/executions/{id}/cancel", "", Value::Null),
        ("GET", "/api/v1/executions/{id}/wait", "timeoutSecs=0", Value::Null),
        ("POST", "/api/v1/events/{id}/{name}", "", json!({ "last": true })),
        ("GET", "/api/v1/stats", "", Value::Null),
        ("GET", "/healthz", "", Value::Null),
        ("GET", "/readyz", "", Value::Null),
        ("GET", "/metrics", "", Value::Null),
        ("GET", "{admin}/executions/{id}/detail", "runId=echo-0:run:0&limit=3&offset=0", Value::Null),
        ("GET", "{admin}/executions/{id}/runs", "", Value::Null),
        ("GET", "{admin}/executions/{id}/logs", "level=info&limit=3", Value::Null),
        (
            "POST",
            "{admin}/executions/{id}/retry-step",
            "dryRun=true",
            merged(json!({ "stepName": "charge" })),
        ),
        ("POST", "{admin}/executions/{id}/steps/{name}/resolve", "", merged(json!({ "result": 1 }))),
        ("POST", "{admin}/executions/{id}/restart", "", merged(json!({ "payload": 1 }))),
        (
            "POST",
            "{admin}/executions/{id}/rerun",
            "",
            merged(json!({ "rerunSteps": ["a"], "preserveSteps": ["b"] })),
        ),
        (
            "POST",
            "{admin}/pause",
            "",
            merged(
                json!({ "executionId": "echo-1", "taskName": "echo", "stepPattern": "ch*", "expiresAt": "2100-01-01T00:00:00Z" }),
            ),
        ),
        ("GET", "{admin}/pause", "includeDeleted=true", Value::Null),
        ("DELETE", "{admin}/pause/{name}", "", Value::Null),
        ("POST", "{admin}/resume", "", merged(json!({ "taskName": "echo" }))),
        ("GET", "{admin}/failures", "taskName=fails", Value::Null),
        (
            "POST",
            "{admin}/bulk",
            "",
            merged(
                json!({ "action": "retry", "filter": { "taskName": "fails" }, "canaries": 1, "perSecond": 5 }),
            ),
        ),
        ("GET", "{admin}/bulk", "", Value::Null),
        ("GET", "{admin}/bulk/{name}", "", Value::Null),
        ("POST", "{admin}/bulk/{name}/cancel", "", Value::Null),
        ("GET", "{admin}/audit", "limit=3", Value::Null),
        ("GET", "{admin}/modules", "", Value::Null),
        ("PUT", "{admin}/modules/{task}", "", json!("not a component")),
        ("GET", "{admin}/modules/{task}", "", Value::Null),
        ("DELETE", "{admin}/modules/{name}", "", Value::Null),
        ("GET", "{admin}/modules/{task}/versions", "", Value::Null),
        ("POST", "{admin}/modules/{task}/versions/1/activate", "", Value::Null),
        ("GET", "{admin}/modules/{task}/grants", "", Value::Null),
        (
            "PUT",
            "{admin}/modules/{task}/grants",
            "",
            json!({ "http": [{ "host": "api.example.com", "methods": ["GET"] }], "addresses": ["10.0.0.0/8"], "secrets": { "KEY": ["api.example.com"] }, "env": { "LEVEL": "info" } }),
        ),
        ("GET", "{admin}/modules/{task}/limits", "", Value::Null),
        ("PUT", "{admin}/modules/{task}/limits", "", json!({ "memoryMaxBytes": 1_000_000, "stepsMax": 100 })),
        ("PUT", "{admin}/secrets/{name}", "", json!({ "value": "hush" })),
        ("GET", "{admin}/secrets", "", Value::Null),
        ("DELETE", "{admin}/secrets/{name}", "", Value::Null),
    ]
}

fn request(dice: &mut Dice) -> Thrown {
    let mut routes = routes();
    let (method, route, query, mut body) = routes.swap_remove(dice.below(routes.len()));
    let segment = |dice: &mut Dice, usual: &[&str]| match dice.one_in(5) {
        true => encoded(&dice.text()),
        false => dice.pick(usual).to_owned(),
    };
    let mut path = route.replace("{admin}", dice.pick(&["/admin/v1", "/zart/admin/v1"]));
    path = path.replace(
        "{id}",
        &segment(dice, &["echo-0", "waits-0", "waits-1", "fails-0", "fails-1", "new", "none"]),
    );
    path = path.replace("{name}", &segment(dice, &["go", "charge", "charge%232", "none", "KEY"]));
    path = path.replace("{task}", &segment(dice, &["echo", "waits", "fails", "none"]));
    if dice.one_in(30) {
        path += dice.pick(&["/", "//", "/..", "/%2e%2e", "%zz", "/a/b/c", ";a=b"]);
    }
    if !query.is_empty() && dice.one_in(2) || dice.one_in(20) {
        path += &format!("?{}", mutated_query(dice, query));
    }
    // Who waits keeps the connection; the rest has no patience for that.
    if route.ends_with("/wait") && !path.contains("timeoutSecs=0") {
        path = format!("{}?timeoutSecs=0", path.split('?').next().unwrap_or_default());
    }
    // And who follows never ends.
    path = path.replace("follow", "fellow");
    let method = if dice.one_in(12) {
        dice.pick(&["GET", "POST", "PUT", "DELETE", "PATCH", "HEAD", "OPTIONS", "TRACE", "BREW"])
    } else {
        method
    };
    let kind = match dice.below(12) {
        0 => dice.pick(&[
            "text/plain",
            "application/xml",
            "application/json; charset=latin1",
            "application/wasm",
            "/",
            "json",
        ]),
        _ if route.ends_with("modules/{task}") => "application/wasm",
        _ => "application/json",
    };
    let bytes = if body.is_null() && !dice.one_in(10) {
        Vec::new()
    } else {
        if !dice.one_in(3) {
            any_json::mutate(dice, &mut body);
        }
        let mut bytes = any_json::text(dice, &body).into_bytes();
        if dice.one_in(20) {
            dice.mutate(&mut bytes, &[]);
        }
        bytes
    };
    let mut thrown = Thrown::new(method, &path, kind, &bytes);
    thrown.route = route;
    if dice.one_in(25) {
        let mut end = thrown.bytes.len();
        if dice.one_in(2) {
            end = thrown.bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap_or(end);
        }
        let mut head = thrown.bytes[..end].to_vec();
        dice.mutate(&mut head, &[]);
        return Thrown { bytes: head, is_head: false, is_whole: false, route: "" };
    }
    thrown
}

fn mutated_query(dice: &mut Dice, query: &str) -> String {
    let mut pairs: Vec<String> = query.split('&').map(str::to_owned).collect();
    for pair in &mut pairs {
        if dice.one_in(4) {
            let name = pair.split('=').next().unwrap_or_default();
            *pair = format!("{name}={}", encoded(&dice.text()));
        }
    }
    match dice.below(8) {
        0 => pairs.push(pairs[0].clone()),
        1 => pairs.push(format!("{}={}", encoded(&dice.text()), dice.number())),
        2 => pairs.push("limit=-1".to_owned()),
        3 => pairs.push("=&&%00%ff".to_owned()),
        _ => {}
    }
    pairs.join("&")
}

/// As one segment, so that what is sent is HTTP.
fn encoded(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~".contains(&byte);
    let text: String = text.chars().take(2_000).collect();
    text.bytes()
        .map(|byte| if plain(byte) { char::from(byte).to_string() } else { format!("%{byte:02X}") })
        .collect()
}
