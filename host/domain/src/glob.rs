//! Patterns over names: `*` any characters (`/` included), `?` one character, `[a-z]` one of these
//! and `[!a-z]` none of these, `{a,b}` the one or the other, and `\` before a character that is
//! meant as itself.
//!
//! Matching keeps the set of places that can be reached, and never tries one way after the other:
//! it costs at most the pattern's length times the name's, whatever the pattern.

/// A pattern that makes sense.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Glob(Vec<Part>);

#[derive(Clone, Debug, PartialEq, Eq)]
enum Part {
    Char(char),
    One,
    Any,
    Class { ranges: Vec<(char, char)>, inverted: bool },
    Either(Vec<Vec<Part>>),
}

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GlobError {
    #[error("the `{0}` is never closed; write `\\{0}` for the character itself")]
    Unclosed(char),
    #[error("the `}}` closes nothing; write `\\}}` for the character itself")]
    Unopened,
    #[error("the range `{0}-{1}` goes backwards")]
    Backwards(char, char),
    #[error("a `\\` stands before the character that is meant as itself, and here is none")]
    Escape,
}

impl Glob {
    pub fn parse(text: &str) -> Result<Self, GlobError> {
        let mut chars = text.chars();
        match sequence(&mut chars, false)? {
            (parts, None) => Ok(Glob(parts)),
            (_, Some(_)) => Err(GlobError::Unopened),
        }
    }

    /// Whether the whole of `name` is as the pattern says.
    pub fn matches(&self, name: &str) -> bool {
        let name: Vec<char> = name.chars().collect();
        let mut reached = vec![false; name.len() + 1];
        reached[0] = true;
        follow(&self.0, &name, reached).last() == Some(&true)
    }
}

/// Parts up to the end, or inside of braces up to the `,` or `}` that is returned with them.
fn sequence(
    chars: &mut std::str::Chars<'_>,
    in_braces: bool,
) -> Result<(Vec<Part>, Option<char>), GlobError> {
    let mut parts = Vec::new();
    while let Some(char) = chars.next() {
        parts.push(match char {
            '*' => Part::Any,
            '?' => Part::One,
            '[' => class(chars)?,
            '{' => either(chars)?,
            '}' => return Ok((parts, Some(char))),
            ',' if in_braces => return Ok((parts, Some(char))),
            '\\' => Part::Char(chars.next().ok_or(GlobError::Escape)?),
            _ => Part::Char(char),
        });
    }
    Ok((parts, None))
}

fn either(chars: &mut std::str::Chars<'_>) -> Result<Part, GlobError> {
    let mut branches = Vec::new();
    loop {
        let (branch, end) = sequence(chars, true)?;
        branches.push(branch);
        match end {
            Some('}') => return Ok(Part::Either(branches)),
            Some(_) => {}
            None => return Err(GlobError::Unclosed('{')),
        }
    }
}

fn class(chars: &mut std::str::Chars<'_>) -> Result<Part, GlobError> {
    let inverted = chars.as_str().starts_with(['!', '^']);
    if inverted {
        chars.next();
    }
    let mut ranges = Vec::new();
    loop {
        let first = match chars.next().ok_or(GlobError::Unclosed('['))? {
            // As the first of the class it is meant as itself.
            ']' if !ranges.is_empty() => return Ok(Part::Class { ranges, inverted }),
            '\\' => chars.next().ok_or(GlobError::Escape)?,
            char => char,
        };
        let is_range = chars.as_str().starts_with('-') && !chars.as_str().starts_with("-]");
        let last = if is_range { chars.nth(1).ok_or(GlobError::Unclosed('['))? } else { first };
        if last < first {
            return Err(GlobError::Backwards(first, last));
        }
        ranges.push((first, last));
    }
}

/// The places in `name` that `parts` lead to from the places `reached`.
fn follow(parts: &[Part], name: &[char], mut reached: Vec<bool>) -> Vec<bool> {
    for part in parts {
        reached = match part {
            Part::Char(wanted) => one_on(name, &reached, |char| char == *wanted),
            Part::One => one_on(name, &reached, |_| true),
            Part::Class { ranges, inverted } => one_on(name, &reached, |char| {
                ranges.iter().any(|(first, last)| (*first..=*last).contains(&char)) != *inverted
            }),
            Part::Any => {
                let first = reached.iter().position(|reached| *reached).unwrap_or(reached.len());
                (0..reached.len()).map(|place| place >= first).collect()
            }
            Part::Either(branches) => {
                let mut either = vec![false; reached.len()];
                for branch in branches {
                    let there = follow(branch, name, reached.clone());
                    either.iter_mut().zip(there).for_each(|(either, there)| *either |= there);
                }
                either
            }
        };
    }
    reached
}

fn one_on(name: &[char], reached: &[bool], is_it: impl Fn(char) -> bool) -> Vec<bool> {
    let mut next = vec![false; reached.len()];
    for (place, char) in name.iter().enumerate() {
        next[place + 1] = reached[place] && is_it(*char);
    }
    next
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, name: &str) -> bool {
        Glob::parse(pattern).unwrap().matches(name)
    }

    #[test]
    fn a_pattern_matches_the_whole_name() {
        for (pattern, yes, no) in [
            ("charge", vec!["charge"], vec!["charges", "recharge", ""]),
            ("charge*", vec!["charge", "charge#2", "charge/a/b"], vec!["recharge"]),
            ("*/*", vec!["a/b", "/", "a/b/c"], vec!["a"]),
            ("na?ve", vec!["naive", "naïve"], vec!["nave", "naiive"]),
            ("**", vec!["", "a/b"], vec![]),
            ("[a-c1]x", vec!["ax", "cx", "1x"], vec!["dx", "x", "-x"]),
            ("[!a-c]", vec!["d", "ü"], vec!["a", "", "dd"]),
            ("[]a-]", vec!["]", "a", "-"], vec!["b"]),
            ("[é]", vec!["é"], vec!["e", "Ã"]),
            ("{ship,send}-*", vec!["ship-a", "send-"], vec!["ship", "shipsend-"]),
            ("a{,b{c,d}}e", vec!["ae", "abce", "abde"], vec!["abe", "ace"]),
            ("a,b", vec!["a,b"], vec!["a"]),
            (r"\*\{\\", vec![r"*{\"], vec!["x{"]),
            ("Charge", vec!["Charge"], vec!["charge"]),
        ] {
            yes.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            no.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
    }

    #[test]
    fn what_makes_no_sense_is_refused() {
        for (pattern, error) in [
            ("[ab", GlobError::Unclosed('[')),
            ("[]", GlobError::Unclosed('[')),
            ("{a,{b}", GlobError::Unclosed('{')),
            ("a}", GlobError::Unopened),
            ("[b-a]", GlobError::Backwards('b', 'a')),
            ("a\\", GlobError::Escape),
            ("[\\", GlobError::Escape),
        ] {
            assert_eq!(Glob::parse(pattern), Err(error), "{pattern}");
        }
    }

    #[test]
    fn a_hostile_pattern_costs_no_more_than_others() {
        let name = "a".repeat(212);
        let nested = format!("{}{}", "{a,*".repeat(40), "}".repeat(40));
        for pattern in ["*a".repeat(99) + "b", "{*,*}".repeat(40) + "b", nested + "b"] {
            assert!(!matches(&pattern, &name));
        }
    }

    /// By trying all ways, for patterns of `a b * ?`.
    fn slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], rest) => rest.is_empty(),
            ([b'*', more @ ..], _) => (0..=name.len()).any(|skipped| slowly(more, &name[skipped..])),
            ([b'?', more @ ..], [_, rest @ ..]) => slowly(more, rest),
            ([char, more @ ..], [first, rest @ ..]) => char == first && slowly(more, rest),
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn stars_and_question_marks_are_as_by_trying(pattern in "[ab*?]{0,7}", name in "[ab]{0,7}") {
            prop_assert_eq!(matches(&pattern, &name), slowly(pattern.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_text_makes_it_panic(pattern in "[a-c*?\\[\\]{},!^\\\\é-]{0,20}", name in "\\PC{0,10}") {
            if let Ok(glob) = Glob::parse(&pattern) {
                glob.matches(&name);
            }
        }
    }
}
