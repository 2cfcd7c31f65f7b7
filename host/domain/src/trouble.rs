//! Which failures are the same trouble.

use serde::{Deserialize, Serialize};

use crate::{
    Failure, FailureKind, TaskName,
    ids::{hex, sha256},
};

/// What failures have in common: task, module version, step, kind, and the error's message but for
/// what differs from one execution to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trouble {
    pub task: TaskName,
    pub version: u32,
    /// The name of the step that failed, without its count; none when it was the handler.
    pub step: Option<String>,
    pub kind: FailureKind,
    /// The message with numbers, ids and quoted texts taken out.
    pub shape: String,
}

impl Trouble {
    pub fn of(task: &TaskName, version: u32, failure: &Failure) -> Self {
        Trouble {
            task: task.clone(),
            version,
            step: failure.step.as_ref().map(|step| step.name().to_owned()),
            kind: failure.kind,
            shape: shape(&failure.message),
        }
    }

    /// 16 hexadecimal digits that stand for it.
    pub fn fingerprint(&self) -> String {
        let text =
            serde_json::json!([self.task.as_str(), self.version, self.step, self.kind.as_str(), self.shape]);
        hex(&sha256(text.to_string().as_bytes())[..8])
    }
}

/// So much of a message tells one trouble from another.
const CHARS_MAX: usize = 200;

/// `message` with `#` for every word that has a digit in it, and `"…"` for what is quoted.
fn shape(message: &str) -> String {
    let mut shape = String::new();
    let mut rest = message;
    while let Some(first) = rest.chars().next() {
        let quoted = (first == '"').then(|| rest[1..].find('"')).flatten();
        let length = if let Some(end) = quoted {
            shape.push_str("\"…\"");
            end + 2
        } else if first.is_alphanumeric() {
            let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            let word = &rest[..end];
            match word.contains(|c: char| c.is_ascii_digit()) {
                true => shape.push('#'),
                false => shape.push_str(word),
            }
            end
        } else {
            shape.push(first);
            first.len_utf8()
        };
        rest = &rest[length..];
    }
    shape.chars().take(CHARS_MAX).collect()
}
