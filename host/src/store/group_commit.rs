//! Many verbs, one transaction, one fsync.
//!
//! One task owns the one connection that writes. It takes what has been asked of it by the time
//! that the last transaction is on disk, up to a bound (see [`Backlog`]), does it all in the next
//! one, and answers when that is on disk too. Nobody waits for company: a verb that comes alone
//! goes alone.
//!
//! Within a batch the verbs are done kind by kind (see [`phases`]), not in the order of their
//! arrival: none of them has been answered yet, so nobody can have relied on another order.
//! Within a kind the order is kept.

use sqlx::{ConnectOptions, Connection as _, sqlite::SqliteConnectOptions};
use stepbox_domain::{
    ExecutionId, TaskName, Timestamp,
    audit::AuditEntry,
    bulk::BulkId,
    capability::SecretName,
    pause::{PauseRule, PauseRuleId},
};
use tokio::sync::{mpsc, oneshot};

use super::backlog::{Backlog, Line, Size};
use super::lock::DirectoryLock;
use super::queries::{
    Connection, alone,
    bulks::{self, ItemKey},
    cancels::{self, NewCancel},
    claims::{self, Hold},
    commits::{self, Encoded},
    events,
    executions::{self, Known, Start},
    modules,
    pauses::{self, Deletion},
    repairs, runs, secrets, settings,
};
use super::{
    Cancel, Claim, Creation, EventAdded, NewBulk, NewEvent, NewSecret, NewVersion, Removal, RunKey,
    SettingsChange, StoreError, Unfinished, VersionAdded, VersionView,
};
use crate::fault::{self, Fault};

/// What can be asked of the writer.
pub(super) enum Verb {
    Create(Box<Start>),
    Claim { run: RunKey, now: Timestamp },
    Commit(Encoded),
    Cancel(Box<NewCancel>),
    Seize(ExecutionId),
    Repair(Box<repairs::Encoded>),
    AddPauseRule(Box<(PauseRule, AuditEntry)>),
    DeletePauseRules(Deletion),
    CreateBulk(Box<(NewBulk, AuditEntry)>),
    SkipBulkItem { bulk: BulkId, execution: ExecutionId, why: String },
    SettleBulk(Vec<ItemKey>),
    EndBulk(Box<bulks::End>),
    AddEvent(NewEvent),
    Recover,
    AddVersion(Box<(NewVersion, AuditEntry)>),
    ActivateVersion { task: TaskName, version: u32, audit: Box<AuditEntry> },
    PutSettings(Box<SettingsChange>),
    RemoveModule(TaskName, Box<AuditEntry>),
    SetSecret(Box<(NewSecret, AuditEntry)>),
    DeleteSecret(SecretName, Box<AuditEntry>),
    Ping,
}

impl Verb {
    fn line(&self) -> Line {
        match self {
            Verb::Claim { .. } | Verb::Commit(_) => Line::Moves,
            _ => Line::Asked,
        }
    }

    fn size(&self) -> Size {
        let bytes = match self {
            Verb::Create(start) => start.bytes(),
            Verb::Commit(commit) => commit.bytes(),
            Verb::AddEvent(event) => event.payload.len_bytes(),
            Verb::AddVersion(new) => new.0.component.len(),
            Verb::Repair(repair) => repair.bytes(),
            _ => 0,
        };
        let weight = match self {
            Verb::Commit(commit) => 1 + commit.rows() / ROWS_OF_A_VERB,
            Verb::Create(start) => 1 + start.rows() / ROWS_OF_A_VERB,
            _ => 1,
        };
        Size { weight, bytes }
    }
}

/// So many records in a commit cost as much as the commit itself, or as another verb.
const ROWS_OF_A_VERB: usize = 4;

/// What came of it.
pub(super) enum Outcome {
    Created(Box<Creation>),
    Claimed(Option<Hold>),
    Committed,
    Cancelled(Cancel),
    Seized(Option<Claim>),
    Repaired(RunKey),
    RulesDeleted(Vec<PauseRuleId>),
    BulkCreated(u64),
    BulkEnded(bool),
    /// And the hold of the run, where it was asked for.
    EventAdded(EventAdded, Option<Hold>),
    Recovered(Vec<Unfinished>),
    VersionAdded(VersionAdded),
    VersionActivated(Option<VersionView>),
    ModuleRemoved(Removal),
    /// Whether it is new.
    SecretSet(bool),
    /// Whether it was there.
    SecretDeleted(bool),
    Written,
}

impl Outcome {
    fn of_start(creation: Creation) -> Self {
        Outcome::Created(Box::new(creation))
    }
}

type Answer = Result<Outcome, StoreError>;

pub(super) enum Message {
    Ask(Verb, oneshot::Sender<Answer>),
    /// Brings the rest of the write-ahead log into the database, so that it starts over.
    Checkpoint(oneshot::Sender<()>),
    /// Writes what is queued, closes the database and ends the writer.
    Close(oneshot::Sender<()>),
    /// Runs this on the writing connection, as it is.
    #[cfg(test)]
    Sql(&'static str, oneshot::Sender<()>),
}

/// The writing end of the store.
pub(super) struct Writer {
    options: SqliteConnectOptions,
    /// None after a failure: the next batch opens a new one.
    connection: Option<Connection>,
    known: Known,
    /// Held as long as anything may be written.
    _lock: DirectoryLock,
}

impl Writer {
    pub(super) fn new(
        options: SqliteConnectOptions,
        connection: Connection,
        known: Known,
        lock: DirectoryLock,
    ) -> Self {
        Writer { options, connection: Some(connection), known, _lock: lock }
    }

    /// Works until it is closed, or until nobody is left who could ask.
    pub(super) async fn run(mut self, mut queue: mpsc::UnboundedReceiver<Message>) {
        let mut backlog = Backlog::new();
        let mut then = None;
        loop {
            if backlog.is_empty() && then.is_none() {
                let Some(message) = queue.recv().await else { return };
                then = take_in(&mut backlog, message);
            }
            while then.is_none()
                && let Ok(message) = queue.try_recv()
            {
                then = take_in(&mut backlog, message);
            }
            let (verbs, answers): (Vec<_>, Vec<_>) = backlog.batch().into_iter().unzip();
            let outcomes = self.write(verbs).await;
            fault::point(Fault::AfterCommit);
            for (answer, outcome) in answers.into_iter().zip(outcomes) {
                // Nobody is there to hear it: the verb was done all the same.
                let _ = answer.send(outcome);
            }
            // Those who were answered go first: what they ask next comes into the next batch, where
            // otherwise the first of them would have it for itself and the others would wait for
            // it (measured with ten runs: half as much again).
            tokio::task::yield_now().await;
            match then.take() {
                Some(close @ Message::Close(_)) if !backlog.is_empty() => then = Some(close),
                Some(Message::Checkpoint(done)) => {
                    self.checkpoint().await;
                    let _ = done.send(());
                }
                Some(Message::Close(done)) => {
                    self.close().await;
                    queue.close();
                    // Dropped with the queue itself, what is being sent at this very moment would
                    // stay in it, and whoever sent it would wait for ever.
                    while queue.recv().await.is_some() {}
                    let _ = done.send(());
                    return;
                }
                #[cfg(test)]
                Some(Message::Sql(sql, done)) => {
                    if let Ok(connection) = self.connection().await {
                        sqlx::raw_sql(sql).execute(connection).await.expect(sql);
                    }
                    let _ = done.send(());
                }
                Some(Message::Ask(..)) | None => {}
            }
        }
    }

    /// Does all of `verbs`, as one transaction if it can be done.
    async fn write(&mut self, verbs: Vec<Verb>) -> Vec<Answer> {
        if verbs.is_empty() {
            return Vec::new();
        }
        let all: Vec<&Verb> = verbs.iter().collect();
        match self.attempt(&all).await {
            Ok(answers) => answers,
            // One of them is the culprit, and the others shall not suffer for it.
            Err(StoreError::Corrupt(_)) if verbs.len() > 1 => {
                let mut answers = Vec::with_capacity(verbs.len());
                for verb in &verbs {
                    let answer = self.attempt(&[verb]).await;
                    answers.push(answer.and_then(|mut answers| {
                        answers.pop().unwrap_or_else(|| Err(StoreError::Corrupt("no answer".to_owned())))
                    }));
                }
                answers
            }
            Err(error) => verbs.iter().map(|_| Err(error.again())).collect(),
        }
    }

    /// One transaction. After an error nothing of it is there.
    async fn attempt(&mut self, verbs: &[&Verb]) -> Result<Vec<Answer>, StoreError> {
        self.connection().await?;
        let Writer { connection: Some(connection), known, .. } = self else {
            return Err(StoreError::Unavailable("it is closed".to_owned()));
        };
        let done = transaction(connection, known, verbs).await;
        if let Err(error) = &done {
            tracing::error!(%error, verbs = verbs.len(), "a write failed; nothing of it was kept");
            known.trail = None;
            // Closing rolls back whatever is open, and what comes next starts afresh.
            if let Some(connection) = self.connection.take()
                && let Err(error) = connection.close().await
            {
                tracing::warn!(%error, "the failed connection did not close in good order");
            }
        }
        done
    }

    async fn connection(&mut self) -> Result<&mut Connection, StoreError> {
        let connection = match self.connection.take() {
            Some(connection) => connection,
            None => {
                let mut connection = self.options.connect().await?;
                alone::set_up(&mut connection).await?;
                connection
            }
        };
        Ok(self.connection.insert(connection))
    }

    async fn checkpoint(&mut self) {
        let Ok(connection) = self.connection().await else { return };
        if let Err(error) = sqlx::query("pragma wal_checkpoint(passive)").execute(connection).await {
            tracing::warn!(%error, "the write-ahead log could not be brought into the database");
        }
    }

    async fn close(mut self) {
        let Some(mut connection) = self.connection.take() else { return };
        let checkpoint = sqlx::query("pragma wal_checkpoint(truncate)").execute(&mut connection).await;
        if let Err(error) = checkpoint.map(|_| ()).and(connection.close().await) {
            tracing::warn!(%error, "the database did not close in good order; the next start will repair it");
        }
    }
}

/// Puts what is asked into its line, and hands back what is to be done after the next batch.
fn take_in(backlog: &mut Backlog<(Verb, oneshot::Sender<Answer>)>, message: Message) -> Option<Message> {
    match message {
        Message::Ask(verb, answer) => {
            backlog.push(verb.line(), verb.size(), (verb, answer));
            None
        }
        other => Some(other),
    }
}

async fn transaction(
    connection: &mut Connection,
    known: &mut Known,
    verbs: &[&Verb],
) -> Result<Vec<Answer>, StoreError> {
    match verbs {
        // What comes most often alone goes to the disk in one round trip.
        [Verb::Commit(commit)] if alone::can_be(commit) => {
            let answer = fault::during(Fault::Committing, alone::commit(connection, commit)).await;
            match answer {
                Ok(()) => Ok(vec![Ok(Outcome::Committed)]),
                Err(StoreError::ClaimLost) => Ok(vec![Err(StoreError::ClaimLost)]),
                Err(error) => Err(error),
            }
        }
        [Verb::Create(start)] if alone::can_start(start) => {
            let created = executions::create(connection, known, &[start], true).await?;
            Ok(created.into_iter().map(|created| created.map(Outcome::of_start)).collect())
        }
        [Verb::AddEvent(event)] => {
            let adding = events::add_alone(connection, known, event);
            let (added, hold) = fault::during(Fault::Committing, adding).await?;
            Ok(vec![Ok(Outcome::EventAdded(added, hold))])
        }
        [Verb::Claim { run, now }] => {
            let hold = fault::during(Fault::Committing, claims::claim_alone(connection, *run, *now)).await?;
            Ok(vec![Ok(Outcome::Claimed(hold))])
        }
        _ => {
            sqlx::query("begin immediate").execute(&mut *connection).await?;
            let answers = phases(connection, known, verbs).await?;
            fault::point(Fault::BeforeCommit);
            sqlx::query("commit").execute(connection).await?;
            Ok(answers)
        }
    }
}

/// Everything in one transaction that is open. What ends or frees a run comes before what is
/// sent to it or takes hold of it, so that a claim that follows a release closely finds it free.
async fn phases(
    connection: &mut Connection,
    known: &mut Known,
    verbs: &[&Verb],
) -> Result<Vec<Answer>, StoreError> {
    let mut answers = Answers(verbs.iter().map(|_| None).collect());

    for (place, verb) in verbs.iter().enumerate() {
        let outcome = match verb {
            Verb::Recover => Outcome::Recovered(runs::recover(connection).await?),
            Verb::AddVersion(new) => {
                let (new, audit) = &**new;
                Outcome::VersionAdded(modules::add_version(connection, known, new, audit).await?)
            }
            Verb::ActivateVersion { task, version, audit } => Outcome::VersionActivated(
                modules::activate_version(connection, known, task, *version, audit).await?,
            ),
            Verb::PutSettings(change) => {
                Outcome::VersionActivated(settings::put(connection, known, change).await?)
            }
            Verb::RemoveModule(task, audit) => {
                Outcome::ModuleRemoved(modules::remove(connection, known, task, audit).await?)
            }
            Verb::SetSecret(new) => {
                Outcome::SecretSet(secrets::set(connection, known, &new.0, &new.1).await?)
            }
            Verb::DeleteSecret(name, audit) => {
                Outcome::SecretDeleted(secrets::delete(connection, known, name, audit).await?)
            }
            Verb::Cancel(cancel) => Outcome::Cancelled(cancels::cancel(connection, known, cancel).await?),
            Verb::AddPauseRule(new) => {
                pauses::add(connection, known, &new.0, &new.1).await?;
                Outcome::Written
            }
            Verb::DeletePauseRules(deletion) => {
                Outcome::RulesDeleted(pauses::delete(connection, known, deletion).await?)
            }
            Verb::CreateBulk(new) => {
                Outcome::BulkCreated(bulks::create(connection, known, &new.0, &new.1).await?)
            }
            Verb::SkipBulkItem { bulk, execution, why } => {
                bulks::skip(connection, bulk, execution, why).await?;
                Outcome::Written
            }
            Verb::SettleBulk(items) => {
                bulks::settle(connection, items).await?;
                Outcome::Written
            }
            Verb::EndBulk(end) => Outcome::BulkEnded(bulks::end(connection, known, end).await?),
            Verb::Ping => {
                sqlx::query("update pulse set beats = beats + 1").execute(&mut *connection).await?;
                Outcome::Written
            }
            _ => continue,
        };
        answers.put(place, Ok(outcome));
    }

    let (places, starts) = pick(verbs, |verb| match verb {
        Verb::Create(start) => Some(&**start),
        _ => None,
    });
    if !starts.is_empty() {
        for (place, created) in
            places.into_iter().zip(executions::create(connection, known, &starts, false).await?)
        {
            answers.put(place, created.map(Outcome::of_start));
        }
    }

    let (places, commits) = pick(verbs, |verb| match verb {
        Verb::Commit(commit) => Some(commit),
        _ => None,
    });
    if !commits.is_empty() {
        for (place, committed) in places.into_iter().zip(commits::commit(connection, &commits).await?) {
            answers.put(place, committed.map(|()| Outcome::Committed));
        }
    }

    // One by itself has no parts.
    if verbs.len() > 1 {
        fault::point(Fault::InBatch);
    }

    // A repair ends a hold, and what was recorded under the hold before a seizure is not lost for
    // having come together with it.
    for (place, verb) in verbs.iter().enumerate() {
        if let Verb::Repair(repair) = verb {
            answers.put(place, repairs::repair(connection, known, repair).await?.map(Outcome::Repaired));
        }
    }
    for (place, verb) in verbs.iter().enumerate() {
        if let Verb::Seize(execution) = verb {
            answers.put(place, Ok(Outcome::Seized(repairs::seize(connection, execution).await?)));
        }
    }

    let (places, sent) = pick(verbs, |verb| match verb {
        Verb::AddEvent(event) => Some(event),
        _ => None,
    });
    if !sent.is_empty() {
        let added = events::add(connection, known, &sent).await?;
        let mut holds = claims::claim_awaiting(connection, &sent).await?;
        for (place, added) in places.into_iter().zip(added) {
            // Several for one run: the first has it.
            let hold = added.run().and_then(|run| holds.remove(&run));
            answers.put(place, Ok(Outcome::EventAdded(added, hold)));
        }
    }

    let (places, wanted) = pick(verbs, |verb| match verb {
        Verb::Claim { run, now } => Some((*run, *now)),
        _ => None,
    });
    if !wanted.is_empty() {
        let mut holds = claims::claim(connection, &wanted).await?;
        for (place, (run, _)) in places.into_iter().zip(wanted) {
            // Who asks second for the same run finds it taken.
            answers.put(place, Ok(Outcome::Claimed(holds.remove(&run))));
        }
    }
    answers.complete()
}

/// The verbs of one kind, and their places in the batch.
fn pick<'a, T>(verbs: &[&'a Verb], kind: impl Fn(&'a Verb) -> Option<T>) -> (Vec<usize>, Vec<T>) {
    verbs.iter().enumerate().filter_map(|(place, verb)| Some((place, kind(verb)?))).unzip()
}

/// The answers of a batch, as they come.
struct Answers(Vec<Option<Answer>>);

impl Answers {
    fn put(&mut self, place: usize, answer: Answer) {
        self.0[place] = Some(answer);
    }

    fn complete(self) -> Result<Vec<Answer>, StoreError> {
        let complete: Option<Vec<Answer>> = self.0.into_iter().collect();
        complete.ok_or_else(|| StoreError::Corrupt("a verb was passed over".to_owned()))
    }
}
