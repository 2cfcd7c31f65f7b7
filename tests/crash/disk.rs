//! A disk that is full, and one that cannot be written to. Needs a machine where a file system in
//! memory can be mounted; elsewhere these tests say so and pass.

use sqlx::Executor as _;

use super::{
    load::{Load, check_all_there, promises},
    trouble::elsewhere,
};
use crate::{
    checker::check_after,
    harness::{server::Setup, *},
};

const ROOM_BYTES: u64 = 64 << 20;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_disk_is_told_and_when_there_is_room_again_all_goes_on_by_itself() {
    let Some(mut server) = Setup::default().start_on_small_disk(ROOM_BYTES).await else { return };
    // What it is about: each failed write is told, and tried again.
    server.expect_errors("the disk of the data directory");
    server.run_script("waits", &script([wait_event("go")])).await;
    server.until_waiting("waits", "event").await;
    // The module itself would fit, the machine code does not.
    let module = guests::scenario_marked("abc");
    server.disk().leave(module.len() as u64 + (256 << 10));
    let upload = server.upload("more", module).await;
    assert!(upload.error(503, "inspection_unavailable").contains("No space left"), "{upload:#?}");
    server.disk().make_room();

    let load = Load::begin(&server, 4);
    load.until_more(4).await;
    // Somebody else reads, a backup for one, so that the log cannot start over: it grows until
    // the last page is taken.
    let mut reader = elsewhere(&server).await;
    reader.execute("begin").await.expect("it can be read");
    reader.fetch_one("select count(*) from records").await.expect("it can be read");
    server.disk().leave(256 << 10);
    let ready = async || server.get("/readyz").await;
    let told = until("it is not ready", ready, |answer| answer.status == 503).await;
    assert!(told.error(503, "not_ready").contains("disk"), "{told:#?}");

    assert_eq!(server.get("/healthz").await.status, 200, "it is alive");
    assert_eq!(server.execution("waits").await["status"], "running", "and can be read");
    let start = async || server.start("late", "scenario", &script([step("charge")])).await;
    let refused = until("a start is refused", start, |answer| answer.status == 503).await;
    assert!(refused.error(503, "store_unavailable").contains("disk"), "{refused:#?}");
    let event = async || server.event("waits", "go", &json!(1)).await;
    let refused = until("an event is refused", event, |answer| answer.status == 503).await;
    assert!(refused.error(503, "store_unavailable").contains("disk"), "{refused:#?}");
    let upload = server.upload("more", guests::scenario_marked("abc")).await;
    assert!(upload.any_error(503).contains("No space left"), "{upload:#?}");

    drop(reader);
    server.disk().make_room();
    until("it is ready again", ready, |answer| answer.status == 200).await;
    load.until_more(4).await;
    let acknowledged = load.end().await;
    check_all_there(&acknowledged, &server, || server.effects()).await;
    server.upload("more", guests::scenario_marked("abc")).await.expect(201);
    let _ = server.event("waits", "go", &json!(2)).await;
    server.result("waits").await;
    check_after("full disk", &mut server, &promises(&acknowledged)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_on_a_full_disk_it_starts_again_or_says_why_not_and_loses_nothing() {
    let Some(mut server) = Setup::default().start_on_small_disk(ROOM_BYTES).await else { return };
    server.expect_errors("the disk of the data directory");
    let load = Load::begin(&server, 4);
    load.until_more(4).await;
    server.disk().leave(128 << 10);
    let ready = async || server.get("/readyz").await;
    until("it is not ready", ready, |answer| answer.status == 503).await;

    server.kill_9();
    server.disk().leave(0);
    if let Err(status) = server.try_restart() {
        assert_eq!(status.code(), Some(2), "it could not be started, in one sentence");
        let said = server.log_text();
        let last = said.lines().last().unwrap_or_default();
        assert!(last.starts_with("stepbox: ") && last.contains("disk of the data directory"), "{last}");
    } else {
        server.kill_9();
    }
    server.disk().make_room();

    server.restart();
    load.until_more(4).await;
    let acknowledged = load.end().await;
    check_all_there(&acknowledged, &server, || server.effects()).await;
    check_after("full disk, killed", &mut server, &promises(&acknowledged)).await;
}

/// Only at the start: while a host has its files open, the kernel does not let the file system
/// become one that can only be read.
#[tokio::test]
async fn a_folder_that_can_only_be_read_is_told_at_the_start() {
    let Some(mut server) = Setup::default().start_on_small_disk(ROOM_BYTES).await else { return };
    server.play("before", &script([step("charge")])).await;
    server.kill_9();
    server.disk().make_read_only();

    let (status, said) = server.second_on_the_same_data();

    assert_eq!(status.code(), Some(2), "{said}");
    assert_eq!(said.trim().lines().count(), 1, "{said}");
    let folder = server.data().to_str().unwrap().to_owned();
    assert!(said.contains(&folder) && said.contains("Read-only file system"), "{said}");
    server.disk().make_writable();
    server.restart();
    assert_eq!(server.execution("before").await["status"], "completed");
    server.play("after", &script([step("charge")])).await;
}
