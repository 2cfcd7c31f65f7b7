//! What is written of executions and their runs, and what comes back.

use std::sync::Arc;

use stepbox_domain::{
    Digest, EventName, ExecutionId, ExecutionStatus, Failure, Fingerprint, Json, RunId, TaskName, Timestamp,
    event::Event,
    journal::Record,
    run::{RunFacts, Wait},
    trouble::Trouble,
};

use super::{Claim, ExecutionView, RunKey};

#[derive(Clone, Debug)]
pub struct NewExecution {
    pub id: ExecutionId,
    pub task: TaskName,
    pub payload: Json,
    pub fingerprint: Fingerprint,
    pub version: u32,
    pub now: Timestamp,
    /// When its time is up.
    pub deadline: Option<Timestamp>,
    /// Where the first run is claimed at once, in the same commit.
    pub held: Option<HeldRun>,
}

impl NewExecution {
    /// Of its first run.
    pub fn facts(&self) -> RunFacts {
        RunFacts {
            run: RunId::new(&self.id, 0),
            execution: self.id.clone(),
            index: 0,
            task: self.task.clone(),
            version: self.version,
            created_at: self.now,
            deadline: self.deadline,
        }
    }

    /// How it stands when it is created with `run`, but for what that has come to.
    pub(super) fn view(&self, run: RunKey) -> ExecutionView {
        ExecutionView {
            id: self.id.clone(),
            task: self.task.clone(),
            payload: self.payload.clone(),
            fingerprint: self.fingerprint.clone(),
            status: if self.held.is_some() { ExecutionStatus::Running } else { ExecutionStatus::Scheduled },
            scheduled_at: self.now,
            completed_at: None,
            version: self.version,
            run: RunId::new(&self.id, 0),
            run_key: run,
            result: None,
            error: None,
            waiting: None,
        }
    }
}

/// A first run that somebody drives already.
#[derive(Clone, Debug)]
pub struct HeldRun {
    /// From [`Store::new_run`].
    pub run: RunKey,
    /// What it has come to, under [`Claim::first`].
    pub commit: Option<Commit>,
}

#[derive(Clone, Debug, PartialEq)]
pub enum Creation {
    /// It is new, and stands like this.
    New { execution: ExecutionView, run: RunKey },
    /// The same start has been made before: how it stands now.
    Replay(ExecutionView),
    /// The id is taken by a start of another task or with another payload.
    Clash { task: TaskName },
}

/// A run that is ours, with all that is needed to go on.
#[derive(Clone, Debug, PartialEq)]
pub struct Claimed {
    pub claim: Claim,
    pub facts: RunFacts,
    pub payload: Json,
    pub digest: Digest,
    /// So many records of the journal come before [`Claimed::records`], which whoever claims it has.
    pub known: u64,
    pub records: Vec<Record>,
    /// Unconsumed events of the execution, oldest first.
    pub events: Vec<Event>,
    /// How often in a row a claim of this run was left behind by a dead process that had
    /// recorded nothing and come to no wait since it claimed (invariant 8).
    pub crashes: u32,
}

/// What one decision writes.
#[derive(Clone, Debug)]
pub struct Commit {
    pub claim: Claim,
    /// The number of the first record: the length of the journal before.
    pub first_number: u64,
    pub records: Vec<Record>,
    /// Events that these records consume, by number.
    pub consumed: Vec<i64>,
    /// How the run stands from now on; none when that has not changed.
    pub standing: Option<Standing>,
    /// Let go of the run: the claim ends with this commit.
    pub release: bool,
}

impl Commit {
    /// Nothing but the end of the claim.
    pub fn let_go(claim: Claim) -> Self {
        Commit {
            claim,
            first_number: 0,
            records: Vec::new(),
            consumed: Vec::new(),
            standing: None,
            release: true,
        }
    }
}

/// How a run stands, as the lists show it and a claim needs it.
#[derive(Clone, Debug, PartialEq)]
pub enum Standing {
    /// Under way; `waiting` where it stands still, `due` when it is to be looked at.
    Open {
        waiting: Option<Wait>,
        due: Option<Timestamp>,
    },
    Completed {
        result: Json,
        at: Timestamp,
    },
    Failed {
        failure: Failure,
        /// What it has in common with others.
        trouble: Trouble,
        at: Timestamp,
    },
}

#[derive(Clone, Debug, PartialEq)]
pub enum Cancel {
    /// It is cancelled now. The run that stood under it.
    Cancelled(RunKey),
    AlreadyOver(ExecutionStatus),
    NoSuchExecution,
}

/// An event for an execution.
pub struct NewEvent {
    pub execution: ExecutionId,
    pub name: EventName,
    pub payload: Json,
    pub now: Timestamp,
    /// Take hold of the run in the same commit, if it stands at an event of that name and nobody holds it;
    /// asked then, how many records of it are known already and need not be read.
    pub claim: Option<Known>,
    /// Told what is going to become of it while that is on its way to the disk: nothing is to be seen of
    /// it before the answer, which has the last word. An event that is written anew after a failure comes
    /// again, perhaps with another number.
    pub coming: Option<Coming>,
}

pub type Known = Arc<dyn Fn(RunKey) -> u64 + Send + Sync>;

pub type Coming = Box<dyn Fn(&EventAdded) + Send + Sync>;

impl NewEvent {
    pub(super) fn is_coming(&self, added: &EventAdded) {
        if let Some(coming) = &self.coming {
            coming(added);
        }
    }
}

#[derive(Clone, Debug, PartialEq)]
pub enum EventAdded {
    /// Stored. `awaited`: the run stands at a wait for just this event, and this one will
    /// answer it. `seq`: its number; `after`: that of the event before it that nobody had consumed
    /// by then, 0 if there was none.
    Added {
        run: RunKey,
        awaited: bool,
        seq: i64,
        after: i64,
        taken: Taken,
    },
    AlreadyOver(ExecutionStatus),
    NoSuchExecution,
}

impl EventAdded {
    /// The run to which it was sent, if it was stored.
    pub(super) fn run(&self) -> Option<RunKey> {
        match self {
            EventAdded::Added { run, .. } => Some(*run),
            EventAdded::AlreadyOver(_) | EventAdded::NoSuchExecution => None,
        }
    }

    /// Its number, if it was stored.
    pub(super) fn seq(&self) -> Option<i64> {
        match self {
            EventAdded::Added { seq, .. } => Some(*seq),
            EventAdded::AlreadyOver(_) | EventAdded::NoSuchExecution => None,
        }
    }

    /// Whether it is in the same place as in `other`: of the same run, after the same event.
    pub(crate) fn is_at(&self, other: &EventAdded) -> bool {
        let place = |added: &EventAdded| match added {
            EventAdded::Added { run, seq, after, .. } => Some((*run, *seq, *after)),
            EventAdded::AlreadyOver(_) | EventAdded::NoSuchExecution => None,
        };
        place(self) == place(other)
    }
}

/// Whether an event took hold of the run that stands at it.
#[derive(Clone, Debug, PartialEq)]
pub enum Taken {
    /// Not asked for, or there was nothing to take hold of.
    Not,
    Held(Box<Claimed>),
    /// It was held, could not be read, and was let go again: whoever looked meanwhile found it held, so
    /// it has to be woken.
    LetGo,
}

/// A run that is not over, as found after a start of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unfinished {
    pub run: RunKey,
    /// When it is to be looked at; none for one that stands at an event without a deadline.
    pub due: Option<Timestamp>,
    /// Whether it stands at a wait, was let go in good order, and nothing that it waits for has
    /// come. Otherwise it is to be taken up now, whatever `due` says.
    pub waiting: bool,
    /// As in [`Claimed`], as of its last claim: whether it may be what takes the host down.
    pub crashes: u32,
    /// Whether what it stands at is a pause rule.
    pub held: bool,
}
