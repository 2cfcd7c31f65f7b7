//! Places at which a test ends the process, to see that nothing is lost there.
//!
//! With `STEPBOX_FAULT=<name>:<nth>` the process ends itself where it stands when it comes to that
//! place for the nth time. Only in builds with debug assertions: a release build reads nothing and
//! ends nowhere.

use std::{
    future::poll_fn,
    io::Write as _,
    pin::pin,
    sync::{
        LazyLock,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

/// Where.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// A batch of several has done the first of its parts.
    InBatch,
    /// A batch has done all of its parts.
    BeforeCommit,
    /// A transaction that goes to the database in one piece is under way.
    Committing,
    /// A batch is on disk, and who asked for it does not know yet.
    AfterCommit,
    /// The write-ahead log is being brought into the database.
    Checkpoint,
    /// The tables are being made or changed.
    Migration,
    /// A run is seized, and its repair not yet written.
    Seized,
    /// A repair is on disk, and nobody is woken yet.
    Repaired,
    /// Machine code has been made, and one of its two files is in its place.
    KeepingCode,
}

impl Fault {
    pub const ALL: [Fault; 9] = [
        Fault::InBatch,
        Fault::BeforeCommit,
        Fault::Committing,
        Fault::AfterCommit,
        Fault::Checkpoint,
        Fault::Migration,
        Fault::Seized,
        Fault::Repaired,
        Fault::KeepingCode,
    ];

    pub fn name(self) -> &'static str {
        match self {
            Fault::InBatch => "in-batch",
            Fault::BeforeCommit => "before-commit",
            Fault::Committing => "committing",
            Fault::AfterCommit => "after-commit",
            Fault::Checkpoint => "checkpoint",
            Fault::Migration => "migration",
            Fault::Seized => "seized",
            Fault::Repaired => "repaired",
            Fault::KeepingCode => "keeping-code",
        }
    }
}

/// This is the place.
pub fn point(at: Fault) {
    if cfg!(debug_assertions) && is_now(at) {
        end(at);
    }
}

/// The place is somewhere within `work`: each time that it has to wait counts.
pub async fn during<T>(at: Fault, work: impl Future<Output = T>) -> T {
    if !cfg!(debug_assertions) {
        return work.await;
    }
    let mut work = pin!(work);
    poll_fn(|context| {
        let polled = work.as_mut().poll(context);
        if polled.is_pending() && is_now(at) {
            // Whoever does the work, in a thread of its own, shall have begun.
            std::thread::sleep(Duration::from_millis(1));
            end(at);
        }
        polled
    })
    .await
}

/// The place that is asked for, and how often it is still to be passed.
static ASKED: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
    let asked = std::env::var("STEPBOX_FAULT").ok()?;
    let (name, nth) = asked.split_once(':')?;
    Some((name.to_owned(), AtomicU64::new(nth.parse().ok()?)))
});

fn is_now(at: Fault) -> bool {
    ASKED.as_ref().is_some_and(|(name, left)| name == at.name() && left.fetch_sub(1, Relaxed) == 1)
}

/// As `kill -9` would: nothing is tidied up.
fn end(at: Fault) -> ! {
    let _ = writeln!(std::io::stderr(), "ended at the fault point {}", at.name());
    std::process::abort()
}
