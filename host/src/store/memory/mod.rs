//! The store in plain memory: the reference that the real ones are compared with.
//!
//! Says in the most obvious way what each verb means. Keeps nothing beyond the process, and
//! nothing in it is fast.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use stepbox_domain::{
    Digest, EventName, ExecutionId, ExecutionStatus, Json, RunId, TaskName, Timestamp,
    event::Event,
    journal::Record,
    run::{RunFacts, Wait},
};

use super::*;

mod admin;
mod bulks;
mod repairs;

use bulks::{Bulk, ItemState};

#[derive(Default)]
pub struct Memory {
    tables: Mutex<Tables>,
}

#[derive(Default)]
struct Tables {
    executions: BTreeMap<ExecutionId, Execution>,
    runs: Vec<Run>,
    events: Vec<StoredEvent>,
    modules: BTreeMap<TaskName, Module>,
    components: HashMap<Digest, Vec<u8>>,
    pause_rules: Vec<PauseRule>,
    audit: Vec<AuditView>,
    bulks: Vec<Bulk>,
    closed: bool,
}

struct Execution {
    /// The order of the starts.
    order: usize,
    view: ExecutionView,
    /// Why it failed, while it is failed.
    trouble: Option<Trouble>,
}

struct Run {
    facts: RunFacts,
    payload: Json,
    trigger: Trigger,
    triggered_by: Option<String>,
    status: ExecutionStatus,
    started_at: Option<Timestamp>,
    completed_at: Option<Timestamp>,
    /// Once it is not the current run any more; until then the execution has them.
    result: Option<Json>,
    error: Option<Failure>,
    records: Vec<Record>,
    due: Option<Timestamp>,
    epoch: i64,
    hold: Hold,
    /// The length of the journal at the last claim; none once the claim has come to a wait.
    records_at_claim: Option<usize>,
    crashes: u32,
}

impl Run {
    /// An initial one.
    fn new(facts: RunFacts, payload: Json) -> Self {
        Run {
            due: Some(facts.created_at),
            facts,
            payload,
            trigger: Trigger::Initial,
            triggered_by: None,
            status: ExecutionStatus::Scheduled,
            started_at: None,
            completed_at: None,
            result: None,
            error: None,
            records: Vec::new(),
            epoch: 0,
            hold: Hold::Free,
            records_at_claim: None,
            crashes: 0,
        }
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Hold {
    Free,
    Held,
    Abandoned,
}

struct StoredEvent {
    execution: ExecutionId,
    event: Event,
    consumed: bool,
}

#[derive(Default)]
struct Module {
    active: Option<u32>,
    versions_given: u32,
    versions: BTreeMap<u32, VersionView>,
}

impl Memory {
    pub fn new() -> Self {
        Memory::default()
    }

    fn tables(&self) -> MutexGuard<'_, Tables> {
        self.tables.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writable(&self) -> Result<MutexGuard<'_, Tables>, StoreError> {
        let tables = self.tables();
        if tables.closed {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        }
        Ok(tables)
    }
}

impl Tables {
    fn run(&mut self, key: RunKey) -> Option<&mut Run> {
        let index = usize::try_from(key.0).ok()?.checked_sub(1)?;
        self.runs.get_mut(index)
    }

    fn execution_of(&mut self, run: RunKey) -> Option<&mut Execution> {
        let id = self.run(run)?.facts.execution.clone();
        self.executions.get_mut(&id)
    }

    fn view_of(&mut self, run: RunKey) -> Option<&mut ExecutionView> {
        self.execution_of(run).map(|execution| &mut execution.view)
    }

    fn pending(&self, execution: &ExecutionId, after: i64) -> Vec<Event> {
        self.events
            .iter()
            .filter(|stored| stored.execution == *execution && !stored.consumed && stored.event.seq > after)
            .map(|stored| stored.event.clone())
            .collect()
    }

    fn claim(&mut self, key: RunKey, now: Timestamp) -> Result<Option<Claimed>, StoreError> {
        let open = |view: &&mut ExecutionView| view.run_key == key && !view.status.is_terminal();
        let Some(view) = self.view_of(key).filter(open) else { return Ok(None) };
        let (task, version, payload) = (view.task.clone(), view.version, view.payload.clone());
        let digest = self.version(&task, version).map(|version| version.digest).ok_or_else(|| {
            StoreError::Corrupt(format!("there is no version {version} of task \"{task}\""))
        })?;
        let Some(run) = self.run(key).filter(|run| run.hold != Hold::Held) else { return Ok(None) };
        let without_progress = run.hold == Hold::Abandoned && run.records_at_claim == Some(run.records.len());
        run.crashes = if without_progress { run.crashes + 1 } else { 0 };
        run.records_at_claim = Some(run.records.len());
        run.epoch += 1;
        run.hold = Hold::Held;
        run.status = ExecutionStatus::Running;
        run.started_at.get_or_insert(now);
        let mut claimed = Claimed {
            claim: Claim { run: key, epoch: Epoch(run.epoch) },
            facts: run.facts.clone(),
            payload,
            digest,
            records: run.records.clone(),
            events: Vec::new(),
            crashes: run.crashes,
        };
        claimed.events = self.pending(&claimed.facts.execution, 0);
        if let Some(view) = self.view_of(key) {
            view.status = ExecutionStatus::Running;
        }
        Ok(Some(claimed))
    }

    fn commit(&mut self, commit: Commit) -> Result<(), StoreError> {
        let held = |run: &&mut Run| run.hold == Hold::Held && run.epoch == commit.claim.epoch.0;
        let run = self.run(commit.claim.run).filter(held).ok_or(StoreError::ClaimLost)?;
        if !commit.records.is_empty() && run.records.len() as u64 != commit.first_number {
            return Err(StoreError::Corrupt("the number of the record is not the next".to_owned()));
        }
        let execution = run.facts.execution.clone();
        let is_pending = |seq: &i64| {
            let mut events = self.events.iter();
            events.any(|stored| stored.event.seq == *seq && stored.execution == execution && !stored.consumed)
        };
        if !commit.consumed.iter().all(is_pending) {
            return Err(StoreError::Corrupt("the event is not there to be consumed".to_owned()));
        }
        for stored in &mut self.events {
            stored.consumed |= commit.consumed.contains(&stored.event.seq);
        }
        let Some(run) = self.run(commit.claim.run) else { return Err(StoreError::ClaimLost) };
        run.records.extend(commit.records);
        if commit.release {
            run.hold = Hold::Free;
        }
        if let Some(standing) = commit.standing {
            self.stand(commit.claim.run, standing);
        }
        Ok(())
    }

    fn stand(&mut self, key: RunKey, standing: Standing) {
        let (due, status, over) = match &standing {
            Standing::Open { due, .. } => (*due, ExecutionStatus::Running, None),
            Standing::Completed { at, .. } => (None, ExecutionStatus::Completed, Some(*at)),
            Standing::Failed { at, .. } => (None, ExecutionStatus::Failed, Some(*at)),
        };
        if let Some(run) = self.run(key) {
            run.due = due;
            run.status = status;
            run.completed_at = over;
            if over.is_some() {
                run.hold = Hold::Free;
            }
            if matches!(&standing, Standing::Open { waiting: Some(_), .. }) {
                run.records_at_claim = None;
            }
        }
        let Some(Execution { view, trouble: troubled, .. }) = self.execution_of(key) else { return };
        view.waiting = None;
        match standing {
            Standing::Open { waiting, .. } => view.waiting = waiting,
            Standing::Completed { result, at } => {
                view.status = ExecutionStatus::Completed;
                view.completed_at = Some(at);
                view.result = Some(result);
            }
            Standing::Failed { failure, trouble, at } => {
                *troubled = Some(trouble);
                view.status = ExecutionStatus::Failed;
                view.completed_at = Some(at);
                view.error = Some(failure);
            }
        }
    }

    /// Whether an event that has come already answers the wait.
    fn event_is_there(&self, view: &ExecutionView) -> bool {
        let Some(Wait::Event { event, .. }) = &view.waiting else { return false };
        self.pending(&view.id, 0).iter().any(|pending| pending.name == *event)
    }

    fn unfinished(&self, task: &TaskName, version: Option<u32>) -> u64 {
        let of_it = |view: &&ExecutionView| {
            view.task == *task
                && version.is_none_or(|version| view.version == version)
                && !view.status.is_terminal()
        };
        self.executions.values().map(|execution| &execution.view).filter(of_it).count() as u64
    }

    fn registered(&self, task: &TaskName) -> Option<(&Module, u32)> {
        let module = self.modules.get(task)?;
        Some((module, module.active?))
    }

    fn version(&self, task: &TaskName, version: u32) -> Option<VersionView> {
        let (module, active) = self.registered(task)?;
        let mut view = module.versions.get(&version)?.clone();
        view.active = active == version;
        view.unfinished = self.unfinished(task, Some(version));
        Some(view)
    }

    fn module(&self, task: &TaskName) -> Option<ModuleView> {
        let (module, active) = self.registered(task)?;
        Some(ModuleView {
            task: task.clone(),
            active: self.version(task, active)?,
            versions: u32::try_from(module.versions.len()).unwrap_or(u32::MAX),
            unfinished: self.unfinished(task, None),
        })
    }
}

#[async_trait]
impl Store for Memory {
    async fn create_execution(&self, new: NewExecution) -> Result<Creation, StoreError> {
        let mut tables = self.writable()?;
        if let Some(there) = tables.executions.get(&new.id) {
            return Ok(match there.view.fingerprint == new.fingerprint {
                true => Creation::Replay(there.view.clone()),
                false => Creation::Clash { task: there.view.task.clone() },
            });
        }
        if tables.version(&new.task, new.version).is_none() {
            return Err(no_such_version(&new.task, new.version));
        }
        let run = RunKey(tables.runs.len() as i64 + 1);
        let facts = RunFacts {
            run: RunId::new(&new.id, 0),
            execution: new.id.clone(),
            index: 0,
            task: new.task.clone(),
            version: new.version,
            created_at: new.now,
            deadline: new.deadline,
        };
        let view = ExecutionView {
            id: new.id.clone(),
            task: new.task,
            payload: new.payload.clone(),
            fingerprint: new.fingerprint,
            status: ExecutionStatus::Scheduled,
            scheduled_at: new.now,
            completed_at: None,
            version: new.version,
            run: facts.run.clone(),
            run_key: run,
            result: None,
            error: None,
            waiting: None,
        };
        tables.runs.push(Run::new(facts, new.payload));
        let order = tables.executions.len();
        tables.executions.insert(new.id.clone(), Execution { order, view, trouble: None });
        let claimed = if new.claim { tables.claim(run, new.now)? } else { None };
        let execution = tables.executions[&new.id].view.clone();
        Ok(Creation::New { execution, run, claimed })
    }

    async fn claim(&self, run: RunKey, now: Timestamp) -> Result<Option<Claimed>, StoreError> {
        self.writable()?.claim(run, now)
    }

    async fn commit(&self, commit: Commit) -> Result<(), StoreError> {
        self.writable()?.commit(commit)
    }

    async fn cancel(
        &self,
        execution: &ExecutionId,
        by: Option<&str>,
        now: Timestamp,
        audit: AuditEntry,
    ) -> Result<Cancel, StoreError> {
        let mut tables = self.writable()?;
        let Some(there) = tables.executions.get_mut(execution) else { return Ok(Cancel::NoSuchExecution) };
        let view = &mut there.view;
        if view.status.is_terminal() {
            return Ok(Cancel::AlreadyOver(view.status));
        }
        let audit = trail::of_cancel(audit, view.task.clone(), view.status);
        view.status = ExecutionStatus::Cancelled;
        view.completed_at = Some(now);
        view.waiting = None;
        let key = view.run_key;
        if let Some(run) = tables.run(key) {
            run.records.push(Record::RunCancelled { by: by.map(str::to_owned), at: now });
            run.status = ExecutionStatus::Cancelled;
            run.completed_at = Some(now);
            run.epoch += 1;
            run.hold = Hold::Free;
            run.due = None;
        }
        tables.write_audit(audit);
        Ok(Cancel::Cancelled(key))
    }

    async fn seize(&self, execution: &ExecutionId) -> Result<Option<Seized>, StoreError> {
        Ok(self.writable()?.seize(execution))
    }

    async fn repair(&self, repair: Repair) -> Result<RunKey, StoreError> {
        self.writable()?.repair(repair)
    }

    async fn add_pause_rule(&self, rule: PauseRule, audit: AuditEntry) -> Result<(), StoreError> {
        self.writable()?.add_pause_rule(rule, audit)
    }

    async fn delete_pause_rules(
        &self,
        ids: &[PauseRuleId],
        by: Option<&str>,
        now: Timestamp,
        audit: Vec<AuditEntry>,
    ) -> Result<Vec<PauseRuleId>, StoreError> {
        self.writable()?.delete_pause_rules(ids, by, now, audit)
    }

    async fn create_bulk(&self, new: NewBulk, audit: AuditEntry) -> Result<u64, StoreError> {
        self.writable()?.create_bulk(new, audit)
    }

    async fn skip_bulk_item(
        &self,
        bulk: &BulkId,
        execution: &ExecutionId,
        why: &str,
    ) -> Result<(), StoreError> {
        self.writable()?.skip_bulk_item(bulk, execution, why);
        Ok(())
    }

    async fn settle_bulk(&self, bulk: &BulkId) -> Result<BulkProgress, StoreError> {
        Ok(self.writable()?.settle_bulk(bulk))
    }

    async fn end_bulk(
        &self,
        bulk: &BulkId,
        state: BulkState,
        why: Option<&str>,
        now: Timestamp,
        audit: Option<AuditEntry>,
    ) -> Result<bool, StoreError> {
        Ok(self.writable()?.end_bulk(bulk, state, why, now, audit))
    }

    async fn add_event(
        &self,
        execution: &ExecutionId,
        name: &EventName,
        payload: &Json,
        now: Timestamp,
    ) -> Result<EventAdded, StoreError> {
        let mut tables = self.writable()?;
        let Some(there) = tables.executions.get(execution) else { return Ok(EventAdded::NoSuchExecution) };
        let view = &there.view;
        if view.status.is_terminal() {
            return Ok(EventAdded::AlreadyOver(view.status));
        }
        let in_time = |wait: &Wait| wait.until().is_none_or(|deadline| now <= deadline);
        let stands_at_it = matches!(&view.waiting, Some(wait @ Wait::Event { event, .. })
            if event == name && in_time(wait));
        let awaited = stands_at_it && !tables.event_is_there(view);
        let run = view.run_key;
        let seq = tables.events.len() as i64 + 1;
        let event = Event { seq, name: name.clone(), payload: payload.clone(), received_at: now };
        tables.events.push(StoredEvent { execution: execution.clone(), event, consumed: false });
        Ok(EventAdded::Added { run, awaited })
    }

    async fn events_after(&self, run: RunKey, after: i64) -> Result<Vec<Event>, StoreError> {
        let mut tables = self.tables();
        let Some(view) = tables.view_of(run) else { return Ok(Vec::new()) };
        let id = view.id.clone();
        Ok(tables.pending(&id, after))
    }

    async fn recover(&self) -> Result<Vec<Unfinished>, StoreError> {
        let mut tables = self.writable()?;
        let mut unfinished = Vec::new();
        for execution in tables.executions.values().filter(|execution| !execution.view.status.is_terminal()) {
            let view = &execution.view;
            let run = &tables.runs[view.run_key.0 as usize - 1];
            let waiting = view.waiting.is_some() && run.hold == Hold::Free && !tables.event_is_there(view);
            let crashes = run.crashes;
            let held = matches!(view.waiting, Some(Wait::Pause { .. }));
            unfinished.push(Unfinished { run: view.run_key, due: run.due, waiting, crashes, held });
        }
        unfinished.sort_by_key(|run| run.run);
        // Of a run that is over nobody can take hold but by force, so its hold does no harm.
        for run in tables.runs.iter_mut().filter(|run| run.hold == Hold::Held && !run.status.is_terminal()) {
            run.hold = Hold::Abandoned;
        }
        Ok(unfinished)
    }

    async fn add_version(&self, new: NewVersion, audit: AuditEntry) -> Result<VersionAdded, StoreError> {
        let mut tables = self.writable()?;
        if let Some(module) = tables.module(&new.task)
            && module.active.digest == new.digest
        {
            return Ok(VersionAdded::Same(module.active));
        }
        let module = tables.modules.entry(new.task.clone()).or_default();
        module.versions_given += 1;
        let version = module.versions_given;
        module.active = Some(version);
        let view = VersionView {
            task: new.task,
            version,
            active: true,
            digest: new.digest.clone(),
            size_bytes: new.component.len() as u64,
            compiled_in_ms: new.compiled_in_ms,
            created_at: new.now,
            manifest: new.manifest,
            unfinished: 0,
        };
        module.versions.insert(version, view.clone());
        tables.components.insert(new.digest, new.component);
        tables.write_audit(trail::of_version(audit, version));
        Ok(VersionAdded::New(view))
    }

    async fn activate_version(
        &self,
        task: &TaskName,
        version: u32,
        audit: AuditEntry,
    ) -> Result<Option<VersionView>, StoreError> {
        let mut tables = self.writable()?;
        let Some(view) = tables.version(task, version) else { return Ok(None) };
        if view.active {
            return Ok(Some(view));
        }
        if let Some(module) = tables.modules.get_mut(task) {
            module.active = Some(version);
        }
        tables.write_audit(audit);
        Ok(tables.version(task, version))
    }

    async fn remove_module(&self, task: &TaskName, audit: AuditEntry) -> Result<Removal, StoreError> {
        let mut tables = self.writable()?;
        if tables.registered(task).is_none() {
            return Ok(Removal::NoSuchModule);
        }
        let unfinished = tables.unfinished(task, None);
        if unfinished > 0 {
            return Ok(Removal::InUse(unfinished));
        }
        if let Some(module) = tables.modules.get_mut(task) {
            module.active = None;
            module.versions.clear();
        }
        let Tables { modules, components, .. } = &mut *tables;
        components.retain(|digest, _| {
            modules.values().any(|module| module.versions.values().any(|version| version.digest == *digest))
        });
        tables.write_audit(audit);
        Ok(Removal::Removed)
    }

    async fn component(&self, digest: &Digest) -> Result<Option<Vec<u8>>, StoreError> {
        Ok(self.tables().components.get(digest).cloned())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.writable().map(|_| ())
    }

    async fn close(&self) {
        self.tables().closed = true;
    }
}

#[async_trait]
impl Views for Memory {
    async fn execution(&self, id: &ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
        Ok(self.tables().executions.get(id).map(|execution| execution.view.clone()))
    }

    async fn executions(
        &self,
        filter: &ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionView>, u64), StoreError> {
        let tables = self.tables();
        let mut found: Vec<&Execution> =
            tables.executions.values().filter(|execution| filter.matches(&execution.view)).collect();
        found.sort_by(|left, right| {
            let (a, b) = (&left.view, &right.view);
            let first = match page.sort {
                Sort::ScheduledAt => std::cmp::Ordering::Equal,
                Sort::Status => a.status.as_str().cmp(b.status.as_str()),
                Sort::TaskName => a.task.cmp(&b.task),
            };
            first.then(a.scheduled_at.cmp(&b.scheduled_at)).then(left.order.cmp(&right.order))
        });
        if page.descending {
            found.reverse();
        }
        let total = found.len() as u64;
        let offset = usize::try_from(page.offset).unwrap_or(usize::MAX);
        let page = found.into_iter().skip(offset).take(page.limit as usize);
        let views = page.map(|execution| execution.view.clone()).collect();
        Ok((views, total))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        let mut counts = Counts::default();
        for execution in self.tables().executions.values() {
            *counts.of(execution.view.status) += 1;
        }
        Ok(counts)
    }

    async fn journal(&self, run: &RunId) -> Result<Option<(RunFacts, Vec<Record>)>, StoreError> {
        let tables = self.tables();
        Ok(tables
            .runs
            .iter()
            .find(|there| there.facts.run == *run)
            .map(|run| (run.facts.clone(), run.records.clone())))
    }

    async fn runs(&self, execution: &ExecutionId) -> Result<Option<Vec<RunView>>, StoreError> {
        Ok(self.tables().runs(execution))
    }

    async fn pause_rules(&self, deleted: bool) -> Result<Vec<PauseRule>, StoreError> {
        let tables = self.tables();
        Ok(tables.pause_rules.iter().filter(|rule| deleted || rule.deleted_at.is_none()).cloned().collect())
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<AuditView>, u64), StoreError> {
        Ok(self.tables().audit_page(filter, limit, offset))
    }

    async fn audit_after(&self, after: u64, limit: u32) -> Result<Vec<AuditView>, StoreError> {
        Ok(self.tables().audit_after(after, limit))
    }

    async fn troubles(
        &self,
        filter: &ExecutionFilter,
        limit: u32,
        examples: u32,
    ) -> Result<Vec<TroubleView>, StoreError> {
        Ok(self.tables().troubles(filter, limit, examples))
    }

    async fn count_selection(&self, selection: &BulkSelection) -> Result<u64, StoreError> {
        Ok(self.tables().count_selection(selection))
    }

    async fn bulks(&self) -> Result<Vec<BulkView>, StoreError> {
        Ok(self.tables().bulks())
    }

    async fn bulk(&self, id: &BulkId) -> Result<Option<BulkView>, StoreError> {
        Ok(self.tables().bulk(id))
    }

    async fn pending_bulk_items(&self, id: &BulkId, limit: u32) -> Result<Vec<ExecutionId>, StoreError> {
        Ok(self.tables().pending_bulk_items(id, limit))
    }

    async fn modules(&self) -> Result<Vec<ModuleView>, StoreError> {
        let tables = self.tables();
        Ok(tables.modules.keys().filter_map(|task| tables.module(task)).collect())
    }

    async fn module(&self, task: &TaskName) -> Result<Option<ModuleView>, StoreError> {
        Ok(self.tables().module(task))
    }

    async fn versions(&self, task: &TaskName) -> Result<Option<Vec<VersionView>>, StoreError> {
        let tables = self.tables();
        let Some((module, _)) = tables.registered(task) else { return Ok(None) };
        Ok(Some(module.versions.keys().rev().filter_map(|version| tables.version(task, *version)).collect()))
    }

    async fn version(&self, task: &TaskName, version: u32) -> Result<Option<VersionView>, StoreError> {
        Ok(self.tables().version(task, version))
    }
}

impl ExecutionFilter {
    fn matches(&self, view: &ExecutionView) -> bool {
        self.status.is_none_or(|status| view.status == status)
            && self.task.as_ref().is_none_or(|task| view.task.as_str() == task)
            && self.from.is_none_or(|from| view.scheduled_at >= from)
            && self.to.is_none_or(|to| view.scheduled_at <= to)
            && self.search.as_ref().is_none_or(|search| view.is_found_by(search))
    }
}

impl ExecutionView {
    /// See [`ExecutionFilter::search`].
    fn is_found_by(&self, part: &str) -> bool {
        let contains = |text: &str| text.to_ascii_lowercase().contains(&part.to_ascii_lowercase());
        contains(self.id.as_str()) || contains(self.task.as_str())
    }
}
