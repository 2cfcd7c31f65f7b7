//! Room for the write-ahead log, made before it is needed.
//!
//! A commit is a write at the log's end and a sync. Where the file has to grow for it, the sync
//! writes the file's new length and blocks as well, and takes twice as long (measured on ext4: 0.55
//! against 0.25 ms for 18 kB). SQLite keeps the file when it starts the log over, so that is so
//! until the log has once been as long as it gets, after each start of the host. So the file is
//! filled up with zeros at the start, which SQLite takes for what they are: the end of the log.

use std::{
    fs::{File, OpenOptions},
    io::{self, Seek as _, SeekFrom, Write as _},
    path::Path,
};

/// What is taken of the room that the disk has left: one part in so many.
const PART_OF_FREE: u64 = 16;

/// Makes the log `bytes_max` long, or less where the disk has little room; one that is longer stays.
/// Nobody may write to the log meanwhile. Errors: what the system says, and then the log is as it was.
pub(super) fn make(log: &Path, bytes_max: u64) -> io::Result<()> {
    if bytes_max == 0 {
        return Ok(());
    }
    let mut file = OpenOptions::new().write(true).open(log)?;
    let length = file.seek(SeekFrom::End(0))?;
    let disk = rustix::fs::fstatvfs(&file)?;
    let bytes = missing(length, bytes_max, disk.f_bavail.saturating_mul(disk.f_frsize));
    fill_up(&mut file, bytes).or_else(|error| {
        file.set_len(length)?;
        Err(error)
    })
}

/// What a log of `length` bytes lacks on a disk that has `free` bytes left.
fn missing(length: u64, bytes_max: u64, free: u64) -> u64 {
    bytes_max.min(free / PART_OF_FREE).saturating_sub(length)
}

/// Written and not only reserved: to write to what is reserved costs as much as growing does.
fn fill_up(file: &mut File, bytes: u64) -> io::Result<()> {
    static ZEROS: [u8; 64 << 10] = [0; 64 << 10];
    let mut left = bytes;
    while left > 0 {
        let some = left.min(ZEROS.len() as u64);
        file.write_all(&ZEROS[..some as usize])?;
        left -= some;
    }
    // Else the first commit would have to.
    if bytes > 0 { file.sync_all() } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn log_of(content: &[u8]) -> (tempfile::TempDir, std::path::PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let log = directory.path().join("log");
        fs::write(&log, content).unwrap();
        (directory, log)
    }

    #[test]
    fn what_is_in_the_log_stays_and_zeros_follow() {
        let (_directory, log) = log_of(b"frames");
        make(&log, 100_000).unwrap();
        let made = fs::read(&log).unwrap();
        assert_eq!((made.len(), &made[..6]), (100_000, &b"frames"[..]));
        assert!(made[6..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn a_log_that_is_longer_stays_as_it_is_and_so_does_one_that_asks_for_nothing() {
        for bytes_max in [0, 3, 6] {
            let (_directory, log) = log_of(b"frames");
            make(&log, bytes_max).unwrap();
            assert_eq!(fs::read(&log).unwrap(), b"frames");
        }
    }

    #[test]
    fn a_disk_with_little_room_gives_little_and_a_full_one_nothing() {
        assert_eq!(missing(0, 1_000, 1_000_000), 1_000);
        assert_eq!(missing(400, 1_000, 1_000_000), 600);
        assert_eq!(missing(0, 1_000, 8_000), 500);
        assert_eq!(missing(400, 1_000, 8_000), 100);
        assert_eq!(missing(600, 1_000, 8_000), 0);
        assert_eq!(missing(0, 1_000, 0), 0);
    }

    #[test]
    fn a_log_that_is_not_there_is_an_error_and_none_is_made() {
        let (directory, _) = log_of(b"frames");
        let none = directory.path().join("none");
        assert!(make(&none, 100).is_err());
        assert!(!none.exists());
    }
}
