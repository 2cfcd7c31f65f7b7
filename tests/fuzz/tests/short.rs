//! A few seconds of each target, from a seed that stays: what is found in longer runs (`make fuzz`)
//! is mended, and stays mended.

use std::{path::Path, process::Command};

fn short(target: &str, iterations: u32) {
    let out = Path::new(env!("CARGO_TARGET_TMPDIR")).join("found");
    let mut fuzz = Command::new(env!("CARGO_BIN_EXE_fuzz"));
    fuzz.args([target, "--seed", "1", "--seconds", "600", "--iterations", &iterations.to_string(), "--out"])
        .arg(out);
    let output = fuzz.output().expect("it can be run");
    let said = [String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr)].concat();
    println!("{said}");
    assert!(output.status.success(), "{}:\n{said}", output.status);
}

#[test]
fn uploads() {
    short("upload", 150);
}

#[test]
fn the_api() {
    short("api", 3_000);
}

#[test]
fn manifests() {
    short("manifest", 20_000);
}

#[test]
fn grants() {
    short("grants", 20_000);
}
