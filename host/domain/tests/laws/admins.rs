//! The laws with admins at work: they mend, rerun and pause whenever the dice say so.

use std::collections::BTreeSet;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use stepbox_domain::{
    ExecutionId, ExecutionStatus, Failure, FailureKind, Json, Run, RunId, StepKey, TaskName, Timestamp,
    journal::Record,
    pause::{PauseRule, PauseRuleId, PauseScope, StepPattern},
    repair::{self, Replacement, Rerun, RetryStep},
    run::{RunFacts, RunOutcome},
    step::{Overrides, StepStatus},
};

use crate::{
    program::{Op, wild_op},
    world::{World, execution},
};

impl World {
    /// What admins do after a leg of the handler, if anything.
    fn admins(&mut self) {
        let run = self.claimed();
        self.never_diverges(&run);
        match self.roll(14) {
            0 | 1 => self.retry(),
            2 => self.resolve(),
            3 => self.rerun(),
            4 if self.roll(3) == 0 => self.restart(),
            5..=7 => self.pause(),
            8 => {
                let now = self.now;
                self.rules.iter_mut().for_each(|rule| rule.deleted_at = rule.deleted_at.or(Some(now)));
            }
            _ => {}
        }
    }

    /// Law 6: whatever admins do, a handler that is deterministic never diverges.
    fn never_diverges(&self, run: &Run) {
        if let Some(RunOutcome::Failed(failure)) = run.end().map(|end| &end.outcome) {
            assert_ne!(failure.kind, FailureKind::Diverged, "{failure:?} in {:?}", self.disk);
        }
    }

    fn a_dead_step(&mut self) -> Option<StepKey> {
        let run = self.claimed();
        let all = run.steps().iter().chain(run.aside());
        let dead: Vec<_> = all.filter(|step| step.status() == StepStatus::Dead).collect();
        let which = self.roll(dead.len().clamp(1, 200) as u8);
        dead.get(usize::from(which)).map(|step| step.key.clone())
    }

    fn retry(&mut self) {
        let Some(step) = self.a_dead_step() else { return };
        let overrides = Overrides {
            attempts_max: (self.roll(2) == 0).then(|| u32::from(self.roll(4)) + 1),
            timeout_ms: (self.roll(3) == 0).then(|| u64::from(self.roll(200)) + 1),
        };
        let version = (self.roll(4) == 0).then_some(2);
        let run = self.claimed();
        let retry = RetryStep { step, overrides, version, by: None };
        let amendment = repair::plan_retry(&run, &retry, self.now).unwrap();
        self.seen.retried += 1;
        self.seen.reopened += u32::from(run.end().is_some());
        self.amend(amendment.record);
        let (run, attempts) = (self.claimed(), amendment.attempt.unwrap() - 1);
        let step = run.step(&retry.step).unwrap();
        assert_eq!((step.status(), step.attempts.len()), (StepStatus::Scheduled, attempts as usize));
        assert_eq!((step.tries(), step.crashes_in_a_row(), step.begins_anew()), (0, 0, true));
    }

    fn resolve(&mut self) {
        let Some(step) = self.a_dead_step() else { return };
        let outcome = match self.roll(3) {
            0 => Err(Failure::new(FailureKind::Error, "given up by hand")),
            _ => Ok(Json::from(serde_json::json!("by hand"))),
        };
        let run = self.claimed();
        let amendment = repair::plan_resolve(&run, &step, outcome.clone(), None, self.now).unwrap();
        self.seen.resolved += 1;
        self.amend(amendment.record);
        let heard = self.claimed().step(&step).unwrap().outcome().unwrap();
        assert_eq!(heard.map_err(|failure| failure.message), outcome.map_err(|failure| failure.message));
    }

    fn amend(&mut self, record: Record) {
        let mut run = self.claimed();
        self.check_heard(&run);
        let calls: BTreeSet<StepKey> = run.steps().iter().chain(run.aside()).map(|s| s.key.clone()).collect();
        let kept: Vec<_> =
            run.steps().iter().chain(run.aside()).filter(|s| s.outcome().is_some()).cloned().collect();
        run.apply(&record);
        assert_eq!(run.status(), ExecutionStatus::Running);
        // Nothing that has an outcome is lost, and nothing is made up.
        for step in kept {
            assert!(run.step(&step.key).is_some(), "{} is gone", step.key);
        }
        assert!(run.steps().iter().chain(run.aside()).all(|step| calls.contains(&step.key)));
        self.write(&run, vec![record]);
    }

    fn rerun(&mut self) {
        let run = self.claimed();
        let keys: Vec<StepKey> = run.steps().iter().chain(run.aside()).map(|step| step.key.clone()).collect();
        let steps: Vec<_> = keys.iter().filter(|_| self.roll(4) == 0).cloned().collect();
        let preserve: Vec<_> = keys.iter().filter(|_| self.roll(6) == 0).cloned().collect();
        let rerun = Rerun { steps, preserve, by: None };
        let plan = repair::plan_rerun(&run, &rerun, self.now).unwrap();
        self.seen.rerun += 1;
        let mut done = self.done.clone();
        done.retain(|key, _| !rerun.steps.contains(key) || rerun.preserve.contains(key));
        self.replace(plan.replacement);
        assert_eq!(self.done, done);
    }

    fn restart(&mut self) {
        let replacement = repair::plan_restart(&self.claimed(), None, self.now);
        assert_eq!(replacement.records, []);
        self.seen.restarted += 1;
        self.replace(replacement);
    }

    fn replace(&mut self, replacement: Replacement) {
        let mut run = self.claimed();
        self.check_heard(&run);
        replacement.end.iter().for_each(|end| run.apply(end));
        assert!(run.status().is_terminal());
        let index = self.facts.index + 1;
        self.facts = RunFacts {
            run: RunId::new(&self.facts.execution, index),
            index,
            created_at: self.now,
            deadline: self.facts.time_ms().map(|ms| self.now.plus_ms(ms)),
            ..self.facts.clone()
        };
        self.disk.clear();
        self.done.clear();
        let mut run = self.claimed();
        replacement.records.iter().for_each(|record| run.apply(record));
        self.write(&run, replacement.records);
    }

    fn pause(&mut self) {
        let which = self.roll(16);
        let pattern = ["charge", "{ship,paid}*", "*#2", "n*y"][usize::from(which % 4)];
        let mut scope = PauseScope {
            execution: (which & 1 == 0).then(execution),
            task: (which & 2 == 0).then(|| TaskName::parse("order").unwrap()),
            step: (which & 4 == 0).then(|| StepPattern::parse(pattern).unwrap()),
        };
        if scope.is_empty() {
            scope.execution = Some(ExecutionId::parse("another").unwrap());
        }
        let lasts = (self.roll(2) == 0).then(|| u64::from(self.roll(200)) * 20 + 1);
        self.rules.push(PauseRule {
            id: PauseRuleId::new(format!("rule-{}", self.rules.len())),
            scope,
            created_at: self.now,
            created_by: None,
            reason: None,
            expires_at: lasts.map(|ms| self.now.plus_ms(ms)),
            deleted_at: None,
            deleted_by: None,
        });
    }
}

fn program() -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(wild_op(), 1..8)
}

fn dice() -> impl Strategy<Value = Vec<u8>> {
    proptest::collection::vec(any::<u8>(), 0..800)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(3_000))]

    /// Laws 1, 2, 4, 5 and 6 hold on the way (see [`World`]); here: it ends, whatever admins do.
    #[test]
    fn a_run_ends_whatever_admins_do(
        program in program(), dice in dice(), deadline in proptest::option::of(1..60_000i64),
    ) {
        let mut world = World::new(program, deadline.map(Timestamp::from_ms), dice);
        let run = world.play(World::admins);
        world.never_diverges(&run);
        world.check_heard(&run);
        prop_assert!(run.status().is_terminal());
    }

    /// Law 2 for every prefix of a journal that admins had a hand in.
    #[test]
    fn going_on_from_any_prefix_of_a_mended_run_repeats_nothing(
        program in program(), first in dice(), then in dice(), cut in any::<proptest::sample::Index>(),
    ) {
        let mut world = World::new(program.clone(), None, first);
        world.play(World::admins);
        let mut again = World::new(program, None, then);
        again.facts = world.facts.clone();
        again.now = world.now;
        again.rules = world.rules.clone();
        // What the prefix has consumed is no longer there, and what it has not must come anew.
        again.events_sent = world.events_sent;
        let mut run = again.claimed();
        for record in &world.disk[..cut.index(world.disk.len())] {
            run.apply(record);
            if !matches!(record, Record::EventConsumed { .. }) {
                again.learn(&run, record);
            }
            again.disk.push(record.clone());
        }
        let run = again.play_out();
        again.never_diverges(&run);
        prop_assert!(run.status().is_terminal());
    }
}

/// The dice reach all that the laws are about.
#[test]
fn admins_have_been_everywhere() {
    let mut runner = TestRunner::deterministic();
    let mut seen = [0u32; 11];
    for _ in 0..600 {
        let (program, dice) = (program(), dice()).new_tree(&mut runner).unwrap().current();
        let mut world = World::new(program, None, dice);
        world.play(World::admins);
        let s = world.seen;
        let counts = [
            s.adopted,
            s.replaced,
            s.retried,
            s.reopened,
            s.resolved,
            s.rerun,
            s.restarted,
            s.held_runs,
            s.held_steps,
            s.stood,
            s.died,
        ];
        seen.iter_mut().zip(counts).for_each(|(all, one)| *all += one);
    }
    println!(
        "adopted, replaced, retried, reopened, resolved, rerun, restarted, held runs and steps, stood, died: {seen:?}"
    );
    assert!(seen.iter().all(|count| *count >= 20), "{seen:?}");
}
