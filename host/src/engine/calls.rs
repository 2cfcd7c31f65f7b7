//! The handler's end of a live run.

use std::{
    ops::{Deref, DerefMut},
    sync::Arc,
};

use async_trait::async_trait;
use stepbox_domain::{
    EventName, Json, StepName,
    decide::{Input, Until},
};
use tokio::sync::{Mutex, MutexGuard};

use super::live_run::LiveRun;
use crate::sandbox::{Answer, EndHandler, HostCalls, StepCall};

/// Shared with the worker, which takes the run up again when the handler has come to its end, and until
/// then has written what it owes between two calls. A guest makes one call after the other.
pub(crate) struct Calls(pub Arc<Mutex<LiveRun>>);

/// The run while the handler makes a call; afterwards it is told that the call is over.
struct Call<'a>(MutexGuard<'a, LiveRun>);

impl Calls {
    async fn begin(&self) -> Call<'_> {
        Call(self.0.lock().await)
    }
}

impl Deref for Call<'_> {
    type Target = LiveRun;

    fn deref(&self) -> &LiveRun {
        &self.0
    }
}

impl DerefMut for Call<'_> {
    fn deref_mut(&mut self) -> &mut LiveRun {
        &mut self.0
    }
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.0.remind();
    }
}

#[async_trait]
impl HostCalls for Calls {
    async fn step(&mut self, call: StepCall) -> Result<Answer, EndHandler> {
        self.begin().await.step(call).await
    }

    async fn sleep(&mut self, name: StepName, until: Until) -> Result<Answer, EndHandler> {
        let mut live = self.begin().await;
        let place = live.place(name);
        live.settle(Input::Sleeps { place: &place, until }).await
    }

    async fn wait_event(&mut self, event: EventName, timeout_ms: Option<u64>) -> Result<Answer, EndHandler> {
        let mut live = self.begin().await;
        let place = live.place(StepName::from(&event));
        live.settle(Input::WaitsForEvent { place: &place, event: &event, timeout_ms }).await
    }

    async fn capture(&mut self, name: StepName, value: Json) -> Result<Answer, EndHandler> {
        let mut live = self.begin().await;
        let place = live.place(name);
        live.settle(Input::Captures { place: &place, value: &value }).await
    }
}
