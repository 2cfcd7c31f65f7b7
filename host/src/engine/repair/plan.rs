//! What a repair comes to: what is written, what the audit trail shows of it, what is answered.

use serde_json::{Value, json};
use stepbox_domain::{
    ExecutionStatus, Failure, Json, Run, RunId, StepKey, Timestamp,
    audit::AuditAction,
    journal::Record,
    repair::{self as plans, RepairError, plan_rerun, plan_resolve, plan_restart, plan_retry},
    run::RunFacts,
};

use super::{
    super::{Inner, modules::Active},
    Order, Rerun, Resolved, Restarted, Retried, StepRetry,
};
use crate::store::{RepairChange, Trigger};

/// Names that an entry of the audit trail lists; the rest is counted. The journal has them all.
const NAMES_SHOWN_MAX: usize = 50;

/// The run as a plan sees it.
pub(super) struct Seen {
    pub run: Run,
    pub status: ExecutionStatus,
    /// The length of its journal.
    pub records: u64,
    pub now: Timestamp,
}

impl Seen {
    pub fn new(engine: &Inner, facts: RunFacts, status: ExecutionStatus, records: &[Record]) -> Self {
        let policy = engine.policy(&facts.task);
        Seen {
            run: Run::fold(facts, policy, records),
            status,
            records: records.len() as u64,
            now: engine.clock.now(),
        }
    }

    fn amended(&self, record: Record, version: Option<u32>) -> RepairChange {
        RepairChange::Amend { first_number: self.records, records: vec![record], version }
    }

    /// As the audit trail shows what was before.
    pub fn shown(&self, step: Option<&StepKey>) -> Value {
        let facts = self.run.facts();
        let mut shown = json!({
            "status": self.status.as_str(),
            "run": facts.run.as_str(),
            "version": facts.version,
        });
        if let Some(step) = step.and_then(|step| self.run.step(step)) {
            shown["step"] = json!(step.status().as_str());
            shown["attempts"] = json!(step.attempts.len());
        }
        shown
    }
}

/// What a repair comes to, before anything is changed.
pub(super) struct Plan<A> {
    pub action: AuditAction,
    /// The step that it is about; none where it is about the run.
    pub step: Option<StepKey>,
    pub change: RepairChange,
    /// As the audit trail shows what is now.
    pub after: Value,
    pub answer: A,
}

pub(super) fn retried(seen: &Seen, retry: &StepRetry, order: &Order) -> Result<Plan<Retried>, RepairError> {
    let facts = seen.run.facts();
    // The one that it has is no other.
    let version = retry.version.filter(|version| *version != facts.version);
    let wanted = plans::RetryStep {
        step: retry.step.clone(),
        overrides: retry.overrides.clone(),
        version,
        by: order.who.by.clone(),
    };
    let plan = plan_retry(&seen.run, &wanted, seen.now)?;
    let attempt = plan.attempt.unwrap_or(1);
    let mut after = json!({
        "status": ExecutionStatus::Running.as_str(),
        "run": facts.run.as_str(),
        "version": version.unwrap_or(facts.version),
        "attempt": attempt,
    });
    if !retry.overrides.is_empty() {
        after["overrides"] = serde_json::to_value(&retry.overrides).unwrap_or_default();
    }
    Ok(Plan {
        action: AuditAction::RetryStep,
        step: Some(retry.step.clone()),
        change: seen.amended(plan.record, version),
        after,
        answer: Retried { run: facts.run.clone(), step: retry.step.clone(), attempt, effects: plan.effects },
    })
}

pub(super) fn resolved(
    seen: &Seen,
    step: &StepKey,
    outcome: &Result<Json, Failure>,
    order: &Order,
) -> Result<Plan<Resolved>, RepairError> {
    let facts = seen.run.facts();
    let plan = plan_resolve(&seen.run, step, outcome.clone(), order.who.by.clone(), seen.now)?;
    let outcome = match outcome {
        Ok(result) => json!({ "resultBytes": result.len_bytes() }),
        Err(failure) => json!({ "failure": failure.message.chars().take(200).collect::<String>() }),
    };
    Ok(Plan {
        action: AuditAction::ResolveStep,
        step: Some(step.clone()),
        change: seen.amended(plan.record, None),
        after: json!({
            "status": ExecutionStatus::Running.as_str(),
            "run": facts.run.as_str(),
            "version": facts.version,
            "outcome": outcome,
        }),
        answer: Resolved { run: facts.run.clone(), step: step.clone(), effects: plan.effects },
    })
}

/// The run that takes the place of the one that is seen.
struct Next {
    run: RunId,
    index: u32,
    deadline: Option<Timestamp>,
    after: Value,
}

impl Next {
    fn of(seen: &Seen, active: &Active) -> Self {
        let facts = seen.run.facts();
        let index = facts.index + 1;
        let run = RunId::new(&facts.execution, index);
        let after = json!({
            "status": ExecutionStatus::Scheduled.as_str(),
            "run": run.as_str(),
            "version": active.version,
        });
        Next { run, index, deadline: active.timeout_ms.map(|ms| seen.now.plus_ms(ms)), after }
    }
}

pub(super) fn restarted(
    seen: &Seen,
    active: &Active,
    payload: Option<&Json>,
    order: &Order,
) -> Plan<Restarted> {
    let plan = plan_restart(&seen.run, order.who.by.as_deref(), seen.now);
    let Next { run, index, deadline, mut after } = Next::of(seen, active);
    if let Some(payload) = payload {
        after["payloadBytes"] = json!(payload.len_bytes());
    }
    Plan {
        action: AuditAction::Restart,
        step: None,
        change: RepairChange::Replace {
            end: plan.end,
            at: seen.now,
            trigger: Trigger::Restart,
            triggered_by: order.who.by.clone(),
            version: active.version,
            payload: payload.cloned(),
            deadline,
            records: plan.records,
        },
        after,
        answer: Restarted { run, index, version: active.version, effects: plan.effects },
    }
}

pub(super) fn rerun(seen: &Seen, active: &Active, wanted: &plans::Rerun) -> Result<Plan<Rerun>, RepairError> {
    let plans::RerunPlan { replacement, effective, stale } = plan_rerun(&seen.run, wanted, seen.now)?;
    let Next { run, index, deadline, mut after } = Next::of(seen, active);
    after["rerun"] = names(&effective);
    after["kept"] = names(&replacement.effects.kept);
    Ok(Plan {
        action: AuditAction::Rerun,
        step: None,
        change: RepairChange::Replace {
            end: replacement.end,
            at: seen.now,
            trigger: Trigger::SelectiveRerun,
            triggered_by: wanted.by.clone(),
            version: active.version,
            payload: None,
            deadline,
            records: replacement.records,
        },
        after,
        answer: Rerun { run, index, version: active.version, effective, stale, effects: replacement.effects },
    })
}

fn names(steps: &[StepKey]) -> Value {
    let first: Vec<&str> = steps.iter().take(NAMES_SHOWN_MAX).map(StepKey::as_str).collect();
    json!({ "count": steps.len(), "first": first })
}
