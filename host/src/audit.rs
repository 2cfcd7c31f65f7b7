//! What `stepbox audit verify` says: whether the audit trail is what was written.
//!
//! Reads only, and may do so while a host runs on the same directory.

use std::{io::Write as _, path::Path, process::ExitCode};

use stepbox_domain::audit::{AuditHash, Broken, Chain};

use crate::store::{AuditRow, StoreError, audit_trail::AuditTrail};

/// Entries that are read at once.
const PAGE: u32 = 1_000;

/// Prints the verdict on the trail of the host whose data is in `data`. `expected` is a head that
/// was noted earlier. The exit code is 1 when the trail is not what was written.
pub async fn verify(data: &Path, expected: Option<AuditHash>) -> anyhow::Result<ExitCode> {
    anyhow::ensure!(
        data.join("stepbox.db").is_file(),
        "there is no database in {}; name the folder of a host with --data-dir",
        data.display()
    );
    // Its sentence has its cause in it.
    let mut trail = AuditTrail::open(data).await.map_err(anyhow::Error::msg)?;
    let verdict = walk(&mut trail, expected).await?;
    writeln!(std::io::stdout(), "{verdict}")?;
    Ok(match verdict {
        Verdict::Whole { .. } => ExitCode::SUCCESS,
        Verdict::Broken(_) | Verdict::HeadGone { .. } => ExitCode::from(1),
    })
}

/// What is to be said of a trail.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    /// `noted`: the number of the entry that the expected head is of; 0 for the empty trail.
    Whole {
        chain: Head,
        noted: Option<u64>,
    },
    Broken(Broken),
    /// In itself it is whole, but the expected head is of none of its entries.
    HeadGone {
        chain: Head,
        expected: AuditHash,
    },
}

#[derive(Debug, PartialEq, Eq)]
struct Head {
    count: u64,
    hash: AuditHash,
}

impl std::fmt::Display for Verdict {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Verdict::Whole { chain, noted: None } => write!(f, "{chain}"),
            Verdict::Whole { chain, noted: Some(number) } => {
                write!(f, "{chain}\nthe expected head is that of entry {number}: nothing up to there is gone")
            }
            Verdict::Broken(broken) => write!(f, "the audit trail is not what was written: {broken}"),
            Verdict::HeadGone { chain, expected } => write!(
                f,
                "{chain}\nthe expected head {} is of none of them: the trail was cut off, or written anew, \
                 since it was noted",
                expected.as_str()
            ),
        }
    }
}

impl std::fmt::Display for Head {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} entries, head {}", self.count, self.hash.as_str())
    }
}

async fn walk(trail: &mut AuditTrail, expected: Option<AuditHash>) -> Result<Verdict, StoreError> {
    let mut walk = Walk::new(expected);
    loop {
        let page = trail.after(walk.chain.count, PAGE).await?;
        if page.is_empty() {
            return Ok(walk.end());
        }
        for entry in &page {
            if let Err(broken) = walk.step(entry) {
                return Ok(Verdict::Broken(broken));
            }
        }
    }
}

struct Walk {
    chain: Chain,
    expected: Option<AuditHash>,
    noted: Option<u64>,
}

impl Walk {
    fn new(expected: Option<AuditHash>) -> Self {
        let mut walk = Walk { chain: Chain::default(), expected, noted: None };
        walk.look();
        walk
    }

    fn step(&mut self, row: &AuditRow) -> Result<(), Broken> {
        match row {
            AuditRow::Read(view) => self.chain.follow(view.number, &view.entry, &view.hash)?,
            AuditRow::Unreadable { number, .. } => {
                let expected = self.chain.count + 1;
                return Err(match *number == expected {
                    true => Broken::Altered(expected),
                    false => Broken::Missing { expected, found: *number },
                });
            }
        }
        self.look();
        Ok(())
    }

    fn look(&mut self) {
        if self.expected.as_ref() == Some(&self.chain.head) {
            self.noted = Some(self.chain.count);
        }
    }

    fn end(self) -> Verdict {
        let chain = Head { count: self.chain.count, hash: self.chain.head };
        match (self.expected, self.noted) {
            (Some(expected), None) => Verdict::HeadGone { chain, expected },
            (_, noted) => Verdict::Whole { chain, noted },
        }
    }
}

#[cfg(test)]
mod tests {
    use stepbox_domain::{
        Json, Timestamp,
        audit::{AuditAction, AuditEntry},
    };

    use super::*;
    use crate::store::{AuditView, sqlite};

    fn trail(length: u64) -> Vec<AuditRow> {
        let mut head = AuditHash::beginning();
        let entries = (1..=length).map(|number| {
            let entry = AuditEntry {
                at: Timestamp::from_ms(1_000),
                actor: Some("ann".to_owned()),
                action: AuditAction::Pause,
                execution: None,
                task: None,
                target: Some(format!("rule {number}")),
                before: Json::null(),
                after: Json::null(),
                reason: None,
            };
            head = head.next(number, &entry);
            AuditRow::Read(AuditView { number, entry, hash: head.clone() })
        });
        entries.collect()
    }

    fn altered(row: &mut AuditRow) {
        let AuditRow::Read(view) = row else { unreachable!("made above") };
        view.entry.actor = Some("bob".to_owned());
    }

    fn hash(row: &AuditRow) -> &AuditHash {
        let AuditRow::Read(view) = row else { unreachable!("made above") };
        &view.hash
    }

    fn said(trail: &[AuditRow], expected: Option<&AuditHash>) -> String {
        let mut walk = Walk::new(expected.cloned());
        match trail.iter().try_for_each(|entry| walk.step(entry)) {
            Ok(()) => walk.end().to_string(),
            Err(broken) => Verdict::Broken(broken).to_string(),
        }
    }

    #[test]
    fn a_whole_trail_is_counted_and_its_head_shown() {
        let trail = trail(3);
        assert_eq!(said(&trail, None), format!("3 entries, head {}", hash(&trail[2]).as_str()));
        assert_eq!(said(&[], None), format!("0 entries, head {}", "0".repeat(64)));
    }

    #[test]
    fn the_first_entry_that_is_not_what_was_written_is_named() {
        let not_what = "the audit trail is not what was written: ";
        let mut two = trail(4);
        altered(&mut two[1]);
        altered(&mut two[3]);
        let expected = "entry 2 was altered, or an entry before it was replaced";
        assert_eq!(said(&two, None), format!("{not_what}{expected}"));
        two[1] = AuditRow::Unreadable { number: 2, why: "no JSON".to_owned() };
        assert_eq!(said(&two, None), format!("{not_what}{expected}"));
        let mut missing = trail(4);
        missing.remove(2);
        assert_eq!(said(&missing, None), format!("{not_what}entry 3 is missing: entry 4 follows entry 2"));
    }

    #[test]
    fn a_head_that_was_noted_earlier_finds_what_was_cut_off() {
        let trail = trail(3);
        let noted = hash(&trail[1]);
        assert!(said(&trail, Some(noted)).contains("that of entry 2"));
        assert!(said(&trail[..2], Some(noted)).contains("that of entry 2"));
        assert!(said(&trail[..1], Some(noted)).contains("is of none of them"));
        assert!(said(&trail, Some(&AuditHash::beginning())).contains("that of entry 0"));
    }

    #[tokio::test]
    async fn it_leaves_a_folder_as_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let names = || {
            let entries = std::fs::read_dir(folder.path()).unwrap();
            let mut names: Vec<_> =
                entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
            // A running store makes its index of ids when it comes to it.
            names.retain(|name| !name.starts_with("search.db"));
            names.sort();
            names
        };
        assert!(
            verify(folder.path(), None).await.unwrap_err().to_string().starts_with("there is no database")
        );
        assert_eq!(names().len(), 0);

        let config = sqlite::StoreConfig { data_dir: folder.path().to_owned(), readers: 1, log_bytes: 0 };
        let store = sqlite::open(&config).await.unwrap();
        let beside = names();
        assert_eq!(verify(folder.path(), None).await.unwrap(), ExitCode::SUCCESS);
        assert_eq!(names(), beside);
        store.close().await;
        drop(store);

        let before = names();
        assert_eq!(verify(folder.path(), None).await.unwrap(), ExitCode::SUCCESS);
        assert_eq!(names(), before);
        let gone = AuditHash::from_stored("f".repeat(64));
        assert_eq!(verify(folder.path(), Some(gone)).await.unwrap(), ExitCode::from(1));
    }
}
