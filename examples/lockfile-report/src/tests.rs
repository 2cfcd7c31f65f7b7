use serde_json::json;
use stepbox_guest::testing::{Finished, TestRun};

use super::*;

/// The one of this very workspace.
const OUR_OWN: &str = include_str!("../../../Cargo.lock");

const SMALL: &str = r#"
version = 4

[[package]]
name = "app"
version = "0.1.0"
dependencies = ["rand 0.8.5", "rand 0.9.0-rc.1"]

[[package]]
name = "rand"
version = "0.8.5"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "34af8d1a0e25924bc5b7c43c079c942339d8f0a8b57c39049bef581b46327404"

[[package]]
name = "rand"
version = "0.9.0-rc.1"
source = "registry+https://github.com/rust-lang/crates.io-index"
checksum = "3779b94aeb87e8bd4e834cee3650289ee9e0d5677f976ecdb6d219e5f4f6cd94"

[[package]]
name = "inner"
version = "0.0.3+build-7"
source = "registry+https://registry.example.com/index"

[[package]]
name = "patched"
version = "1.2.3"
source = "git+https://example.com/patched?rev=abc#abc"
"#;

fn report_on(lockfile: &str) -> TestRun<lockfile_report> {
    TestRun::of::<lockfile_report>().payload(json!({ "lockfile": lockfile }))
}

fn findings(run: &Finished<lockfile_report>, package: &str, version: &str) -> serde_json::Value {
    let findings = run.result().unwrap().findings.iter();
    findings
        .filter(|finding| finding.package == package && finding.version == version)
        .map(|finding| json!(finding.finding))
        .collect()
}

#[test]
fn each_package_is_audited_in_a_step_of_its_own() {
    let run = report_on(SMALL).run();

    assert_eq!(
        run.calls(),
        [
            "read_lockfile",
            "audit app 0.1.0",
            "audit rand 0.8.5",
            "audit rand 0.9.0-rc.1",
            "audit inner 0.0.3+build-7",
            "audit patched 1.2.3",
        ]
    );
    run.assert_replays();
}

#[test]
fn the_report_says_what_to_look_at() {
    let run = report_on(SMALL).run();

    let report = run.result().unwrap();
    assert_eq!(json!(report.sources), json!({ "cratesIo": 2, "otherRegistry": 1, "git": 1, "workspace": 1 }));
    assert_eq!(findings(&run, "app", "0.1.0"), json!([]));
    assert_eq!(
        findings(&run, "rand", "0.8.5"),
        json!([{ "kind": "otherVersions", "versions": ["0.9.0-rc.1"] }])
    );
    assert_eq!(
        findings(&run, "rand", "0.9.0-rc.1"),
        json!([{ "kind": "otherVersions", "versions": ["0.8.5"] }, { "kind": "preRelease" }])
    );
    assert_eq!(
        findings(&run, "inner", "0.0.3+build-7"),
        json!([{ "kind": "noChecksum" }, { "kind": "unstable" }])
    );
    assert_eq!(
        findings(&run, "patched", "1.2.3"),
        json!([{ "kind": "fromGit", "repository": "git+https://example.com/patched?rev=abc#abc" }])
    );
}

#[test]
fn a_real_lockfile_is_audited_whole() {
    let run = report_on(OUR_OWN).run();

    let report = run.result().unwrap();
    assert_eq!(report.packages as usize, OUR_OWN.matches("[[package]]").count());
    assert!(report.packages > 100);
    assert_eq!(report.sources.git, 0);
    run.assert_replays();
}

#[test]
fn no_audit_is_done_twice_however_often_the_host_dies() {
    let run = report_on(SMALL).crash_after_each_record().run();

    assert_eq!(run.result().unwrap().packages, 5);
    for step in run.steps() {
        assert_eq!(step.bodies_run, 1, "{}", step.key);
    }
}

#[test]
fn what_is_no_lockfile_is_told_at_once() {
    let run = report_on("[[package]").run();
    assert!(run.failure().message.starts_with("this is no Cargo.lock: "), "{}", run.failure());
    assert_eq!(run.step("read_lockfile").attempts, 1);

    let old = report_on("[[package]]\nname = \"app\"\nversion = \"0.1.0\"\n").run();
    assert!(old.failure().message.starts_with("this Cargo.lock has a format before 3"));
}
