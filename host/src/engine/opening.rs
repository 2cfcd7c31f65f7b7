//! A start that is on its way to the store while its run is driven already.
//!
//! Nothing is to be seen of a run before its start is on disk, so nothing has to wait for that: the run
//! is driven as far as it gets without giving way, and what it has come to by then goes to the disk with
//! the start. For most short executions that is all of it, and one commit where there were two.

use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::Notify;

use super::ahead::{Answer, OnItsWay, on_its_way};
use crate::store::{Commit, StoreError};

/// The end of whoever writes the start.
pub(crate) struct Opening {
    door: Arc<Door>,
    answer: Answer,
    answered: Arc<Notify>,
}

/// The end of the run.
pub(crate) struct Unwritten {
    pub door: Arc<Door>,
    /// Told when there is an answer, which nobody may be waiting for.
    pub answered: Arc<Notify>,
    pub start: OnItsWay,
}

/// Through which a commit gets in with the start.
pub(crate) struct Door(Mutex<State>);

enum State {
    Open,
    Taken(Box<Commit>),
    Shut,
}

pub(crate) fn opening() -> (Opening, Unwritten) {
    let door = Arc::new(Door(Mutex::new(State::Open)));
    let answered = Arc::<Notify>::default();
    let (answer, start) = on_its_way();
    let unwritten = Unwritten { door: door.clone(), answered: answered.clone(), start };
    (Opening { door, answer, answered }, unwritten)
}

impl Opening {
    /// What goes to the disk with the start, if anything. What comes later has to go after it.
    pub fn shut(&self) -> Option<Commit> {
        match self.door.put(State::Shut) {
            State::Taken(commit) => Some(*commit),
            State::Open | State::Shut => None,
        }
    }

    /// What became of the start, and of what went with it.
    pub fn answer(self, answer: Result<(), StoreError>) {
        self.answer.is(answer);
        self.answered.notify_one();
    }
}

impl Door {
    fn put(&self, state: State) -> State {
        std::mem::replace(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner), state)
    }

    pub fn is_open(&self) -> bool {
        matches!(*self.0.lock().unwrap_or_else(PoisonError::into_inner), State::Open)
    }

    /// Has `commit` written with the start; gives it back when it is too late for that.
    pub fn enter(&self, commit: Box<Commit>) -> Result<(), Box<Commit>> {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match *state {
            State::Open => {
                *state = State::Taken(commit);
                Ok(())
            }
            State::Taken(_) | State::Shut => Err(commit),
        }
    }
}
