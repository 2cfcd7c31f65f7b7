//! Connections of one step instance: made, kept for the next request to the same target, bounded.
//!
//! Keeping them is safe. They belong to one instance, which belongs to one run of one task with one
//! set of grants for as long as it lives: no task gets the connection of another. Each was made to
//! an address that was checked against these very grants, and a connection cannot go elsewhere
//! later. The grants by name are asked at each request, before a connection is looked for. With
//! the instance all go, also those in use.

use std::{
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use hyper::client::conn::http1::SendRequest;
use stepbox_domain::{Limit, Limits};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    task::AbortHandle,
    time::Instant,
};

use super::{body::RequestBody, target::Target};

/// Servers close what nobody uses after 5 s and more; a request on a connection that is just being
/// closed fails.
const IDLE_MAX: Duration = Duration::from_secs(4);

/// A connection to an address that was checked. Closed when dropped.
pub(super) struct Connection {
    pub sender: SendRequest<RequestBody>,
    pub address: IpAddr,
    pub _driver: Driver,
    pub _permits: Permits,
}

/// The room that a connection takes: one of its instance's places, one of the host's.
pub(super) struct Permits {
    pub _of_instance: OwnedSemaphorePermit,
    pub _of_host: OwnedSemaphorePermit,
}

/// The task that moves bytes. Ends with its owner, and the socket with it.
pub(super) struct Driver(AbortHandle);

impl Driver {
    pub(super) fn start(connection: impl Future<Output = ()> + Send + 'static) -> Self {
        Driver(tokio::spawn(connection).abort_handle())
    }
}

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

pub(super) struct Connections {
    places: Arc<Semaphore>,
    max: u64,
    /// The last one used is the last one here.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    target: Target,
    since: Instant,
    connection: Connection,
}

impl Connections {
    pub(super) fn new(limits: &Limits) -> Self {
        let max = limits.get(Limit::ConnectionsMax);
        let places = usize::try_from(max).unwrap_or(usize::MAX).min(Semaphore::MAX_PERMITS);
        Connections { places: Arc::new(Semaphore::new(places)), max, idle: Mutex::default() }
    }

    pub(super) fn max(&self) -> u64 {
        self.max
    }

    /// One that is open and has nothing to do, if there is one.
    pub(super) async fn take_idle(&self, target: &Target) -> Option<Connection> {
        loop {
            let mut found = {
                let mut idle = self.idle();
                let at = idle.iter().rposition(|idle| idle.target == *target)?;
                idle.remove(at)
            };
            if found.since.elapsed() < IDLE_MAX && found.connection.sender.ready().await.is_ok() {
                return Some(found.connection);
            }
        }
    }

    pub(super) fn give_back(&self, target: Target, connection: Connection) {
        if !connection.sender.is_closed() {
            self.idle().push(Idle { target, since: Instant::now(), connection });
        }
    }

    fn close_oldest_idle(&self) {
        let mut idle = self.idle();
        if !idle.is_empty() {
            idle.remove(0);
        }
    }

    pub(super) fn close_idle(&self) {
        self.idle().clear();
    }

    /// Room for one more. Waits until there is some; what is idle makes room at once.
    pub(super) async fn room(&self, of_host: &Arc<Semaphore>) -> Permits {
        if self.places.available_permits() == 0 {
            self.close_oldest_idle();
        }
        let of_instance = acquire(&self.places).await;
        if of_host.available_permits() == 0 {
            self.close_idle();
        }
        Permits { _of_instance: of_instance, _of_host: acquire(of_host).await }
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn acquire(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
    semaphore.clone().acquire_owned().await.expect("the semaphore is never closed")
}
