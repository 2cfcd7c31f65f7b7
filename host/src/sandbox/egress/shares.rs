//! Connections of the whole host: how many there are, and how much of them one task may have.
//!
//! An attempt that would be one too many waits. Half is the most that a task gets, so that one which
//! holds all that it can, however many runs it has, leaves as much to all others together.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
};

use stepbox_domain::TaskName;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// All connections of the host.
pub(super) struct HostRoom {
    all: Room,
    /// Of the tasks that have step instances now.
    tasks: Mutex<HashMap<TaskName, Weak<Room>>>,
}

/// The part of it that one task may have. Its step instances hold one together.
pub(super) struct Share {
    of_task: Arc<Room>,
    host: Arc<HostRoom>,
}

/// One connection's place. Free again when dropped.
pub(super) struct HostPermit {
    _of_task: OwnedSemaphorePermit,
    _of_host: OwnedSemaphorePermit,
}

struct Room {
    free: Arc<Semaphore>,
    max: usize,
}

impl HostRoom {
    pub(super) fn new(connections_max: usize) -> Arc<Self> {
        Arc::new(HostRoom { all: Room::new(connections_max), tasks: Mutex::default() })
    }

    pub(super) fn share_of(self: &Arc<Self>, task: &TaskName) -> Share {
        let mut tasks = self.tasks.lock().unwrap_or_else(PoisonError::into_inner);
        let of_task = tasks.get(task).and_then(Weak::upgrade).unwrap_or_else(|| {
            // Here and not where an instance goes: it costs least where one is made anyway.
            tasks.retain(|_, room| room.strong_count() > 0);
            let room = Arc::new(Room::new(self.all.max / 2));
            tasks.insert(task.clone(), Arc::downgrade(&room));
            room
        });
        Share { of_task, host: self.clone() }
    }
}

impl Share {
    /// Waits until the task, and then the host, has room for one more.
    pub(super) async fn take(&self) -> HostPermit {
        // In this order, so that who waits for its own task keeps nothing from others meanwhile.
        let of_task = self.of_task.take().await;
        HostPermit { _of_task: of_task, _of_host: self.host.all.take().await }
    }

    /// Whether who takes now has to wait.
    pub(super) fn is_used_up(&self) -> bool {
        self.of_task.is_used_up() || self.host.all.is_used_up()
    }

    /// Whether connections that nobody uses had better be closed.
    pub(super) fn is_crowded(&self) -> bool {
        self.of_task.is_crowded() || self.host.all.is_crowded()
    }
}

impl Room {
    fn new(max: usize) -> Self {
        let max = max.clamp(1, Semaphore::MAX_PERMITS);
        Room { free: Arc::new(Semaphore::new(max)), max }
    }

    async fn take(&self) -> OwnedSemaphorePermit {
        self.free.clone().acquire_owned().await.expect("the semaphore is never closed")
    }

    fn is_used_up(&self) -> bool {
        self.free.available_permits() == 0
    }

    fn is_crowded(&self) -> bool {
        self.free.available_permits() < self.max / 4
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    fn task(name: &str) -> TaskName {
        TaskName::parse(name).unwrap()
    }

    #[test]
    fn a_task_has_half_at_most_however_many_instances_it_has() {
        let room = HostRoom::new(10);
        let (one, same, other) =
            (room.share_of(&task("a")), room.share_of(&task("a")), room.share_of(&task("b")));
        let mut held: Vec<HostPermit> = Vec::new();
        for share in [&one, &same, &one, &same, &one] {
            held.push(share.take().now_or_never().expect("there is room"));
        }
        assert!(one.is_used_up() && same.is_used_up());
        assert!(same.take().now_or_never().is_none());

        // The others have what it leaves, and no more than there is.
        let others: Vec<HostPermit> = (0..5).filter_map(|_| other.take().now_or_never()).collect();
        assert_eq!(others.len(), 5);
        assert!(room.share_of(&task("c")).take().now_or_never().is_none());

        drop(others);
        held.pop();
        assert!(same.take().now_or_never().is_some());
    }

    /// What its task has to wait for keeps nobody else waiting.
    #[test]
    fn who_waits_for_its_own_task_holds_no_place_of_the_host() {
        let room = HostRoom::new(4);
        let share = room.share_of(&task("a"));
        let _held = [share.take().now_or_never(), share.take().now_or_never()];
        let mut waiting: Vec<_> = (0..10).map(|_| Box::pin(share.take())).collect();
        assert!(waiting.iter_mut().all(|taking| taking.now_or_never().is_none()));
        let other = room.share_of(&task("b"));
        assert!([other.take().now_or_never(), other.take().now_or_never()].iter().all(Option::is_some));
    }

    #[test]
    fn a_task_that_is_gone_leaves_nothing_behind() {
        let room = HostRoom::new(4);
        drop(room.share_of(&task("a")));
        let _b = room.share_of(&task("b"));
        assert_eq!(room.tasks.lock().unwrap().len(), 1);
    }

    #[test]
    fn where_there_is_one_connection_a_task_may_have_it() {
        let room = HostRoom::new(1);
        assert!(room.share_of(&task("a")).take().now_or_never().is_some());
    }
}
