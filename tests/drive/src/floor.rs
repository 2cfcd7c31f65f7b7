//! What the disk and SQLite can do at best: the same pragmas, and nothing in between.

use std::{path::Path, time::Instant};

use rusqlite::{Connection, params};

/// Durable rows per second with `rows_per_commit` rows in each of `commits` transactions, in a
/// new database in `dir`. Rows and table are like those of
/// our journals.
pub fn rows_per_second(dir: &Path, commits: u32, rows_per_commit: u32) -> anyhow::Result<f64> {
    let file = dir.join(format!("floor-{rows_per_commit}-{}.db", std::process::id()));
    let mut db = Connection::open(&file)?;
    db.execute_batch(
        "pragma journal_mode = wal; pragma synchronous = full; pragma wal_autocheckpoint = 10000;
         create table records (
             seq integer primary key, run_key integer, number integer, body text, unique (run_key, number)
         );",
    )?;
    let body = format!("{{\"step_ran\":{{\"key\":\"work\",\"result\":\"{}\"}}}}", "x".repeat(150));
    let begin = Instant::now();
    let mut number = 0;
    for _ in 0..commits {
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
    }
    let rate = f64::from(commits * rows_per_commit) / begin.elapsed().as_secs_f64();
    drop(db);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    Ok(rate)
}
