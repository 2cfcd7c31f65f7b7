//! What a server has logged: its own lines, and what guests let the world know by theirs.

use std::{
    fs::File,
    io::{Read, Seek, SeekFrom},
    path::Path,
};

use serde_json::Value;

use super::Server;
use crate::harness::until;

/// What the server has written to stderr so far. It goes to a file, so that whatever was written
/// before an answer can be read after it, and nothing is lost with the process.
#[derive(Default)]
pub(super) struct Logs {
    read_bytes: u64,
    lines: Vec<LogLine>,
}

/// A line that the server wrote to stderr.
#[derive(Clone, Debug)]
pub struct LogLine {
    /// `ERROR`, `WARN`, `INFO`, …; empty for a line that is not JSON.
    pub level: String,
    pub text: String,
    /// What a guest wrote; empty for the server's own lines.
    pub message: String,
}

/// An attempt of a step that has begun, as seen from outside of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Effect {
    pub execution: String,
    pub run: String,
    pub tag: String,
    pub attempt: u32,
    /// Drawn anew by each attempt.
    pub nonce: String,
    pub at_ms: i64,
}

impl Server {
    /// Looks at the lines that were logged up to now.
    fn logs<T>(&self, look: impl FnOnce(&[LogLine]) -> T) -> T {
        let mut logs = self.logs.lock().unwrap();
        logs.read(&self.file("stderr"));
        look(&logs.lines)
    }

    /// The last lines of the log.
    pub fn log_text(&self) -> String {
        self.logs(|lines| {
            let last = &lines[lines.len().saturating_sub(200)..];
            last.iter().map(|line| line.text.as_str()).collect::<Vec<_>>().join("\n")
        })
    }

    /// The attempts of steps that have begun so far, over all restarts, in order.
    pub fn effects(&self) -> Vec<Effect> {
        self.logs(|lines| lines.iter().filter_map(Effect::read).collect())
    }

    /// The attempts of `execution`, as `tag attempt`.
    pub fn effects_of(&self, execution: &str) -> Vec<String> {
        let mut effects = self.effects();
        effects.retain(|effect| effect.execution == execution);
        effects.iter().map(|effect| format!("{} {}", effect.tag, effect.attempt)).collect()
    }

    /// Comes back when an attempt of `execution` has begun, as `tag attempt`.
    pub async fn until_effect(&self, execution: &str, effect: &str) {
        let what = format!("{execution} has begun {effect}");
        until(&what, async || self.effects_of(execution), |effects| effects.iter().any(|e| e == effect))
            .await;
    }

    /// The lines that guests of `execution` wrote and that begin with `word`, without it.
    pub fn written(&self, execution: &str, word: &str) -> Vec<String> {
        let run = format!("\"run\":\"{execution}:run:");
        self.logs(|lines| {
            let lines = lines.iter().filter(|line| line.text.contains(&run));
            lines
                .filter_map(|line| line.message.strip_prefix(word))
                .map(|rest| rest.trim().to_owned())
                .collect()
        })
    }

    pub(super) fn unexpected_errors(&self) -> Vec<String> {
        self.logs(|lines| {
            let errors = lines.iter().filter(|line| {
                // What a guest calls an error is none of the host's, and a panic writes no JSON.
                (line.level == "ERROR" && line.message.is_empty())
                    || (line.level.is_empty() && line.text.contains("panicked"))
            });
            let expected = |text: &str| self.errors_expected.iter().any(|expected| text.contains(expected));
            errors.map(|line| line.text.clone()).filter(|text| !expected(text)).collect()
        })
    }
}

impl Logs {
    /// Reads on from where it stopped, up to the last whole line.
    fn read(&mut self, path: &Path) {
        let Ok(mut file) = File::open(path) else { return };
        file.seek(SeekFrom::Start(self.read_bytes)).unwrap();
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).unwrap();
        let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |end| end + 1);
        self.read_bytes += whole as u64;
        let text = String::from_utf8_lossy(&bytes[..whole]);
        self.lines.extend(text.lines().map(LogLine::read));
    }
}

impl LogLine {
    fn read(text: &str) -> LogLine {
        let json: Value = serde_json::from_str(text).unwrap_or_default();
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let is_guest = json["target"] == "guest";
        let message = match &json["fields"]["message"] {
            Value::String(message) if is_guest => message.clone(),
            _ => String::new(),
        };
        LogLine { level: word(&json["level"]), text: text.to_owned(), message }
    }
}

impl Effect {
    fn read(line: &LogLine) -> Option<Effect> {
        let mut words = line.message.strip_prefix("effect ")?.split(' ');
        let mut word = || words.next().map(str::to_owned);
        let json: Value = serde_json::from_str(&line.text).ok()?;
        let at = chrono::DateTime::parse_from_rfc3339(json["timestamp"].as_str()?).ok()?;
        Some(Effect {
            execution: word()?,
            run: json["fields"]["run"].as_str()?.to_owned(),
            tag: word()?,
            attempt: word()?.parse().ok()?,
            nonce: word()?,
            at_ms: at.timestamp_millis(),
        })
    }
}
