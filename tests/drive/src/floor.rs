//! What the disk and SQLite can do at best: the same pragmas, and nothing in between.

use std::{
    fs::OpenOptions,
    io::Write as _,
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

use crate::bench::stats::median;

/// The write-ahead log.
#[derive(Clone, Copy, Debug)]
pub enum Log {
    /// As SQLite makes it: it grows with what is written.
    Grows,
    /// As the host makes it (`log_space` in its store): it has its length beforehand.
    HasRoom,
}

/// As much as the host's.
const LOG_BYTES: usize = 16 << 20;

/// Durable rows per second with `rows_per_commit` rows in each of `commits` transactions, in a
/// new database in `dir`. Rows and table are like those of
/// our journals.
pub fn rows_per_second(dir: &Path, commits: u32, rows_per_commit: u32, log: Log) -> anyhow::Result<f64> {
    let load = Load { commits, rows_per_commit, rest: Duration::ZERO, log };
    on_rows(dir, load, |_, took| {
        Ok(f64::from(commits * rows_per_commit) / took.iter().sum::<Duration>().as_secs_f64())
    })
}

/// How long a commit of one row takes when nothing was done for `rest` before it: disks, and what is
/// between them and a program, take longer when they have come to rest. The median of 200.
pub fn commit_ms_after(dir: &Path, rest: Duration) -> anyhow::Result<f64> {
    let load = Load { commits: 200, rows_per_commit: 1, rest, log: Log::HasRoom };
    on_rows(dir, load, |_, took| {
        let mut ms: Vec<f64> = took.iter().map(|took| took.as_secs_f64() * 1_000.0).collect();
        Ok(median(&mut ms))
    })
}

/// How long it takes to read a journal of `rows` rows and to find the JSON in each.
pub fn read_ms(dir: &Path, rows: u32) -> anyhow::Result<f64> {
    let load = Load { commits: 1, rows_per_commit: rows, rest: Duration::ZERO, log: Log::Grows };
    on_rows(dir, load, |db, _| {
        let mut select = db.prepare("select body from records where run_key = 1 order by number")?;
        let mut ms = Vec::new();
        for _ in 0..11 {
            let begin = Instant::now();
            let mut bodies = select.query([])?;
            while let Some(row) = bodies.next()? {
                let _: serde_json::Value = serde_json::from_str(row.get_ref(0)?.as_str()?)?;
            }
            ms.push(begin.elapsed().as_secs_f64() * 1_000.0);
        }
        Ok(median(&mut ms))
    })
}

/// What is written.
struct Load {
    commits: u32,
    rows_per_commit: u32,
    /// Before each commit.
    rest: Duration,
    log: Log,
}

/// What `look` finds in a database with those rows, given how long each commit took.
fn on_rows(
    dir: &Path,
    load: Load,
    look: impl FnOnce(&Connection, &[Duration]) -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
    let Load { commits, rows_per_commit, rest, log } = load;
    let file = dir.join(format!("floor-{rows_per_commit}-{}.db", std::process::id()));
    let mut db = Connection::open(&file)?;
    db.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma wal_autocheckpoint = 10000;
         create table records (
             seq integer primary key, run_key integer, number integer, body text, unique (run_key, number)
         );",
    )?;
    if let Log::HasRoom = log {
        let mut log = OpenOptions::new().append(true).open(format!("{}-wal", file.display()))?;
        log.write_all(&vec![0; LOG_BYTES])?;
        log.sync_all()?;
    }
    let body = format!("{{\"step_ran\":{{\"key\":\"work\",\"result\":\"{}\"}}}}", "x".repeat(150));
    let (mut took, mut number) = (Vec::new(), 0);
    for _ in 0..commits {
        if !rest.is_zero() {
            std::thread::sleep(rest);
        }
        let begin = Instant::now();
        let tx = db.transaction()?;
        {
            let mut insert =
                tx.prepare_cached("insert into records (run_key, number, body) values (?1, ?2, ?3)")?;
            for _ in 0..rows_per_commit {
                number += 1;
                insert.execute(params![1, number, body])?;
            }
        }
        tx.commit()?;
        took.push(begin.elapsed());
    }
    let found = look(&db, &took)?;
    drop(db);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    Ok(found)
}
