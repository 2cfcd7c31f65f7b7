//! Reading what is needed to go on with claimed runs: many in one round trip.
//!
//! When thousands of timers are due at once, as many runs are claimed within a few commits; asked
//! for one by one, their journals would cost more than the claims. So one task takes whatever has
//! been claimed by the time that it has read the last ones, and reads it all together. One that
//! comes alone is read alone.

use sqlx::SqlitePool;
use tokio::sync::{mpsc, oneshot};

use super::queries::claims::{self, Hold};
use super::{Claimed, StoreError};

/// So many runs are read at once at most.
const RUNS_MAX: usize = 64;
/// Whoever has a longer journal is read by himself: the others shall not wait for it.
const RECORDS_MAX: i64 = 256;

pub(super) type Answer = Result<Option<Claimed>, StoreError>;

pub(super) struct Wanted {
    pub hold: Hold,
    pub answer: oneshot::Sender<Answer>,
}

/// Works until nobody is left who could ask.
pub(super) async fn run(readers: SqlitePool, mut queue: mpsc::UnboundedReceiver<Wanted>) {
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        let mut batch = Vec::new();
        while let Some(wanted) = next {
            match wanted.hold.unknown() > RECORDS_MAX {
                true => drop(tokio::spawn(serve(readers.clone(), vec![wanted]))),
                false => batch.push(wanted),
            }
            next = if batch.len() < RUNS_MAX { queue.try_recv().ok() } else { None };
        }
        serve(readers.clone(), batch).await;
    }
}

async fn serve(readers: SqlitePool, batch: Vec<Wanted>) {
    if batch.is_empty() {
        return;
    }
    let (holds, answers): (Vec<Hold>, Vec<_>) =
        batch.into_iter().map(|wanted| (wanted.hold, wanted.answer)).unzip();
    match read(&readers, &holds).await {
        Ok(claimed) => {
            for (answer, claimed) in answers.into_iter().zip(claimed) {
                let _ = answer.send(Ok(claimed));
            }
        }
        // One of them makes no sense, and the others shall not suffer for it.
        Err(StoreError::Corrupt(_)) if holds.len() > 1 => {
            for (answer, hold) in answers.into_iter().zip(holds) {
                let claimed = read(&readers, &[hold]).await.map(|mut claimed| claimed.pop().flatten());
                let _ = answer.send(claimed);
            }
        }
        Err(error) => {
            for answer in answers {
                let _ = answer.send(Err(error.again()));
            }
        }
    }
}

async fn read(readers: &SqlitePool, holds: &[Hold]) -> Result<Vec<Option<Claimed>>, StoreError> {
    let mut reader = readers.acquire().await?;
    claims::read_claimed(&mut reader, holds).await
}
