//! The admin's side of the API, and how to read a detail.

use chrono::{DateTime, Utc};
use serde_json::{Value, json};

use super::{
    Answer, Client,
    client::{encoded, execution_path},
    until,
};

/// Where the admin routes are, in Zart 0.1 and in Zart 0.2.
pub const ADMIN_PREFIXES: [&str; 2] = ["/admin/v1", "/zart/admin/v1"];

pub fn admin_path(id: &str, verb: &str) -> String {
    format!("/admin/v1/executions/{}/{verb}", encoded(id))
}

impl Client {
    pub async fn detail(&self, id: &str) -> Value {
        self.get(&admin_path(id, "detail")).await.expect(200)
    }

    /// The steps of another run than the current one.
    pub async fn detail_of_run(&self, id: &str, run: &str) -> Value {
        self.get(&admin_path(id, &format!("detail?runId={}", encoded(run)))).await.expect(200)
    }

    /// The detail once `holds` says yes to it.
    pub async fn until_detail(&self, id: &str, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("{id} {what}"), async || self.detail(id).await, holds).await
    }

    pub async fn runs(&self, id: &str) -> Vec<Value> {
        let runs = self.get(&admin_path(id, "runs")).await.expect(200);
        runs.as_array().expect("an array").clone()
    }

    pub async fn retry_step(&self, id: &str, body: &Value) -> Answer {
        self.post_json(&admin_path(id, "retry-step"), body).await
    }

    /// Retries the step, which is dead.
    pub async fn retried(&self, id: &str, step: &str) -> Value {
        self.retry_step(id, &json!({ "stepName": step })).await.expect(200)
    }

    pub async fn resolve_step(&self, id: &str, step: &str, body: &Value) -> Answer {
        self.post_json(&admin_path(id, &format!("steps/{}/resolve", encoded(step))), body).await
    }

    pub async fn restart_run(&self, id: &str, body: &Value) -> Answer {
        self.post_json(&admin_path(id, "restart"), body).await
    }

    pub async fn rerun(&self, id: &str, body: &Value) -> Answer {
        self.post_json(&admin_path(id, "rerun"), body).await
    }

    /// The rule that holds what `scope` matches from now on.
    pub async fn pause(&self, scope: &Value) -> Value {
        self.post_json("/admin/v1/pause", scope).await.expect(201)
    }

    pub async fn end_pause(&self, rule: &Value) {
        self.delete(&format!("/admin/v1/pause/{}", rule_id(rule))).await.expect_empty(204);
    }

    /// How many rules came to an end.
    pub async fn resume(&self, scope: &Value) -> u64 {
        let answer = self.post_json("/admin/v1/resume", scope).await.expect(200);
        answer["rulesDeleted"].as_u64().expect("a number")
    }

    pub async fn pause_rules(&self, query: &str) -> Vec<Value> {
        let rules = self.get(&format!("/admin/v1/pause{query}")).await.expect(200);
        rules.as_array().expect("an array").clone()
    }

    /// A page of the audit trail, and how many entries there are in all.
    pub async fn audit(&self, query: &str) -> (Vec<Value>, u64) {
        let answer = self.get(&format!("/admin/v1/audit{query}")).await;
        let Value::Array(entries) = answer.expect(200) else { panic!("not an array: {answer:#?}") };
        let total = answer.header("x-total-count").unwrap_or_else(|| panic!("no total in {answer:#?}"));
        (entries, total.parse().unwrap())
    }

    /// The execution once `rule` holds it.
    pub async fn until_held(&self, id: &str, rule: &Value) -> Value {
        let rule = rule["ruleId"].clone();
        self.until(id, "is held", |execution| {
            execution["waitingFor"]["type"] == "pause" && execution["waitingFor"]["ruleId"] == rule
        })
        .await
    }

    /// What a repair (`retry-step`, `restart`, …) would come to.
    pub async fn dry_run(&self, id: &str, verb: &str, body: &Value) -> Answer {
        self.post_json(&admin_path(id, &format!("{verb}?dryRun=true")), body).await
    }

    /// All that an admin can see of an execution: it changes when anything does.
    pub async fn all_of(&self, id: &str) -> Value {
        let execution = self.get(&execution_path(id)).await.expect(200);
        let (_, audited) = self.audit("?limit=1").await;
        json!([execution, self.detail(id).await, audited])
    }
}

pub fn rule_id(rule: &Value) -> &str {
    rule["ruleId"].as_str().unwrap_or_else(|| panic!("no ruleId in {rule:#}"))
}

/// The step of that name.
#[track_caller]
pub fn step_in<'a>(detail: &'a Value, name: &str) -> &'a Value {
    find_step(detail, name).unwrap_or_else(|| panic!("no step {name} in {detail:#}"))
}

pub fn find_step<'a>(detail: &'a Value, name: &str) -> Option<&'a Value> {
    detail["steps"].as_array()?.iter().find(|step| step["name"] == name)
}

/// `charge completed`, in order.
pub fn steps_in(detail: &Value) -> Vec<String> {
    let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = detail["steps"].as_array().unwrap_or_else(|| panic!("no steps in {detail:#}"));
    steps.iter().map(|step| format!("{} {}", word(&step["name"]), word(&step["status"]))).collect()
}

/// `1 failed`, in order.
#[track_caller]
pub fn attempts_in(detail: &Value, step: &str) -> Vec<String> {
    let attempts = step_in(detail, step)["attempts"].as_array().expect("an array").iter();
    attempts.map(|a| format!("{} {}", a["attemptNumber"], a["status"].as_str().unwrap_or("?"))).collect()
}

/// Whether the step has come to its end, whichever way.
pub fn is_step(detail: &Value, step: &str, status: &str) -> bool {
    find_step(detail, step).is_some_and(|step| step["status"] == status)
}

#[track_caller]
pub fn time(value: &Value) -> DateTime<Utc> {
    let text = value.as_str().unwrap_or_else(|| panic!("no time: {value}"));
    assert!(text.ends_with('Z'), "{text} is not in UTC");
    text.parse().unwrap_or_else(|error| panic!("{text}: {error}"))
}

pub fn now() -> DateTime<Utc> {
    std::time::SystemTime::now().into()
}

/// The moment in `ms` from now, as a body has it.
pub fn in_ms(ms: i64) -> String {
    let then = now() + chrono::TimeDelta::milliseconds(ms);
    then.to_rfc3339_opts(chrono::SecondsFormat::Millis, true)
}

/// Comes back when `moment` is past.
pub async fn until_past(moment: DateTime<Utc>) {
    until("a moment is past", async || now(), |now| *now > moment).await;
}

/// Bulk repairs.
impl Client {
    pub async fn failures(&self, query: &str) -> Vec<Value> {
        let groups = self.get(&format!("/admin/v1/failures{query}")).await.expect(200);
        groups.as_array().expect("an array").clone()
    }

    /// The bulk repair that has begun.
    pub async fn start_bulk(&self, body: &Value) -> Value {
        self.post_json("/admin/v1/bulk", body).await.expect(202)
    }

    pub async fn bulk(&self, bulk: &Value) -> Value {
        self.get(&format!("/admin/v1/bulk/{}", bulk_id(bulk))).await.expect(200)
    }

    /// The bulk repair once `holds` says yes to it.
    pub async fn until_bulk(&self, bulk: &Value, what: &str, holds: impl Fn(&Value) -> bool) -> Value {
        until(&format!("the bulk repair {what}"), async || self.bulk(bulk).await, holds).await
    }

    /// The bulk repair once it is over, whichever way.
    pub async fn bulk_over(&self, bulk: &Value) -> Value {
        self.until_bulk(bulk, "is over", |bulk| bulk["state"] != "running").await
    }
}

pub fn bulk_id(bulk: &Value) -> &str {
    bulk["bulkId"].as_str().unwrap_or_else(|| panic!("no bulkId in {bulk:#}"))
}
