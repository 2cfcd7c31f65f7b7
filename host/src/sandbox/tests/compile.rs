//! Compiling in a child process: what it makes is what is run, and what it takes is bounded.
//!
//! The child is this test binary: a script of two lines starts it at [`child`].

use std::{
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::PathBuf,
    time::{Duration, Instant},
};

use super::*;

const CHILD_ARGS: &str = "STEPBOX_TEST_COMPILE_MODULE";

/// Not a test by itself: the compiler's entry point, when it is started as that.
#[test]
fn child() {
    if let Ok(args) = std::env::var(CHILD_ARGS) {
        compile_main(args.split(' ').skip(1).map(OsString::from));
    }
}

fn executable(dir: &tempfile::TempDir, script: &str) -> PathBuf {
    let path = dir.path().join("compiler");
    fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o700)).unwrap();
    path
}

/// A sandbox whose compiler is `script`, started like the real one.
fn bed_with_compiler(script: &str, change: impl FnOnce(&mut CompileLimits)) -> TestBed {
    let dir = tempfile::tempdir().unwrap();
    let exe = executable(&dir, script);
    TestBed::within(dir, |config| {
        config.compiler = Compiler::Child { exe };
        change(&mut config.compile);
    })
}

fn bed(change: impl FnOnce(&mut CompileLimits)) -> TestBed {
    let this = std::env::current_exe().unwrap();
    let script = format!(
        r#"{CHILD_ARGS}="$*" exec {} --exact sandbox::tests::compile::child --nocapture --quiet"#,
        this.display()
    );
    bed_with_compiler(&script, change)
}

/// A hundred kB that take seconds and hundreds of MiB: at each of its loops all of its locals
/// may have changed.
pub(super) fn bomb(loops: usize) -> Vec<u8> {
    let locals = " i32".repeat(1_000);
    let loops: String = (1..loops)
        .map(|n| {
            format!(
                "(loop (local.set {0} (i32.add (local.get {0}) (i32.const 1))) (br_if 0 (local.get 0)))",
                n % 1_000
            )
        })
        .collect();
    WatGuest::default()
        .with(&format!("(func (export \"bomb\") (param i32) (local {locals}) {loops})"))
        .build()
}

async fn refused(bed: &TestBed, component: &[u8]) -> String {
    let refused = bed.sandbox.inspect(component).await.unwrap_err().to_string();
    // Whatever happened, nothing half-made is left behind.
    let left: Vec<_> = fs::read_dir(bed.dir.path().join("cache")).unwrap().collect();
    assert!(left.is_empty(), "{left:?}");
    refused
}

#[tokio::test]
async fn what_a_child_compiles_is_run_here() {
    let bed = bed(|_| {});
    let component = WatGuest::default().build();
    let inspected = bed.sandbox.inspect(&component).await.unwrap();
    assert!(inspected.compiled_in_ms > 0);
    let guest = bed.load(&component).await;
    assert_eq!(result(bed.run(&guest, nothing()).await), "null");
}

#[tokio::test]
async fn what_does_not_compile_in_a_child_says_why() {
    let bed = bed(|_| {});
    let component = WatGuest::default().build();
    let refused = refused(&bed, &component[..component.len() * 3 / 4]).await;
    assert!(refused.contains("failed to parse WebAssembly module"), "{refused}");
}

#[tokio::test]
async fn a_compilation_is_bounded_in_cpu_time() {
    let bed = bed(|limits| limits.cpu_max_s = 1);
    assert_eq!(
        refused(&bed, &bomb(10_000)).await,
        "the component takes too much to compile: more than 1 s of CPU time"
    );
}

#[tokio::test]
async fn a_compilation_is_bounded_in_time_by_the_clock() {
    let bed = bed(|limits| limits.wall_max_ms = 300);
    let component = bomb(10_000);
    let start = Instant::now();
    assert_eq!(
        refused(&bed, &component).await,
        "the component takes too much to compile: more than 300 ms by the clock"
    );
    assert!(start.elapsed() < Duration::from_secs(3), "took {:?}", start.elapsed());
}

#[tokio::test]
async fn a_compilation_is_bounded_in_memory() {
    let bed = bed(|limits| limits.memory_max_bytes = 200 << 20);
    assert_eq!(
        refused(&bed, &bomb(10_000)).await,
        "the component takes too much to compile: more than 200 MiB of memory"
    );
}

#[tokio::test]
async fn machine_code_is_bounded() {
    let bed = bed(|limits| limits.machine_code_max_bytes = 10_000);
    let refused = refused(&bed, &WatGuest::default().build()).await;
    assert!(refused.contains("MiB of machine code, with 0 allowed"), "{refused}");
}

#[tokio::test]
async fn a_compiler_that_dies_is_a_refusal_and_one_that_is_not_there_is_not() {
    let component = WatGuest::default().build();
    let dies = bed_with_compiler("echo out of luck >&2; kill -SEGV $$", |_| {});
    let died = refused(&dies, &component).await;
    assert!(
        died.starts_with("the component does not compile: the compiler gave up on it (signal: 11")
            && died.ends_with("out of luck"),
        "{died}"
    );

    let killed = bed_with_compiler("kill -KILL $$", |_| {});
    assert!(matches!(killed.sandbox.inspect(&component).await, Err(Rejected::CompileLimit { .. })));

    let missing = TestBed::with(|config| config.compiler = Compiler::Child { exe: "/nowhere".into() });
    assert!(matches!(missing.sandbox.inspect(&component).await, Err(Rejected::Unavailable { .. })));

    let does_nothing = bed_with_compiler("exit 0", |_| {});
    assert!(matches!(does_nothing.sandbox.inspect(&component).await, Err(Rejected::Unavailable { .. })));
}

/// Whatever has taken the compiler over cannot fill the memory of this process with its words.
#[tokio::test]
async fn a_compiler_that_talks_without_end_is_cut_off() {
    let talks = bed_with_compiler("exec yes >&2", |_| {});
    let said = refused(&talks, &WatGuest::default().build()).await;
    assert!(
        said.starts_with("the component does not compile: the compiler gave up on it (signal: 13"),
        "{said}"
    );
}

/// Components wait on the disk or with their sender, not in memory.
#[tokio::test]
async fn what_waits_for_the_compiler_is_not_fetched_before() {
    let dir = tempfile::tempdir().unwrap();
    let begun = dir.path().join("begun");
    let bed = bed_with_compiler(&format!("echo > {}; exec sleep 60", begun.display()), |_| {});
    let [first, second] = ["1", "2"].map(|n| WatGuest::default().manifest(n).build());
    let fetched = std::sync::atomic::AtomicBool::new(false);
    let fetch = async || {
        fetched.store(true, std::sync::atomic::Ordering::SeqCst);
        Ok(second.clone())
    };
    let digest = Digest::of(&second);
    let compiles = bed.sandbox.inspect(&first);
    let waits = async {
        while !begun.exists() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        tokio::time::timeout(Duration::from_millis(300), bed.sandbox.load(&digest, fetch)).await.is_err()
    };
    tokio::select! {
        _ = compiles => panic!("it never ends"),
        waited = waits => assert!(waited, "it waits for its turn"),
    }
    assert!(!fetched.load(std::sync::atomic::Ordering::SeqCst));
}

/// An upload whose client has gone is not compiled to the end.
#[tokio::test]
async fn a_compilation_that_nobody_waits_for_is_killed() {
    let dir = tempfile::tempdir().unwrap();
    let pid_file = dir.path().join("pid");
    let bed = bed_with_compiler(&format!("echo $$ > {}; exec sleep 60", pid_file.display()), |_| {});
    let component = WatGuest::default().build();
    let inspect = bed.sandbox.inspect(&component);
    assert!(tokio::time::timeout(Duration::from_millis(500), inspect).await.is_err());

    let pid = fs::read_to_string(&pid_file).unwrap();
    let process = PathBuf::from(format!("/proc/{}/exe", pid.trim()));
    let start = Instant::now();
    // Killed at once; a zombie until somebody reaps it, which has no program.
    while fs::read_link(&process).is_ok() {
        assert!(start.elapsed() < Duration::from_secs(5), "still running");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Compilations queue: each may use all cores and its whole share of memory.
#[tokio::test]
async fn only_so_many_are_compiled_at_once() {
    let dir = tempfile::tempdir().unwrap();
    let log = dir.path().join("log");
    let script = format!("echo start >> {0}; sleep 0.05; echo end >> {0}; exit 3", log.display());
    let bed = bed_with_compiler(&script, |limits| limits.at_once_max = 1);
    let components: Vec<_> =
        ["1", "2", "3"].iter().map(|n| WatGuest::default().manifest(n).build()).collect();
    let [a, b, c] = &components[..] else { unreachable!() };
    let sandbox = &bed.sandbox;
    let _ = tokio::join!(sandbox.inspect(a), sandbox.inspect(b), sandbox.inspect(c));
    assert_eq!(fs::read_to_string(&log).unwrap(), "start\nend\n".repeat(3));
}
