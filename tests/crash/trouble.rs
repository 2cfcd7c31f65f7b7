//! What goes wrong around the host: a database that does not answer, machine code that is gone,
//! a task that takes the host down.

use sqlx::{Connection, Executor, SqliteConnection};

use crate::harness::*;

/// The database as another program opens it.
pub(super) async fn elsewhere(server: &Server) -> SqliteConnection {
    let path = server.data().join("stepbox.db");
    SqliteConnection::connect(&format!("sqlite://{}", path.display())).await.expect("it can be opened")
}

#[tokio::test]
async fn while_the_database_takes_no_writes_the_host_is_not_ready_and_nothing_acknowledged_is_lost() {
    let mut server = Server::start().await;
    // What it is about: each failed write is told, and tried again.
    server.expect_errors("another program holds its file locked");
    let steps: Vec<Value> =
        (0..300).map(|n| step_with(&format!("s-{n}"), json!({ "act": { "effect": { "ms": 3 } } }))).collect();
    server.run_script("moves", &script(steps)).await;
    server.run_script("waits", &script([wait_event("go")])).await;
    server.until_waiting("waits", "event").await;
    server.until_effect("moves", "s-20 1").await;

    let mut other = elsewhere(&server).await;
    other.execute("begin immediate").await.expect("it can be locked");

    let ready = async || server.get("/readyz").await;
    until("it is not ready", ready, |answer| answer.status == 503).await.error(503, "not_ready");
    assert_eq!(server.get("/healthz").await.status, 200, "it is alive");
    assert_eq!(server.execution("waits").await["status"], "running", "and can be read");
    let (payload, event) = (script([step("charge")]), json!(1));
    let (started, told) =
        tokio::join!(server.start("late", "scenario", &payload), server.event("waits", "go", &event));
    for answer in [&started, &told] {
        answer.error(503, "store_unavailable");
        assert!(answer.header("retry-after").is_some(), "{answer:#?}");
    }
    other.execute("rollback").await.expect("it can be let go of");

    until("it is ready again", ready, |answer| answer.status == 200).await;
    server.start("late", "scenario", &payload).await.expect(201);
    server.result("late").await;
    server.event("waits", "go", &json!(2)).await.expect(202);
    assert_eq!(server.result("waits").await, json!([{ "value": 2 }]), "what was refused was not kept");
    let result = server.result("moves").await;
    let effects = server.effects();
    for (n, value) in result.as_array().unwrap().iter().enumerate() {
        let tag = format!("s-{n}");
        let last = effects.iter().rfind(|effect| effect.tag == tag).expect("it ran");
        assert_eq!(value["nonce"], last.nonce, "{tag} was run again after it had completed");
    }
    assert!(effects.len() <= 303, "{} attempts of 300 steps", effects.len());
}

#[tokio::test]
async fn machine_code_that_is_gone_or_damaged_is_made_anew() {
    let mut server = Server::start().await;
    let folder = server.data().join("machine-code");
    let files =
        || -> Vec<_> { std::fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect() };
    let whole = files();
    assert!(!whole.is_empty(), "there is some in {}", folder.display());
    type Damage = fn(&std::path::Path);
    let damages: [(&str, Damage); 4] = [
        ("cut off", |path| {
            let half = std::fs::metadata(path).unwrap().len() / 2;
            std::fs::File::options().write(true).open(path).unwrap().set_len(half).unwrap();
        }),
        ("overwritten", |path| {
            let mut bytes = std::fs::read(path).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 0x40;
            std::fs::write(path, bytes).unwrap();
        }),
        ("empty", |path| std::fs::write(path, "").unwrap()),
        ("gone", |path| std::fs::remove_file(path).unwrap()),
    ];
    for (n, (how, damage)) in damages.into_iter().enumerate() {
        let (before, after) = (format!("before-{n}"), format!("after-{n}"));
        server.run_script(&before, &script([step("charge"), wait_event("go")])).await;
        server.until_waiting(&before, "event").await;
        server.kill_9();
        files().iter().for_each(|path| damage(path));
        server.restart();
        server.event(&before, "go", &json!(how)).await.expect(202);
        assert_eq!(server.result(&before).await[1], json!({ "value": how }));
        server.play(&after, &script([step("charge")])).await;
    }
}

/// Twice is the machine's fault; five times in a row without anything recorded in between is the
/// task's, and is not to go on for ever.
#[tokio::test]
async fn a_step_or_handler_under_which_the_host_dies_again_and_again_is_given_up() {
    let mut server = Server::start().await;
    let deadly = settle("deadly", json!({ "act": { "reallySleep": { "ms": 600_000 } } }));
    server.run_script("step", &script([deadly, step("after")])).await;
    for death in 1..=5 {
        until("it is tried", async || server.effects_of("step").len(), |effects| *effects == death).await;
        // That it has begun is written down while it goes on, so that it counts.
        // One record for the first attempt, two for each later one: the last was cut off, it began.
        let written = async || records(&server).await;
        until("it is written down", written, |records| *records >= 2 * death as i64 - 1).await;
        server.kill_9().restart();
    }
    let result = server.result("step").await;
    assert_eq!(result[0]["failure"]["step"], "deadly");
    assert!(result[0]["failure"]["message"].as_str().unwrap().contains("died 5 times"), "{result}");
    assert_eq!(result[1], json!({ "attempt": 1 }), "the run goes on with what is left");
    assert_eq!(server.effects_of("step").len(), 6);

    server
        .run_script("handler", &script([json!({ "print": { "text": "told" } }), json!({ "do": "spin" })]))
        .await;
    for death in 1..=5 {
        let legs = async || server.written("handler", "told").len();
        until("its handler is called", legs, |legs| *legs == death).await;
        server.kill_9().restart();
    }
    let failure = server.failure("handler").await;
    assert_eq!(failure["kind"], "host_crashed");
    server.play("neighbour", &script([step("charge")])).await;
}

/// How many records there are in all journals.
async fn records(server: &Server) -> i64 {
    let mut database = elsewhere(server).await;
    sqlx::query_scalar("select count(*) from records")
        .fetch_one(&mut database)
        .await
        .expect("there is a table")
}
