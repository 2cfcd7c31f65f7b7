//! What a run acts upon while that is on its way to the disk: its own start, an event.
//!
//! Nothing is seen of the run before it is there, so nothing has to wait for that but what is to be seen.

use tokio::sync::oneshot;

use crate::store::StoreError;

/// The end of whoever writes it.
pub(crate) struct Answer(oneshot::Sender<Result<(), StoreError>>);

/// The end of the run.
#[derive(Debug)]
pub(crate) struct OnItsWay(oneshot::Receiver<Result<(), StoreError>>);

pub(crate) fn on_its_way() -> (Answer, OnItsWay) {
    let (answer, hears) = oneshot::channel();
    (Answer(answer), OnItsWay(hears))
}

impl Answer {
    /// What became of it.
    pub fn is(self, answer: Result<(), StoreError>) {
        // Nobody hears it: the run is given up already.
        let _ = self.0.send(answer);
    }
}

impl OnItsWay {
    /// Comes back when it is on disk, or will not be. An error as that of a commit.
    pub async fn written(self) -> Result<(), StoreError> {
        // Whoever writes it is gone, and with it the whole host.
        self.0.await.unwrap_or(Err(StoreError::ClaimLost))
    }
}
