//! What the disk and SQLite can do at best: the same pragmas, and nothing in between.

use std::{
    path::Path,
    time::{Duration, Instant},
};

use rusqlite::{Connection, params};

/// Durable rows per second with `rows_per_commit` rows in each of `commits` transactions, in a
/// new database in `dir`. Rows and table are like those of
/// our journals.
pub fn rows_per_second(dir: &Path, commits: u32, rows_per_commit: u32) -> anyhow::Result<f64> {
    on_rows(dir, commits, rows_per_commit, |_, took| {
        Ok(f64::from(commits * rows_per_commit) / took.as_secs_f64())
    })
}

/// How long it takes to read a journal of `rows` rows and to find the JSON in each.
pub fn read_ms(dir: &Path, rows: u32) -> anyhow::Result<f64> {
    on_rows(dir, 1, rows, |db, _| {
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
        ms.sort_by(f64::total_cmp);
        Ok(ms[ms.len() / 2])
    })
}

/// What `look` finds in a database with that many rows, given how long writing them took.
fn on_rows(
    dir: &Path,
    commits: u32,
    rows_per_commit: u32,
    look: impl FnOnce(&Connection, Duration) -> anyhow::Result<f64>,
) -> anyhow::Result<f64> {
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
    let found = look(&db, begin.elapsed())?;
    drop(db);
    for suffix in ["", "-wal", "-shm"] {
        let _ = std::fs::remove_file(format!("{}{suffix}", file.display()));
    }
    Ok(found)
}
