//! What a call of a step, or the end of one of its attempts, leads to.

use super::{Bound, Decision, Reply};
use crate::{
    Failure, FailureKind, Receipt, Run, Timestamp,
    journal::{Record, StepStarted},
    leg::Place,
    pause::Hold,
    retry::Seed,
    run::{Call, Step, StepState, Wait},
    step::{AttemptFailure, AttemptOutcome, Interruption, StepInput, StepKind, StepOptions, TimeoutScope},
};

impl Run {
    pub(super) fn step_called(
        &self,
        place: &Place,
        function: &str,
        input: &StepInput,
        options: &StepOptions,
        hold: Option<&Hold>,
        now: Timestamp,
    ) -> Decision {
        if let Err(error) = options.check() {
            let message = format!("step \"{}\": {error}", place.key);
            return Decision::reply(Reply::Refused(Failure::new(FailureKind::Misuse, message)));
        }
        let is_same = |step: &Step| match &step.call {
            Call::Step { function: recorded, input: hash, .. } => recorded == function && *hash == input.hash,
            _ => false,
        };
        let (step, mut records) = match self.recorded(place, StepKind::Step, is_same, now) {
            Ok(Some(found)) => found,
            Ok(None) => return self.start_step(place, function, input, options, hold, now),
            Err(stop) => return *stop,
        };
        let Call::Step { function: recorded_function, input: recorded_input, deadline, .. } = &step.call
        else {
            return self.diverged(place.index, "another kind of call", now);
        };
        if recorded_function != function {
            return self.diverged(place.index, &format!("a call of the function \"{function}\""), now);
        }
        if *recorded_input != input.hash {
            return self.diverged(place.index, "the same step with another input", now);
        }
        if let (Some(outcome), Some(at)) = (step.outcome(), step.ended_at) {
            return Decision::eventually(records, Reply::Recorded { outcome, at });
        }

        let last = step.attempts.last().map_or(0, |attempt| attempt.number);
        let mut crashes = step.crashes_in_a_row();
        match step.state {
            StepState::RetryAt(at) if now < at => {
                let wait = Wait::Retry { step: step.key.clone(), attempt: last + 1, at };
                return Decision::eventually(records, Reply::Wait(wait));
            }
            StepState::RetryAt(_) => {}
            // Nobody calls a step while an attempt of it is under way: this is a replay, and the
            // host that ran the attempt is gone.
            _ => {
                crashes += 1;
                let cause = Interruption::Crashed;
                let (step, receipt) = (place.index, None);
                records.push(Record::AttemptInterrupted { step, attempt: last, cause, at: now, receipt });
            }
        }
        let died = |failure: Failure, mut records: Vec<Record>| {
            let failure = failure.of_step(step.key.clone(), last).with_logs(step.last_logs());
            let reply = Reply::Recorded { outcome: Err(failure.clone()), at: now };
            records.push(Record::StepDied { step: place.index, failure, at: now });
            Decision::before_effects(records, reply)
        };
        if crashes >= self.policy().crashes_max {
            return died(crashed_too_often(step, crashes), records);
        }
        // Before its time is looked at, which stands still meanwhile.
        if let Some(hold) = hold {
            return self.held_at(place, hold, records, now);
        }
        if deadline.is_some_and(|deadline| now >= deadline) {
            let message = format!("step \"{}\" ran out of its time between two attempts", step.key);
            return died(Failure::new(FailureKind::TimedOut, message), records);
        }
        let attempt = last + 1;
        let options = options.overridden(&step.overrides);
        let anew = if step.begins_anew() { step_deadline(&options, now) } else { None };
        let (deadline, bound) = self.attempt_deadline(&options, anew.or(*deadline), now);
        records.push(Record::AttemptStarted {
            step: place.index,
            attempt,
            at: now,
            deadline,
            step_deadline: anew,
        });
        Decision::eventually(records, Reply::Go { attempt, time_ms: deadline.ms_since(now), bound })
    }

    /// A pause rule keeps the next attempt of the step at `place` from starting.
    fn held_at(&self, place: &Place, hold: &Hold, mut records: Vec<Record>, now: Timestamp) -> Decision {
        // How long a rule holds whole runs is known from the rule; since when one holds this step
        // is known from here only.
        if hold.by_step && self.held().is_none_or(|held| held.key != place.key) {
            records.push(Record::StepHeld { key: place.key.clone(), at: now });
        }
        let wait = Wait::Pause { rule: hold.rule.clone(), step: Some(place.key.clone()), until: hold.until };
        Decision::eventually(records, Reply::Wait(wait))
    }

    fn start_step(
        &self,
        place: &Place,
        function: &str,
        input: &StepInput,
        options: &StepOptions,
        hold: Option<&Hold>,
        now: Timestamp,
    ) -> Decision {
        if let Some(hold) = hold {
            return self.held_at(place, hold, Vec::new(), now);
        }
        let replaced = self.aside().get(&place.key).filter(|step| step.outcome().is_none());
        let options = replaced.map_or_else(|| options.clone(), |step| options.overridden(&step.overrides));
        let step_deadline = step_deadline(&options, now);
        let (deadline, bound) = self.attempt_deadline(&options, step_deadline, now);
        let start = StepStarted {
            key: place.key.clone(),
            function: function.to_owned(),
            input: input.hash.clone(),
            parts: input.parts(),
            at: now,
            deadline,
            step_deadline,
        };
        let reply = Reply::Go { attempt: 1, time_ms: deadline.ms_since(now), bound };
        Decision::eventually(vec![Record::StepStarted(start)], reply)
    }

    /// When an attempt that starts at `now` is interrupted, and by what.
    fn attempt_deadline(
        &self,
        options: &StepOptions,
        step_deadline: Option<Timestamp>,
        now: Timestamp,
    ) -> (Timestamp, Bound) {
        let per_attempt = match options.timeout_scope {
            TimeoutScope::PerAttempt => options.timeout_ms.map(|ms| now.plus_ms(ms)),
            TimeoutScope::AllAttempts => None,
        };
        let max_ms = self.policy().attempt_wall_max_ms;
        let limit = now.plus_ms(max_ms);
        match step_deadline.or(per_attempt) {
            Some(own) if own <= limit => (own, Bound::Timeout),
            _ => (limit, Bound::Limit { max_ms }),
        }
    }

    pub(super) fn attempt_ended(
        &self,
        place: &Place,
        attempt: u32,
        outcome: AttemptOutcome,
        receipt: Option<Box<Receipt>>,
        options: &StepOptions,
        now: Timestamp,
    ) -> Decision {
        let index = place.index;
        // What is over cannot come to another end.
        let under_way = |step: &&Step| {
            let last = step.attempts.last();
            step.state == StepState::Open && last.is_some_and(|last| last.number == attempt)
        };
        let Some(step) = self.steps().get(index as usize).filter(under_way) else {
            return Decision::reply(Reply::Leave);
        };
        match outcome {
            AttemptOutcome::Completed(result) => {
                let reply = Reply::Recorded { outcome: Ok(result.clone()), at: now };
                let record = Record::StepCompleted { step: index, attempt, result, at: now, receipt };
                Decision::before_effects(vec![record], reply)
            }
            AttemptOutcome::Interrupted => {
                let cause = Interruption::Stopped;
                let record = Record::AttemptInterrupted { step: index, attempt, cause, at: now, receipt };
                Decision::now(vec![record], Reply::Leave)
            }
            AttemptOutcome::Failed(failure) => {
                let options = options.overridden(&step.overrides);
                let next = self.after_failure(step, attempt, &failure, &options, now);
                let mut failure = failure.into_failure(step.key.clone(), attempt);
                let (retry_at, reply) = match next {
                    Next::RetryAt(at) => {
                        let wait = Wait::Retry { step: step.key.clone(), attempt: attempt + 1, at };
                        (Some(at), Reply::Wait(wait))
                    }
                    Next::Dead(kind, remark) => {
                        failure.kind = kind;
                        failure.message.push_str(&remark);
                        (None, Reply::Recorded { outcome: Err(failure.clone()), at: now })
                    }
                };
                let record =
                    Record::AttemptFailed { step: index, attempt, failure, at: now, retry_at, receipt };
                Decision::before_effects(vec![record], reply)
            }
        }
    }

    fn after_failure(
        &self,
        step: &Step,
        attempt: u32,
        failure: &AttemptFailure,
        options: &StepOptions,
        now: Timestamp,
    ) -> Next {
        if failure.kind == FailureKind::TimedOut || !failure.retryable {
            return Next::Dead(failure.kind, String::new());
        }
        let seed = Seed::of(&self.facts().run, &step.key, attempt);
        let tried = step.tries();
        let Some(by_policy) = options.retry.next_at(tried, seed, now) else {
            return match tried {
                0 | 1 => Next::Dead(failure.kind, String::new()),
                _ => Next::Dead(FailureKind::Exhausted, format!(" (the last of {tried} attempts)")),
            };
        };
        let at = failure.retry_after_ms.map_or(by_policy, |ms| now.plus_ms(ms));
        match &step.call {
            Call::Step { deadline: Some(deadline), .. } if at >= *deadline => Next::Dead(
                FailureKind::TimedOut,
                " (the next attempt would have come after the step's timeout)".to_owned(),
            ),
            _ => Next::RetryAt(at),
        }
    }
}

/// Why a step that takes the host down gets no further attempt.
fn crashed_too_often(step: &Step, crashes: u32) -> Failure {
    Failure::new(
        FailureKind::HostCrashed,
        format!(
            "the host died {crashes} times in a row while an attempt of step \"{}\" was under way, \
             so the step was given up; find out why it takes the host down before retrying it",
            step.key
        ),
    )
}

/// When a step's time is up over all its attempts, the first of which starts at `now`.
fn step_deadline(options: &StepOptions, now: Timestamp) -> Option<Timestamp> {
    match options.timeout_scope {
        TimeoutScope::AllAttempts => options.timeout_ms.map(|ms| now.plus_ms(ms)),
        TimeoutScope::PerAttempt => None,
    }
}

/// What comes after a failed attempt.
enum Next {
    RetryAt(Timestamp),
    /// With what to add to the attempt's own message.
    Dead(FailureKind, String),
}
