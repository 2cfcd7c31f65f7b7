//! How many runs of one task hold an instance, and who of the others is next.
//!
//! A task may be set to fewer runs at the same time than the host has places for. A run that is
//! taken up when its task has as many as it may is let go again at once, so that it holds no place
//! that another task could use, and stands in the line of its own task: in memory only, since after
//! a restart it is ready, is taken up, and comes to stand here again. It never fails for it.
//!
//! When a run of the task leaves, or more are permitted, the first in line is *invited*: made ready,
//! with a place that is kept for it, so that nobody who comes later is before it.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use stepbox_domain::{Limit, RunId, TaskName};
use tokio::sync::Notify;

use super::{Engine, ready::Ready, settings::Settings};
use crate::store::RunKey;

#[derive(Default)]
pub(crate) struct Capacity(Mutex<State>);

#[derive(Default)]
struct State {
    /// Those that have anything to tell.
    tasks: HashMap<TaskName, Share>,
    /// Whose line a run stands in, and at which number.
    in_line: HashMap<RunKey, (TaskName, u64)>,
    /// The same runs, as clients know them.
    ids: HashMap<RunId, TaskName>,
    invited: HashMap<RunKey, TaskName>,
    numbers: u64,
}

#[derive(Default)]
struct Share {
    /// Runs that hold a place, or have one kept for them.
    live: usize,
    live_max: usize,
    parked: usize,
    line: BTreeMap<u64, (RunKey, RunId)>,
    /// Told when somebody comes to stand in line: a run that only stands still with its instance
    /// makes room.
    wanted: Arc<Notify>,
}

impl Share {
    fn is_full(&self) -> bool {
        self.live >= self.live_max || !self.line.is_empty()
    }

    fn is_idle(&self) -> bool {
        self.live == 0 && self.parked == 0 && self.line.is_empty()
    }
}

/// A run's place among those of its task; given back when dropped.
pub(crate) struct Place<'a> {
    capacity: &'a Capacity,
    ready: &'a Ready,
    task: TaskName,
}

/// The permission to stand still with an instance; given back when dropped.
pub(crate) struct Parked<'a> {
    capacity: &'a Capacity,
    task: TaskName,
    wanted: Arc<Notify>,
}

impl Capacity {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place for `run`, which has been taken up. None: it stands in line, and is made ready when
    /// there is one.
    pub fn take<'a>(
        &'a self,
        task: &TaskName,
        run: RunKey,
        id: &RunId,
        live_max: u64,
        ready: &'a Ready,
    ) -> Option<Place<'a>> {
        let mut state = self.state();
        let place = || Place { capacity: self, ready, task: task.clone() };
        if state.invited.remove(&run).is_some() {
            return Some(place());
        }
        let share = state.share(task, live_max);
        if !share.is_full() {
            share.live += 1;
            return Some(place());
        }
        state.line_up(task, run, id);
        // More may be permitted than when the others came.
        let invited = state.invite(task);
        let has_place = state.invited.remove(&run).is_some();
        drop(state);
        ready.push_all(invited.into_iter().filter(|other| *other != run));
        has_place.then(place)
    }

    /// Whether one more run would have to stand in line.
    pub fn is_full(&self, task: &TaskName, live_max: u64) -> bool {
        let mut state = self.state();
        let is_full = state.share(task, live_max).is_full();
        state.tidy(task);
        is_full
    }

    /// Has `run`, which is new, stand in line if its task has as many as it may. False: there is
    /// room.
    pub fn stands_in_line(&self, task: &TaskName, run: RunKey, id: &RunId, live_max: u64) -> bool {
        let mut state = self.state();
        let is_full = state.share(task, live_max).is_full();
        if is_full {
            state.line_up(task, run, id);
        } else {
            state.tidy(task);
        }
        is_full
    }

    /// `run` is over, or stands at something else.
    pub fn gone(&self, run: RunKey, ready: &Ready) {
        let mut state = self.state();
        state.leave_line(run);
        if let Some(task) = state.invited.remove(&run) {
            let invited = state.give_back(&task);
            drop(state);
            ready.push_all(invited);
        }
    }

    /// Permits `task` another run that stands still with its instance. None: it has as many as it
    /// may, or others wait for the place.
    pub fn park(&self, task: &TaskName, parked_max: u64) -> Option<Parked<'_>> {
        let mut state = self.state();
        let share = state.tasks.get_mut(task)?;
        if share.parked as u64 >= parked_max || !share.line.is_empty() {
            return None;
        }
        share.parked += 1;
        Some(Parked { capacity: self, task: task.clone(), wanted: share.wanted.clone() })
    }

    /// Invites whom new limits permit, for ever.
    pub async fn run(&self, settings: &Settings, ready: &Ready) {
        let mut seen = settings.seen();
        loop {
            seen.changed().await;
            let mut state = self.state();
            let mut tasks: Vec<TaskName> = state.tasks.keys().cloned().collect();
            tasks.sort_unstable();
            let mut invited = Vec::new();
            for task in tasks {
                state.share(&task, settings.of(&task).limits.get(Limit::LiveMax));
                invited.extend(state.invite(&task));
            }
            drop(state);
            ready.push_all(invited);
        }
    }

    /// How many runs stand in line.
    pub fn len(&self) -> usize {
        self.state().in_line.len()
    }
}

impl State {
    fn share(&mut self, task: &TaskName, live_max: u64) -> &mut Share {
        if !self.tasks.contains_key(task) {
            self.tasks.insert(task.clone(), Share::default());
        }
        let share = self.tasks.entry(task.clone()).or_default();
        share.live_max = usize::try_from(live_max).unwrap_or(usize::MAX);
        share
    }

    fn line_up(&mut self, task: &TaskName, run: RunKey, id: &RunId) {
        if self.in_line.contains_key(&run) {
            return;
        }
        self.numbers += 1;
        let number = self.numbers;
        self.in_line.insert(run, (task.clone(), number));
        self.ids.insert(id.clone(), task.clone());
        let share = self.tasks.entry(task.clone()).or_default();
        share.line.insert(number, (run, id.clone()));
        if share.parked > 0 {
            share.wanted.notify_one();
        }
    }

    fn leave_line(&mut self, run: RunKey) {
        let Some((task, number)) = self.in_line.remove(&run) else { return };
        if let Some(share) = self.tasks.get_mut(&task)
            && let Some((_, id)) = share.line.remove(&number)
        {
            self.ids.remove(&id);
        }
        self.tidy(&task);
    }

    /// Keeps places for the first in line, as far as there are; who is to be made ready.
    fn invite(&mut self, task: &TaskName) -> Vec<RunKey> {
        let mut invited = Vec::new();
        while let Some(share) = self.tasks.get_mut(task)
            && share.live < share.live_max
            && let Some((_, (run, id))) = share.line.pop_first()
        {
            share.live += 1;
            self.in_line.remove(&run);
            self.ids.remove(&id);
            self.invited.insert(run, task.clone());
            invited.push(run);
        }
        invited
    }

    fn give_back(&mut self, task: &TaskName) -> Vec<RunKey> {
        if let Some(share) = self.tasks.get_mut(task) {
            share.live = share.live.saturating_sub(1);
        }
        let invited = self.invite(task);
        self.tidy(task);
        invited
    }

    fn tidy(&mut self, task: &TaskName) {
        if self.tasks.get(task).is_some_and(Share::is_idle) {
            self.tasks.remove(task);
        }
    }
}

impl Drop for Place<'_> {
    fn drop(&mut self) {
        let invited = self.capacity.state().give_back(&self.task);
        if !invited.is_empty() {
            self.ready.push_all(invited);
        }
    }
}

impl Parked<'_> {
    /// Another run of the task stands in line.
    pub async fn asked_to_leave(&self) {
        self.wanted.notified().await;
    }
}

impl Drop for Parked<'_> {
    fn drop(&mut self) {
        let mut state = self.capacity.state();
        if let Some(share) = state.tasks.get_mut(&self.task) {
            share.parked = share.parked.saturating_sub(1);
        }
        state.tidy(&self.task);
    }
}

impl Engine {
    /// How many runs of its task may be live, where `run` stands in line for that.
    pub fn in_line(&self, run: &RunId) -> Option<u64> {
        let state = self.0.capacity.state();
        let task = state.ids.get(run)?;
        Some(state.tasks.get(task)?.live_max as u64)
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;

    struct Bench {
        capacity: Capacity,
        ready: Ready,
        task: TaskName,
        live_max: u64,
    }

    impl Bench {
        fn new(live_max: u64) -> Self {
            Bench {
                capacity: Capacity::default(),
                ready: Ready::default(),
                task: TaskName::parse("t").unwrap(),
                live_max,
            }
        }

        fn id(run: i64) -> RunId {
            RunId::parse(&format!("e-{run}:run:0")).unwrap()
        }

        fn take(&self, run: i64) -> Option<Place<'_>> {
            self.capacity.take(&self.task, RunKey(run), &Self::id(run), self.live_max, &self.ready)
        }

        fn next(&self) -> Option<i64> {
            self.ready.pop().now_or_never().map(|run| run.0)
        }

        fn is_forgotten(&self) -> bool {
            let state = self.capacity.state();
            state.tasks.is_empty()
                && state.in_line.is_empty()
                && state.ids.is_empty()
                && state.invited.is_empty()
        }
    }

    #[test]
    fn who_comes_too_many_stands_in_line_and_is_invited_in_turn() {
        let bench = Bench::new(2);
        let (one, two) = (bench.take(1).unwrap(), bench.take(2).unwrap());
        assert!(bench.take(3).is_none());
        assert!(bench.take(4).is_none());
        assert!(bench.take(3).is_none(), "it is looked at again, and keeps its number");
        assert_eq!(bench.next(), None);

        drop(one);
        assert_eq!(bench.next(), Some(3));
        assert!(bench.take(5).is_none(), "the place is kept for the one who was invited");
        let three = bench.take(3).unwrap();
        drop((two, three));
        assert_eq!((bench.next(), bench.next()), (Some(4), Some(5)));
        drop((bench.take(4).unwrap(), bench.take(5).unwrap()));
        assert!(bench.is_forgotten());
    }

    #[test]
    fn a_run_that_is_gone_holds_nobody_up() {
        let bench = Bench::new(1);
        let one = bench.take(1).unwrap();
        for run in 2..=4 {
            assert!(bench.take(run).is_none());
        }
        bench.capacity.gone(RunKey(2), &bench.ready);
        drop(one);
        assert_eq!(bench.next(), Some(3));
        // Invited, and cancelled before it came.
        bench.capacity.gone(RunKey(3), &bench.ready);
        assert_eq!(bench.next(), Some(4));
        drop(bench.take(4).unwrap());
        assert!(bench.is_forgotten());
    }

    #[test]
    fn when_more_are_permitted_the_first_in_line_come_first() {
        let mut bench = Bench::new(1);
        std::mem::forget(bench.take(1).unwrap());
        for run in 2..=4 {
            assert!(bench.take(run).is_none());
        }
        bench.live_max = 3;
        assert!(bench.take(5).is_none());
        assert_eq!((bench.next(), bench.next(), bench.next()), (Some(2), Some(3), None));
        bench.live_max = 10;
        assert!(bench.take(6).is_some());
        assert_eq!((bench.next(), bench.next()), (Some(4), Some(5)));
    }

    #[test]
    fn who_only_stands_still_makes_room_and_nobody_does_while_others_wait() {
        let bench = Bench::new(1);
        assert!(bench.capacity.park(&bench.task, 1).is_none(), "it has no place at all");
        let _one = bench.take(1).unwrap();
        assert!(bench.capacity.park(&bench.task, 0).is_none());
        let parked = bench.capacity.park(&bench.task, 1).unwrap();
        assert!(bench.capacity.park(&bench.task, 1).is_none());
        assert!(parked.asked_to_leave().now_or_never().is_none());
        assert!(bench.take(2).is_none());
        assert!(parked.asked_to_leave().now_or_never().is_some());
        drop(parked);
        assert!(bench.capacity.park(&bench.task, 1).is_none());
    }

    #[test]
    fn tasks_have_nothing_to_do_with_each_other() {
        let bench = Bench::new(1);
        let _one = bench.take(1).unwrap();
        assert!(bench.take(2).is_none());
        let other = TaskName::parse("other").unwrap();
        let place = bench.capacity.take(&other, RunKey(3), &Bench::id(3), 1, &bench.ready);
        assert!(place.is_some());
    }
}
