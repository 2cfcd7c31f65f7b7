//! What an attack is: a name, what is done, the exact answer.

use super::arena::is_long;
use crate::harness::*;

pub struct Attack {
    pub name: String,
    pub deed: Deed,
    pub answer: Answered,
    /// So many of it at the same time.
    pub at_once: usize,
    /// What an admin has set for the task of the component that is run.
    pub limits: Option<Value>,
}

/// What is done.
#[derive(Clone)]
pub enum Deed {
    /// The bytes are uploaded as a module.
    Upload(Vec<u8>),
    /// The component is uploaded, which it must be taken for, and run with this payload.
    Run { component: Vec<u8>, payload: Value },
    /// The guest `scenario` does what the script says.
    Script(Vec<Value>),
    /// The guest `raw` gets this payload.
    Raw(Value),
    /// A task that is there already is started.
    Start { task: &'static str, payload: Value },
    /// Somebody speaks HTTP.
    Request { method: &'static str, path: String, kind: &'static str, body: Vec<u8> },
}

/// What must come of it.
#[derive(Clone)]
pub enum Answered {
    /// An error with this status, this code, and these words.
    Refused(u16, &'static str, &'static [&'static str]),
    /// An error with one of these statuses and codes: who comes when there is room, and who does not.
    RefusedEither([(u16, &'static str); 2]),
    /// The run fails with a failure of this kind and these words.
    Failed(&'static str, &'static [&'static str]),
    /// So does a step of it, which is named.
    StepFailed(&'static str, &'static [&'static str]),
    /// The run completes, with a result of which this is true.
    Completed(fn(&Value) -> bool),
    /// All of it is taken, and nothing comes of it.
    Taken(u16),
}

impl Attack {
    pub fn new(name: impl Into<String>, deed: Deed, answer: Answered) -> Attack {
        Attack { name: name.into(), deed, answer, at_once: 1, limits: None }
    }

    pub fn at_once(mut self, at_once: usize) -> Attack {
        self.at_once = at_once;
        self
    }

    pub fn with_limits(mut self, limits: Value) -> Attack {
        self.limits = Some(limits);
        self
    }
}

/// What came of it, in a few words for the table; Err: not what must have come of it.
pub type Outcome = Result<String, String>;

impl Answered {
    /// Holds `answer` to this.
    pub fn check_response(&self, answer: &Answer) -> Outcome {
        match self {
            Answered::Refused(status, code, words) => {
                let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
                let message = body["error"].as_str().unwrap_or_default();
                if answer.status != *status || body["code"] != *code {
                    return Err(format!(
                        "not {status} {code}: {} {}",
                        answer.status,
                        beginning(&answer.text)
                    ));
                }
                said(message, words).map(|()| format!("{status} {code}"))
            }
            Answered::RefusedEither(either) => {
                let body: Value = serde_json::from_str(&answer.text).unwrap_or_default();
                let is_it = |(status, code): &(u16, &str)| answer.status == *status && body["code"] == *code;
                match either.iter().find(|one| is_it(one)) {
                    Some(_) => said(body["error"].as_str().unwrap_or_default(), &[])
                        .map(|()| either.map(|(status, _)| status.to_string()).join(" or ")),
                    None => Err(format!("none of {either:?}: {} {}", answer.status, beginning(&answer.text))),
                }
            }
            Answered::Taken(status) if answer.status == *status => Ok(status.to_string()),
            // What is uploaded again is there already.
            Answered::Taken(201) if answer.status == 200 && is_long() => Ok("201".to_owned()),
            Answered::Taken(status) => {
                Err(format!("not {status}: {} {}", answer.status, beginning(&answer.text)))
            }
            _ => Err(format!("no run: {} {}", answer.status, beginning(&answer.text))),
        }
    }

    /// Holds an execution that is over to this.
    pub fn check_end(&self, over: &Value) -> Outcome {
        let error = &over["error"];
        let as_it_is = || {
            format!(
                "{} {} {}",
                over["status"],
                beginning(&error.to_string()),
                beginning(&over["result"].to_string())
            )
        };
        let (kind, words, in_step) = match self {
            Answered::Failed(kind, words) => (kind, words, false),
            Answered::StepFailed(kind, words) => (kind, words, true),
            Answered::Completed(holds) if over["status"] == "completed" && holds(&over["result"]) => {
                return Ok("completed".to_owned());
            }
            _ => return Err(format!("not completed so: {}", as_it_is())),
        };
        let where_it_was = if in_step { "in a step" } else { "in the handler" };
        if over["status"] != "failed" || error["kind"] != *kind || error["step"].is_string() != in_step {
            return Err(format!("not failed {where_it_was} with {kind}: {}", as_it_is()));
        }
        said(error["message"].as_str().unwrap_or_default(), words).map(|()| (*kind).to_owned())
    }
}

fn beginning(text: &str) -> String {
    text.chars().take(600).collect()
}

/// Whether the message has these words, and nothing that may do harm where it is printed.
fn said(message: &str, words: &[&str]) -> Result<(), String> {
    let forges = |c: char| super::output::forges(c) && !matches!(c, '\n' | '\t');
    match words.iter().find(|word| !message.contains(**word)) {
        Some(word) => Err(format!("{:?} lacks {word:?}", beginning(message))),
        None if message.len() < 10 => Err(format!("{message:?} says nothing")),
        None if message.contains(forges) => Err(format!("{:?} has control characters", beginning(message))),
        None => Ok(()),
    }
}
