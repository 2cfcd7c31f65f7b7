//! What failed executions have in common, and repairing many of them.

use super::*;

pub(super) struct Bulk {
    view: BulkView,
    items: Vec<Item>,
}

pub(super) struct Item {
    execution: ExecutionId,
    pub(super) state: ItemState,
    why: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum ItemState {
    Pending,
    Repaired,
    Completed,
    Failed,
    Skipped,
}

impl Bulk {
    fn progress(&self) -> BulkProgress {
        let mut progress = BulkProgress::default();
        for item in &self.items {
            *match item.state {
                ItemState::Pending => &mut progress.pending,
                ItemState::Repaired => &mut progress.under_way,
                ItemState::Completed => &mut progress.completed,
                ItemState::Failed => &mut progress.failed,
                ItemState::Skipped => &mut progress.skipped,
            } += 1;
        }
        progress
    }

    fn view(&self) -> BulkView {
        let examples = self.items.iter().filter_map(|item| Some((item.execution.clone(), item.why.clone()?)));
        let examples = examples.take(BULK_EXAMPLES).collect();
        BulkView { progress: self.progress(), examples, ..self.view.clone() }
    }
}

impl Tables {
    /// Failed executions, oldest failure first.
    fn failed(&self) -> Vec<&Execution> {
        let mut failed: Vec<&Execution> = self
            .executions
            .values()
            .filter(|execution| execution.view.status == ExecutionStatus::Failed)
            .collect();
        failed.sort_by_key(|execution| (execution.view.completed_at, execution.order));
        failed
    }

    fn selected(&self, selection: &FailedSelection) -> Vec<ExecutionId> {
        let mut failed = self.failed();
        failed.retain(|execution| selection.matches(execution));
        failed.into_iter().map(|execution| execution.view.id.clone()).collect()
    }

    pub(super) fn count_selection(&self, selection: &FailedSelection) -> u64 {
        self.selected(selection).len() as u64
    }

    pub(super) fn troubles(
        &self,
        selection: &FailedSelection,
        limit: u32,
        examples: u32,
    ) -> Vec<TroubleView> {
        let mut views: Vec<TroubleView> = Vec::new();
        // The newest first, as the examples are.
        for execution in self.failed().into_iter().rev().filter(|execution| selection.matches(execution)) {
            let (Some(trouble), Some(at)) = (&execution.trouble, execution.view.completed_at) else {
                continue;
            };
            let fingerprint = trouble.fingerprint();
            let place = views.iter().position(|view| view.fingerprint == fingerprint).unwrap_or_else(|| {
                views.push(TroubleView {
                    fingerprint,
                    trouble: trouble.clone(),
                    count: 0,
                    first_at: at,
                    last_at: at,
                    examples: Vec::new(),
                });
                views.len() - 1
            });
            let view = &mut views[place];
            view.count += 1;
            view.first_at = at;
            if view.examples.len() < examples as usize {
                view.examples.push(execution.view.id.clone());
            }
        }
        views.sort_by(|a, b| {
            (b.count, b.last_at).cmp(&(a.count, a.last_at)).then_with(|| a.fingerprint.cmp(&b.fingerprint))
        });
        views.truncate(limit as usize);
        views
    }

    pub(super) fn create_bulk(&mut self, new: NewBulk, audit: AuditEntry) -> Result<u64, StoreError> {
        if self.bulks.iter().any(|bulk| bulk.view.id == new.id) {
            return Err(StoreError::Corrupt(format!("there is a bulk repair {:?} already", new.id.as_str())));
        }
        let items: Vec<Item> = self
            .selected(&new.selection)
            .into_iter()
            .map(|execution| Item { execution, state: ItemState::Pending, why: None })
            .collect();
        let count = items.len() as u64;
        let view = BulkView {
            id: new.id,
            plan: new.plan,
            selection: new.selection,
            state: BulkState::Running,
            why: None,
            created_at: new.now,
            ended_at: None,
            progress: BulkProgress::default(),
            examples: Vec::new(),
        };
        self.bulks.push(Bulk { view, items });
        self.write_audit(audit);
        Ok(count)
    }

    fn bulk_mut(&mut self, id: &BulkId) -> Option<&mut Bulk> {
        self.bulks.iter_mut().find(|bulk| bulk.view.id == *id)
    }

    /// The item, if it is still to be repaired.
    pub(super) fn pending_item(&mut self, bulk: &BulkId, execution: &ExecutionId) -> Option<&mut Item> {
        let bulk = self.bulk_mut(bulk).filter(|bulk| bulk.view.state == BulkState::Running)?;
        bulk.items.iter_mut().find(|item| item.execution == *execution && item.state == ItemState::Pending)
    }

    pub(super) fn skip_bulk_item(&mut self, bulk: &BulkId, execution: &ExecutionId, why: &str) {
        if let Some(item) = self.pending_item(bulk, execution) {
            item.state = ItemState::Skipped;
            item.why = Some(why.to_owned());
        }
    }

    pub(super) fn settle_bulk(&mut self, id: &BulkId) -> BulkProgress {
        let Tables { bulks, executions, .. } = self;
        let Some(bulk) = bulks.iter_mut().find(|bulk| bulk.view.id == *id) else {
            return BulkProgress::default();
        };
        for item in bulk.items.iter_mut().filter(|item| item.state == ItemState::Repaired) {
            let Some(Execution { view, .. }) = executions.get(&item.execution) else { continue };
            match view.status {
                ExecutionStatus::Scheduled | ExecutionStatus::Running => {}
                ExecutionStatus::Completed => item.state = ItemState::Completed,
                ExecutionStatus::Failed | ExecutionStatus::Cancelled => {
                    item.state = ItemState::Failed;
                    let message = view.error.as_ref().map(|failure| failure.message.clone());
                    item.why = Some(message.unwrap_or_else(|| BULK_CANCELLED.to_owned()));
                }
            }
        }
        bulk.progress()
    }

    pub(super) fn end_bulk(
        &mut self,
        id: &BulkId,
        state: BulkState,
        why: Option<&str>,
        now: Timestamp,
        audit: Option<AuditEntry>,
    ) -> bool {
        let Some(bulk) = self.bulk_mut(id).filter(|bulk| bulk.view.state == BulkState::Running) else {
            return false;
        };
        bulk.view.state = state;
        bulk.view.why = why.map(str::to_owned);
        bulk.view.ended_at = Some(now);
        if let Some(audit) = audit {
            self.write_audit(audit);
        }
        true
    }

    pub(super) fn bulks(&self) -> Vec<BulkView> {
        self.bulks.iter().rev().map(Bulk::view).collect()
    }

    pub(super) fn bulk(&self, id: &BulkId) -> Option<BulkView> {
        self.bulks.iter().find(|bulk| bulk.view.id == *id).map(Bulk::view)
    }

    pub(super) fn pending_bulk_items(&self, id: &BulkId, limit: u32) -> Vec<ExecutionId> {
        let items = self.bulks.iter().filter(|bulk| bulk.view.id == *id).flat_map(|bulk| &bulk.items);
        items
            .filter(|item| item.state == ItemState::Pending)
            .take(limit as usize)
            .map(|item| item.execution.clone())
            .collect()
    }
}

impl FailedSelection {
    fn matches(&self, execution: &Execution) -> bool {
        let Execution { view, trouble, .. } = execution;
        let fingerprint = trouble.as_ref().map(Trouble::fingerprint);
        self.fingerprint.as_ref().is_none_or(|only| fingerprint.as_ref() == Some(only))
            && self.task.as_ref().is_none_or(|task| view.task == *task)
            && self.version.is_none_or(|version| view.version == version)
            && self.from.is_none_or(|from| view.completed_at >= Some(from))
            && self.to.is_none_or(|to| view.completed_at <= Some(to))
            && self.search.as_ref().is_none_or(|search| view.is_found_by(search))
    }
}
