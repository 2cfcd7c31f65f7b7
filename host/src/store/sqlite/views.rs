//! What is read.

use std::sync::Arc;

use async_trait::async_trait;
use sqlx::pool::PoolConnection;
use stepbox_domain::{
    ExecutionId, RunId, TaskName, bulk::BulkId, journal::Record, pause::PauseRule, run::RunFacts,
};
use tokio::{sync::OwnedSemaphorePermit, time::timeout};

use super::Sqlite;
use crate::store::{
    connect::READER_WAIT_MAX,
    queries::{
        audit, bulks, modules, pauses, runs,
        search::{self, Found},
        secrets, settings, troubles, views,
    },
    *,
};

/// A reader for somebody who may read for long.
pub(in crate::store) struct Turn {
    reader: PoolConnection<sqlx::Sqlite>,
    _permit: OwnedSemaphorePermit,
}

impl std::ops::Deref for Turn {
    type Target = sqlx::SqliteConnection;

    fn deref(&self) -> &Self::Target {
        &self.reader
    }
}

impl std::ops::DerefMut for Turn {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.reader
    }
}

impl Sqlite {
    /// Lists, journals and whatever else can be long take turns at some of the readers. The rest is
    /// for those whose reading is short, runs that go on before all: a thousand lists at once hold
    /// up each other and nobody else.
    pub(in crate::store) async fn turn(&self) -> Result<Turn, StoreError> {
        let busy = || StoreError::Unavailable("too many lists are being read at once; try again".to_owned());
        let permit = timeout(READER_WAIT_MAX, Arc::clone(&self.turns).acquire_owned()).await;
        let permit =
            permit.map_err(|_| busy())?.map_err(|_| StoreError::Unavailable("it is closed".to_owned()))?;
        Ok(Turn { reader: self.reader().await?, _permit: permit })
    }
}

#[async_trait]
impl Views for Sqlite {
    async fn execution(&self, id: &ExecutionId) -> Result<Option<ExecutionView>, StoreError> {
        views::execution(&mut *self.reader().await?, id).await
    }

    async fn executions(
        &self,
        filter: &ExecutionFilter,
        page: Page,
    ) -> Result<(Vec<ExecutionView>, u64), StoreError> {
        let text = filter.search.as_ref().map(|text| text.to_ascii_lowercase());
        let hits = match &text {
            Some(text) => self.search.ids_with(text).await,
            None => None,
        };
        let mut reader = self.turn().await?;
        let found = match &text {
            Some(text) => search::find(&mut reader, text, hits).await?,
            None => Found::All,
        };
        let total = views::total(&mut reader, filter, &found).await?;
        // To find that there is nothing, or nothing more, can mean to look at all there is.
        let views = match page.offset >= total {
            true => Vec::new(),
            false => views::executions(&mut reader, filter, &found, page).await?,
        };
        Ok((views, total))
    }

    async fn counts(&self) -> Result<Counts, StoreError> {
        views::counts(&mut *self.reader().await?).await
    }

    async fn journal(&self, run: &RunId) -> Result<Option<(RunFacts, Vec<Record>)>, StoreError> {
        runs::journal(&mut *self.turn().await?, run).await
    }

    async fn runs(&self, execution: &ExecutionId) -> Result<Option<Vec<RunView>>, StoreError> {
        runs::runs(&mut *self.turn().await?, execution).await
    }

    async fn pause_rules(&self, deleted: bool) -> Result<Vec<PauseRule>, StoreError> {
        pauses::rules(&mut *self.reader().await?, deleted).await
    }

    async fn audit(
        &self,
        filter: &AuditFilter,
        limit: u32,
        offset: u64,
    ) -> Result<(Vec<AuditView>, u64), StoreError> {
        audit::page(&mut *self.turn().await?, filter, limit, offset).await
    }

    async fn audit_after(&self, after: u64, limit: u32) -> Result<Vec<AuditView>, StoreError> {
        let rows = audit::after(&mut *self.turn().await?, after, limit).await?;
        rows.into_iter()
            .map(|row| match row {
                AuditRow::Read(view) => Ok(view),
                AuditRow::Unreadable { number, why } => {
                    Err(StoreError::Corrupt(format!("entry {number} of the audit trail: {why}")))
                }
            })
            .collect()
    }

    async fn troubles(
        &self,
        selection: &FailedSelection,
        limit: u32,
        examples: u32,
    ) -> Result<Vec<TroubleView>, StoreError> {
        troubles::troubles(&mut *self.turn().await?, selection, limit, examples).await
    }

    async fn count_selection(&self, selection: &FailedSelection) -> Result<u64, StoreError> {
        bulks::count(&mut *self.turn().await?, selection).await
    }

    async fn bulks(&self) -> Result<Vec<BulkView>, StoreError> {
        bulks::bulks(&mut *self.turn().await?, None).await
    }

    async fn bulk(&self, id: &BulkId) -> Result<Option<BulkView>, StoreError> {
        Ok(bulks::bulks(&mut *self.turn().await?, Some(id)).await?.pop())
    }

    async fn pending_bulk_items(&self, id: &BulkId, limit: u32) -> Result<Vec<ExecutionId>, StoreError> {
        bulks::pending(&mut *self.turn().await?, id, limit).await
    }

    async fn secrets(&self) -> Result<Vec<SealedSecret>, StoreError> {
        secrets::all(&mut *self.reader().await?).await
    }

    async fn modules(&self) -> Result<Vec<ModuleView>, StoreError> {
        modules::modules(&mut *self.turn().await?).await
    }

    async fn module(&self, task: &TaskName) -> Result<Option<ModuleView>, StoreError> {
        modules::module(&mut *self.reader().await?, task).await
    }

    async fn versions(&self, task: &TaskName) -> Result<Option<Vec<VersionView>>, StoreError> {
        modules::versions(&mut *self.turn().await?, task).await
    }

    async fn version(&self, task: &TaskName, version: u32) -> Result<Option<VersionView>, StoreError> {
        modules::version(&mut *self.reader().await?, task, version).await
    }

    async fn settings(&self) -> Result<Vec<(TaskName, SettingsView)>, StoreError> {
        settings::all(&mut *self.reader().await?).await
    }

    async fn settings_of(&self, task: &TaskName) -> Result<SettingsView, StoreError> {
        settings::of(&mut *self.reader().await?, task).await
    }
}
