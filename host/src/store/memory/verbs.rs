//! What is written, verb by verb.

use super::*;

#[async_trait]
impl Store for Memory {
    fn was_left_open(&self) -> bool {
        self.tables().open
    }

    fn new_run(&self) -> RunKey {
        self.tables().new_run()
    }

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
        let run = new.held.as_ref().map_or_else(|| tables.new_run(), |held| held.run);
        let (facts, view) = (new.facts(), new.view(run));
        tables.runs.insert(run.0, Run::new(facts, new.payload));
        let order = tables.executions.len();
        tables.executions.insert(new.id.clone(), Execution { order, view, trouble: None });
        if let Some(held) = new.held {
            tables.claim(run, new.now)?;
            if let Some(commit) = held.commit {
                tables.commit(commit).inspect_err(|_| tables.unmake(&new.id, run))?;
            }
        }
        let execution = tables.executions[&new.id].view.clone();
        Ok(Creation::New { execution, run })
    }

    async fn claim_from(
        &self,
        run: RunKey,
        now: Timestamp,
        known: u64,
    ) -> Result<Option<Claimed>, StoreError> {
        Ok(self.writable()?.claim(run, now)?.map(|claimed| without(claimed, known)))
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

    async fn add_event(&self, event: NewEvent) -> Result<EventAdded, StoreError> {
        let coming = self.writable()?.addition(&event);
        event.is_coming(&coming);
        #[cfg(test)]
        if std::mem::take(&mut *self.event_gets_lost.lock().await) {
            return Err(StoreError::Unavailable("it got lost".to_owned()));
        }
        let mut tables = self.writable()?;
        let mut added = tables.addition(&event);
        let EventAdded::Added { run, seq, taken, .. } = &mut added else { return Ok(added) };
        let NewEvent { execution, name, payload, now, claim, .. } = event;
        let stands_at_name = matches!(&tables.executions[&execution].view.waiting,
            Some(Wait::Event { event, .. }) if *event == name);
        let event = Event { seq: *seq, name, payload, received_at: now };
        tables.events.push(StoredEvent { execution, event, consumed: false });
        if let Some(known) = claim.filter(|_| stands_at_name)
            && let Some(claimed) = tables.claim(*run, now)?
        {
            *taken = Taken::Held(Box::new(without(claimed, known(*run))));
        }
        Ok(added)
    }

    async fn events_after(&self, run: RunKey, after: i64) -> Result<Vec<Event>, StoreError> {
        let mut tables = self.tables();
        let Some(view) = tables.view_of(run) else { return Ok(Vec::new()) };
        let id = view.id.clone();
        Ok(tables.pending(&id, after))
    }

    async fn recover(&self) -> Result<Vec<Unfinished>, StoreError> {
        let mut tables = self.writable()?;
        tables.open = true;
        let mut unfinished = Vec::new();
        for execution in tables.executions.values().filter(|execution| !execution.view.status.is_terminal()) {
            let view = &execution.view;
            let run = &tables.runs[&view.run_key.0];
            let waiting = view.waiting.is_some() && run.hold == Hold::Free && !tables.event_is_there(view);
            let crashes = run.crashes;
            let held = matches!(view.waiting, Some(Wait::Pause { .. }));
            unfinished.push(Unfinished { run: view.run_key, due: run.due, waiting, crashes, held });
        }
        unfinished.sort_by_key(|run| run.run);
        // Of a run that is over nobody can take hold but by force, so its hold does no harm.
        for run in tables.runs.values_mut().filter(|run| run.hold == Hold::Held && !run.status.is_terminal())
        {
            run.hold = Hold::Abandoned;
        }
        Ok(unfinished)
    }

    async fn add_version(&self, new: NewVersion, audit: AuditEntry) -> Result<VersionAdded, StoreError> {
        self.writable()?.add_version(new, audit)
    }

    async fn activate_version(
        &self,
        task: &TaskName,
        version: u32,
        audit: AuditEntry,
    ) -> Result<Option<VersionView>, StoreError> {
        Ok(self.writable()?.activate_version(task, version, audit))
    }

    async fn put_settings(&self, change: SettingsChange) -> Result<Option<VersionView>, StoreError> {
        Ok(self.writable()?.put_settings(change))
    }

    async fn remove_module(&self, task: &TaskName, audit: AuditEntry) -> Result<Removal, StoreError> {
        Ok(self.writable()?.remove_module(task, audit))
    }

    async fn set_secret(&self, secret: NewSecret, audit: AuditEntry) -> Result<bool, StoreError> {
        let mut tables = self.writable()?;
        let NewSecret { name, ciphertext, now } = secret;
        let before = tables.secrets.get(&name).map(|before| before.created_at);
        let created_at = before.unwrap_or(now);
        let kept = SealedSecret { name: name.clone(), ciphertext, created_at, updated_at: now };
        tables.secrets.insert(name, kept);
        tables.write_audit(audit);
        Ok(before.is_none())
    }

    async fn delete_secret(&self, name: &SecretName, audit: AuditEntry) -> Result<bool, StoreError> {
        let mut tables = self.writable()?;
        let was_there = tables.secrets.remove(name).is_some();
        if was_there {
            tables.write_audit(audit);
        }
        Ok(was_there)
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

/// Without the records that are known.
fn without(mut claimed: Claimed, known: u64) -> Claimed {
    claimed.known = known.min(claimed.records.len() as u64);
    claimed.records.drain(..claimed.known as usize);
    claimed
}
