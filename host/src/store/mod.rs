//! What is kept, in words of the domain.
//!
//! Nobody outside knows a SQL dialect. [`Store`] is what the engine writes through; [`Views`] is
//! what the API reads. All that a decision needs is one value ([`Commit`]), written in one
//! transaction or not at all; what was answered `Ok` is on disk.

pub mod logs;
pub mod memory;
pub mod sqlite;

mod admin;
pub mod audit_trail;
mod backlog;
mod checkpoint;
mod codec;
mod connect;
mod failures;
mod group_commit;
mod lists;
mod lock;
mod log_space;
mod queries;
mod reading;
mod runs;
mod schema;
mod search;
mod trail;

#[cfg(test)]
mod tests;

use async_trait::async_trait;
use stepbox_domain::{
    Digest, ExecutionId, Failure, Json, RunId, TaskName, Timestamp,
    audit::AuditEntry,
    bulk::{BulkId, BulkProgress, BulkState},
    capability::SecretName,
    event::Event,
    journal::Record,
    pause::{PauseRule, PauseRuleId},
    run::RunFacts,
    trouble::Trouble,
};

use self::admin::{BULK_CANCELLED, BULK_EXAMPLES};
pub use self::{admin::*, lists::*, runs::*};

/// The store's own number for a run. Smaller than its id, and ascending.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RunKey(pub i64);

/// Which hold on a run this is: each claim has a higher number than the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Epoch(pub i64);

/// A worker's hold on a run. Only the holder of the current epoch can record anything (invariant 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    pub run: RunKey,
    pub epoch: Epoch,
}

impl Claim {
    /// The hold on a run from its start on.
    pub fn first(run: RunKey) -> Self {
        Claim { run, epoch: Epoch(1) }
    }
}

/// What the engine writes through.
///
/// A verb is queued when its future is first polled, and is done from then on, whether or not
/// anybody waits for its answer. So a future that takes hold of a run ([`Store::claim`], or
/// [`Store::create_execution`] with `held`) must not be dropped: nobody would know of the claim
/// until the next recovery. Give it to a task of its own.
#[async_trait]
pub trait Store: Views {
    /// Whether whoever had the store before has not closed it.
    fn was_left_open(&self) -> bool;

    /// A key under which a run can be started that is driven already ([`NewExecution::held`]). None is
    /// given twice; one that comes to nothing is lost, which does no harm.
    fn new_run(&self) -> RunKey;

    /// Creates the execution with its first run, unless the id is taken. With `held`, what the run has
    /// come to goes in with it, all or nothing.
    async fn create_execution(&self, new: NewExecution) -> Result<Creation, StoreError>;

    /// Takes hold of a run that is neither over nor held, at `now`: its status becomes
    /// `running`. None when it is over or somebody holds it.
    async fn claim(&self, run: RunKey, now: Timestamp) -> Result<Option<Claimed>, StoreError> {
        self.claim_from(run, now, 0).await
    }

    /// The same for somebody who knows the first `known` records of the run's journal: they are not read.
    /// (Nothing in a journal ever changes.)
    async fn claim_from(
        &self,
        run: RunKey,
        now: Timestamp,
        known: u64,
    ) -> Result<Option<Claimed>, StoreError>;

    /// Adds to the journal of a claimed run and changes what else the commit names, all or
    /// nothing. [`StoreError::ClaimLost`]: drop the run, it is no longer ours.
    async fn commit(&self, commit: Commit) -> Result<(), StoreError>;

    /// Ends the current run and the execution as cancelled, whoever holds it; the claim is void
    /// from then on. `audit` is written with it, if it is cancelled.
    async fn cancel(
        &self,
        execution: &ExecutionId,
        by: Option<&str>,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Cancel, StoreError>;

    /// Takes hold of the execution's current run for a repair, from whoever holds it, and whether
    /// or not it is over. Nothing else changes, and it counts as no claim for the count of
    /// crashes. End it with [`Store::repair`], or with [`Commit::let_go`]. None: no such execution.
    ///
    /// The same rule as for [`Store::claim`]: its future must not be dropped.
    async fn seize(&self, execution: &ExecutionId) -> Result<Option<Seized>, StoreError>;

    /// Carries out a repair of a seized run, with its audit entry and the mark on its bulk item,
    /// all or nothing. The claim ends with it. The run that is current from then on, free to be
    /// claimed. [`StoreError::ClaimLost`]: somebody cancelled or seized it meanwhile; look again.
    async fn repair(&self, repair: Repair) -> Result<RunKey, StoreError>;

    /// Keeps a pause rule.
    async fn add_pause_rule(&self, rule: PauseRule, audit: AuditEntry) -> Result<(), StoreError>;

    /// Marks those of `ids` as deleted that are not yet, and says which those are. `audit` has one
    /// entry for each of `ids`; those of the others are not written.
    async fn delete_pause_rules(
        &self,
        ids: &[PauseRuleId],
        by: Option<&str>,
        now: Timestamp,
        audit: Vec<AuditEntry>,
    ) -> Result<Vec<PauseRuleId>, StoreError>;

    /// Starts a bulk repair: writes down the plan and which executions it is for (all that the
    /// selection matches at this moment, oldest failure first), in one transaction. How many.
    async fn create_bulk(&self, new: NewBulk, audit: AuditEntry) -> Result<u64, StoreError>;

    /// Marks an item that cannot be repaired, and why. Those that can are marked by
    /// [`Store::repair`].
    async fn skip_bulk_item(
        &self,
        bulk: &BulkId,
        execution: &ExecutionId,
        why: &str,
    ) -> Result<(), StoreError>;

    /// Looks which repaired items are over by now, and keeps what became of them. How far it is.
    async fn settle_bulk(&self, bulk: &BulkId) -> Result<BulkProgress, StoreError>;

    /// Ends a bulk repair that is running; false when it is not running. `audit`, if any, is
    /// written with it.
    async fn end_bulk(
        &self,
        bulk: &BulkId,
        state: BulkState,
        why: Option<&str>,
        now: Timestamp,
        audit: Option<AuditEntry>,
    ) -> Result<bool, StoreError>;

    /// Keeps an event. Stored before it is matched.
    ///
    /// The same rule as for [`Store::claim`]: its future must not be dropped.
    async fn add_event(&self, event: NewEvent) -> Result<EventAdded, StoreError>;

    /// The unconsumed events of the run's execution that came after number `after`, oldest first.
    async fn events_after(&self, run: RunKey, after: i64) -> Result<Vec<Event>, StoreError>;

    /// After a start of the host: lets go of every claim that a dead process left behind, and
    /// lists all runs that are not over.
    async fn recover(&self) -> Result<Vec<Unfinished>, StoreError>;

    /// Keeps a component as the next version of its task, and makes it the active one unless it is to
    /// wait for grants; no new version when the active one, or the newest that waits, has that
    /// digest. `audit` is written with a new version, whose number becomes its target.
    async fn add_version(&self, new: NewVersion, audit: AuditEntry) -> Result<VersionAdded, StoreError>;

    /// Makes it the active one; no version up to it waits from then on. None: no such version.
    /// `audit` is written if it is another than the active one.
    async fn activate_version(
        &self,
        task: &TaskName,
        version: u32,
        audit: AuditEntry,
    ) -> Result<Option<VersionView>, StoreError>;

    /// Replaces what is set for the task, and makes the version active that may follow from it, as
    /// [`Store::activate_version`] does; all or nothing. That version, if there is one.
    async fn put_settings(&self, change: SettingsChange) -> Result<Option<VersionView>, StoreError>;

    /// Forgets the task, all its versions and what is set for it, unless executions of it are not
    /// over.
    async fn remove_module(&self, task: &TaskName, audit: AuditEntry) -> Result<Removal, StoreError>;

    /// Keeps a secret under its name, in place of the one there was; whether it is new.
    async fn set_secret(&self, secret: NewSecret, audit: AuditEntry) -> Result<bool, StoreError>;

    /// Forgets a secret; false when there is none. `audit` is written if there was one.
    async fn delete_secret(&self, name: &SecretName, audit: AuditEntry) -> Result<bool, StoreError>;

    /// The bytes of a component; none when no version has that digest.
    async fn component(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError>;

    /// Does nothing but go to the disk the way that a write does: can the store still write?
    async fn ping(&self) -> Result<(), StoreError>;

    /// Writes what is queued and closes. Nothing may be written afterwards.
    async fn close(&self);
}

/// What the API reads. Never waits for a writer.
#[async_trait]
pub trait Views: Send + Sync {
    async fn execution(&self, id: &ExecutionId) -> Result<Option<ExecutionView>, StoreError>;

    /// A page of what `filter` matches, and how many it matches in all.
    async fn executions(
        &self,
        filter: &ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionView>, u64), StoreError>;

    async fn counts(&self) -> Result<Counts, StoreError>;

    /// All records of a run with their facts; none when there is no such run.
    async fn journal(&self, run: &RunId) -> Result<Option<(RunFacts, Vec<Record>)>, StoreError>;

    /// The runs of an execution, oldest first; none when there is no such execution.
    async fn runs(&self, execution: &ExecutionId) -> Result<Option<Vec<RunView>>, StoreError>;

    /// Oldest first; with the deleted ones where `deleted`. (Whether one has expired is for the
    /// reader to see.)
    async fn pause_rules(&self, deleted: bool) -> Result<Vec<PauseRule>, StoreError>;

    /// A page of the audit trail, newest first, and how many entries match in all.
    async fn audit(
        &self,
        filter: &AuditFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<AuditView>, u64), StoreError>;

    /// Up to `limit` entries of the audit trail after number `after`, oldest first.
    async fn audit_after(&self, after: u64, limit: u32) -> Result<Vec<AuditView>, StoreError>;

    /// What the selected failed executions have in common, the most frequent first; `examples` ids of each, the
    /// newest failures first.
    async fn troubles(
        &self,
        selection: &FailedSelection,
        limit: u32,
        examples: u32,
    ) -> Result<Vec<TroubleView>, StoreError>;

    /// How many executions a bulk repair over this selection would be for.
    async fn count_selection(&self, selection: &FailedSelection) -> Result<u64, StoreError>;

    /// All bulk repairs, newest first.
    async fn bulks(&self) -> Result<Vec<BulkView>, StoreError>;

    async fn bulk(&self, id: &BulkId) -> Result<Option<BulkView>, StoreError>;

    /// Up to `limit` items that nothing has been done with, in order.
    async fn pending_bulk_items(&self, id: &BulkId, limit: u32) -> Result<Vec<ExecutionId>, StoreError>;

    /// All secrets by name, as they are kept.
    async fn secrets(&self) -> Result<Vec<SealedSecret>, StoreError>;

    /// Every registered task, by name.
    async fn modules(&self) -> Result<Vec<ModuleView>, StoreError>;

    async fn module(&self, task: &TaskName) -> Result<Option<ModuleView>, StoreError>;

    /// Newest first; none when the task is not registered.
    async fn versions(&self, task: &TaskName) -> Result<Option<Vec<VersionView>>, StoreError>;

    async fn version(&self, task: &TaskName, version: u32) -> Result<Option<VersionView>, StoreError>;

    /// What is set for tasks, by name; whether or not they have modules.
    async fn settings(&self) -> Result<Vec<(TaskName, SettingsView)>, StoreError>;

    /// What is set for the task; nothing where nobody has set anything.
    async fn settings_of(&self, task: &TaskName) -> Result<SettingsView, StoreError>;
}

/// Why the store did not do it. One variant for each thing that a caller would do differently.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// Drop the run: another has claimed it, or it is over.
    #[error("the claim on the run is no longer ours")]
    ClaimLost,
    /// Nothing was written; try again later.
    #[error("the store cannot be used now: {0}")]
    Unavailable(String),
    /// What is stored makes no sense; somebody has to look.
    #[error("the store holds what it should not: {0}")]
    Corrupt(String),
}

#[derive(Clone, Debug)]
pub struct NewVersion {
    pub task: TaskName,
    pub digest: Digest,
    pub component: Vec<u8>,
    /// What the module said of itself, to the letter.
    pub manifest: Json,
    pub compiled_in_ms: u64,
    pub now: Timestamp,
    /// It wants what is not granted.
    pub waits: bool,
}

/// A secret, encrypted: what the store never sees is its value.
#[derive(Clone, Debug, PartialEq)]
pub struct NewSecret {
    pub name: SecretName,
    pub ciphertext: Vec<u8>,
    pub now: Timestamp,
}

/// A secret as it is kept.
#[derive(Clone, Debug, PartialEq)]
pub struct SealedSecret {
    pub name: SecretName,
    pub ciphertext: Vec<u8>,
    pub created_at: Timestamp,
    pub updated_at: Timestamp,
}

#[derive(Clone, Debug, PartialEq)]
pub enum VersionAdded {
    New(VersionView),
    /// The active version has these bytes already, or the newest that waits for grants.
    Same(VersionView),
}

/// What is to be set for a task.
#[derive(Clone, Debug)]
pub struct SettingsChange {
    pub task: TaskName,
    pub settings: SettingsView,
    pub audit: AuditEntry,
    /// The version that becomes active with it, and the entry about that.
    pub activate: Option<(u32, AuditEntry)>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Removal {
    Removed,
    NoSuchModule,
    /// So many executions of it are not over.
    InUse(u64),
}

/// A repair that names a version which is not there, or whose run is pinned to one.
fn not_a_version(task: &TaskName, version: u32) -> StoreError {
    StoreError::Unavailable(format!(
        "task \"{task}\" has no version {version}; repair with one of those that it has"
    ))
}

/// A repair for a bulk repair that is over, or that has done this item already.
fn not_pending(bulk: &BulkId, execution: &ExecutionId) -> StoreError {
    let bulk = bulk.as_str();
    StoreError::Unavailable(format!("execution \"{execution}\" is not pending in bulk repair {bulk}"))
}

/// A start on a version that is gone: its module was removed between the look at it and the start.
fn no_such_version(task: &TaskName, version: u32) -> StoreError {
    StoreError::Unavailable(format!(
        "version {version} of task \"{task}\" was removed meanwhile; start again"
    ))
}
