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
    let is_word = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.' | ':');
    let (mut shape, mut chars) = (String::new(), 0);
    let mut rest = message;
    while let Some(first) = rest.chars().next()
        && chars < CHARS_MAX
    {
        let quoted = (first == '"').then(|| rest[1..].find('"')).flatten();
        let (piece, length) = if let Some(end) = quoted {
            ("\"…\"", end + 2)
        } else if first.is_alphanumeric() {
            let end = rest.find(|c| !is_word(c)).unwrap_or(rest.len());
            // What ends a sentence, or comes before a list, is no part of the word.
            let word = rest[..end].trim_end_matches(['.', ':', '-']);
            (if word.contains(char::is_numeric) { "#" } else { word }, word.len())
        } else {
            (&rest[..first.len_utf8()], first.len_utf8())
        };
        shape.push_str(piece);
        chars += piece.chars().count();
        rest = &rest[length..];
    }
    shape.chars().take(CHARS_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::StepKey;

    #[test]
    fn a_shape_leaves_out_what_differs_from_one_execution_to_the_next() {
        for (message, expected) in [
            ("card declined", "card declined"),
            ("order 17 is gone", "order # is gone"),
            ("order-17 is gone", "# is gone"),
            ("no answer from 10.0.0.7:8080 after 3.5s", "no answer from # after #"),
            ("id 6f1c2f0e-8f61-4b7e-9d5a-0c2e3a4b5c6d", "id #"),
            ("at 2026-01-02T03:04:05Z", "at #"),
            ("no field \"amount\" in \"order\"", "no field \"…\" in \"…\""),
            ("an open \" stays", "an open \" stays"),
            ("\"a\"\"b\"", "\"…\"\"…\""),
            ("GET /orders/17/lines: 503", "GET /orders/#/lines: #"),
            ("größe 12 fehlt", "größe # fehlt"),
            ("٣ is a digit too", "# is a digit too"),
            ("", ""),
        ] {
            assert_eq!(shape(message), expected, "{message}");
        }
    }

    #[test]
    fn a_shape_is_short_however_long_the_message_is() {
        let long = "wörd \"x\" 12 ".repeat(100_000);
        assert_eq!(shape(&long).chars().count(), CHARS_MAX);
        assert_eq!(shape(&"\"".repeat(1_000_001)).chars().count(), CHARS_MAX);
    }

    fn trouble(task: &str, version: u32, step: Option<&str>, kind: FailureKind, message: &str) -> Trouble {
        let mut failure = Failure::new(kind, message);
        failure.step = step.map(|step| StepKey::parse(step).unwrap());
        Trouble::of(&TaskName::parse(task).unwrap(), version, &failure)
    }

    #[test]
    fn the_same_trouble_has_one_fingerprint_and_another_another() {
        let error = FailureKind::Error;
        let one = trouble("order", 1, Some("charge"), error, "card 17 declined").fingerprint();
        let same = trouble("order", 1, Some("charge#4"), error, "card 18 declined").fingerprint();
        assert_eq!(one, same);
        assert_eq!(one.len(), 16);
        let others = [
            trouble("refund", 1, Some("charge"), error, "card 17 declined"),
            trouble("order", 2, Some("charge"), error, "card 17 declined"),
            trouble("order", 1, Some("ship"), error, "card 17 declined"),
            trouble("order", 1, None, error, "card 17 declined"),
            trouble("order", 1, Some("charge"), FailureKind::Exhausted, "card 17 declined"),
            trouble("order", 1, Some("charge"), error, "card 17 expired"),
        ];
        let mut all: Vec<String> = others.iter().map(Trouble::fingerprint).collect();
        all.push(one);
        all.sort();
        all.dedup();
        assert_eq!(all.len(), others.len() + 1);
    }
}
