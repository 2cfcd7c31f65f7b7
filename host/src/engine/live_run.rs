//! One run in this process: what its guest asks is decided, made durable, applied, answered.
//!
//! [`LiveRun::take`] is the only place where a decision meets the disk; start reading there. How steps
//! are run is in `live_run/steps.rs`, how a run stands still in `live_run/waits.rs`.

mod steps;
mod waits;

use std::sync::Arc;

use futures_util::future::BoxFuture;
use stepbox_domain::{
    Failure, FailureKind, Json, Limits, Run, StepName, Timestamp,
    decide::{Durability, Input, Reply},
    journal::{self, Record},
    leg::{Leg, Place},
    pause::PauseRuleId,
    run::{RunOutcome, Wait},
    trouble::Trouble,
};
use tokio::sync::Notify;

use super::{
    Inner,
    ahead::OnItsWay,
    kept::{self, Kept},
    live::LiveHandle,
    log_tail::LogTail,
    metrics::Deeds,
    opening::{Door, Unwritten},
    replay_logs::ReplayLogs,
    settings::TaskSettings,
    step_logs::StepLogs,
    waiters::Ended,
};
use crate::{
    sandbox::{Answer, Gate, Guest, GuestContext, LogSink, Meter, StepRunner},
    store::{Claim, Commit, Standing, StoreError},
};

pub(crate) struct LiveRun {
    engine: Arc<Inner>,
    handle: Arc<LiveHandle>,
    claim: Claim,
    run: Run,
    leg: Leg,
    /// None when the module cannot be loaded: then nothing but the end of the run is recorded.
    guest: Option<Arc<dyn Guest>>,
    context: GuestContext,
    /// For what the handler prints.
    logs: Arc<ReplayLogs>,
    /// What it printed last in this leg, whether or not for the first time.
    handler_tail: Arc<LogTail>,
    /// What the attempt under way printed last.
    step_tail: Arc<LogTail>,
    /// Puts the attempt's name to what it prints.
    step_logs: Arc<StepLogs>,
    /// Calls that were in the journal when this leg began.
    recorded: u32,
    /// What holds for the task; looked up again before each attempt.
    settings: Arc<TaskSettings>,
    /// What the attempt under way takes.
    meter: Arc<Meter>,
    /// None until the first step of this leg, and while the run is parked.
    steps: Option<Box<dyn StepRunner>>,
    /// Applied, not yet given to the store.
    pending: Vec<Record>,
    /// The handler has had an answer that is pending: nothing may come of it before it is on disk.
    owes: bool,
    /// Shut from such an answer on until it is on disk: nothing gets out of a step before.
    gate: Arc<Gate>,
    /// The last attempt was seen outside, so the next may well be.
    was_seen: bool,
    /// How far the run is ahead of what the store has been given, in bytes of results.
    ahead_bytes: usize,
    /// Told when it owes.
    owing: Arc<Notify>,
    /// While the start is not on its way yet: what is written goes with it.
    door: Option<Arc<Door>>,
    /// What the store has been given and has not answered, start and events included.
    writing: Option<BoxFuture<'static, Result<(), StoreError>>>,
    /// Records that the store has, or is being given.
    written: u64,
    /// What the store shows of the run; none when that is not known.
    shown: Option<(Option<Wait>, Option<Timestamp>)>,
    /// The pause rule that the run will stand at when it is let go of.
    paused: Option<Wait>,
    /// What is to be counted when it is on disk.
    deeds: Deeds,
    hold: Hold,
}

/// Whether we may still write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Hold {
    Ours,
    /// A commit is under way: nobody knows what is on disk.
    Unsure,
    /// Another holds it, or it was cancelled.
    Lost,
    /// The store did not take a commit.
    Unwritten(String),
}

/// How far a run may be ahead of what the store has been given.
pub(crate) const AHEAD_RECORDS_MAX: usize = 64;
pub(crate) const AHEAD_BYTES_MAX: usize = 64 << 10;

/// The run cannot be gone on with here; [`LiveRun::hold`] says why.
#[derive(Debug)]
pub(crate) struct Gone;

impl LiveRun {
    pub fn new(
        engine: Arc<Inner>,
        handle: Arc<LiveHandle>,
        claim: Claim,
        run: Run,
        records: u64,
        guest: Option<Arc<dyn Guest>>,
        context: GuestContext,
    ) -> Self {
        // At a pause rule it stood without its journal knowing.
        let stood_at_rule = engine.pauses.taken_up(claim.run);
        let shown = (!stood_at_rule).then(|| (run.wait(), run.due()));
        let recorded = u32::try_from(run.steps().len()).unwrap_or(u32::MAX);
        let logs = ReplayLogs::new(context.logs.clone(), recorded);
        let step_logs = StepLogs::new(context.logs.clone());
        let step_tail = LogTail::new(step_logs.clone());
        let settings = engine.settings.of(&context.task);
        LiveRun {
            handler_tail: LogTail::new(logs.clone()),
            logs,
            context: GuestContext { logs: step_tail.clone(), ..context },
            step_tail,
            step_logs,
            recorded,
            engine,
            handle,
            claim,
            run,
            leg: Leg::default(),
            guest,
            settings,
            meter: Arc::default(),
            steps: None,
            pending: Vec::new(),
            owes: false,
            gate: Arc::default(),
            was_seen: false,
            ahead_bytes: 0,
            owing: Arc::default(),
            door: None,
            writing: None,
            written: records,
            shown,
            paused: None,
            deeds: Deeds::default(),
            hold: Hold::Ours,
        }
    }

    /// Nothing is seen of it before its start is on disk.
    pub fn while_it_starts(mut self, Unwritten { door, answered, start }: Unwritten) -> Self {
        (self.door, self.owing) = (Some(door), answered);
        self.follows_from(start);
        self
    }

    /// Nothing is seen of it before this is on disk.
    fn follows_from(&mut self, unwritten: OnItsWay) {
        self.gate.shut();
        self.logs.hold();
        self.hold = Hold::Unsure;
        let before = self.writing.take();
        self.writing = Some(Box::pin(async move {
            if let Some(before) = before {
                before.await?;
            }
            unwritten.written().await
        }));
    }

    pub fn run(&self) -> &Run {
        &self.run
    }

    /// Keeps it as it is for whoever takes it up again. To be called when it has been let go of; what is
    /// left here is a run in which nothing has happened.
    pub fn keep(&mut self) {
        if self.written >= kept::RECORDS_MIN {
            let new = Run::new(self.run.facts().clone(), self.run.policy().clone());
            let run = std::mem::replace(&mut self.run, new);
            self.engine.kept.keep(self.claim.run, Kept { run, records: self.written });
        }
    }

    pub fn claim(&self) -> Claim {
        self.claim
    }

    pub fn limits(&self) -> Arc<Limits> {
        self.settings.limits.clone()
    }

    pub fn handler_logs(&self) -> Arc<dyn LogSink> {
        self.handler_tail.clone()
    }

    /// `failure` of the handler, with what it printed last.
    pub fn with_logs(&self, failure: Failure) -> Failure {
        failure.with_logs(self.handler_tail.take())
    }

    /// The pause rule that the run stands at, if it does.
    pub fn paused_by(&self) -> Option<&PauseRuleId> {
        match &self.paused {
            Some(Wait::Pause { rule, .. }) => Some(rule),
            _ => None,
        }
    }

    /// A call is over. Has what the handler owes written, and looks whether what is on its way is, unless
    /// it makes another without giving way.
    pub fn remind(&self) {
        if self.owes || self.writing.is_some() {
            self.owing.notify_one();
        }
    }

    /// Told when a call is over and the handler has had an answer that is not on disk.
    pub fn owing(&self) -> Arc<Notify> {
        self.owing.clone()
    }

    /// How it ended, once that is on disk.
    pub fn ended(&self) -> Option<Ended> {
        let end = self.run.end().filter(|_| self.hold == Hold::Ours)?.clone();
        Some(Ended { run: self.run.facts().run.clone(), end })
    }

    pub fn hold(&self) -> &Hold {
        &self.hold
    }

    pub fn calls_made(&self) -> u32 {
        self.leg.calls_made()
    }

    /// Decides, makes durable, applies, replies.
    pub async fn take(&mut self, input: Input<'_>) -> Result<Reply, Gone> {
        let now = self.engine.clock.now();
        // Before the decision, so that what it begins has nothing of what is past.
        if let Some(ms) = self.engine.pauses.stood_ms(&self.run, now) {
            self.record(Record::ClockStood { ms, until: now });
        }
        let decision = self.run.decide(input, now);
        for record in decision.records {
            self.record(record);
        }
        match decision.durability {
            Durability::Now if !self.pending.is_empty() => self.write(false).await?,
            Durability::BeforeEffects if self.is_far_ahead() => self.write(false).await?,
            Durability::BeforeEffects if !self.pending.is_empty() => {
                self.owes = true;
                self.gate.shut();
                self.logs.hold();
            }
            Durability::Now | Durability::BeforeEffects | Durability::Eventually => {}
        }
        Ok(decision.reply)
    }

    /// Whether so much is unwritten that no more is to come to it: a crash would have it done again, and
    /// it all goes into one commit.
    fn is_far_ahead(&self) -> bool {
        self.pending.len() >= AHEAD_RECORDS_MAX || self.ahead_bytes >= AHEAD_BYTES_MAX
    }

    /// Writes what the handler has heard already. What is to be seen outside comes after this.
    pub async fn pay(&mut self) -> Result<(), Gone> {
        if self.owes { self.write(false).await } else { self.answered().await }
    }

    /// Applied before it is durable: nobody but its own guest sees this memory before that, and if the
    /// commit fails the memory and the guest go with it.
    fn record(&mut self, mut record: Record) {
        if let Record::RunFailed { failure, .. } = &mut record {
            self.say_where_it_was(failure);
        }
        self.run.apply(&record);
        self.deeds.add(&record);
        self.ahead_bytes += match &record {
            Record::StepCompleted { result, .. } => result.as_str().len(),
            Record::Captured { value, .. } => value.as_str().len(),
            Record::EventConsumed { payload, .. } => payload.as_str().len(),
            _ => 0,
        };
        journal::push(&mut self.pending, record);
    }

    /// A run that is ended from outside, since its time was up or it took another way, has no last
    /// words. What it printed last says where it was.
    fn say_where_it_was(&self, failure: &mut Failure) {
        let from_outside = matches!(failure.kind, FailureKind::TimedOut | FailureKind::Diverged);
        let in_step = self.run.steps().last().is_some_and(|step| step.ended_at.is_none());
        if from_outside && failure.logs.is_empty() && (in_step || failure.step.is_none()) {
            let tail = if in_step { &self.step_tail } else { &self.handler_tail };
            failure.logs = tail.take();
        }
    }

    /// Writes what is pending and lets go of the run: it stands still, or is over. It stands at a
    /// pause rule if one holds it.
    pub async fn release(&mut self) -> Result<(), Gone> {
        if self.paused.is_none() && self.run.end().is_none() {
            self.paused = self.engine.pauses.hold_of_run(self.run.facts(), self.engine.clock.now());
        }
        if self.paused.is_some() {
            self.engine.pauses.will_show(self.claim.run);
        }
        self.write(true).await
    }

    async fn write(&mut self, release: bool) -> Result<(), Gone> {
        let goes_with_start =
            self.hold == Hold::Unsure && self.door.as_ref().is_some_and(|door| door.is_open());
        if !goes_with_start {
            self.answered().await?;
        }
        let records = std::mem::take(&mut self.pending);
        let count = records.len() as u64;
        let commit = Commit {
            claim: self.claim,
            first_number: self.written,
            consumed: consumed(&records),
            records,
            standing: self.standing_if_changed(release),
            release: release || self.run.end().is_some(),
        };
        self.written += count;
        (self.owes, self.ahead_bytes) = (false, 0);
        self.hold = Hold::Unsure;
        let late = match self.door.take() {
            Some(door) => door.enter(Box::new(commit)).err().map(|commit| *commit),
            None => Some(commit),
        };
        if let Some(commit) = late {
            let (store, before) = (self.engine.store.clone(), self.writing.take());
            self.writing = Some(Box::pin(async move {
                if let Some(before) = before {
                    before.await?;
                }
                store.commit(commit).await
            }));
        }
        self.answered().await
    }

    /// Waits for the answer to what the store was given. May be dropped and called again.
    pub async fn answered(&mut self) -> Result<(), Gone> {
        if let Some(writing) = &mut self.writing {
            let answer = writing.await;
            self.writing = None;
            self.hold = match answer {
                Ok(()) => {
                    self.engine.metrics.done(std::mem::take(&mut self.deeds));
                    Hold::Ours
                }
                Err(StoreError::ClaimLost) => Hold::Lost,
                Err(error) => Hold::Unwritten(error.to_string()),
            };
        }
        if self.hold != Hold::Ours {
            return Err(Gone);
        }
        if !self.owes {
            self.gate.open();
            self.logs.let_out();
        }
        Ok(())
    }

    fn standing_if_changed(&mut self, release: bool) -> Option<Standing> {
        if let Some(end) = self.run.end() {
            return match &end.outcome {
                RunOutcome::Completed(result) => {
                    Some(Standing::Completed { result: result.clone(), at: end.at })
                }
                RunOutcome::Failed(failure) => {
                    let facts = self.run.facts();
                    let trouble = Trouble::of(&facts.task, facts.version, failure);
                    Some(Standing::Failed { failure: failure.clone(), trouble, at: end.at })
                }
                // Only the store cancels, in a transaction of its own.
                RunOutcome::Cancelled { .. } => None,
            };
        }
        let shows = match &self.paused {
            // Nothing but the end of the rule wakes it.
            Some(paused) => (Some(paused.clone()), None),
            None => (self.run.wait(), self.run.due()),
        };
        if !release && self.shown.as_ref() == Some(&shows) {
            return None;
        }
        self.shown = Some(shows.clone());
        Some(Standing::Open { waiting: shows.0, due: shows.1 })
    }

    /// The place of the handler's next call.
    pub fn place(&mut self, name: StepName) -> Place {
        self.leg.place(name)
    }

    fn answer(&self, outcome: Result<Json, Failure>, now: Timestamp) -> Answer {
        self.logs.answered(self.recorded, self.leg.calls_made());
        Answer { outcome, now }
    }

    /// Nothing is recorded, so the handler's clock does not move.
    fn refuse(&self, failure: Failure) -> Answer {
        Answer { outcome: Err(failure), now: self.run.facts().created_at }
    }
}

fn consumed(records: &[Record]) -> Vec<i64> {
    records
        .iter()
        .filter_map(|record| match record {
            Record::EventConsumed { event, .. } => Some(*event),
            _ => None,
        })
        .collect()
}
