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
use tokio::{sync::Notify, task::AbortHandle, time::Instant};

use super::{
    body::RequestBody,
    shares::{HostPermit, Share},
    target::Target,
};

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
    _of_instance: Place,
    _of_host: HostPermit,
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
    share: Share,
    room: Arc<Room>,
    /// The last one used is the last one here.
    idle: Mutex<Vec<Idle>>,
}

struct Idle {
    target: Target,
    since: Instant,
    connection: Connection,
}

/// What a request gets to be sent by.
pub(super) enum Lease {
    Used(Connection),
    /// Room to make one.
    New(Permits),
}

impl Connections {
    pub(super) fn new(share: Share, limits: &Limits) -> Self {
        let max = usize::try_from(limits.get(Limit::ConnectionsMax)).unwrap_or(usize::MAX);
        let room = Room { taken: Mutex::new(0), max, changed: Notify::new() };
        Connections { share, room: Arc::new(room), idle: Mutex::default() }
    }

    pub(super) fn max(&self) -> u64 {
        self.room.max as u64
    }

    /// A connection to `target` that has nothing to do, or room for a new one. Waits for either;
    /// what is idle and goes elsewhere makes room.
    pub(super) async fn lease(&self, target: &Target) -> Lease {
        loop {
            // Before looking: what changes from now on is noticed.
            let changed = self.room.changed.notified();
            if let Some(mut found) = self.take_idle(target) {
                if found.since.elapsed() < IDLE_MAX && found.connection.sender.ready().await.is_ok() {
                    return Lease::Used(found.connection);
                }
                continue;
            }
            if let Some(place) = Place::take(&self.room) {
                return Lease::New(self.with_room_of_host(place).await);
            }
            if !self.close_oldest_idle() {
                changed.await;
            }
        }
    }

    async fn with_room_of_host(&self, place: Place) -> Permits {
        if self.share.is_used_up() {
            self.close_idle();
        }
        Permits { _of_instance: place, _of_host: self.share.take().await }
    }

    /// Keeps a connection for the next request, unless the host has few left for all, or the task
    /// for its other instances.
    pub(super) fn give_back(&self, target: Target, connection: Connection) {
        if connection.sender.is_closed() || self.share.is_crowded() {
            return;
        }
        self.idle().push(Idle { target, since: Instant::now(), connection });
        self.room.changed.notify_one();
    }

    pub(super) fn close_idle_if_crowded(&self) {
        if self.share.is_crowded() {
            self.close_idle();
        }
    }

    fn close_idle(&self) {
        let closed = std::mem::take(&mut *self.idle());
        drop(closed);
    }

    fn take_idle(&self, target: &Target) -> Option<Idle> {
        let mut idle = self.idle();
        let at = idle.iter().rposition(|idle| idle.target == *target)?;
        Some(idle.remove(at))
    }

    /// Whether there was one.
    fn close_oldest_idle(&self) -> bool {
        let mut idle = self.idle();
        let closed = if idle.is_empty() { None } else { Some(idle.remove(0)) };
        drop(idle);
        closed.is_some()
    }

    fn idle(&self) -> MutexGuard<'_, Vec<Idle>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How many connections an instance has. Apart from those that are idle, which hold a part of it.
struct Room {
    taken: Mutex<usize>,
    max: usize,
    /// A place is free, or a connection is idle.
    changed: Notify,
}

impl Room {
    fn taken(&self) -> MutexGuard<'_, usize> {
        self.taken.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Free again when dropped.
struct Place(Arc<Room>);

impl Place {
    fn take(room: &Arc<Room>) -> Option<Self> {
        let mut taken = room.taken();
        if *taken == room.max {
            return None;
        }
        *taken += 1;
        drop(taken);
        Some(Place(room.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        *self.0.taken() -= 1;
        self.0.changed.notify_one();
    }
}
