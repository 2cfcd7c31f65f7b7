//! `stepbox audit verify`: whether the audit trail is what was written.

use std::process::Command;

use sqlx::{Connection as _, Executor as _, SqliteConnection, sqlite::SqliteConnectOptions};

use super::audit::one_of_each;
use crate::harness::*;

/// How `stepbox audit verify` ends over the data of `server`, and what it says.
fn verify(server: &Server, more: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepbox"));
    command.args(["audit", "verify", "--data"]).arg(server.data()).args(more);
    let output = command.output().expect("it can be run");
    let said = [output.stdout, output.stderr].concat();
    (output.status.code().expect("it ended by itself"), String::from_utf8_lossy(&said).into_owned())
}

async fn open(server: &Server) -> SqliteConnection {
    let options = SqliteConnectOptions::new().filename(server.data().join("stepbox.db"));
    SqliteConnection::connect_with(&options).await.expect("it can be opened")
}

/// Changes the stored trail behind the back of the host, which is down. The store's own guards are
/// taken away first: who can do the one can do the other.
async fn tamper(server: &Server, statement: &'static str) {
    let mut database = open(server).await;
    let triggers: Vec<String> =
        sqlx::query_scalar("select name from sqlite_master where type = 'trigger' and tbl_name = 'audit'")
            .fetch_all(&mut database)
            .await
            .expect("they can be listed");
    for trigger in triggers {
        let drop = sqlx::AssertSqlSafe(format!("drop trigger {trigger}"));
        database.execute(drop).await.expect("it can be dropped");
    }
    let done = database.execute(statement).await.expect(statement);
    assert_eq!(done.rows_affected(), 1, "{statement}");
    database.close().await.expect("it can be closed");
}

#[tokio::test]
async fn a_trail_that_nobody_touched_is_fine_beside_a_host_and_without() {
    let mut server = Server::empty().await;
    let (code, said) = verify(&server, &[]);
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("0 entries"), "{said}");

    server.upload("scenario", guests::scenario()).await.expect(201);
    one_of_each(&server).await;
    let (entries, total) = server.audit("?limit=1").await;
    let head = entries[0]["hash"].as_str().unwrap();
    for _ in 0..2 {
        let (code, said) = verify(&server, &[]);
        assert_eq!(code, 0, "{said}");
        assert!(said.contains(&format!("{total} entries")) && said.contains(head), "{said}");
        server.kill_9().restart();
    }
    server.terminate().await;
    assert_eq!(verify(&server, &[]).0, 0);
}

#[tokio::test]
async fn the_first_entry_that_was_altered_removed_or_inserted_is_named() {
    let mut server = Server::start().await;
    one_of_each(&server).await;
    let (_, total) = server.audit("?limit=0").await;
    let after_the_last = format!("entry {} was altered", total + 1);
    server.kill_9();
    let (code, said) = verify(&server, &[]);
    assert_eq!(code, 0, "{said}");
    // From the end to the beginning: each is before the ones that are broken already.
    for (statement, named) in [
        (
            "insert into audit select number + 1, at_ms, actor, action, execution_id, task_name, target, before, \
             after, reason, hash from audit order by number desc limit 1",
            after_the_last.as_str(),
        ),
        ("update audit set reason = 'another' where number = 12", "entry 12 was altered"),
        ("update audit set actor = null where number = 11", "entry 11 was altered"),
        ("update audit set at_ms = at_ms + 1 where number = 10", "entry 10 was altered"),
        (
            "update audit set hash = (select hash from audit where number = 3) where number = 9",
            "entry 9 was altered",
        ),
        ("update audit set after = '{}' where number = 8", "entry 8 was altered"),
        ("delete from audit where number = 7", "entry 7 is missing"),
        ("update audit set number = 70 where number = 6", "entry 6 is missing"),
    ] {
        tamper(&server, statement).await;
        let (code, said) = verify(&server, &[]);
        assert_eq!(code, 1, "{statement}: {said}");
        assert!(said.contains(named), "{statement}: {said}");
    }
}

#[tokio::test]
async fn the_store_itself_lets_nobody_change_or_remove_an_entry() {
    let mut server = Server::start().await;
    server.kill_9();
    let mut database = open(&server).await;
    for statement in ["update audit set reason = 'another'", "delete from audit"] {
        assert!(database.execute(statement).await.is_err(), "{statement}");
    }
    database.close().await.expect("it can be closed");
    assert_eq!(verify(&server, &[]).0, 0);
}

#[tokio::test]
async fn that_the_end_was_cut_off_is_seen_by_a_head_that_was_noted_before() {
    let mut server = Server::start().await;
    one_of_each(&server).await;
    let (entries, total) = server.audit("").await;
    let hash = |n: usize| entries[n]["hash"].as_str().unwrap().to_owned();
    server.kill_9();
    for head in [hash(0), hash(5), "0".repeat(64)] {
        let (code, said) = verify(&server, &["--expect-head", &head]);
        assert_eq!(code, 0, "{said}");
    }
    let (code, said) = verify(&server, &["--expect-head", &"ab".repeat(32)]);
    assert_eq!(code, 1, "{said}");
    assert_eq!(verify(&server, &["--expect-head", "nonsense"]).0, 2);

    tamper(&server, "delete from audit where number = (select max(number) from audit)").await;

    let (code, said) = verify(&server, &[]);
    assert!(code == 0 && said.contains(&format!("{} entries", total - 1)), "a chain cannot tell: {said}");
    let (code, said) = verify(&server, &["--expect-head", &hash(0)]);
    assert!(code == 1 && said.contains("cut off"), "{said}");
    assert_eq!(verify(&server, &["--expect-head", &hash(1)]).0, 0);
}

#[tokio::test]
async fn a_folder_that_is_none_is_an_error_and_not_a_verdict() {
    let server = Server::empty().await;
    let mut command = Command::new(env!("CARGO_BIN_EXE_stepbox"));
    let missing = server.data().join("nothing-here");
    let output = command.args(["audit", "verify", "--data"]).arg(&missing).output().expect("it can be run");
    assert_eq!(output.status.code(), Some(2));
    assert!(!missing.exists(), "it makes nothing");
}
