//! Waiting for a condition: looks again until it holds, and says what it saw last when it never did.

use std::{fmt::Debug, time::Duration};

use tokio::time::{Instant, sleep, timeout_at};

/// Far longer than anything takes: running into it is a failure, not a measurement.
const PATIENCE: Duration = Duration::from_secs(60);
const LOOK_AGAIN: Duration = Duration::from_millis(15);

/// What `look` gives, once `holds` says yes to it.
pub async fn until<T: Debug>(what: &str, mut look: impl AsyncFnMut() -> T, holds: impl Fn(&T) -> bool) -> T {
    let end = Instant::now() + PATIENCE;
    let mut last = None;
    loop {
        match timeout_at(end, look()).await {
            Ok(seen) if holds(&seen) => return seen,
            Ok(seen) if Instant::now() < end => last = Some(seen),
            Ok(seen) => panic!("waited {PATIENCE:?} until {what}; last seen: {seen:#?}"),
            Err(_) => panic!("waited {PATIENCE:?} until {what}; last seen: {last:#?}"),
        }
        sleep(LOOK_AGAIN).await;
    }
}
