//! A disk that is as small as a test wants it: a file system in memory.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    process::Command,
};

use super::campaign::tell;

/// Mounted until it is dropped.
pub struct SmallDisk {
    at: PathBuf,
}

impl SmallDisk {
    /// None: nobody may mount here, and stderr says so. That takes root, and more in a container.
    pub fn mount(at: &Path, bytes: u64) -> Option<SmallDisk> {
        std::fs::create_dir_all(at).expect("the folder can be made");
        let size = format!("size={bytes},mode=700");
        match mount(&["-t", "tmpfs", "-o", &size, "tmpfs"], at) {
            Ok(()) => Some(SmallDisk { at: at.to_owned() }),
            Err(why) => {
                tell(&format!("not tested, for nothing can be mounted here: {why}"));
                None
            }
        }
    }

    pub fn free_bytes(&self) -> u64 {
        let now = rustix::fs::statvfs(&self.at).expect("it is mounted");
        now.f_bavail * now.f_frsize
    }

    /// Takes the room that there is, but for `bytes`.
    pub fn leave(&self, bytes: u64) {
        let options = || std::fs::File::options().create(true).append(true).open(self.ballast());
        let mut ballast = options().expect("it can be written to");
        while let taken @ 1.. = self.free_bytes().saturating_sub(bytes) {
            let piece = vec![0; taken.min(1 << 20) as usize];
            if ballast.write_all(&piece).is_err() {
                // Somebody else was quicker: it is full.
                return;
            }
        }
    }

    /// Gives back what [`Self::leave`] took.
    pub fn make_room(&self) {
        std::fs::remove_file(self.ballast()).expect("there is ballast");
    }

    /// The kernel refuses while anybody has a file open for writing, a running host for one.
    pub fn make_read_only(&self) {
        mount(&["-o", "remount,ro"], &self.at).expect("it can be mounted anew");
    }

    pub fn make_writable(&self) {
        mount(&["-o", "remount,rw"], &self.at).expect("it can be mounted anew");
    }

    fn ballast(&self) -> PathBuf {
        self.at.join("ballast")
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        // Goes with the last file that is open on it.
        let _ = Command::new("umount").arg("-l").arg(&self.at).status();
    }
}

fn mount(arguments: &[&str], at: &Path) -> Result<(), String> {
    let output = Command::new("mount").args(arguments).arg(at).output().map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).lines().next().unwrap_or("?").to_owned()),
    }
}
