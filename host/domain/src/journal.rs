//! The journal of a run: one [`Record`] for each thing that happened in it.
//!
//! The serde names here are the format on disk; `tests/golden.rs` holds them. A record refers to
//! the step that it is about by its place in the run (0 for the first call that the handler made).

use serde::{Deserialize, Serialize};

use crate::{
    EventName, Failure, Json, Receipt, StepKey, Timestamp,
    lineage::PartHash,
    run::Step,
    step::{InputHash, Interruption, Overrides},
};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Record {
    /// The handler called a step for the first time, and its first attempt started.
    StepStarted(StepStarted),
    /// A step's first attempt started and completed: [`Record::StepStarted`] and
    /// [`Record::StepCompleted`] in one row, the usual case. See [`push`].
    StepRan {
        #[serde(flatten)]
        start: StepStarted,
        result: Json,
        completed_at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Receipt>>,
    },
    /// A further attempt started.
    AttemptStarted {
        step: u32,
        attempt: u32,
        at: Timestamp,
        /// When the host will interrupt this attempt.
        deadline: Timestamp,
        /// When the step's time is up over all its attempts, where that begins anew with this one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step_deadline: Option<Timestamp>,
    },
    StepCompleted {
        step: u32,
        attempt: u32,
        result: Json,
        at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Receipt>>,
    },
    /// An attempt failed. The next one starts at `retry_at`; without it the step is dead.
    AttemptFailed {
        step: u32,
        attempt: u32,
        failure: Failure,
        at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        retry_at: Option<Timestamp>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Receipt>>,
    },
    /// An attempt was cut off by the host, and says nothing about the step.
    AttemptInterrupted {
        step: u32,
        attempt: u32,
        cause: Interruption,
        at: Timestamp,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        receipt: Option<Box<Receipt>>,
    },
    /// The step is dead for a reason that is no attempt's: its deadline passed between two of
    /// them, or the host crashed under each.
    StepDied {
        step: u32,
        failure: Failure,
        at: Timestamp,
    },
    SleepStarted {
        key: StepKey,
        until: Timestamp,
        at: Timestamp,
    },
    SleepEnded {
        step: u32,
        at: Timestamp,
    },
    WaitStarted {
        key: StepKey,
        event: EventName,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        deadline: Option<Timestamp>,
        at: Timestamp,
    },
    EventConsumed {
        step: u32,
        /// The event's order number in the store.
        event: i64,
        payload: Json,
        at: Timestamp,
    },
    WaitTimedOut {
        step: u32,
        at: Timestamp,
    },
    Captured {
        key: StepKey,
        value: Json,
        at: Timestamp,
    },
    /// A step that an earlier run of the execution completed. It answers the call of its key, if
    /// the handler makes that call with the same function and input. Only at the beginning of a
    /// journal.
    StepKept {
        step: Box<Step>,
    },
    /// The handler has made the call of a step that was kept or set aside: from here on that step
    /// stands at this place of the journal, with all that it had.
    StepAdopted {
        key: StepKey,
        at: Timestamp,
    },
    /// Somebody wants a dead step to be tried again: it has all its attempts and its time anew,
    /// what was called after it is set aside, and a run that was over goes on.
    StepRetryAsked {
        key: StepKey,
        #[serde(default, skip_serializing_if = "Overrides::is_empty")]
        overrides: Overrides,
        /// The module version that the run goes on with, where that is another one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        version: Option<u32>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        at: Timestamp,
    },
    /// Somebody has put in by hand what a dead step has come to. Otherwise like
    /// [`Record::StepRetryAsked`].
    StepResolved {
        key: StepKey,
        outcome: Result<Json, Failure>,
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        at: Timestamp,
    },
    /// A pause rule that names steps keeps the next attempt of this one from starting. Its clocks
    /// stand still from here on for as long as the rule holds it.
    StepHeld {
        key: StepKey,
        at: Timestamp,
    },
    /// Between the last such record (or the beginning) and `until`, pause rules held this run for
    /// `ms` milliseconds. Its deadlines are so much later.
    ClockStood {
        ms: u64,
        until: Timestamp,
    },
    RunCompleted {
        result: Json,
        at: Timestamp,
    },
    RunFailed {
        failure: Failure,
        at: Timestamp,
    },
    RunCancelled {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<String>,
        at: Timestamp,
    },
}

/// See [`Record::StepStarted`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepStarted {
    pub key: StepKey,
    /// What `run-step` dispatches on.
    pub function: String,
    pub input: InputHash,
    /// What the input is made of, to find out which earlier results went into it. See
    /// [`crate::lineage`].
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub parts: Vec<PartHash>,
    pub at: Timestamp,
    /// When the host will interrupt the first attempt.
    pub deadline: Timestamp,
    /// When the step's time is up over all its attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step_deadline: Option<Timestamp>,
}

/// Adds `record` to `rows`, which are to be written together and start at a row boundary:
/// a step's start and its completion become one row where nothing came between. Folding `rows`
/// gives the same run either way.
pub fn push(rows: &mut Vec<Record>, record: Record) {
    let completes_the_last = matches!(
        (rows.last(), &record),
        (Some(Record::StepStarted(_)), Record::StepCompleted { attempt: 1, .. })
    );
    if completes_the_last
        && let Some(Record::StepStarted(start)) = rows.pop()
        && let Record::StepCompleted { result, at, receipt, .. } = record
    {
        rows.push(Record::StepRan { start, result, completed_at: at, receipt });
    } else {
        rows.push(record);
    }
}
