//! Who may read what the host writes.

use std::os::unix::fs::PermissionsExt as _;

use crate::harness::*;

/// Payloads, results and what tasks print lie there in plain text.
#[tokio::test]
async fn what_is_written_can_be_read_by_its_own_user_alone() {
    let server = Server::empty().await;
    server.upload("scenario", guests::scenario()).await.expect(201);
    server.run_script("e", &script([step("one")])).await;
    server.result("e").await;
    let mut folders = vec![server.data()];
    let mut files = 0;
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).unwrap().map(Result::unwrap) {
            // The log is cut and the files of machine code are renamed under way.
            let Ok(metadata) = entry.metadata() else { continue };
            assert_eq!(metadata.permissions().mode() & 0o077, 0, "{}", entry.path().display());
            files += 1;
            if metadata.is_dir() {
                folders.push(entry.path());
            }
        }
    }
    assert!(files >= 4, "{files} files");
}
