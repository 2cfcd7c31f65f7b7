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
    let bytes = bytes_max.min(disk.f_bavail.saturating_mul(disk.f_frsize) / PART_OF_FREE);
    fill_up(&mut file, bytes.saturating_sub(length)).or_else(|error| {
        file.set_len(length)?;
        Err(error)
    })
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
