//! What a pause rule holds, when it lets go, and for how long the clocks have stood.
//!
//! A rule holds what matches all the fields that it sets. One without a step pattern holds whole
//! runs: none is taken up, and one under way stops at its next step. One with a pattern holds the
//! steps whose name or key matches it, and nothing else.

use serde::{Deserialize, Serialize};

use crate::{
    ExecutionId, IdError, StepKey, TaskName, Timestamp,
    glob::{Glob, GlobError},
};

/// The name of a rule, given by the host.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct PauseRuleId(String);

impl PauseRuleId {
    /// Any text: an unknown rule is found out by looking for it.
    pub fn new(text: impl Into<String>) -> Self {
        PauseRuleId(text.into())
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An admin's standing order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PauseRule {
    pub id: PauseRuleId,
    pub scope: PauseScope,
    pub created_at: Timestamp,
    pub created_by: Option<String>,
    pub reason: Option<String>,
    pub expires_at: Option<Timestamp>,
    pub deleted_at: Option<Timestamp>,
    pub deleted_by: Option<String>,
}

/// What a rule matches: everything that has all that is given here.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PauseScope {
    pub execution: Option<ExecutionId>,
    pub task: Option<TaskName>,
    pub step: Option<StepPattern>,
}

/// A glob over step names and keys; [`crate::glob`] says what it can.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepPattern {
    text: String,
    glob: Glob,
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a step pattern has 1 to 200 characters, this one has {0}")]
    Length(usize),
    #[error(transparent)]
    Glob(#[from] GlobError),
}

impl StepPattern {
    pub fn parse(text: &str) -> Result<Self, PatternError> {
        let chars = text.chars().count();
        if !(1..=200).contains(&chars) {
            return Err(PatternError::Length(chars));
        }
        Ok(StepPattern { text: text.to_owned(), glob: Glob::parse(text)? })
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// By its key (`charge#2`) or by its name (`charge`).
    pub fn matches(&self, step: &StepKey) -> bool {
        self.glob.matches(step.name()) || self.glob.matches(step.as_str())
    }
}

impl PauseScope {
    /// One that sets nothing would stop everything.
    pub fn is_empty(&self) -> bool {
        self.execution.is_none() && self.task.is_none() && self.step.is_none()
    }

    /// Whether `execution` of `task` is held as a whole (`step` none), or at that step.
    pub fn holds(&self, execution: &ExecutionId, task: &TaskName, step: Option<&StepKey>) -> bool {
        self.execution.as_ref().is_none_or(|only| only == execution)
            && self.task.as_ref().is_none_or(|only| only == task)
            && self.step.as_ref().is_none_or(|pattern| step.is_some_and(|step| pattern.matches(step)))
    }
}

impl PauseRule {
    /// When it ended or will end; none while nobody knows.
    pub fn ends_at(&self) -> Option<Timestamp> {
        [self.expires_at, self.deleted_at].into_iter().flatten().min()
    }

    pub fn in_force(&self, now: Timestamp) -> bool {
        self.created_at <= now && self.ends_at().is_none_or(|end| now < end)
    }
}

/// What holds a run or a step.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hold {
    pub rule: PauseRuleId,
    /// When the rule expires, if it does.
    pub until: Option<Timestamp>,
    /// Whether it holds the step by its name, and not the whole run.
    pub by_step: bool,
}

/// The rule that holds `execution` of `task`, as a whole or at `step`: of several the one that will
/// hold it longest, and one that holds the whole run before one that names steps.
pub fn hold<'a>(
    rules: impl IntoIterator<Item = &'a PauseRule>,
    execution: &ExecutionId,
    task: &TaskName,
    step: Option<&StepKey>,
    now: Timestamp,
) -> Option<Hold> {
    rules
        .into_iter()
        .filter(|rule| rule.in_force(now) && rule.scope.holds(execution, task, step))
        .max_by_key(|rule| (rule.scope.step.is_none(), rule.ends_at().unwrap_or(Timestamp::MAX)))
        .map(|rule| Hold {
            rule: rule.id.clone(),
            until: rule.expires_at,
            by_step: rule.scope.step.is_some(),
        })
}

/// For how many milliseconds between `from` and `to` the clocks of a run stood still: the time in
/// which at least one rule held it, as a whole, or at `held`, the step that it has stood at since
/// then.
pub fn stood_ms<'a>(
    rules: impl IntoIterator<Item = &'a PauseRule>,
    execution: &ExecutionId,
    task: &TaskName,
    held: Option<(&StepKey, Timestamp)>,
    from: Timestamp,
    to: Timestamp,
) -> u64 {
    let mut spans: Vec<(Timestamp, Timestamp)> = rules
        .into_iter()
        .filter_map(|rule| {
            let begin = match (&rule.scope.step, held) {
                (None, _) => rule.created_at,
                (Some(_), Some((_, since))) => rule.created_at.max(since),
                (Some(_), None) => return None,
            };
            let holds = rule.scope.holds(execution, task, held.map(|(step, _)| step));
            let span = (begin.max(from), rule.ends_at().unwrap_or(Timestamp::MAX).min(to));
            (holds && span.0 < span.1).then_some(span)
        })
        .collect();
    spans.sort_unstable();
    let mut counted_to = from;
    let mut ms = 0;
    for (begin, end) in spans {
        ms += end.ms_since(begin.max(counted_to));
        counted_to = counted_to.max(end);
    }
    ms
}

/// A rule's scope from texts, as it comes over the wire or from the store.
///
/// Errors: which of them cannot be what it should be.
pub fn scope(
    execution: Option<&str>,
    task: Option<&str>,
    step: Option<&str>,
) -> Result<PauseScope, ScopeError> {
    Ok(PauseScope {
        execution: execution.map(ExecutionId::parse).transpose().map_err(ScopeError::Execution)?,
        task: task.map(TaskName::parse).transpose().map_err(ScopeError::Task)?,
        step: step.map(StepPattern::parse).transpose().map_err(ScopeError::Step)?,
    })
}

/// Which part of a scope makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ScopeError {
    #[error(transparent)]
    Execution(IdError),
    #[error(transparent)]
    Task(IdError),
    #[error(transparent)]
    Step(PatternError),
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn execution(number: u8) -> ExecutionId {
        ExecutionId::parse(&format!("e-{number}")).unwrap()
    }

    fn task(number: u8) -> TaskName {
        TaskName::parse(&format!("task-{number}")).unwrap()
    }

    fn step(text: &str) -> StepKey {
        StepKey::parse(text).unwrap()
    }

    fn at(ms: i64) -> Timestamp {
        Timestamp::from_ms(ms)
    }

    /// All three fields, set or not.
    fn rule() -> impl Strategy<Value = PauseRule> {
        let pattern = prop_oneof![Just("charge"), Just("charge#2"), Just("s*"), Just("*"), Just("ship")];
        let scope =
            (proptest::option::of(0..2u8), proptest::option::of(0..2u8), proptest::option::of(pattern));
        let end = || proptest::option::of(0..60i64);
        (scope, 0..60i64, end(), end()).prop_map(|((e, t, s), created, expires, deleted)| PauseRule {
            id: PauseRuleId::new(format!("{e:?} {t:?} {s:?} {created} {expires:?} {deleted:?}")),
            scope: PauseScope {
                execution: e.map(execution),
                task: t.map(task),
                step: s.map(|text| StepPattern::parse(text).unwrap()),
            },
            created_at: at(created),
            created_by: None,
            reason: None,
            expires_at: expires.map(at),
            deleted_at: deleted.map(at),
            deleted_by: None,
        })
    }

    /// Whether it holds execution 0 of task 0 at `key` in the millisecond that begins at `now`,
    /// spelt out.
    fn holds(rule: &PauseRule, key: Option<&str>, now: i64) -> bool {
        let pattern_matches = |pattern: &StepPattern| match (pattern.as_str(), key) {
            (_, None) => false,
            ("*", _) => true,
            ("s*", Some(key)) => key.starts_with('s'),
            (pattern, Some(key)) => key == pattern || key.split('#').next() == Some(pattern),
        };
        rule.scope.execution.as_ref().is_none_or(|only| only.as_str() == "e-0")
            && rule.scope.task.as_ref().is_none_or(|only| only.as_str() == "task-0")
            && rule.scope.step.as_ref().is_none_or(pattern_matches)
            && rule.created_at <= at(now)
            && rule.expires_at.is_none_or(|end| at(now) < end)
            && rule.deleted_at.is_none_or(|end| at(now) < end)
    }

    fn key() -> impl Strategy<Value = Option<&'static str>> {
        proptest::option::of(prop_oneof![Just("charge"), Just("charge#2"), Just("ship#3"), Just("notify")])
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2_000))]

        #[test]
        fn the_rule_that_holds_longest_is_named_and_whole_runs_first(
            rules in proptest::collection::vec(rule(), 0..5), key in key(), now in 0..60i64,
        ) {
            let key_ = key.map(step);
            let found = hold(&rules, &execution(0), &task(0), key_.as_ref(), at(now));
            let all: Vec<_> = rules.iter().filter(|rule| holds(rule, key, now)).collect();
            prop_assert_eq!(found.is_some(), !all.is_empty());
            if let Some(found) = found {
                let named = all.iter().find(|rule| rule.id == found.rule).unwrap();
                prop_assert_eq!(found.by_step, named.scope.step.is_some());
                prop_assert_eq!(found.until, named.expires_at);
                let ends = |rule: &PauseRule| [rule.expires_at, rule.deleted_at].into_iter().flatten().min();
                for other in &all {
                    if other.scope.step.is_some() == found.by_step {
                        prop_assert!(ends(named).is_none_or(|end| ends(other).is_some_and(|other| other <= end)));
                    } else {
                        prop_assert!(!found.by_step);
                    }
                }
            }
        }

        /// Millisecond by millisecond.
        #[test]
        fn the_clocks_stand_while_at_least_one_rule_holds(
            rules in proptest::collection::vec(rule(), 0..5), key in key(), since in 0..60i64,
            from in 0..60i64, to in 0..70i64, middle in 0..70i64,
        ) {
            let key_ = key.map(step);
            let held = key_.as_ref().map(|key| (key, at(since)));
            let stood = |from, to| stood_ms(&rules, &execution(0), &task(0), held, at(from), at(to));
            let slowly = (from..to)
                .filter(|now| {
                    let key = key.filter(|_| since <= *now);
                    rules.iter().any(|rule| holds(rule, key, *now))
                })
                .count();
            prop_assert_eq!(stood(from, to), slowly as u64);
            // Read in two goes it is the same.
            let middle = middle.clamp(from.min(to), to.max(from));
            if from <= to {
                prop_assert_eq!(stood(from, middle) + stood(middle, to), stood(from, to));
            }
        }
    }

    #[test]
    fn a_pattern_matches_by_name_and_by_key() {
        let pattern = |text| StepPattern::parse(text).unwrap();
        assert!(pattern("charge").matches(&step("charge#7")));
        assert!(pattern("charge#7").matches(&step("charge#7")));
        assert!(!pattern("charge#7").matches(&step("charge")));
        assert!(pattern("mail/*").matches(&step("mail/to/ada")));
        assert!(!pattern("mail").matches(&step("mail/to/ada")));
    }

    #[test]
    fn a_scope_that_makes_no_sense_says_which_part() {
        assert!(scope(None, None, None).unwrap().is_empty());
        assert!(matches!(scope(Some(""), None, None), Err(ScopeError::Execution(_))));
        assert!(matches!(scope(None, Some("a b"), None), Err(ScopeError::Task(_))));
        let long = "*".repeat(201);
        for (text, error) in [
            ("", PatternError::Length(0)),
            (long.as_str(), PatternError::Length(201)),
            ("[a", PatternError::Glob(GlobError::Unclosed('['))),
        ] {
            assert_eq!(scope(None, None, Some(text)), Err(ScopeError::Step(error)));
        }
    }
}
