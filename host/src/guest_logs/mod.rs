//! The way of what guests print: from where it is printed into the store, and to those who watch.
//!
//! A guest hands over its line and goes on: [`queue`] takes it, bounded, and one task ([`keeper`])
//! writes what has come, many lines in one transaction. What nobody can take is counted, and the log
//! of the run says how much it was. No run waits for any of this, and none fails with it.

mod followers;
mod keeper;
mod queue;

#[cfg(test)]
mod tests;

use std::{sync::Arc, time::Duration};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::Registry,
};
use tokio::sync::{mpsc, oneshot};

use self::{followers::Followers, keeper::Ask, queue::Queue};
pub use self::{
    followers::{Following, TooMany},
    queue::QueueBounds,
};
use crate::{
    engine::clock::Clock,
    sandbox::{LogLine, LogSink},
    store::{
        StoreError,
        logs::{LogEntry, LogFilter, LogStore, LogView},
    },
};

/// How long a reader waits until what was printed before can be read.
const CATCH_UP_MAX: Duration = Duration::from_secs(2);

/// The handle; cheap to clone.
#[derive(Clone)]
pub struct GuestLogs(Arc<Inner>);

struct Inner {
    clock: Clock,
    store: Arc<dyn LogStore>,
    queue: Queue,
    keeper: mpsc::UnboundedSender<Ask>,
    followers: Followers,
    metrics: LogMetrics,
}

/// Since the start of this process.
#[derive(Default)]
struct LogMetrics {
    stored: Counter,
    /// Nobody could take them.
    lost: Counter,
    /// They had to make room for later ones.
    dropped: Counter,
    failures: Counter,
    bytes: Gauge,
    followers: Gauge,
}

impl GuestLogs {
    /// Begins to keep what is printed.
    pub fn begin(store: Arc<dyn LogStore>, clock: Clock, bounds: QueueBounds) -> Self {
        let (keeper, asks) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            clock,
            store,
            queue: Queue::new(bounds),
            keeper,
            followers: Followers::default(),
            metrics: LogMetrics::default(),
        });
        tokio::spawn(keeper::keep(Arc::downgrade(&inner), inner.queue.filled(), asks));
        GuestLogs(inner)
    }

    /// The lines that `filter` matches, those among them that were printed just before.
    pub async fn lines(&self, filter: &LogFilter) -> Result<Vec<LogView>, StoreError> {
        self.catch_up().await;
        self.0.store.lines(filter).await
    }

    /// The lines that `filter` matches, as far as they have been written.
    pub async fn stored(&self, filter: &LogFilter) -> Result<Vec<LogView>, StoreError> {
        self.0.store.lines(filter).await
    }

    /// Comes back when what was printed until now has been written, or could not be.
    async fn catch_up(&self) {
        let (done, wait) = oneshot::channel();
        if self.0.keeper.send(Ask::Write(done)).is_ok() {
            // Late, it reads what there is.
            let _ = tokio::time::timeout(CATCH_UP_MAX, wait).await;
        }
    }

    /// From now on hears of new lines of the execution.
    pub fn follow(&self, execution: &stepbox_domain::ExecutionId) -> Result<Following, TooMany> {
        self.0.followers.enter(execution)
    }

    /// Writes what has come, and ends.
    pub async fn close(&self) {
        let (done, wait) = oneshot::channel();
        if self.0.keeper.send(Ask::Close(done)).is_ok() {
            // An error: it has ended already.
            let _ = wait.await;
        }
        self.0.store.close().await;
    }

    /// Everything that is counted here, under its public name.
    pub fn register(&self, registry: &mut Registry) {
        let metrics = &self.0.metrics;
        let mut counter =
            |name: &str, help: &str, counter: &Counter| registry.register(name, help, counter.clone());
        counter("log_lines_stored", "Lines of guests that were stored", &metrics.stored);
        counter("log_lines_lost", "Lines of guests that could not be taken", &metrics.lost);
        counter(
            "log_lines_dropped",
            "Stored lines of guests that made room for later ones",
            &metrics.dropped,
        );
        counter("log_write_failures", "Times that guests' lines could not be written", &metrics.failures);
        let mut gauge = |name: &str, help: &str, gauge: &Gauge| registry.register(name, help, gauge.clone());
        gauge("log_bytes", "What the stored lines of guests count for", &metrics.bytes);
        gauge("log_followers", "Clients that follow a log", &metrics.followers);
    }

    /// Brings the gauges up to date.
    pub fn measure(&self) {
        let followers = i64::try_from(self.0.followers.count()).unwrap_or(i64::MAX);
        self.0.metrics.followers.set(followers);
    }
}

impl LogSink for GuestLogs {
    fn line(&self, line: LogLine<'_>) {
        crate::logs::print(line);
        let Some(execution) = line.run.execution() else { return };
        self.0.queue.push(LogEntry {
            execution,
            run: line.run.clone(),
            step: line.step.map(|(step, attempt)| (step.clone(), attempt)),
            level: line.level,
            target: line.target.to_owned(),
            at: self.0.clock.now(),
            message: line.message.to_owned(),
        });
    }
}
