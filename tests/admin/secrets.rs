//! Secrets: kept encrypted, never shown, there after whatever befalls the host.

use std::{
    io::Write as _,
    path::Path,
    process::{Command, Output, Stdio},
    sync::Arc,
};

use base64::Engine as _;
use stepbox::{
    engine::clock::Clock,
    sandbox::Secrets as _,
    store::sqlite::{self, StoreConfig},
    vault::{KEY_VARIABLE, SecretsKey, Vault},
};
use stepbox_domain::capability::SecretName;

use crate::harness::{
    server::Setup,
    web::{self, Web},
    *,
};

const VALUE: &str = "hunter2-hunter2-hunter2";

fn new_key() -> String {
    SecretsKey::generate().to_text().to_string()
}

async fn grant(server: &Client, task: &str, grants: &Value) {
    let put = server.request("PUT", &format!("/admin/v1/modules/{task}/grants?triggeredBy=ann"));
    server.send(put.json(grants)).await.expect(200);
}

/// The grants with which a task may send requests to these servers, and the secret to the first only.
fn for_the_first(webs: [&Web; 2], secret: &str) -> Value {
    let rules = webs.map(
        |web| json!({ "scheme": "http", "host": web.address.ip().to_string(), "port": web.address.port() }),
    );
    json!({
        "http": rules,
        "addresses": webs.map(|web| web.address.ip().to_string()),
        "secrets": { secret: [webs[0].address.ip().to_string()] },
    })
}

/// Steps that send the secret `bank` to `url` in all the ways that there are.
fn sends(url: &str) -> Value {
    let headers = json!({
        "authorization": "Bearer {{stepbox:secret:bank}}",
        "x-basic": "Basic {{stepbox:basic:ann:bank}}",
    });
    json!({ "method": "POST", "url": url, "headers": headers, "body": "{{stepbox:secret:bank}}" })
}

async fn set(server: &Client, name: &str, value: &str) -> Answer {
    let request = server.request("PUT", &format!("/admin/v1/secrets/{name}"));
    server.send(request.header("content-type", "text/plain").body(value.to_owned())).await
}

/// `stepbox secret …`, given `stdin`.
fn command(server: &Server, arguments: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepbox"));
    command.arg("secret").args(arguments);
    if arguments != ["keygen"] {
        command.args(["--url", &format!("http://{}", server.address())]);
    }
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn said(output: &Output) -> String {
    String::from_utf8([&output.stdout[..], &output.stderr[..]].concat()).unwrap()
}

/// The files under `folder` that have `text` in them.
fn files_with(folder: &Path, text: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(files_with(&path, text));
        } else if std::fs::read(&path).unwrap().windows(text.len()).any(|part| part == text) {
            found.push(path.display().to_string());
        }
    }
    found
}

/// What a host with this key would reveal, from the data of one that does not run.
async fn revealed(data: &Path, key: &str, names: &[String]) -> Vec<Option<String>> {
    let store =
        sqlite::open(&StoreConfig { data_dir: data.to_owned(), readers: 1, log_bytes: 0 }).await.unwrap();
    let key = SecretsKey::parse(key).unwrap();
    let vault = Vault::open(Arc::clone(&store), Some(key), Clock::system()).await.unwrap();
    let reveal =
        |name: &String| vault.reveal(&SecretName::parse(name).unwrap()).map(|value| value.to_string());
    let values = names.iter().map(reveal).collect();
    store.close().await;
    values
}

/// What nobody must find anywhere: the value as it is, and as it goes out in Basic authentication.
fn forms_of_the_value() -> [String; 2] {
    let basic = base64::engine::general_purpose::STANDARD.encode(format!("ann:{VALUE}"));
    ["hunter2".to_owned(), basic]
}

#[tokio::test]
async fn no_value_is_in_any_file_answer_or_line_of_the_log() {
    let bank = Web::start(|_| web::ok("paid")).await;
    let stranger = Web::start_on("127.0.0.2:0", |_| web::ok("paid")).await;
    let key = new_key();
    let mut server = Setup::default().with_variable(KEY_VARIABLE, &key).start().await;
    let mut seen = vec![set(&server, "bank?triggeredBy=ann", VALUE).await.text];
    // Whatever goes wrong with a value, too.
    seen.push(set(&server, "bank", &format!("{VALUE}\n{VALUE}")).await.text);
    seen.push(set(&server, "bank", &VALUE.repeat(1_000)).await.text);
    seen.push(set(&server, "no%20name", VALUE).await.text);
    let as_json = server.post_json("/admin/v1/secrets/bank", &json!({ "value": VALUE })).await;
    seen.push(as_json.text);
    // A run sees none of it, in its environment for one, nor does what fails in it.
    let looks = json!({ "inTurn": { "acts": ["environment"] } });
    server
        .run_script(
            "o-1",
            &script([
                step_with("looks", json!({ "act": looks })),
                settle(
                    "panics",
                    json!({
            "act": { "panic": { "message": "as asked" } } }),
                ),
            ]),
        )
        .await;
    server.over("o-1").await;
    // A step sends it to whom it is granted for, who gets it, and to another, who hears nothing.
    server.upload("egress", guests::egress()).await.expect(201);
    grant(&server, "egress", &for_the_first([&bank, &stranger], "bank")).await;
    let plan = json!({ "requests": [sends(&bank.url("/pay")), sends(&stranger.url("/pay"))] });
    server.start("s-1", "egress", &plan).await.expect(201);
    let heard = server.result("s-1").await;
    assert_eq!((&heard[0]["status"], &heard[1]["kind"]), (&json!(200), &json!("Denied")), "{heard}");
    let [told] = &bank.heard()[..] else { panic!("{:?}", bank.heard()) };
    let [plain, basic] = forms_of_the_value();
    assert_eq!(told.header("authorization"), Some(format!("Bearer {VALUE}").as_str()));
    assert_eq!(told.header("x-basic"), Some(format!("Basic {basic}").as_str()));
    assert_eq!(told.body, b"{{stepbox:secret:bank}}", "a body is sent as the guest wrote it");
    assert_eq!(stranger.counts().made, 0, "{:?}", stranger.heard());
    seen.push(heard.to_string());
    for path in [
        "/admin/v1/secrets",
        "/zart/admin/v1/secrets",
        "/admin/v1/audit",
        "/admin/v1/modules",
        "/metrics",
        "/admin/v1/executions/o-1/detail",
        "/admin/v1/executions/o-1/logs",
        "/api/v1/executions/o-1",
        "/admin/v1/executions/s-1/detail",
        "/admin/v1/executions/s-1/logs",
        "/admin/v1/executions/s-1/runs",
        "/api/v1/executions/s-1",
        "/admin/v1/modules/egress/grants",
        "/admin/v1/failures",
        "/admin/v1/secrets/bank",
        "/readyz",
    ] {
        seen.push(server.get(path).await.text);
    }
    let listed = command(&server, &["list"], "");
    let line = said(&listed);
    assert!(line.starts_with("bank  set 20") && line.ends_with("granted to egress\n"), "{line}");
    seen.push(said(&listed));
    assert!(server.terminate().await.success());
    server.restart();
    server.kill_9();
    seen.push(server.log_text());
    for hidden in [&plain, &basic, &key] {
        assert_eq!(seen.iter().find(|text| text.contains(hidden.as_str())), None);
        assert_eq!(files_with(server.data().parent().unwrap(), hidden.as_bytes()), [] as [&str; 0]);
    }
    // It is there, all the same.
    assert_eq!(revealed(&server.data(), &key, &["bank".to_owned()]).await, [Some(VALUE.to_owned())]);
}

/// As long as a grant names it, and no longer; whoever has the secret set is told with it.
#[tokio::test]
async fn the_list_says_which_tasks_are_granted_it() {
    let server = Setup::default().with_variable(KEY_VARIABLE, &new_key()).start().await;
    let granted_to = async || -> Value {
        let listed = server.get("/admin/v1/secrets").await.expect(200);
        listed[0]["grantedTo"].clone()
    };
    // Before it is set, too: an admin may grant first.
    grant(&server, "scenario", &json!({ "secrets": { "bank": ["api.example.com"] } })).await;
    assert_eq!(set(&server, "bank", VALUE).await.expect(201)["grantedTo"], json!(["scenario"]));
    grant(&server, "raw", &json!({ "secrets": { "bank": ["b.example.com"], "till": ["*"] } })).await;
    assert_eq!(granted_to().await, json!(["raw", "scenario"]));
    grant(&server, "scenario", &json!({})).await;
    assert_eq!(granted_to().await, json!(["raw"]));
    server.delete("/admin/v1/modules/raw").await.expect_empty(204);
    assert_eq!(granted_to().await, json!([]));
    assert_eq!(server.delete("/admin/v1/secrets/bank").await.expect(200)["grantedTo"], json!([]));
}

#[tokio::test]
async fn without_a_key_the_host_runs_and_says_what_to_do() {
    let server = Server::start().await;
    let refused = set(&server, "bank", VALUE).await.error(409, "no_secrets_key");
    assert!(refused.contains("STEPBOX_SECRETS_KEY") && refused.contains("keygen"), "{refused}");
    assert_eq!(server.get("/admin/v1/secrets").await.expect(200), json!([]));
    server.delete("/admin/v1/secrets/bank").await.error(404, "unknown_secret");
    server.play("o-1", &script([step("a")])).await;
}

#[tokio::test]
async fn with_another_key_the_host_does_not_start_and_with_none_the_secret_can_go() {
    let folder = tempfile::TempDir::new().unwrap();
    let file = folder.path().join("key");
    std::fs::write(&file, format!("{}\n", new_key())).unwrap();
    let mut server = Setup::default().with("secrets-key-file", file.display()).start().await;
    set(&server, "bank", VALUE).await.expect(201);
    assert!(server.terminate().await.success());

    let key = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, new_key()).unwrap();
    assert!(!server.try_restart().expect_err("another key").success());
    let said = server.log_text();
    assert!(said.contains("the secret \"bank\" was sealed with another key"), "{said}");
    std::fs::write(&file, "hunter2").unwrap();
    assert!(!server.try_restart().expect_err("no key").success());
    assert!(!server.log_text().contains("hunter2"), "a key that is none is not repeated");

    std::fs::write(&file, key.trim()).unwrap();
    server.restart();
    assert_eq!(server.get("/admin/v1/secrets").await.expect(200)[0]["usable"], true);
    // Given twice, nobody knows which is meant.
    assert!(server.terminate().await.success());
    server.set_variables(&[(KEY_VARIABLE, &key)]);
    assert!(!server.try_restart().expect_err("two keys").success());
    assert!(server.log_text().contains("is given twice"));
}

#[tokio::test]
async fn a_host_that_lost_its_key_still_lists_and_deletes() {
    let mut server = Setup::default().with_variable(KEY_VARIABLE, &new_key()).start().await;
    set(&server, "bank", VALUE).await.expect(201);
    assert!(server.terminate().await.success());
    server.set_variables(&[]).restart();
    let listed = server.get("/admin/v1/secrets").await.expect(200);
    assert_eq!((&listed[0]["name"], &listed[0]["usable"]), (&json!("bank"), &json!(false)));
    set(&server, "bank", VALUE).await.error(409, "no_secrets_key");
    server.delete("/admin/v1/secrets/bank?triggeredBy=ann").await.expect(200);
    assert_eq!(server.get("/admin/v1/secrets").await.expect(200), json!([]));
}

#[tokio::test]
async fn the_command_line_sets_lists_and_deletes() {
    let server = Setup::default().with_variable(KEY_VARIABLE, &new_key()).start().await;
    let keygen = command(&server, &["keygen"], "");
    assert!(SecretsKey::parse(&said(&keygen)).is_ok());

    let set = command(&server, &["set", "bank", "--triggered-by", "ann & bob"], &format!("{VALUE}\n"));
    assert_eq!((said(&set).as_str(), set.status.code()), ("the secret \"bank\" is set\n", Some(0)));
    let again = command(&server, &["set", "bank"], VALUE);
    assert_eq!(said(&again), "the secret \"bank\" is replaced\n");
    let (entries, _) = server.audit("?action=set_secret&actor=ann%20%26%20bob").await;
    assert_eq!(entries.len(), 1, "{entries:?}");
    let listed = said(&command(&server, &["list"], ""));
    assert!(listed.starts_with("bank  set 20") && listed.lines().count() == 1, "{listed}");
    let deleted = command(&server, &["delete", "bank", "--reason", "leaked"], "");
    assert_eq!(said(&deleted), "the secret \"bank\" is gone\n");

    for (arguments, stdin, expected) in [
        (&["delete", "bank"][..], "", "there is no secret \"bank\""),
        (&["set", "bank"], "hunter2\nhunter2", "byte 8 of the value"),
        (&["set", "bank"], "", "the value is empty"),
        (&["set", "b k"], VALUE, "is no name of a secret"),
    ] {
        let refused = command(&server, arguments, stdin);
        let said = said(&refused);
        assert!(!refused.status.success() && said.contains(expected), "{said}");
        assert!(!said.contains("hunter2"), "{said}");
    }
    assert_eq!(server.get("/admin/v1/secrets").await.expect(200), json!([]));
}

/// Invariant 1, for secrets.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_in_the_middle_of_sets_loses_nothing_that_was_acknowledged() {
    let key = new_key();
    let mut server = Setup::default().with_variable(KEY_VARIABLE, &key).start().await;
    let mut acknowledged = Vec::new();
    for round in 0..4 {
        let client: Client = Client::clone(&server);
        let (told, mut answers) = tokio::sync::mpsc::unbounded_channel();
        let setting = tokio::spawn(async move {
            for n in 0.. {
                let (name, value) = (format!("s-{round}-{n}"), format!("value-{round}-{n}"));
                let request = client.request("PUT", &format!("/admin/v1/secrets/{name}"));
                let request = request.header("content-type", "text/plain").body(value.clone());
                match client.try_send(request).await {
                    Ok(answer) if answer.status == 201 => _ = told.send((name, value)),
                    _ => return,
                }
            }
        });
        // So many are set; the next one is under way.
        for _ in 0..10 + 7 * round {
            acknowledged.push(answers.recv().await.expect("it goes on"));
        }
        server.kill_9();
        setting.await.unwrap();
        while let Ok(answer) = answers.try_recv() {
            acknowledged.push(answer);
        }
        server.restart();
    }
    let listed = server.get("/admin/v1/secrets").await.expect(200);
    assert!(listed.as_array().unwrap().iter().all(|secret| secret["usable"] == true), "{listed}");
    assert!(server.terminate().await.success());
    let (names, values): (Vec<String>, Vec<String>) = acknowledged.into_iter().unzip();
    let found = revealed(&server.data(), &key, &names).await;
    assert_eq!(found, values.into_iter().map(Some).collect::<Vec<_>>());
}
