//! Machine code, kept in files by digest.
//!
//! A file's name says which component it was made of and by which compiler with which settings,
//! so another version of this program never sees it. What lies in it is run as it is: a hash
//! beside it, checked before every use, tells a damaged file, and the folder is for this host
//! alone.

use std::{
    fs::{self, File},
    hash::{Hash, Hasher},
    io::{self, Read as _},
    os::unix::fs::{DirBuilderExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::atomic::{AtomicU64, Ordering::Relaxed},
};

use sha2::{Digest as _, Sha256};
use stepbox_domain::Digest;
use wasmtime::{Engine, component::Component};

use super::compile::write_private;
use crate::fault::{self, Fault};

pub(super) struct Cache {
    dir: PathBuf,
    /// What machine code depends on beside the component.
    key: String,
    next_scratch: AtomicU64,
}

/// Why there is no compiled module.
pub(super) enum NotLoaded {
    Absent,
    /// As it was written, but it does not go with this engine, and why.
    Unfit(String),
}

const SCRATCH: &str = "scratch-";

impl Cache {
    /// Opens the folder, makes it if need be, and clears out what is of no use any more.
    pub(super) fn open(dir: &Path, engine: &Engine) -> io::Result<Self> {
        fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
        fs::set_permissions(dir, fs::Permissions::from_mode(0o700))?;
        let cache = Cache { dir: dir.to_owned(), key: key(engine), next_scratch: AtomicU64::new(0) };
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some(name) = name.to_str() else { continue };
            let ours = name.contains(&format!("-{}.cwasm", cache.key));
            if name.starts_with(SCRATCH) || (name.contains(".cwasm") && !ours) {
                fs::remove_file(entry.path())?;
            }
        }
        Ok(cache)
    }

    /// A file of one's own, gone with what is returned.
    pub(super) fn scratch(&self) -> Scratch {
        let number = self.next_scratch.fetch_add(1, Relaxed);
        Scratch(self.dir.join(format!("{SCRATCH}{}-{number}", std::process::id())))
    }

    /// Takes in the machine code in `made`.
    pub(super) fn keep(&self, digest: &Digest, made: &Scratch) -> io::Result<()> {
        let hash = self.scratch();
        write_private(&hash.0, hash_of(&made.0)?.as_bytes())?;
        fs::rename(&hash.0, self.hash_path(digest))?;
        fault::point(Fault::KeepingCode);
        fs::rename(&made.0, self.code_path(digest))?;
        // Makes the names durable; the contents are.
        File::open(&self.dir)?.sync_all()
    }

    pub(super) fn forget(&self, digest: &Digest) {
        for path in [self.code_path(digest), self.hash_path(digest)] {
            if let Err(error) = fs::remove_file(&path)
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(path = %path.display(), %error, "machine code could not be removed");
            }
        }
    }

    /// The compiled module, if its machine code is there and as it was written.
    pub(super) fn load(&self, engine: &Engine, digest: &Digest) -> Result<Component, NotLoaded> {
        let path = self.code_path(digest);
        let Ok(expected) = fs::read_to_string(self.hash_path(digest)) else { return Err(NotLoaded::Absent) };
        match hash_of(&path) {
            Ok(hash) if hash == expected => {
                map_machine_code(engine, &path).map_err(|error| NotLoaded::Unfit(format!("{error:#}")))
            }
            Ok(_) => {
                tracing::warn!(path = %path.display(), "machine code is damaged and will be made anew");
                Err(NotLoaded::Absent)
            }
            Err(_) => Err(NotLoaded::Absent),
        }
    }

    fn code_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}-{}.cwasm", self.key))
    }

    fn hash_path(&self, digest: &Digest) -> PathBuf {
        self.dir.join(format!("{digest}-{}.cwasm.sha256", self.key))
    }
}

/// The only place where this host runs what it has not compiled in.
#[expect(unsafe_code, reason = "machine code cannot be checked; see the safety comment")]
fn map_machine_code(engine: &Engine, path: &Path) -> wasmtime::Result<Component> {
    // SAFETY: the file was written by this program's own compiler, with this key in its name (so
    // the same wasmtime and the same settings), into a folder that only this host's user can
    // write, and the hash that was written with it has just been found to match. It is replaced
    // by renaming only, never written in place, so what is mapped does not change. (Who truncates
    // it by hand under a running host brings that down; nobody else can.)
    unsafe { Component::deserialize_file(engine, path) }
}

/// wasmtime itself accepts machine code of another patch release; this hash has the full version
/// in it, and every setting.
fn key(engine: &Engine) -> String {
    let mut hasher = Sha256Hasher(Sha256::new());
    engine.precompile_compatibility_hash().hash(&mut hasher);
    hex::encode(&hasher.0.finalize()[..8])
}

/// The standard library's own hasher may change with the compiler; this one does not.
struct Sha256Hasher(Sha256);

impl Hasher for Sha256Hasher {
    fn write(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    fn finish(&self) -> u64 {
        self.0.clone().finalize()[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }
}

fn hash_of(path: &Path) -> io::Result<String> {
    let mut file = File::open(path)?;
    let (mut hasher, mut buffer) = (Sha256::new(), vec![0; 256 << 10]);
    loop {
        match file.read(&mut buffer)? {
            0 => return Ok(hex::encode(hasher.finalize())),
            read => hasher.update(&buffer[..read]),
        }
    }
}

/// A file that is removed when this is dropped, unless it was taken in.
pub(super) struct Scratch(PathBuf);

impl Scratch {
    pub(super) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        // Gone already where it was taken in; what is left over goes at the next start.
        let _ = fs::remove_file(&self.0);
    }
}
