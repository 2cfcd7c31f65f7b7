//! A store that is slow, and that does not always do what it is asked to.

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use stepbox_domain::{
    Digest, ExecutionId, RunId, TaskName, Timestamp,
    audit::AuditEntry,
    bulk::{BulkId, BulkProgress, BulkState},
    capability::SecretName,
    event::Event,
    journal::Record,
    pause::{PauseRule, PauseRuleId},
    run::RunFacts,
};

use super::world::World;
use crate::store::{memory::Memory, *};

/// The reference model, behind the moods of a disk.
pub struct Faulty {
    world: World,
    store: Arc<Memory>,
}

impl Faulty {
    pub fn new(world: &World) -> Self {
        Faulty { world: world.clone(), store: world.1.clone() }
    }

    async fn lag(&self) {
        let ms = [0, 0, 0, 0, 1, 3, 30][self.world.roll(7) as usize];
        if ms > 0 {
            tokio::time::sleep(Duration::from_millis(ms)).await;
        }
    }

    /// Before a verb: it takes its time, and may not be done at all.
    async fn before(&self) -> Result<(), StoreError> {
        self.lag().await;
        self.fault()
    }

    fn fault(&self) -> Result<(), StoreError> {
        if self.world.strikes(40) {
            self.world.count(|counts| &mut counts.faults);
            return Err(StoreError::Unavailable("the dice say so".to_owned()));
        }
        Ok(())
    }
}

/// A verb that is done or not; its answer may be late, so that a crash comes between the two.
macro_rules! verb {
    ($self:ident, $call:expr) => {{
        $self.before().await?;
        let done = $call.await;
        $self.lag().await;
        done
    }};
}

#[async_trait]
impl Store for Faulty {
    fn was_left_open(&self) -> bool {
        self.store.was_left_open()
    }

    fn new_run(&self) -> RunKey {
        self.store.new_run()
    }

    async fn create_execution(&self, new: NewExecution) -> Result<Creation, StoreError> {
        let created = verb!(self, self.store.create_execution(new));
        // Made, but nobody gets to know.
        self.fault().and(created)
    }

    async fn claim_from(
        &self,
        run: RunKey,
        now: Timestamp,
        known: u64,
    ) -> Result<Option<Claimed>, StoreError> {
        verb!(self, self.store.claim_from(run, now, known))
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.before().await?;
        self.store.commit(commit).await?;
        self.lag().await;
        // Written, but nobody gets to know.
        self.fault()
    }

    async fn cancel(
        &self,
        execution: &ExecutionId,
        by: Option<&str>,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Cancel, StoreError> {
        verb!(self, self.store.cancel(execution, by, now, audit))
    }

    async fn seize(&self, execution: &ExecutionId) -> Result<Option<Seized>, StoreError> {
        verb!(self, self.store.seize(execution))
    }

    async fn repair(&self, repair: Repair) -> Result<RunKey, StoreError> {
        verb!(self, self.store.repair(repair))
    }

    async fn add_pause_rule(&self, rule: PauseRule, audit: AuditEntry) -> Result<(), StoreError> {
        verb!(self, self.store.add_pause_rule(rule, audit))
    }

    async fn delete_pause_rules(
        &self,
        ids: &[PauseRuleId],
        by: Option<&str>,
        now: Timestamp,
        audit: Vec<AuditEntry>,
    ) -> Result<Vec<PauseRuleId>, StoreError> {
        verb!(self, self.store.delete_pause_rules(ids, by, now, audit))
    }

    async fn create_bulk(&self, new: NewBulk, audit: AuditEntry) -> Result<u64, StoreError> {
        verb!(self, self.store.create_bulk(new, audit))
    }

    async fn skip_bulk_item(
        &self,
        bulk: &BulkId,
        execution: &ExecutionId,
        why: &str,
    ) -> Result<(), StoreError> {
        verb!(self, self.store.skip_bulk_item(bulk, execution, why))
    }

    async fn settle_bulk(&self, bulk: &BulkId) -> Result<BulkProgress, StoreError> {
        verb!(self, self.store.settle_bulk(bulk))
    }

    async fn end_bulk(
        &self,
        bulk: &BulkId,
        state: BulkState,
        why: Option<&str>,
        now: Timestamp,
        audit: Option<AuditEntry>,
    ) -> Result<bool, StoreError> {
        verb!(self, self.store.end_bulk(bulk, state, why, now, audit))
    }

    async fn add_event(&self, mut event: NewEvent) -> Result<EventAdded, StoreError> {
        self.lag().await;
        // It may be told of and not come, or come otherwise.
        if let Some(coming) = event.coming.take() {
            coming(&self.store.what_would_become_of(&event));
        }
        verb!(self, self.store.add_event(event))
    }

    async fn events_after(&self, run: RunKey, after: i64) -> Result<Vec<Event>, StoreError> {
        verb!(self, self.store.events_after(run, after))
    }

    async fn recover(&self) -> Result<Vec<Unfinished>, StoreError> {
        verb!(self, self.store.recover())
    }

    async fn add_version(&self, new: NewVersion, audit: AuditEntry) -> Result<VersionAdded, StoreError> {
        self.store.add_version(new, audit).await
    }

    async fn activate_version(
        &self,
        task: &TaskName,
        version: u32,
        audit: AuditEntry,
    ) -> Result<Option<VersionView>, StoreError> {
        self.store.activate_version(task, version, audit).await
    }

    async fn put_settings(&self, change: SettingsChange) -> Result<Option<VersionView>, StoreError> {
        self.store.put_settings(change).await
    }

    async fn remove_module(&self, task: &TaskName, audit: AuditEntry) -> Result<Removal, StoreError> {
        self.store.remove_module(task, audit).await
    }

    async fn set_secret(&self, secret: NewSecret, audit: AuditEntry) -> Result<bool, StoreError> {
        verb!(self, self.store.set_secret(secret, audit))
    }

    async fn delete_secret(&self, name: &SecretName, audit: AuditEntry) -> Result<bool, StoreError> {
        verb!(self, self.store.delete_secret(name, audit))
    }

    async fn component(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        self.store.component(digest).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        verb!(self, self.store.ping())
    }

    async fn close(&self) {
        self.store.close().await;
    }
}

/// What is read is what is there; only the answer may be missing.
#[async_trait]
impl Views for Faulty {
    async fn execution(&self, id: &ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
        verb!(self, self.store.execution(id))
    }

    async fn executions(
        &self,
        filter: &ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionView>, u64), StoreError> {
        verb!(self, self.store.executions(filter, page))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        verb!(self, self.store.counts())
    }

    async fn journal(&self, run: &RunId) -> Result<Option<(RunFacts, Vec<Record>)>, StoreError> {
        verb!(self, self.store.journal(run))
    }

    async fn runs(&self, execution: &ExecutionId) -> Result<Option<Vec<RunView>>, StoreError> {
        verb!(self, self.store.runs(execution))
    }

    async fn pause_rules(&self, deleted: bool) -> Result<Vec<PauseRule>, StoreError> {
        verb!(self, self.store.pause_rules(deleted))
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<AuditView>, u64), StoreError> {
        verb!(self, self.store.audit(filter, limit, offset))
    }

    async fn audit_after(&self, after: u64, limit: u32) -> Result<Vec<AuditView>, StoreError> {
        verb!(self, self.store.audit_after(after, limit))
    }

    async fn troubles(
        &self,
        selection: &FailedSelection,
        limit: u32,
        examples: u32,
    ) -> Result<Vec<TroubleView>, StoreError> {
        verb!(self, self.store.troubles(selection, limit, examples))
    }

    async fn count_selection(&self, selection: &FailedSelection) -> Result<u64, StoreError> {
        verb!(self, self.store.count_selection(selection))
    }

    async fn bulks(&self) -> Result<Vec<BulkView>, StoreError> {
        verb!(self, self.store.bulks())
    }

    async fn bulk(&self, id: &BulkId) -> Result<Option<BulkView>, StoreError> {
        verb!(self, self.store.bulk(id))
    }

    async fn pending_bulk_items(&self, id: &BulkId, limit: u32) -> Result<Vec<ExecutionId>, StoreError> {
        verb!(self, self.store.pending_bulk_items(id, limit))
    }

    async fn secrets(&self) -> Result<Vec<SealedSecret>, StoreError> {
        verb!(self, self.store.secrets())
    }

    async fn modules(&self) -> Result<Vec<ModuleView>, StoreError> {
        verb!(self, self.store.modules())
    }

    async fn module(&self, task: &TaskName) -> Result<Option<ModuleView>, StoreError> {
        verb!(self, self.store.module(task))
    }

    async fn versions(&self, task: &TaskName) -> Result<Option<Vec<VersionView>>, StoreError> {
        verb!(self, self.store.versions(task))
    }

    async fn version(&self, task: &TaskName, version: u32) -> Result<Option<VersionView>, StoreError> {
        verb!(self, self.store.version(task, version))
    }

    async fn settings(&self) -> Result<Vec<(TaskName, SettingsView)>, StoreError> {
        verb!(self, self.store.settings())
    }

    async fn settings_of(&self, task: &TaskName) -> Result<SettingsView, StoreError> {
        verb!(self, self.store.settings_of(task))
    }
}
