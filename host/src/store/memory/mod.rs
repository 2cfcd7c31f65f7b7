//! The store in plain memory: the reference that the real ones are compared with.
//!
//! Says in the most obvious way what each verb means. Keeps nothing beyond the process, and
//! nothing in it is fast.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;
use stepbox_domain::{
    Digest, ExecutionId, ExecutionStatus, Json, RunId, TaskName, Timestamp,
    event::Event,
    journal::Record,
    run::{RunFacts, Wait},
};

use super::*;

mod admin;
mod bulks;
mod modules;
mod repairs;
mod verbs;
mod views;

use bulks::{Bulk, ItemState};

#[derive(Default)]
pub struct Memory {
    tables: Mutex<Tables>,
    /// While it is locked, events are on their way; whether the next one gets lost there.
    #[cfg(test)]
    pub event_gets_lost: tokio::sync::Mutex<bool>,
}

#[derive(Default)]
struct Tables {
    executions: BTreeMap<ExecutionId, Execution>,
    runs: BTreeMap<i64, Run>,
    /// Given out already.
    last_run: i64,
    events: Vec<StoredEvent>,
    modules: BTreeMap<TaskName, Module>,
    components: HashMap<Digest, Vec<u8>>,
    settings: BTreeMap<TaskName, SettingsView>,
    pause_rules: Vec<PauseRule>,
    audit: Vec<AuditView>,
    bulks: Vec<Bulk>,
    secrets: BTreeMap<SecretName, SealedSecret>,
    /// Somebody has begun to work with it.
    open: bool,
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

    /// If it came now.
    #[cfg(test)]
    pub fn what_would_become_of(&self, event: &NewEvent) -> EventAdded {
        self.tables().addition(event)
    }

    /// The event of that number, consumed or not.
    #[cfg(test)]
    pub fn event(&self, seq: i64) -> Option<Event> {
        self.tables().events.iter().map(|stored| &stored.event).find(|event| event.seq == seq).cloned()
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
        self.runs.get_mut(&key.0)
    }

    fn new_run(&mut self) -> RunKey {
        self.last_run += 1;
        RunKey(self.last_run)
    }

    /// As if the execution had never been started.
    fn unmake(&mut self, execution: &ExecutionId, run: RunKey) {
        self.executions.remove(execution);
        self.runs.remove(&run.0);
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
            known: 0,
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
        if let Standing::Failed { trouble, .. } = &standing {
            *troubled = Some(trouble.clone());
        }
        view.stand(standing);
    }

    /// What becomes of `event`, but for the hold of its run.
    fn addition(&self, event: &NewEvent) -> EventAdded {
        let Some(there) = self.executions.get(&event.execution) else { return EventAdded::NoSuchExecution };
        let view = &there.view;
        if view.status.is_terminal() {
            return EventAdded::AlreadyOver(view.status);
        }
        let in_time = |wait: &Wait| wait.until().is_none_or(|deadline| event.now <= deadline);
        let stands_at_it = matches!(&view.waiting, Some(wait @ Wait::Event { event: name, .. })
            if *name == event.name && in_time(wait));
        EventAdded::Added {
            run: view.run_key,
            awaited: stands_at_it && !self.event_is_there(view),
            seq: self.events.len() as i64 + 1,
            after: self.pending(&event.execution, 0).last().map_or(0, |event| event.seq),
            taken: Taken::Not,
        }
    }

    /// Whether an event that has come already answers the wait.
    fn event_is_there(&self, view: &ExecutionView) -> bool {
        let Some(Wait::Event { event, .. }) = &view.waiting else { return false };
        self.pending(&view.id, 0).iter().any(|pending| pending.name == *event)
    }
}
