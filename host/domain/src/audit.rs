//! The audit trail: one entry for each admin write, each chained to the one before by hash.
//!
//! Who changes, removes or inserts an entry breaks the chain at that place, and [`Chain`] finds it.
//! Who cuts off the end does not: that is seen by comparing with a head that was noted elsewhere.

use serde::{Deserialize, Serialize};

use crate::{
    ExecutionId, Json, TaskName, Timestamp,
    ids::{hex, sha256},
};

/// What somebody did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditEntry {
    pub at: Timestamp,
    /// Who; none where they did not say.
    pub actor: Option<String>,
    pub action: AuditAction,
    pub execution: Option<ExecutionId>,
    pub task: Option<TaskName>,
    /// What within the execution or the task: a step, a pause rule, a version, a bulk repair, a secret's name.
    pub target: Option<String>,
    /// What it was like, as JSON; null where there was nothing.
    pub before: Json,
    pub after: Json,
    pub reason: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum AuditAction {
    RetryStep,
    ResolveStep,
    Restart,
    Rerun,
    Cancel,
    Pause,
    Resume,
    UploadModule,
    ActivateVersion,
    RemoveModule,
    SetGrants,
    SetLimits,
    StartBulk,
    CancelBulk,
    /// By the host itself: too much failed again.
    StopBulk,
    SetSecret,
    DeleteSecret,
}

impl AuditAction {
    pub const ALL: [AuditAction; 17] = [
        Self::RetryStep,
        Self::ResolveStep,
        Self::Restart,
        Self::Rerun,
        Self::Cancel,
        Self::Pause,
        Self::Resume,
        Self::UploadModule,
        Self::ActivateVersion,
        Self::RemoveModule,
        Self::SetGrants,
        Self::SetLimits,
        Self::StartBulk,
        Self::CancelBulk,
        Self::StopBulk,
        Self::SetSecret,
        Self::DeleteSecret,
    ];

    /// The word in the API and in the store.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::RetryStep => "retry_step",
            Self::ResolveStep => "resolve_step",
            Self::Restart => "restart",
            Self::Rerun => "rerun",
            Self::Cancel => "cancel",
            Self::Pause => "pause",
            Self::Resume => "resume",
            Self::UploadModule => "upload_module",
            Self::ActivateVersion => "activate_version",
            Self::RemoveModule => "remove_module",
            Self::SetGrants => "set_grants",
            Self::SetLimits => "set_limits",
            Self::StartBulk => "start_bulk",
            Self::CancelBulk => "cancel_bulk",
            Self::StopBulk => "stop_bulk",
            Self::SetSecret => "set_secret",
            Self::DeleteSecret => "delete_secret",
        }
    }

    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|action| action.as_str() == text)
    }
}

/// The hash of an entry and of all before it, as 64 hexadecimal digits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AuditHash(String);

impl AuditHash {
    /// What the first entry is chained to.
    pub fn beginning() -> Self {
        AuditHash("0".repeat(64))
    }

    /// As the store keeps it; what is no hash equals none.
    pub fn from_stored(text: String) -> Self {
        AuditHash(text)
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The hash of entry `number` (from 1) that follows the entry with this hash.
    pub fn next(&self, number: u64, entry: &AuditEntry) -> Self {
        // Through a list, whose elements JSON keeps apart whatever stands in them.
        let text = serde_json::json!([
            self.as_str(),
            number,
            entry.at.as_ms(),
            entry.actor,
            entry.action.as_str(),
            entry.execution.as_ref().map(ExecutionId::as_str),
            entry.task.as_ref().map(TaskName::as_str),
            entry.target,
            entry.before.as_str(),
            entry.after.as_str(),
            entry.reason,
        ]);
        AuditHash(hex(&sha256(text.to_string().as_bytes())))
    }
}

/// Walks along a trail, oldest entry first.
#[derive(Clone, Debug)]
pub struct Chain {
    pub count: u64,
    pub head: AuditHash,
}

impl Default for Chain {
    fn default() -> Self {
        Chain { count: 0, head: AuditHash::beginning() }
    }
}

/// The first place where a trail is not what was written.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("entry {expected} is missing: entry {found} follows entry {}", .expected - 1)]
    Missing { expected: u64, found: u64 },
    #[error("entry {0} was altered, or an entry before it was replaced")]
    Altered(u64),
}

impl Chain {
    /// Takes the next entry, with the number and the hash that it is stored with.
    pub fn follow(&mut self, number: u64, entry: &AuditEntry, hash: &AuditHash) -> Result<(), Broken> {
        let expected = self.count + 1;
        if number != expected {
            return Err(Broken::Missing { expected, found: number });
        }
        if self.head.next(number, entry) != *hash {
            return Err(Broken::Altered(number));
        }
        *self = Chain { count: number, head: hash.clone() };
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn entry(number: usize) -> AuditEntry {
        AuditEntry {
            at: Timestamp::from_ms(number as i64),
            actor: Some("ada".to_owned()),
            action: AuditAction::ALL[number % AuditAction::ALL.len()],
            execution: Some(ExecutionId::parse("e-1").unwrap()),
            task: Some(TaskName::parse("order").unwrap()),
            target: Some(format!("charge#{number}")),
            before: Json::null(),
            after: Json::from(serde_json::json!({ "number": number })),
            reason: None,
        }
    }

    type Trail = Vec<(u64, AuditEntry, AuditHash)>;

    fn trail(length: usize) -> Trail {
        let mut head = AuditHash::beginning();
        (1..=length)
            .map(|number| {
                head = head.next(number as u64, &entry(number));
                (number as u64, entry(number), head.clone())
            })
            .collect()
    }

    /// How many entries are sound, and what is wrong with the next.
    fn verify(trail: &Trail) -> (u64, Option<Broken>) {
        let mut chain = Chain::default();
        for (number, entry, hash) in trail {
            if let Err(broken) = chain.follow(*number, entry, hash) {
                return (chain.count, Some(broken));
            }
        }
        (chain.count, None)
    }

    type Change = fn(&mut AuditEntry);

    const CHANGES: [Change; 11] = [
        |entry| entry.at = entry.at.plus_ms(1),
        |entry| entry.actor = None,
        |entry| entry.actor = Some(String::new()),
        |entry| entry.action = AuditAction::Cancel,
        |entry| entry.execution = None,
        |entry| entry.task = None,
        |entry| entry.target = None,
        |entry| entry.before = Json::from(serde_json::json!({})),
        |entry| entry.after = Json::null(),
        |entry| std::mem::swap(&mut entry.before, &mut entry.after),
        |entry| entry.reason = Some(String::new()),
    ];

    #[test]
    fn an_altered_entry_is_found_whatever_was_altered() {
        for change in CHANGES {
            let mut trail = trail(3);
            let before = trail[1].1.clone();
            change(&mut trail[1].1);
            assert_ne!(trail[1].1, before);
            assert_eq!(verify(&trail), (1, Some(Broken::Altered(2))));
        }
    }

    /// Who can compute hashes can make the entry itself look sound, and is found at the next.
    #[test]
    fn an_entry_altered_with_its_hash_is_found_at_the_next() {
        let mut trail = trail(3);
        trail[1].1.actor = None;
        trail[1].2 = trail[0].2.next(2, &trail[1].1);
        assert_eq!(verify(&trail), (2, Some(Broken::Altered(3))));
    }

    #[test]
    fn every_action_has_its_word() {
        for action in AuditAction::ALL {
            assert_eq!(AuditAction::parse(action.as_str()), Some(action));
            assert_eq!(serde_json::json!(action), action.as_str());
        }
        assert_eq!(AuditAction::parse("retry"), None);
    }

    proptest! {
        #[test]
        fn the_first_place_that_is_not_as_written_is_found(
            length in 2..8usize, at in any::<prop::sample::Index>(), other in any::<prop::sample::Index>(),
        ) {
            let written = trail(length);
            prop_assert_eq!(verify(&written), (length as u64, None));
            let (at, other) = (at.index(length), other.index(length));
            let sound = at as u64;
            let follows = |found| Some(Broken::Missing { expected: sound + 1, found });

            let mut removed = written.clone();
            removed.remove(at);
            // The last one is missed only by who has noted the head elsewhere.
            let broken = (at + 1 < length).then(|| follows(sound + 2)).flatten();
            prop_assert_eq!(verify(&removed), (sound, broken));

            // Removed, and the others moved up.
            removed.iter_mut().zip(1..).for_each(|(row, number)| row.0 = number);
            let broken = (at + 1 < length).then_some(Broken::Altered(sound + 1));
            prop_assert_eq!(verify(&removed), (sound, broken));

            let mut inserted = written.clone();
            inserted.insert(at, written[other].clone());
            inserted.iter_mut().zip(1..).for_each(|(row, number)| row.0 = number);
            let first = sound + 1 + u64::from(at == other);
            prop_assert_eq!(verify(&inserted), (first - 1, Some(Broken::Altered(first))));

            let mut swapped = written.clone();
            swapped.swap(at, other);
            let first = at.min(other) as u64;
            let found = at.max(other) as u64 + 1;
            let broken = (at != other).then_some(Broken::Missing { expected: first + 1, found });
            prop_assert_eq!(verify(&swapped).1, broken);
            swapped.iter_mut().zip(1..).for_each(|(row, number)| row.0 = number);
            let broken = (at != other).then_some(Broken::Altered(first + 1));
            prop_assert_eq!(verify(&swapped).1, broken);
        }
    }
}
