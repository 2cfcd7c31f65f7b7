//! The store in one SQLite file: `<data directory>/stepbox.db`.
//!
//! One connection writes (`group_commit.rs`), a few read, and none of them waits for
//! another: that is what the write-ahead log is for. `synchronous = full` makes a commit survive
//! a loss of power; nothing is answered before its commit is on disk.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use sqlx::{
    ConnectOptions, SqlitePool,
    pool::PoolConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode, SqliteSynchronous},
};
use stepbox_domain::{Digest, ExecutionId, TaskName, Timestamp, event::Event};
use tokio::{
    sync::{Semaphore, mpsc, oneshot},
    task::AbortHandle,
};

use super::group_commit::{Message, Outcome, Verb, Writer};
use super::lock::DirectoryLock;
use super::queries::{
    alone, bulks,
    cancels::NewCancel,
    claims::Hold,
    commits::Encoded,
    events,
    executions::{Known, RunKeys, Start},
    modules,
    pauses::Deletion,
    repairs,
};
use super::reading::{self, Wanted};
use super::search::Search;
use super::{
    checkpoint,
    connect::{self, options},
    log_space, schema, *,
};

mod views;

/// 16 MB for each connection.
pub(super) const CACHE_KIB: u32 = 16_384;
/// A commit writes whole pages, and the start or the end of an execution touches six to eight:
/// with half of SQLite's usual size it takes a sixth less. Lists and details take no longer for it (in
/// `docs/benchmarks.md`). Holds from the making of the file on.
const PAGE_BYTES: u32 = 2_048;
/// So many readers are kept from lists.
const READERS_SHORT: u32 = 2;

/// Where the store is, and how wide.
#[derive(Clone, Debug)]
pub struct StoreConfig {
    /// Made if it is not there. Belongs to one host at a time.
    pub data_dir: PathBuf,
    /// Connections for reading: so many lists and details can be read at once.
    pub readers: u32,
    /// How long the write-ahead log is made from the start (see [`log_space`]).
    pub log_bytes: u64,
}

/// Why the store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the data directory {} is in use by {}; one host at a time can work on it",
        directory.display(), process_name(*process))]
    InUse { directory: PathBuf, process: Option<u32> },
    #[error("the data directory {} cannot be used: {source}", directory.display())]
    Directory { directory: PathBuf, source: std::io::Error },
    #[error("the database {} cannot be brought up to date: {why}", database.display())]
    Schema { database: PathBuf, why: String },
    #[error("the database {} cannot be opened: {source}", database.display())]
    Database { database: PathBuf, source: StoreError },
}

fn process_name(process: Option<u32>) -> String {
    process.map_or_else(|| "another process".to_owned(), |process| format!("process {process}"))
}

/// Opens the store, and makes or updates its database.
pub async fn open(config: &StoreConfig) -> Result<Arc<dyn Store>, OpenError> {
    Ok(Arc::new(Sqlite::open(config).await?))
}

pub(super) struct Sqlite {
    writer: mpsc::UnboundedSender<Message>,
    readers: SqlitePool,
    claimed: mpsc::UnboundedSender<Wanted>,
    runs: RunKeys,
    was_left_open: bool,
    /// Turns of those who read much (see [`Sqlite::turn`]).
    turns: Arc<Semaphore>,
    search: Search,
    checkpoints: AbortHandle,
}

impl Sqlite {
    pub(super) async fn open(config: &StoreConfig) -> Result<Self, OpenError> {
        let directory = &config.data_dir;
        std::fs::create_dir_all(directory)
            .map_err(|source| OpenError::Directory { directory: directory.clone(), source })?;
        let lock = DirectoryLock::take(directory)?;
        let database = directory.join("stepbox.db");
        let failed = |source| OpenError::Database { database: database.clone(), source };

        let was_left_open = has_log(&database);
        let write = writing(&database);
        let mut connection = write.connect().await.map_err(|error| failed(error.into()))?;
        schema::migrate(&mut connection)
            .await
            .map_err(|error| OpenError::Schema { database: database.clone(), why: error.to_string() })?;
        let known = Known::read(&mut connection).await.map_err(failed)?;
        let runs = known.runs.clone();
        alone::set_up(&mut connection).await.map_err(failed)?;
        // Nobody else has the database open, and this connection is at rest.
        if let Err(error) = log_space::make(&connect::beside(&database, "-wal"), config.log_bytes) {
            tracing::warn!(%error, "no room for the write-ahead log could be made beforehand; commits will be slower at first");
        }

        let reading = options(&database, CACHE_KIB).read_only(true);
        let readers = connect::pool(config.readers.max(1), reading.clone()).await.map_err(failed)?;

        let (writer, queue) = mpsc::unbounded_channel();
        let checkpoints = tokio::spawn(checkpoint::run(write.clone(), writer.downgrade())).abort_handle();
        tokio::spawn(Writer::new(write, connection, known, lock).run(queue));
        let (claimed, wanted) = mpsc::unbounded_channel();
        tokio::spawn(reading::run(readers.clone(), wanted));
        let turns = config.readers.saturating_sub(READERS_SHORT).max(1);
        Ok(Sqlite {
            writer,
            readers,
            claimed,
            runs,
            was_left_open,
            turns: Arc::new(Semaphore::new(turns as usize)),
            search: Search::begin(directory, reading),
            checkpoints,
        })
    }

    /// Queues the verb, in the very first poll, and waits for what comes of it.
    async fn ask<T>(&self, verb: Verb, of_verb: impl FnOnce(Outcome) -> Option<T>) -> Result<T, StoreError> {
        let (answer, outcome) = oneshot::channel();
        let closed = || StoreError::Unavailable("it is closed".to_owned());
        self.writer.send(Message::Ask(verb, answer)).map_err(|_| closed())?;
        let outcome = outcome.await.map_err(|_| closed())??;
        of_verb(outcome).ok_or_else(|| StoreError::Corrupt("the answer of another verb came".to_owned()))
    }

    async fn read_claimed(&self, hold: Hold, known: u64) -> Result<Option<Claimed>, StoreError> {
        let hold = hold.known_up_to(known);
        let (answer, claimed) = oneshot::channel();
        let closed = || StoreError::Unavailable("it is closed".to_owned());
        self.claimed.send(Wanted { hold, answer }).map_err(|_| closed())?;
        claimed.await.map_err(|_| closed())?
    }

    /// If this fails too, the next start of the host finds the claim.
    async fn let_go(&self, claim: Claim) {
        if let Err(error) = self.commit(Commit::let_go(claim)).await {
            let run = claim.run.0;
            tracing::error!(%error, run, "a claim that could not be used could not be let go either");
        }
    }

    async fn read_seized(&self, claim: Claim) -> Result<Option<Seized>, StoreError> {
        repairs::read_seized(&mut *self.reader().await?, claim).await
    }

    async fn reader(&self) -> Result<PoolConnection<sqlx::Sqlite>, StoreError> {
        Ok(self.readers.acquire().await?)
    }

    /// Up to which execution searches have an index.
    #[cfg(test)]
    pub(super) async fn indexed_up_to(&self) -> Option<i64> {
        self.search.ids_with("any").await.map(|hits| hits.up_to)
    }

    /// The key of the last execution.
    #[cfg(test)]
    pub(super) async fn newest_execution(&self) -> i64 {
        super::queries::search::newest(&mut self.reader().await.unwrap()).await.unwrap()
    }

    /// From here on nothing can be read.
    #[cfg(test)]
    pub(super) async fn close_readers(&self) {
        self.readers.close().await;
    }

    /// Runs `sql` on the writing connection.
    #[cfg(test)]
    pub(super) async fn run_on_writer(&self, sql: &'static str) {
        let (done, wait) = oneshot::channel();
        assert!(self.writer.send(Message::Sql(sql, done)).is_ok());
        wait.await.expect("the writer is there");
    }
}

/// Whoever closes a database in good order leaves no log.
fn has_log(database: &Path) -> bool {
    std::fs::metadata(connect::beside(database, "-wal")).is_ok_and(|log| log.len() > 0)
}

fn writing(database: &Path) -> SqliteConnectOptions {
    options(database, CACHE_KIB)
        .create_if_missing(true)
        .page_size(PAGE_BYTES)
        .journal_mode(SqliteJournalMode::Wal)
        .synchronous(SqliteSynchronous::Full)
        // See `checkpoint`; this is for the case that it does not keep up.
        .pragma("wal_autocheckpoint", "200000")
        // Each width of each wide statement is one.
        .statement_cache_capacity(200)
}

fn written(outcome: Outcome) -> Option<()> {
    matches!(outcome, Outcome::Written).then_some(())
}

#[async_trait]
impl Store for Sqlite {
    fn was_left_open(&self) -> bool {
        self.was_left_open
    }

    fn new_run(&self) -> RunKey {
        self.runs.next()
    }

    async fn create_execution(&self, new: NewExecution) -> Result<Creation, StoreError> {
        let start = Start::of(new)?;
        self.ask(Verb::Create(Box::new(start)), |outcome| match outcome {
            Outcome::Created(creation) => Some(*creation),
            _ => None,
        })
        .await
    }

    async fn claim_from(
        &self,
        run: RunKey,
        now: Timestamp,
        known: u64,
    ) -> Result<Option<Claimed>, StoreError> {
        let hold = self
            .ask(Verb::Claim { run, now }, |outcome| match outcome {
                Outcome::Claimed(hold) => Some(hold),
                _ => None,
            })
            .await?;
        let Some(hold) = hold else { return Ok(None) };
        let read = self.read_claimed(hold, known).await;
        if read.is_err() {
            // Nobody will get to know of the hold, so it must not stay.
            self.let_go(hold.claim).await;
        }
        read
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        // Encoded here, so that the writer has nothing to do but write.
        let commit = Encoded::of(commit)?;
        self.ask(Verb::Commit(commit), |outcome| matches!(outcome, Outcome::Committed).then_some(())).await
    }

    async fn cancel(
        &self,
        execution: &ExecutionId,
        by: Option<&str>,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Cancel, StoreError> {
        let cancel = NewCancel { execution: execution.clone(), by: by.map(str::to_owned), now, audit };
        self.ask(Verb::Cancel(Box::new(cancel)), |outcome| match outcome {
            Outcome::Cancelled(cancel) => Some(cancel),
            _ => None,
        })
        .await
    }

    async fn seize(&self, execution: &ExecutionId) -> Result<Option<Seized>, StoreError> {
        // Who is cancelled, or seizes after us, between the two looks: then once more.
        const TRIES: u32 = 5;
        for _ in 0..TRIES {
            let claim = self
                .ask(Verb::Seize(execution.clone()), |outcome| match outcome {
                    Outcome::Seized(claim) => Some(claim),
                    _ => None,
                })
                .await?;
            let Some(claim) = claim else { return Ok(None) };
            match self.read_seized(claim).await {
                Ok(Some(seized)) => return Ok(Some(seized)),
                Ok(None) => {}
                Err(error) => {
                    self.let_go(claim).await;
                    return Err(error);
                }
            }
        }
        Err(StoreError::ClaimLost)
    }

    async fn repair(&self, repair: Repair) -> Result<RunKey, StoreError> {
        let repair = repairs::Encoded::of(repair)?;
        self.ask(Verb::Repair(Box::new(repair)), |outcome| match outcome {
            Outcome::Repaired(run) => Some(run),
            _ => None,
        })
        .await
    }

    async fn add_pause_rule(&self, rule: PauseRule, audit: AuditEntry) -> Result<(), StoreError> {
        self.ask(Verb::AddPauseRule(Box::new((rule, audit))), written).await
    }

    async fn delete_pause_rules(
        &self,
        ids: &[PauseRuleId],
        by: Option<&str>,
        now: Timestamp,
        audit: Vec<AuditEntry>,
    ) -> Result<Vec<PauseRuleId>, StoreError> {
        trail::one_for_each(ids.len(), audit.len())?;
        let rules = ids.iter().cloned().zip(audit).collect();
        let deletion = Deletion { rules, by: by.map(str::to_owned), now };
        self.ask(Verb::DeletePauseRules(deletion), |outcome| match outcome {
            Outcome::RulesDeleted(deleted) => Some(deleted),
            _ => None,
        })
        .await
    }

    async fn create_bulk(&self, new: NewBulk, audit: AuditEntry) -> Result<u64, StoreError> {
        self.ask(Verb::CreateBulk(Box::new((new, audit))), |outcome| match outcome {
            Outcome::BulkCreated(items) => Some(items),
            _ => None,
        })
        .await
    }

    async fn skip_bulk_item(
        &self,
        bulk: &BulkId,
        execution: &ExecutionId,
        why: &str,
    ) -> Result<(), StoreError> {
        let (bulk, execution, why) = (bulk.clone(), execution.clone(), why.to_owned());
        self.ask(Verb::SkipBulkItem { bulk, execution, why }, written).await
    }

    async fn settle_bulk(&self, bulk: &BulkId) -> Result<BulkProgress, StoreError> {
        let items = bulks::to_settle(&mut *self.reader().await?, bulk).await?;
        if !items.is_empty() {
            self.ask(Verb::SettleBulk(items), written).await?;
        }
        bulks::progress(&mut *self.reader().await?, bulk).await
    }

    async fn end_bulk(
        &self,
        bulk: &BulkId,
        state: BulkState,
        why: Option<&str>,
        now: Timestamp,
        audit: Option<AuditEntry>,
    ) -> Result<bool, StoreError> {
        let end = bulks::End { bulk: bulk.clone(), state, why: why.map(str::to_owned), now, audit };
        self.ask(Verb::EndBulk(Box::new(end)), |outcome| match outcome {
            Outcome::BulkEnded(ended) => Some(ended),
            _ => None,
        })
        .await
    }

    async fn add_event(&self, event: NewEvent) -> Result<EventAdded, StoreError> {
        let known = event.claim.clone();
        let (mut added, hold) = self
            .ask(Verb::AddEvent(event), |outcome| match outcome {
                Outcome::EventAdded(added, hold) => Some((added, hold)),
                _ => None,
            })
            .await?;
        if let (EventAdded::Added { taken, .. }, Some(hold)) = (&mut added, hold) {
            let known = known.map_or(0, |known| known(hold.claim.run));
            *taken = match self.read_claimed(hold, known).await {
                Ok(Some(claimed)) => Taken::Held(Box::new(claimed)),
                // Somebody has ended the hold, and goes on with the run.
                Ok(None) => Taken::Not,
                // The event is there all the same.
                Err(error) => {
                    tracing::warn!(%error, run = hold.claim.run.0, "a run with an event could not be read");
                    self.let_go(hold.claim).await;
                    Taken::LetGo
                }
            };
        }
        Ok(added)
    }

    async fn events_after(&self, run: RunKey, after: i64) -> Result<Vec<Event>, StoreError> {
        events::after(&mut *self.reader().await?, run, after).await
    }

    async fn recover(&self) -> Result<Vec<Unfinished>, StoreError> {
        self.ask(Verb::Recover, |outcome| match outcome {
            Outcome::Recovered(unfinished) => Some(unfinished),
            _ => None,
        })
        .await
    }

    async fn add_version(&self, new: NewVersion, audit: AuditEntry) -> Result<VersionAdded, StoreError> {
        self.ask(Verb::AddVersion(Box::new((new, audit))), |outcome| match outcome {
            Outcome::VersionAdded(added) => Some(added),
            _ => None,
        })
        .await
    }

    async fn activate_version(
        &self,
        task: &TaskName,
        version: u32,
        audit: AuditEntry,
    ) -> Result<Option<VersionView>, StoreError> {
        let verb = Verb::ActivateVersion { task: task.clone(), version, audit: Box::new(audit) };
        self.ask(verb, |outcome| match outcome {
            Outcome::VersionActivated(view) => Some(view),
            _ => None,
        })
        .await
    }

    async fn put_settings(&self, change: SettingsChange) -> Result<Option<VersionView>, StoreError> {
        self.ask(Verb::PutSettings(Box::new(change)), |outcome| match outcome {
            Outcome::VersionActivated(view) => Some(view),
            _ => None,
        })
        .await
    }

    async fn remove_module(&self, task: &TaskName, audit: AuditEntry) -> Result<Removal, StoreError> {
        self.ask(Verb::RemoveModule(task.clone(), Box::new(audit)), |outcome| match outcome {
            Outcome::ModuleRemoved(removal) => Some(removal),
            _ => None,
        })
        .await
    }

    async fn set_secret(&self, secret: NewSecret, audit: AuditEntry) -> Result<bool, StoreError> {
        self.ask(Verb::SetSecret(Box::new((secret, audit))), |outcome| match outcome {
            Outcome::SecretSet(is_new) => Some(is_new),
            _ => None,
        })
        .await
    }

    async fn delete_secret(&self, name: &SecretName, audit: AuditEntry) -> Result<bool, StoreError> {
        self.ask(Verb::DeleteSecret(name.clone(), Box::new(audit)), |outcome| match outcome {
            Outcome::SecretDeleted(was_there) => Some(was_there),
            _ => None,
        })
        .await
    }

    async fn component(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        modules::component(&mut *self.reader().await?, digest).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.ask(Verb::Ping, written).await
    }

    async fn close(&self) {
        // The writer goes last: the last connection to go tidies up.
        self.checkpoints.abort();
        self.search.close().await;
        self.readers.close().await;
        let (done, wait) = oneshot::channel();
        if self.writer.send(Message::Close(done)).is_ok() {
            // An error: it was closed already.
            let _ = wait.await;
        }
    }
}
