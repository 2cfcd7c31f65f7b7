//! What a journal comes to, by the rules that a reader of the contract knows: written anew here, so
//! that it does not share its mistakes with the engine. It refuses what one writer that follows the
//! rules cannot have written.

use serde_json::Value;

/// A journal that makes sense.
#[derive(Debug, Default)]
pub struct Journal {
    /// The calls that the handler made, in their order.
    pub steps: Vec<Step>,
    /// Kept or set aside, and not called again.
    pub aside: Vec<Step>,
    pub end: Option<End>,
    /// Who repaired what in this run.
    pub repairs: Vec<Repair>,
    /// Order numbers of the events that it consumed.
    pub events: Vec<i64>,
}

#[derive(Clone, Debug)]
pub struct Step {
    pub key: String,
    pub kind: Kind,
    pub state: State,
    pub attempts: Vec<Attempt>,
    pub ended_at: Option<i64>,
    /// An earlier run made the call.
    pub kept: bool,
    /// Its outcome was put in by hand.
    pub resolved: bool,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Step,
    Sleep,
    Wait,
    Capture,
}

#[derive(Clone, Debug, PartialEq)]
pub enum State {
    Open,
    BetweenAttempts,
    Completed(Value),
    TimedOut,
    Dead,
}

#[derive(Clone, Debug)]
pub struct Attempt {
    pub number: u64,
    pub state: AttemptState,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptState {
    Running,
    Completed,
    Failed,
    Interrupted,
}

#[derive(Debug)]
pub struct End {
    /// The status of the run from then on.
    pub status: &'static str,
    pub at: i64,
    pub result: Value,
}

#[derive(Debug)]
pub struct Repair {
    pub by: Option<String>,
    pub resolved: bool,
}

impl Journal {
    /// Folds `bodies`, from the first record on. Err: which record nobody can have written who knew
    /// those before it.
    pub fn read(bodies: &[String]) -> Result<Journal, String> {
        let mut journal = Journal::default();
        for (number, body) in bodies.iter().enumerate() {
            let record: Value = serde_json::from_str(body).map_err(|error| format!("{error}: {body}"))?;
            let fields = record.as_object().filter(|fields| fields.len() == 1);
            let (kind, fields) = fields.and_then(|fields| fields.iter().next()).ok_or("no record")?;
            journal.take(kind, fields).map_err(|why| format!("record {number}: {why}: {body}"))?;
        }
        Ok(journal)
    }

    /// All steps, those that were not called again last.
    pub fn all(&self) -> impl Iterator<Item = &Step> {
        self.steps.iter().chain(&self.aside)
    }

    pub fn status(&self) -> &'static str {
        self.end.as_ref().map_or("open", |end| end.status)
    }

    fn take(&mut self, kind: &str, record: &Value) -> Result<(), String> {
        let reopens = matches!(kind, "step_retry_asked" | "step_resolved");
        match &self.end {
            Some(end) if end.status == "cancelled" => return Err("after the run was cancelled".to_owned()),
            Some(end) if !reopens => return Err(format!("after the run had {}", end.status)),
            _ => {}
        }
        let key = || word(&record["key"]);
        let at = record["at"].as_i64();
        let attempt = record["attempt"].as_u64();
        match kind {
            "step_started" => self.call(key(), Kind::Step)?.begin(1)?,
            "step_ran" => {
                let step = self.call(key(), Kind::Step)?;
                step.begin(1)?;
                step.end_attempt(Some(1), AttemptState::Completed)?;
                step.end(State::Completed(record["result"].clone()), record["completed_at"].as_i64())?;
            }
            "attempt_started" => self.last(record)?.begin(attempt.ok_or("no attempt")?)?,
            "step_completed" => {
                let step = self.last(record)?;
                step.end_attempt(attempt, AttemptState::Completed)?;
                step.end(State::Completed(record["result"].clone()), at)?;
            }
            "attempt_failed" => {
                let step = self.last(record)?;
                step.end_attempt(attempt, AttemptState::Failed)?;
                match &record["retry_at"] {
                    Value::Null => step.end(State::Dead, at)?,
                    _ => step.state = State::BetweenAttempts,
                }
            }
            "attempt_interrupted" => {
                let step = self.last(record)?;
                step.end_attempt(attempt, AttemptState::Interrupted)?;
                step.state = State::BetweenAttempts;
            }
            "step_died" => self.last(record)?.end(State::Dead, at)?,
            "sleep_started" => _ = self.call(key(), Kind::Sleep)?,
            "wait_started" => _ = self.call(key(), Kind::Wait)?,
            "sleep_ended" => self.last(record)?.end(State::Completed(Value::Null), at)?,
            "event_consumed" => {
                self.last(record)?.end(State::Completed(record["payload"].clone()), at)?;
                self.events.push(record["event"].as_i64().ok_or("no event")?);
            }
            "wait_timed_out" => self.last(record)?.end(State::TimedOut, at)?,
            "captured" => {
                self.call(key(), Kind::Capture)?.end(State::Completed(record["value"].clone()), at)?;
            }
            "step_kept" => self.keep(&record["step"])?,
            "step_adopted" => {
                let place = self.aside.iter().position(|step| step.key == key());
                let step = self.aside.remove(place.ok_or("nothing of that key was kept or set aside")?);
                self.nothing_is_open()?;
                self.steps.push(step);
            }
            "step_retry_asked" => self.reopen(record, State::BetweenAttempts)?,
            "step_resolved" => {
                let outcome = &record["outcome"];
                let state = match (outcome.get("Ok"), outcome.get("Err")) {
                    (Some(result), None) => State::Completed(result.clone()),
                    (None, Some(_)) => State::Dead,
                    _ => return Err("no outcome".to_owned()),
                };
                self.reopen(record, state)?;
            }
            "step_held" | "clock_stood" => {}
            "run_completed" => {
                self.nothing_is_open()?;
                self.finish("completed", record)?;
            }
            "run_failed" => self.finish("failed", record)?,
            "run_cancelled" => self.finish("cancelled", record)?,
            other => return Err(format!("a record \"{other}\", which nobody knows")),
        }
        Ok(())
    }

    fn call(&mut self, key: String, kind: Kind) -> Result<&mut Step, String> {
        self.nothing_is_open()?;
        if self.all().any(|step| step.key == key) {
            // The campaign's handlers make the same calls with the same inputs each time.
            return Err(format!("{key} is called, although it is there already"));
        }
        let (state, attempts) = (State::Open, Vec::new());
        let step = Step { key, kind, state, attempts, ended_at: None, kept: false, resolved: false };
        self.steps.push(step);
        self.steps.last_mut().ok_or_else(|| unreachable!())
    }

    /// A handler makes one call after the other.
    fn nothing_is_open(&self) -> Result<(), String> {
        match self.steps.last() {
            Some(last) if last.ended_at.is_none() => Err(format!("{} is not over", last.key)),
            _ => Ok(()),
        }
    }

    /// The step that the record is about, which can only be the one at which the handler stands.
    fn last(&mut self, record: &Value) -> Result<&mut Step, String> {
        let place = record["step"].as_u64().ok_or("no step")? as usize;
        match self.steps.len() {
            0 => Err("there is no step".to_owned()),
            steps if steps - 1 != place => Err(format!("the handler stands at step {}", steps - 1)),
            _ => Ok(&mut self.steps[place]),
        }
    }

    fn keep(&mut self, step: &Value) -> Result<(), String> {
        if !self.steps.is_empty() {
            return Err("kept after the beginning".to_owned());
        }
        let kind = match step["call"].as_object().and_then(|call| call.keys().next()).map(String::as_str) {
            Some("step") => Kind::Step,
            Some("sleep") => Kind::Sleep,
            Some("wait_for_event") => Kind::Wait,
            _ if step["call"] == "capture" => Kind::Capture,
            _ => return Err("kept without a call".to_owned()),
        };
        let state = match (step["state"].get("completed"), step["state"].get("timed_out")) {
            (Some(result), None) => State::Completed(result.clone()),
            (None, Some(_)) => State::TimedOut,
            _ => return Err("kept, but not completed".to_owned()),
        };
        let attempts = step["attempts"].as_array().cloned().unwrap_or_default();
        let attempts = attempts.iter().map(|attempt| Attempt {
            number: attempt["number"].as_u64().unwrap_or_default(),
            state: match &attempt["state"] {
                Value::String(state) if state == "completed" => AttemptState::Completed,
                Value::String(state) if state == "running" => AttemptState::Running,
                state if state.get("failed").is_some() => AttemptState::Failed,
                _ => AttemptState::Interrupted,
            },
        });
        self.aside.push(Step {
            key: word(&step["key"]),
            kind,
            state,
            attempts: attempts.collect(),
            ended_at: step["ended_at"].as_i64(),
            kept: true,
            resolved: step.get("resolved").is_some(),
        });
        Ok(())
    }

    /// A dead step is tried again, or has an outcome now; what was called after it is set aside.
    fn reopen(&mut self, record: &Value, state: State) -> Result<(), String> {
        let (key, at) = (word(&record["key"]), record["at"].as_i64());
        let step = self.all().find(|step| step.key == key).ok_or("there is no such step")?;
        if step.state != State::Dead {
            return Err(format!("the step is {:?}, not dead", step.state));
        }
        if let Some(place) = self.steps.iter().position(|step| step.key == key) {
            // Another version may call the step itself otherwise.
            let stays = record["version"].is_null();
            let later = self.steps.split_off(place + usize::from(stays));
            let mut aside: Vec<Step> = later.into_iter().filter_map(Step::set_aside).collect();
            aside.append(&mut self.aside);
            self.aside = aside;
        } else if let Some(last) = self.steps.last_mut() {
            last.cut_off();
        }
        let resolved = state != State::BetweenAttempts;
        let step = self.steps.iter_mut().chain(&mut self.aside).find(|step| step.key == key);
        let step = step.ok_or("there is no such step")?;
        step.state = state;
        step.resolved = resolved;
        step.ended_at = at.filter(|_| resolved);
        self.end = None;
        self.repairs.push(Repair { by: record["by"].as_str().map(str::to_owned), resolved });
        Ok(())
    }

    fn finish(&mut self, status: &'static str, record: &Value) -> Result<(), String> {
        let at = record["at"].as_i64().ok_or("no time")?;
        self.end = Some(End { status, at, result: record["result"].clone() });
        Ok(())
    }
}

impl Step {
    /// Ends the attempt that is under way, if one is.
    fn cut_off(&mut self) {
        if let Some(last) = self.attempts.last_mut().filter(|last| last.state == AttemptState::Running) {
            last.state = AttemptState::Interrupted;
            self.state = State::BetweenAttempts;
        }
    }

    /// An outcome answers again; a step without one begins anew, and a wait was for nothing.
    fn set_aside(mut self) -> Option<Step> {
        self.cut_off();
        (self.kind == Kind::Step || self.ended_at.is_some()).then_some(self)
    }

    fn begin(&mut self, number: u64) -> Result<(), String> {
        let before = self.attempts.last().map_or(0, |last| last.number);
        if number != before + 1 {
            return Err(format!("attempt {number} of {} follows attempt {before}", self.key));
        }
        let begins = match self.state {
            State::Open => self.attempts.is_empty(),
            State::BetweenAttempts => true,
            _ => false,
        };
        if !begins || self.kind != Kind::Step {
            return Err(format!("an attempt begins, and {} is {:?}", self.key, self.state));
        }
        self.state = State::Open;
        self.attempts.push(Attempt { number, state: AttemptState::Running });
        Ok(())
    }

    fn end_attempt(&mut self, number: Option<u64>, state: AttemptState) -> Result<(), String> {
        match self.attempts.last_mut() {
            Some(last) if Some(last.number) == number && last.state == AttemptState::Running => {
                last.state = state;
                Ok(())
            }
            last => Err(format!("attempt {number:?} ends, and the last is {last:?}")),
        }
    }

    fn end(&mut self, state: State, at: Option<i64>) -> Result<(), String> {
        if self.ended_at.is_some() {
            return Err(format!("{} was over already, as {:?}", self.key, self.state));
        }
        self.ended_at = Some(at.ok_or("no time")?);
        self.state = state;
        Ok(())
    }
}

fn word(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// A checker that never finds anything checks nothing.
#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const CHARGE: [&str; 4] = ["start charge", "fail", "retry charge", "attempt 0 2"];

    /// `start charge`, `attempt 0 2`, …: a record each.
    fn read(words: &[&str]) -> Result<Journal, String> {
        let bodies: Vec<String> = words.iter().map(|word| record(word).to_string()).collect();
        Journal::read(&bodies)
    }

    fn record(text: &str) -> Value {
        let words: Vec<&str> = text.split(' ').collect();
        let number = |n: usize| words[n].parse::<u64>().unwrap();
        match words[0] {
            "start" => json!({ "step_started": { "key": words[1], "at": 1 } }),
            "attempt" => json!({ "attempt_started": { "step": number(1), "attempt": number(2), "at": 1 } }),
            "done" => {
                json!({ "step_completed": { "step": number(1), "attempt": number(2), "result": 7, "at": 2 } })
            }
            "fail" => json!({ "attempt_failed": { "step": 0, "attempt": 1, "at": 2 } }),
            "retry" => json!({ "step_retry_asked": { "key": words[1], "by": "ada", "at": 3 } }),
            "adopt" => json!({ "step_adopted": { "key": words[1], "at": 4 } }),
            "completed" => json!({ "run_completed": { "result": null, "at": 5 } }),
            "failed" => json!({ "run_failed": { "at": 5 } }),
            "cancelled" => json!({ "run_cancelled": { "at": 5 } }),
            other => panic!("{other}"),
        }
    }

    #[test]
    fn a_journal_of_one_writer_is_read() {
        let journal = read(&[&CHARGE[..], &["done 0 2", "start pack", "done 1 1", "completed"]].concat());
        let journal = journal.unwrap();
        assert_eq!((journal.status(), journal.steps.len(), journal.repairs.len()), ("completed", 2, 1));

        let set_aside = ["start charge", "fail", "start pack", "retry charge"];
        let goes_on = ["attempt 0 2", "done 0 2", "adopt pack", "attempt 1 2", "done 1 2"];
        let journal = read(&[&set_aside[..], &goes_on].concat()).unwrap();
        assert_eq!(journal.steps[1].attempts.len(), 2);

        assert_eq!(read(&["start charge", "fail", "failed", "retry charge"]).unwrap().status(), "open");
    }

    #[test]
    fn what_two_writers_leave_behind_is_refused() {
        for wrong in [
            // The first attempt ends after somebody has begun the second.
            &["done 0 1"][..],
            &["done 0 2", "done 0 2"],
            &["done 0 2", "attempt 0 3"],
            &["done 0 2", "retry charge"],
            &["attempt 0 4"],
            &["start pack"],
            &["done 0 2", "start charge"],
            &["completed"],
            &["done 0 2", "completed", "start pack"],
            &["done 0 2", "completed", "completed"],
            &["cancelled", "retry charge"],
            &["adopt pack"],
            &["done 1 1"],
        ] {
            let words = [&CHARGE[..], wrong].concat();
            assert!(read(&words).is_err(), "{words:?} was read");
        }
    }
}
