//! The folders that servers are given for their data.

use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tokio::sync::OnceCell;

use super::Server;
use crate::harness::guests;

/// Data of a server that has the guests already: compiling them anew for each test would take
/// most of the time.
pub(super) async fn template() -> &'static Path {
    static TEMPLATE: OnceCell<PathBuf> = OnceCell::const_new();
    TEMPLATE
        .get_or_init(|| async {
            let mut server = Server::empty().await;
            server.upload("scenario", guests::scenario()).await.expect(201);
            server.upload("raw", guests::raw()).await.expect(201);
            let status = server.terminate().await;
            assert!(status.success(), "{status}");
            // What is static is never dropped: each run has a folder of its own and clears away
            // those of runs that are gone.
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("template-data");
            std::fs::create_dir_all(&folder).unwrap();
            for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
                if !Path::new("/proc").join(entry.file_name()).exists() {
                    drop(std::fs::remove_dir_all(entry.path()));
                }
            }
            let kept = folder.join(std::process::id().to_string());
            copy(&server.data(), &kept);
            kept
        })
        .await
}

pub(super) fn new_folder() -> TempDir {
    tempfile::Builder::new().prefix("stepbox-test-").tempdir().expect("a folder can be made")
}

pub(super) fn data_in(folder: &TempDir) -> PathBuf {
    folder.path().join("data")
}

/// What the files in `folder` take, in whole pages.
pub(super) fn size_bytes(folder: &Path) -> u64 {
    let entries = std::fs::read_dir(folder).expect("it can be read").map(Result::unwrap);
    entries
        .map(|entry| match entry.file_type().unwrap().is_dir() {
            true => size_bytes(&entry.path()),
            false => entry.metadata().unwrap().len().next_multiple_of(4096),
        })
        .sum()
}

pub(super) fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    // The folder of machine code has to be the owner's alone.
    std::fs::set_permissions(to, std::fs::metadata(from).unwrap().permissions()).unwrap();
    for entry in std::fs::read_dir(from).expect("it can be read").map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            copy(&entry.path(), &to);
        } else {
            std::fs::copy(entry.path(), &to).unwrap();
        }
    }
}
