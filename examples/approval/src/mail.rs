//! The mails that are sent. There is no mail server behind this example: it logs them.

use stepbox_guest::{StepError, step};

use crate::request::{Decision, Request, Verdict};

/// Asks the approver.
#[step(retry = exponential(8, "2s", cap = "5m"), name = "ask {request.approver}")]
pub fn ask(request: Request) -> Result<(), StepError> {
    send(&request.approver, &format!("{} asks for your approval: {}", request.author, request.title))
}

/// Asks the approver once more.
#[step(retry = exponential(8, "2s", cap = "5m"), name = "remind {request.approver}")]
pub fn remind(request: Request) -> Result<(), StepError> {
    send(&request.approver, &format!("{} still waits for your approval: {}", request.author, request.title))
}

/// Tells who asked how it ended.
#[step(retry = exponential(8, "2s", cap = "5m"), name = "tell {request.author}")]
pub fn tell_the_author(request: Request, decision: Decision) -> Result<(), StepError> {
    let what = match &decision.verdict {
        Verdict::Approved { by, .. } => format!("{by} approved it"),
        Verdict::Rejected { by, comment } => format!("{by} rejected it: {comment}"),
        Verdict::TimedOut => format!("{} did not answer in time", request.approver),
    };
    send(&request.author, &format!("{}: {what}", request.title))
}

fn send(to: &str, text: &str) -> Result<(), StepError> {
    if !to.contains('@') {
        return Err(StepError::fatal(format!("`{to}` is no mail address")));
    }
    log::info!("mail to {to}: {text}");
    Ok(())
}
