//! What comes in and what goes out.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    pub title: String,
    /// Who wants it.
    pub author: String,
    /// Who has to say yes or no.
    pub approver: String,
    /// When to remind the approver; a day if left out.
    #[serde(default = "a_day_ms")]
    pub remind_after_ms: u64,
    /// When to give up, from the start; three days if left out.
    #[serde(default = "three_days_ms")]
    pub timeout_ms: u64,
}

fn a_day_ms() -> u64 {
    86_400_000
}

fn three_days_ms() -> u64 {
    3 * a_day_ms()
}

/// The payload of the event `approval`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Answer {
    pub approved: bool,
    pub by: String,
    #[serde(default)]
    pub comment: String,
}

/// How a request ended. That nobody answered is an end like the others, not a failure.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct Decision {
    #[serde(flatten)]
    pub verdict: Verdict,
    pub reminded: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(tag = "verdict", rename_all = "camelCase")]
pub enum Verdict {
    Approved { by: String, comment: String },
    Rejected { by: String, comment: String },
    TimedOut,
}

impl Decision {
    pub fn from_answer(answer: Option<Answer>, reminded: bool) -> Decision {
        let verdict = match answer {
            Some(Answer { approved: true, by, comment }) => Verdict::Approved { by, comment },
            Some(Answer { approved: false, by, comment }) => Verdict::Rejected { by, comment },
            None => Verdict::TimedOut,
        };
        Decision { verdict, reminded }
    }
}
