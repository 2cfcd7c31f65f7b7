//! The end of the write-ahead log is torn, cut off or overwritten, as a loss of power leaves it:
//! what was acknowledged before that point is there.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt as _,
    path::Path,
};

use sqlx::{Connection as _, Executor as _};

use super::{
    load::{Acknowledged, Load, check_all_there},
    trouble::elsewhere,
};
use crate::harness::{
    server::{Effect, Setup},
    *,
};

/// A moment: what had been acknowledged, and how long the log was by then.
struct Mark {
    acknowledged: Acknowledged,
    /// Admin writes, each an entry of the audit trail.
    audited: u64,
    log_bytes: u64,
}

/// What is done to the log from a place on.
type Damage = fn(&File, u64);

const DAMAGES: [(&str, Damage); 8] = [
    ("cut off between two frames", |log, from| log.set_len(from).unwrap()),
    ("cut off in the head of a frame", |log, from| log.set_len(from + 17).unwrap()),
    ("cut off in a page", |log, from| log.set_len(from + FRAME_HEAD_BYTES + 2_001).unwrap()),
    ("one bit of a page is another", |log, from| {
        let mut byte = [0];
        log.read_exact_at(&mut byte, from + FRAME_HEAD_BYTES + 1_234).unwrap();
        log.write_all_at(&[byte[0] ^ 0x10], from + FRAME_HEAD_BYTES + 1_234).unwrap();
    }),
    ("a checksum is wrong", |log, from| log.write_all_at(&[0x5a; 8], from + 16).unwrap()),
    ("a sector was not written", |log, from| log.write_all_at(&[0; 512], from + FRAME_HEAD_BYTES).unwrap()),
    ("nothing but rubbish to its end", |log, from| {
        let rest = log.metadata().unwrap().len() - from;
        let rubbish: Vec<u8> = (0..rest).map(|n| (n * 31 % 251) as u8).collect();
        log.write_all_at(&rubbish, from).unwrap();
    }),
    ("every other sector was not written", |log, from| {
        let end = log.metadata().unwrap().len();
        for sector in (from..end - 512).step_by(1024) {
            log.write_all_at(&[0; 512], sector).unwrap();
        }
    }),
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_whose_end_is_torn_is_opened_and_nothing_acknowledged_before_is_lost() {
    let mut server = Server::start().await;
    // While somebody reads what is there now, the log does not start over: it only grows, and the
    // database itself gets nothing of what comes.
    let mut reader = elsewhere(&server).await;
    reader.execute("begin").await.expect("it can be read");
    reader.fetch_one("select count(*) from records").await.expect("it can be read");
    let load = Load::begin(&server, 3);
    let mut marks = Vec::new();
    for n in 0..DAMAGES.len() {
        load.until_more(3).await;
        server.pause(&json!({ "taskName": format!("unknown-{n}") })).await;
        let (acknowledged, (_, audited)) = (load.acknowledged(), server.audit("?limit=1").await);
        // Last: what is acknowledged is in the log already.
        marks.push(Mark { acknowledged, audited, log_bytes: end_of_log(&server.data()) });
    }
    load.until_more(3).await;
    server.kill_9();
    load.abandon();

    let (data, effects) = (server.data(), server.effects());
    let all: Vec<(&Mark, (&str, Damage))> = marks.iter().zip(DAMAGES).collect();
    for two in all.chunks(2) {
        let checks = two.iter().map(|(mark, damage)| check(&data, mark, *damage, &effects));
        futures_util::future::join_all(checks).await;
    }
    reader.close().await.expect("it can be closed");
}

async fn check(data: &Path, mark: &Mark, (how, damage): (&str, Damage), before: &[Effect]) {
    let server = Setup::default().start_on_copy(data, |copy| {
        // It goes with the power, too.
        fs::remove_file(copy.join("stepbox.db-shm")).expect("there is one");
        assert!(end_of_log(copy) > mark.log_bytes + 8_192, "{how}: nothing was written since");
        let log = File::options().read(true).write(true).open(copy.join("stepbox.db-wal")).unwrap();
        damage(&log, mark.log_bytes);
    });
    let server = server.await;
    let effects = || before.iter().cloned().chain(server.effects()).collect();
    check_all_there(&mark.acknowledged, &server, effects).await;
    let (_, audited) = server.audit("?limit=1").await;
    assert!(audited >= mark.audited, "{how}: {audited} entries of {}", mark.audited);

    let mut database = elsewhere(&server).await;
    let sound: String = sqlx::query_scalar("pragma integrity_check").fetch_one(&mut database).await.unwrap();
    assert_eq!(sound, "ok", "{how}");
    let mut verify = std::process::Command::new(env!("CARGO_BIN_EXE_stepbox"));
    let verify = verify.args(["audit", "verify", "--data"]).arg(server.data()).output().unwrap();
    assert!(verify.status.success(), "{how}: {verify:?}");
}

const HEAD_BYTES: u64 = 32;
const FRAME_HEAD_BYTES: u64 = 24;

/// Where the last frame ends that is of the log as it stands; what lies behind is from earlier.
/// (<https://sqlite.org/fileformat2.html#walformat>)
fn end_of_log(data: &Path) -> u64 {
    let log = fs::read(data.join("stepbox.db-wal")).expect("there is a log");
    let page_bytes = u32::from_be_bytes(log[8..12].try_into().unwrap()) as usize;
    let salts = &log[16..24];
    let frames = log[HEAD_BYTES as usize..].chunks_exact(FRAME_HEAD_BYTES as usize + page_bytes);
    let valid = frames.take_while(|frame| &frame[8..16] == salts).count() as u64;
    HEAD_BYTES + valid * (FRAME_HEAD_BYTES + page_bytes as u64)
}
