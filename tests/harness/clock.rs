//! A wall clock for one process, set from outside (see `clock.c`).

use std::{
    fs::File,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::Command,
    sync::{Arc, OnceLock},
};

use tempfile::NamedTempFile;

/// How far the clock of a server is ahead of the real one. It stays as it was set over restarts.
#[derive(Clone)]
pub struct OwnClock(Arc<NamedTempFile>);

impl OwnClock {
    pub fn new() -> OwnClock {
        let clock = OwnClock(Arc::new(NamedTempFile::new().expect("a file can be made")));
        clock.set_ahead_ms(0);
        clock
    }

    /// Back, if it is less than before.
    pub fn set_ahead_ms(&self, ms: i64) {
        let ns = ms * 1_000_000;
        self.0.as_file().write_all_at(&ns.to_ne_bytes(), 0).expect("it can be set");
    }

    pub fn environment(&self) -> [(&'static str, PathBuf); 2] {
        [("LD_PRELOAD", library().to_owned()), ("STEPBOX_TEST_CLOCK", self.0.path().to_owned())]
    }
}

/// `clock.c`, compiled. The C compiler is the one that built SQLite.
fn library() -> &'static Path {
    static LIBRARY: OnceLock<PathBuf> = OnceLock::new();
    LIBRARY.get_or_init(|| {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/harness/clock.c");
        let library = folder.join(format!("clock-{}.so", std::process::id()));
        let built = Command::new("cc")
            .args(["-shared", "-fPIC", "-O1", "-Wall", "-Werror", "-o"])
            .args([&library, &source])
            .output()
            .expect("there is a C compiler");
        assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        assert!(File::open(&library).is_ok());
        library
    })
}
