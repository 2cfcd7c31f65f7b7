//! The one task that writes.

use std::{
    sync::{Arc, Weak},
    time::Duration,
};

use tokio::sync::{Notify, mpsc, oneshot};

use super::Inner;
use crate::store::logs::LogEntry;

/// What a follower waits at most for a line; in between others come to go with it.
const GATHER: Duration = Duration::from_millis(20);

/// After a failure.
const TRY_AGAIN: Duration = Duration::from_secs(1);

/// So many lines go into one transaction.
const BATCH_LINES_MAX: usize = 4_096;

pub(super) enum Ask {
    /// Write what has come, now.
    Write(oneshot::Sender<()>),
    /// The same, and end.
    Close(oneshot::Sender<()>),
}

/// Writes what comes until it is closed, or until nobody is left who could print.
pub(super) async fn keep(logs: Weak<Inner>, filled: Arc<Notify>, mut asks: mpsc::UnboundedReceiver<Ask>) {
    let mut keeper = Keeper { unwritten: Vec::new(), failing: false };
    loop {
        let asked = tokio::select! {
            biased;
            ask = asks.recv() => match ask {
                Some(ask) => Some(ask),
                None => return,
            },
            () = tokio::time::sleep(TRY_AGAIN), if keeper.failing => None,
            () = filled.notified(), if !keeper.failing => None,
        };
        let asked = match asked {
            // Who asks does not wait for company.
            None if !keeper.failing => tokio::time::timeout(GATHER, asks.recv()).await.ok().flatten(),
            asked => asked,
        };
        let Some(logs) = logs.upgrade() else { return };
        keeper.write(&logs).await;
        match asked {
            None => {}
            // Whoever asked may be gone.
            Some(Ask::Write(done)) => _ = done.send(()),
            Some(Ask::Close(done)) => {
                if !keeper.unwritten.is_empty() {
                    tracing::warn!(
                        lines = keeper.unwritten.len(),
                        "the last lines of guests could not be written and are lost"
                    );
                }
                let _ = done.send(());
                return;
            }
        }
    }
}

struct Keeper {
    /// Taken, and not in the store.
    unwritten: Vec<LogEntry>,
    failing: bool,
}

impl Keeper {
    /// Writes all that has come, or as much as can be written.
    async fn write(&mut self, logs: &Inner) {
        loop {
            // While that cannot be written nothing more is taken, so that there is a bound on both.
            if self.unwritten.is_empty() {
                let taken = logs.queue.take();
                logs.metrics.lost.inc_by(taken.lost);
                self.unwritten = taken.lines;
            }
            if self.unwritten.is_empty() || !self.write_taken(logs).await {
                return;
            }
        }
    }

    async fn write_taken(&mut self, logs: &Inner) -> bool {
        let mut written = 0;
        while written < self.unwritten.len() {
            let end = (written + BATCH_LINES_MAX).min(self.unwritten.len());
            let batch = &self.unwritten[written..end];
            match logs.store.add(batch, logs.clock.now()).await {
                Ok(added) => {
                    logs.metrics.stored.inc_by(batch.len() as u64);
                    logs.metrics.dropped.inc_by(added.dropped);
                    logs.metrics.bytes.set(i64::try_from(added.bytes).unwrap_or(i64::MAX));
                    logs.followers.tell(batch);
                    written = end;
                    if std::mem::take(&mut self.failing) {
                        tracing::info!("guests' logs are kept again");
                    }
                }
                Err(error) => {
                    logs.metrics.failures.inc();
                    if !std::mem::replace(&mut self.failing, true) {
                        tracing::warn!(
                            %error,
                            "guests' logs cannot be kept for now; runs go on, and what is printed \
                             meanwhile is kept as far as there is room"
                        );
                    }
                    self.unwritten.drain(..written);
                    return false;
                }
            }
        }
        self.unwritten.clear();
        true
    }
}
