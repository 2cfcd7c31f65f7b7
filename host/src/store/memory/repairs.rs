//! Repairs: taking hold by force, amending a run, replacing it by a new one.

use super::*;

impl Tables {
    pub(super) fn seize(&mut self, execution: &ExecutionId) -> Option<Seized> {
        let view = &self.executions.get(execution)?.view;
        let (key, status) = (view.run_key, view.status);
        let run = self.run(key)?;
        run.epoch += 1;
        run.hold = Hold::Held;
        // No claim that was left behind without progress: it never meant to make any.
        run.records_at_claim = None;
        let claim = Claim { run: key, epoch: Epoch(run.epoch) };
        Some(Seized { claim, facts: run.facts.clone(), status, records: run.records.clone() })
    }

    pub(super) fn repair(&mut self, repair: Repair) -> Result<RunKey, StoreError> {
        let Repair { claim, change, audit, bulk } = repair;
        let held = |run: &&mut Run| run.hold == Hold::Held && run.epoch == claim.epoch.0;
        let run = self.run(claim.run).filter(held).ok_or(StoreError::ClaimLost)?;
        let (execution, task) = (run.facts.execution.clone(), run.facts.task.clone());
        let version = match &change {
            RepairChange::Amend { first_number, version, .. } => {
                if run.records.len() as u64 != *first_number {
                    return Err(StoreError::Corrupt("the number of the record is not the next".to_owned()));
                }
                version.unwrap_or(run.facts.version)
            }
            RepairChange::Replace { version, .. } => *version,
        };
        if self.version(&task, version).is_none() {
            return Err(not_a_version(&task, version));
        }
        if let Some(bulk) = &bulk {
            let item = self.pending_item(bulk, &execution).ok_or_else(|| not_pending(bulk, &execution))?;
            item.state = ItemState::Repaired;
        }
        let current = match change {
            RepairChange::Amend { records, .. } => self.amend(claim.run, records, version, audit.at),
            replace @ RepairChange::Replace { .. } => self.replace(claim.run, replace),
        };
        self.write_audit(audit);
        current.ok_or_else(|| StoreError::Corrupt("the run is not there".to_owned()))
    }

    fn amend(&mut self, key: RunKey, records: Vec<Record>, version: u32, now: Timestamp) -> Option<RunKey> {
        let run = self.run(key)?;
        run.records.extend(records);
        run.facts.version = version;
        run.status = ExecutionStatus::Running;
        run.completed_at = None;
        run.due = Some(now);
        run.hold = Hold::Free;
        let execution = self.execution_of(key)?;
        execution.trouble = None;
        let view = &mut execution.view;
        view.version = version;
        view.status = ExecutionStatus::Running;
        view.completed_at = None;
        (view.result, view.error, view.waiting) = (None, None, None);
        Some(key)
    }

    fn replace(&mut self, old: RunKey, replace: RepairChange) -> Option<RunKey> {
        let RepairChange::Replace { end, at, trigger, triggered_by, version, payload, deadline, records } =
            replace
        else {
            return None;
        };
        let new = self.new_run();
        let execution = self.execution_of(old)?;
        execution.trouble = None;
        let view = &mut execution.view;
        let (result, error) = (view.result.take(), view.error.take());
        let payload = payload.unwrap_or_else(|| view.payload.clone());
        let id = view.id.clone();

        let run = self.run(old)?;
        if !run.status.is_terminal() {
            run.status = ExecutionStatus::Cancelled;
            run.completed_at = Some(at);
        }
        run.records.extend(end);
        (run.result, run.error) = (result, error);
        run.hold = Hold::Free;
        run.due = None;
        let index = run.facts.index + 1;
        let facts = RunFacts {
            run: RunId::new(&id, index),
            index,
            version,
            created_at: at,
            deadline,
            ..run.facts.clone()
        };

        let view = self.view_of(old)?;
        view.payload = payload.clone();
        view.status = ExecutionStatus::Scheduled;
        view.completed_at = None;
        view.version = version;
        view.run = facts.run.clone();
        view.run_key = new;
        view.waiting = None;
        self.runs.insert(new.0, Run { trigger, triggered_by, records, ..Run::new(facts, payload) });
        Some(new)
    }

    pub(super) fn runs(&self, execution: &ExecutionId) -> Option<Vec<RunView>> {
        let there = &self.executions.get(execution)?.view;
        let of_it = self.runs.values().filter(|run| run.facts.execution == *execution);
        Some(
            of_it
                .map(|run| {
                    let current = run.facts.run == there.run;
                    RunView {
                        run: run.facts.run.clone(),
                        index: run.facts.index,
                        version: run.facts.version,
                        payload: run.payload.clone(),
                        status: run.status,
                        result: if current { there.result.clone() } else { run.result.clone() },
                        error: if current { there.error.clone() } else { run.error.clone() },
                        created_at: run.facts.created_at,
                        started_at: run.started_at,
                        completed_at: run.completed_at,
                        trigger: run.trigger,
                        triggered_by: run.triggered_by.clone(),
                    }
                })
                .collect(),
        )
    }
}
