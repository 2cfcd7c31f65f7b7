//! What is read.

use async_trait::async_trait;
use stepbox_domain::{
    ExecutionId, RunId, TaskName, bulk::BulkId, journal::Record, pause::PauseRule, run::RunFacts,
};

use super::{super::*, Execution, Memory};

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
            .values()
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
        selection: &FailedSelection,
        limit: u32,
        examples: u32,
    ) -> Result<Vec<TroubleView>, StoreError> {
        Ok(self.tables().troubles(selection, limit, examples))
    }

    async fn count_selection(&self, selection: &FailedSelection) -> Result<u64, StoreError> {
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

    async fn secrets(&self) -> Result<Vec<SealedSecret>, StoreError> {
        Ok(self.tables().secrets.values().cloned().collect())
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
        let Some(module) = tables.registered(task) else { return Ok(None) };
        Ok(Some(module.versions.keys().rev().filter_map(|version| tables.version(task, *version)).collect()))
    }

    async fn version(&self, task: &TaskName, version: u32) -> Result<Option<VersionView>, StoreError> {
        Ok(self.tables().version(task, version))
    }

    async fn settings(&self) -> Result<Vec<(TaskName, SettingsView)>, StoreError> {
        let tables = self.tables();
        Ok(tables.settings.iter().map(|(task, settings)| (task.clone(), settings.clone())).collect())
    }

    async fn settings_of(&self, task: &TaskName) -> Result<SettingsView, StoreError> {
        Ok(self.tables().settings.get(task).cloned().unwrap_or_default())
    }
}

impl ExecutionFilter {
    pub(super) fn matches(&self, view: &ExecutionView) -> bool {
        self.status.is_none_or(|status| view.status == status)
            && self.task.as_ref().is_none_or(|task| view.task.as_str() == task)
            && self.from.is_none_or(|from| view.scheduled_at >= from)
            && self.to.is_none_or(|to| view.scheduled_at <= to)
            && self.search.as_ref().is_none_or(|search| view.is_found_by(search))
    }
}

impl ExecutionView {
    /// See [`ExecutionFilter::search`].
    pub(super) fn is_found_by(&self, part: &str) -> bool {
        let contains = |text: &str| text.to_ascii_lowercase().contains(&part.to_ascii_lowercase());
        contains(self.id.as_str()) || contains(self.task.as_str())
    }
}
