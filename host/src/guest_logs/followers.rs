//! Who is told when an execution has new lines.
//!
//! Only that there are some: each reads from the store what it wants, so a follower that is slow
//! holds nothing up, and where nothing is written nothing is read.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stepbox_domain::ExecutionId;
use tokio::sync::watch;

use crate::store::logs::LogEntry;

/// At the same time. Each costs a task, and a read for each of the few batches in a second in which
/// its execution prints.
pub const FOLLOWERS_MAX: usize = 64;

/// Entries exist only while somebody follows.
#[derive(Default)]
pub(super) struct Followers(Arc<Mutex<Entered>>);

#[derive(Default)]
struct Entered {
    count: usize,
    executions: HashMap<ExecutionId, watch::Sender<()>>,
}

/// [`FOLLOWERS_MAX`] clients follow logs already.
#[derive(Debug, thiserror::Error)]
#[error(
    "{FOLLOWERS_MAX} clients follow logs already, which is the limit; ask again in a while, or read \
     page by page without follow"
)]
pub struct TooMany;

/// The place of a follower; given up when dropped.
pub struct Following {
    followers: Arc<Mutex<Entered>>,
    execution: ExecutionId,
    news: Option<watch::Receiver<()>>,
}

impl Followers {
    pub fn enter(&self, execution: &ExecutionId) -> Result<Following, TooMany> {
        let mut entered = lock(&self.0);
        if entered.count >= FOLLOWERS_MAX {
            return Err(TooMany);
        }
        entered.count += 1;
        let news = entered.executions.entry(execution.clone()).or_insert_with(|| watch::channel(()).0);
        let news = Some(news.subscribe());
        Ok(Following { followers: self.0.clone(), execution: execution.clone(), news })
    }

    /// These have been written.
    pub fn tell(&self, lines: &[LogEntry]) {
        let entered = lock(&self.0);
        if entered.count == 0 {
            return;
        }
        for (execution, news) in &entered.executions {
            if lines.iter().any(|line| line.execution == *execution) {
                news.send_replace(());
            }
        }
    }

    pub fn count(&self) -> usize {
        lock(&self.0).count
    }
}

impl Following {
    /// Comes back when lines have been written since it last came back.
    pub async fn news(&mut self) {
        let told = match &mut self.news {
            Some(news) => news.changed().await.is_ok(),
            None => false,
        };
        if !told {
            // Nobody is left who would write.
            std::future::pending().await
        }
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        let mut entered = lock(&self.followers);
        self.news = None;
        entered.count -= 1;
        if entered.executions.get(&self.execution).is_some_and(|news| news.receiver_count() == 0) {
            entered.executions.remove(&self.execution);
        }
    }
}

fn lock(entered: &Mutex<Entered>) -> MutexGuard<'_, Entered> {
    entered.lock().unwrap_or_else(PoisonError::into_inner)
}
