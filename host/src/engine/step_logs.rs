//! Which attempt printed a line.

use std::sync::{Arc, Mutex, PoisonError};

use stepbox_domain::StepKey;

use crate::sandbox::{LogLine, LogSink};

/// The log of the steps of one run, of which one attempt is under way at a time.
pub(crate) struct StepLogs {
    log: Arc<dyn LogSink>,
    attempt: Mutex<Option<(StepKey, u32)>>,
}

impl StepLogs {
    pub fn new(log: Arc<dyn LogSink>) -> Arc<Self> {
        Arc::new(StepLogs { log, attempt: Mutex::default() })
    }

    /// What is printed from now on is of this attempt, also what is left when its instance is dropped.
    pub fn begin(&self, step: StepKey, attempt: u32) {
        *self.attempt.lock().unwrap_or_else(PoisonError::into_inner) = Some((step, attempt));
    }
}

impl LogSink for StepLogs {
    fn line(&self, line: LogLine<'_>) {
        let attempt = self.attempt.lock().unwrap_or_else(PoisonError::into_inner);
        let step = attempt.as_ref().map(|(step, attempt)| (step, *attempt));
        self.log.line(LogLine { step, ..line });
    }
}
