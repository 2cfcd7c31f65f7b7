//! Lines that guests printed.

use serde::Serialize;
use stepbox_domain::{RunId, StepKey};

use super::Time;
use crate::store::logs::LogView;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct LogLine {
    sequence: u64,
    time: Time,
    run_id: RunId,
    /// Both null for the handler.
    step: Option<StepKey>,
    attempt: Option<u32>,
    level: &'static str,
    target: String,
    message: String,
}

impl From<LogView> for LogLine {
    fn from(LogView { sequence, entry }: LogView) -> Self {
        let (step, attempt) = entry.step.unzip();
        LogLine {
            sequence,
            time: Time(entry.at),
            run_id: entry.run,
            step,
            attempt,
            level: entry.level.as_str(),
            target: entry.target,
            message: entry.message,
        }
    }
}
