//! Somebody has to say yes or no, and may take days for it.
//!
//! Between two calls there is no instance of this module anywhere: a million open requests are a
//! million rows. The handler reads as if it had stood there all the time.

mod mail;
mod request;

use std::time::{Duration, SystemTime};

use stepbox_guest::{FailureKind, TaskError, now, task, wait_event};

use mail::{ask, remind, tell_the_author};
pub use request::{Answer, Decision, Request, Verdict};

/// Asks somebody for approval and waits for the answer.
#[task]
pub fn approval(request: Request) -> Result<Decision, TaskError> {
    let asked_at = now();
    ask(request.clone())?;

    let remind_after_ms = request.remind_after_ms.min(request.timeout_ms);
    let mut answer = wait_for_answer(asked_at + Duration::from_millis(remind_after_ms))?;
    let reminded = answer.is_none() && remind_after_ms < request.timeout_ms;
    if reminded {
        remind(request.clone())?;
        answer = wait_for_answer(asked_at + Duration::from_millis(request.timeout_ms))?;
    }

    let decision = Decision::from_answer(answer, reminded);
    tell_the_author(request, decision.clone())?;
    Ok(decision)
}

/// The next answer that makes sense, if one comes before `deadline`.
fn wait_for_answer(deadline: SystemTime) -> Result<Option<Answer>, TaskError> {
    loop {
        // Zero once it is past. `now()` is the journal's time: a replay sees the same.
        let left = deadline.duration_since(now()).unwrap_or_default();
        match wait_event("approval", left) {
            Ok(answer) => return Ok(Some(answer)),
            Err(failure) if failure.is_timeout() => return Ok(None),
            // Somebody sent what is no answer: it is consumed, so wait for the next.
            Err(failure) if failure.kind == FailureKind::Error => log::warn!("{failure}"),
            Err(failure) => return Err(failure.into()),
        }
    }
}

#[cfg(test)]
mod tests;
