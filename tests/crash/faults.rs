//! The process ends at each of the places where it hurts most (`stepbox::fault`), under load:
//! nothing that was acknowledged is lost, and everything goes on.

use std::{
    os::unix::process::ExitStatusExt as _,
    process::{Command, ExitStatus},
};

use stepbox::fault::Fault;

use super::load::{Load, check_all_there, promises};
use crate::{checker::check_after, harness::*};

/// What brings the process to the place, beside the load.
enum By {
    Load,
    /// A dead step of this execution is retried; so many of its attempts are there when the
    /// process is gone.
    Retry(&'static str),
    Upload,
}

/// The first time is mostly while it starts.
const PLACES: [(Fault, u32, By); 14] = [
    (Fault::BeforeCommit, 1, By::Load),
    (Fault::BeforeCommit, 40, By::Load),
    (Fault::InBatch, 1, By::Load),
    (Fault::InBatch, 5, By::Load),
    (Fault::Committing, 1, By::Load),
    (Fault::Committing, 2, By::Load),
    (Fault::AfterCommit, 1, By::Load),
    (Fault::AfterCommit, 2, By::Load),
    (Fault::AfterCommit, 50, By::Load),
    (Fault::Checkpoint, 1, By::Load),
    (Fault::Checkpoint, 2, By::Load),
    (Fault::Seized, 1, By::Retry("seized")),
    (Fault::Repaired, 1, By::Retry("repaired")),
    (Fault::KeepingCode, 1, By::Upload),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_lost_wherever_the_process_ends() {
    if !has_fault_points() {
        return;
    }
    let mut server = Server::with("caution-s", 0).start().await;
    for id in ["seized", "repaired"] {
        let over = server.play(id, &script([step_with("charge", json!({ "failures": 1 }))])).await;
        assert_eq!(over["status"], "failed");
    }
    let load = Load::begin(&server, 3);
    load.until_more(3).await;

    for (fault, nth, by) in PLACES {
        server.kill_9();
        let status = match server.set_fault(fault, nth).try_restart() {
            Err(status) => status,
            Ok(()) => {
                provoke(&server, &by).await;
                server.ended().await
            }
        };
        assert_ended_at(&server, status, fault);
        let cut_off = load.acknowledged();
        server.clear_fault().restart();
        // Others go on, and so does what was cut off: else one that is cut off in each of these short
        // lives is given up, as it should be.
        load.until_more(3).await;
        for (id, _) in cut_off.iter().filter(|(_, told)| **told) {
            server.result(id).await;
        }
        finish(&server, &by, fault).await;
    }

    let acknowledged = load.end().await;
    check_all_there(&acknowledged, &server, || server.effects()).await;
    let stats = server.stats().await;
    assert_eq!((&stats["scheduled"], &stats["running"]), (&json!(0), &json!(0)), "{stats}");
    let mut verify = Command::new(env!("CARGO_BIN_EXE_stepbox"));
    let verify = verify.args(["audit", "verify", "--data"]).arg(server.data()).output().unwrap();
    assert!(verify.status.success(), "{verify:?}");
    check_after("fault points", &mut server, &promises(&acknowledged)).await;
}

/// At each round trip to the database of the first start that there is.
#[tokio::test]
async fn a_migration_that_was_cut_off_is_done_by_the_next_start() {
    if !has_fault_points() {
        return;
    }
    let mut server = Server::empty().await;
    let mut ends = 0;
    loop {
        server.kill_9();
        for name in ["stepbox.db", "stepbox.db-wal", "stepbox.db-shm"] {
            std::fs::remove_file(server.data().join(name)).expect("there is one");
        }
        let Err(status) = server.set_fault(Fault::Migration, ends + 1).try_restart() else { break };
        assert_ended_at(&server, status, Fault::Migration);
        ends += 1;
        server.clear_fault().restart();
        assert_eq!(server.get("/readyz").await.status, 200);
        assert_eq!(server.stats().await["completed"], 0);
    }
    assert!(ends >= 3, "the tables were made in {ends} round trips");
}

#[test]
fn every_fault_point_is_come_to() {
    let mut missed = Fault::ALL.to_vec();
    missed.retain(|fault| *fault != Fault::Migration && !PLACES.iter().any(|(place, ..)| place == fault));
    assert!(missed.is_empty(), "{missed:?}");
}

/// Not in a release build.
fn has_fault_points() -> bool {
    cfg!(debug_assertions)
}

async fn provoke(server: &Server, by: &By) {
    let request = match by {
        By::Load => return,
        By::Retry(id) => {
            server.request("POST", &admin_path(id, "retry-step")).json(&json!({ "stepName": "charge" }))
        }
        By::Upload => server
            .request("PUT", "/admin/v1/modules/more")
            .header("content-type", "application/wasm")
            .body(guests::scenario_marked("abc")),
    };
    let answer = server.try_send(request).await;
    assert!(answer.is_err(), "who asked gets no answer: {answer:#?}");
}

fn assert_ended_at(server: &Server, status: ExitStatus, fault: Fault) {
    const SIGABRT: i32 = 6;
    let said = format!("ended at the fault point {}", fault.name());
    assert_eq!(status.signal(), Some(SIGABRT), "{said}");
    // Another thread may have had a word left.
    let log = server.log_text();
    assert!(log.lines().rev().take(20).any(|line| line == said), "{said}? Its log:\n{log}");
}

/// What was asked for and got no answer can be asked for again, if it was not done.
async fn finish(server: &Server, by: &By, fault: Fault) {
    match by {
        By::Load => {}
        By::Retry(id) => {
            let again = server.retry_step(id, &json!({ "stepName": "charge" })).await;
            match fault {
                Fault::Seized => _ = again.expect(200),
                _ => _ = again.error(409, "step_not_dead"),
            }
            server.result(id).await;
            assert_eq!(attempts_in(&server.detail(id).await, "charge"), ["1 failed", "2 completed"]);
        }
        By::Upload => {
            server.upload("more", guests::scenario_marked("abc")).await.expect(201);
            server.start("more", "more", &script([json!("variant")])).await.expect(201);
            assert_eq!(server.result("more").await, json!(["abc"]));
        }
    }
}
