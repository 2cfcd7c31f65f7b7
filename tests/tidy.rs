//! The architecture, read from the sources: each rule says what to do instead.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Each of these words has one home. That is the architecture; see ARCHITECTURE.md.
const HOMES: [(&str, &[&str], &str); 5] = [
    ("wasmtime", &["host/src/sandbox/"], "ask the sandbox through `Guest` and `StepRunner`"),
    ("sqlx", &["host/src/store/"], "add a verb to `Store` or `Views`"),
    ("axum", &["host/src/api/"], "keep HTTP in the API"),
    (
        "SystemTime::now",
        &["host/src/engine/clock.rs"],
        "take `now` as an argument, or ask the engine's clock",
    ),
    ("Utc::now", &["host/src/engine/clock.rs"], "take `now` as an argument, or ask the engine's clock"),
];

const LINES_MAX: usize = 800;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").canonicalize().unwrap()
}

/// Every Rust source under `folders`: its path from the root, and its lines.
fn sources(folders: &[&str]) -> Vec<(String, Vec<String>)> {
    let mut found = Vec::new();
    let mut open: Vec<PathBuf> = folders.iter().map(|folder| root().join(folder)).collect();
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(&folder).unwrap_or_else(|e| panic!("{}: {e}", folder.display())) {
            let path = entry.unwrap().path();
            if path.is_dir() {
                if path.file_name().is_some_and(|name| name != "target") {
                    open.push(path);
                }
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(&path).unwrap();
                let name = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
                found.push((name, text.lines().map(str::to_owned).collect()));
            }
        }
    }
    assert!(!found.is_empty(), "no sources under {folders:?}");
    found.sort();
    found
}

const OURS: [&str; 5] = ["host/src", "host/domain", "guest-sdk", "examples", "tests"];

fn is_comment(line: &str) -> bool {
    line.trim_start().starts_with("//")
}

/// Files that only a test build has.
fn is_test(name: &str) -> bool {
    name.contains("/tests/")
        || name.contains("/testing")
        || name.ends_with("/tests.rs")
        || name.starts_with("tests/")
}

/// The lines that a release build has, with their numbers: not those of `#[cfg(test)]` modules,
/// which stand at the end of a file.
fn product(lines: &[String]) -> impl Iterator<Item = (usize, &String)> {
    let end = lines
        .windows(2)
        .position(|pair| pair[0].trim() == "#[cfg(test)]" && pair[1].trim_end().ends_with('{'))
        .unwrap_or(lines.len());
    lines[..end].iter().enumerate().map(|(n, line)| (n + 1, line)).filter(|(_, line)| !is_comment(line))
}

fn assert_none(broken: Vec<String>) {
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn each_word_has_one_home() {
    let mut broken = Vec::new();
    for (name, lines) in sources(&["host/src", "host/domain/src"]).iter().filter(|(name, _)| !is_test(name)) {
        for (n, line) in product(lines) {
            for (word, homes, instead) in HOMES {
                if line.contains(word) && !homes.iter().any(|home| name.starts_with(home)) {
                    broken.push(format!("{name}:{n}: `{word}` lives in {}: {instead}", homes.join(" and ")));
                }
            }
        }
    }
    assert_none(broken);
}

/// The domain cannot wait, read or write: its dependencies are the proof.
#[test]
fn the_domain_is_pure() {
    let mut broken = Vec::new();
    for (name, lines) in sources(&["host/domain/src"]).iter().filter(|(name, _)| !is_test(name)) {
        for (n, line) in product(lines) {
            for word in
                ["async ", ".await", "std::fs", "std::net", "std::thread", "std::env", "rand::", "tokio"]
            {
                if line.contains(word) {
                    broken.push(format!("{name}:{n}: `{word}` in the domain: decide here, do in the engine"));
                }
            }
        }
    }
    let manifest = fs::read_to_string(root().join("host/domain/Cargo.toml")).unwrap();
    for name in ["tokio", "sqlx", "wasmtime", "axum"] {
        if manifest.contains(name) {
            broken.push(format!("host/domain/Cargo.toml depends on {name}"));
        }
    }
    assert_none(broken);
}

#[test]
fn nothing_is_left_undone_or_switched_off() {
    // Put together, so that this file does not find itself.
    let words = ["todo", "unimplemented", "dbg"].map(|word| format!("{word}!("));
    let attribute = format!("#[{}", "ignore");
    let mut broken = Vec::new();
    for (name, lines) in sources(&OURS) {
        for (n, line) in lines.iter().enumerate() {
            for word in words.iter().chain([&attribute]) {
                if line.contains(word.as_str()) && !is_comment(line) {
                    broken.push(format!("{name}:{}: `{word}`", n + 1));
                }
            }
        }
    }
    assert_none(broken);
}

#[test]
fn a_failure_is_a_value_and_not_a_panic() {
    let mut broken = Vec::new();
    for (name, lines) in sources(&["host/src", "host/domain/src", "guest-sdk/src"]) {
        if is_test(&name) {
            continue;
        }
        for (n, line) in product(&lines) {
            if line.contains(".unwrap()") {
                broken.push(format!(
                    "{name}:{n}: `.unwrap()`: return the error, or `expect` with why it cannot be"
                ));
            }
        }
    }
    assert_none(broken);
}

#[test]
fn no_file_is_longer_than_a_reader_has_patience() {
    let long = sources(&OURS).into_iter().filter(|(_, lines)| lines.len() > LINES_MAX);
    assert_none(
        long.map(|(name, lines)| format!("{name} has {} lines; part it by idea", lines.len())).collect(),
    );
}

/// Every path in code marks that begins like one of ours is there, and so is the test that it names.
#[test]
fn the_map_shows_what_is_there() {
    let Ok(map) = fs::read_to_string(root().join("ARCHITECTURE.md")) else { return };
    let folders = ["host/", "guest-sdk/", "examples/", "tests/", "migrations/", "wit/", "docs/"];
    let mut broken = Vec::new();
    for (n, line) in map.lines().enumerate() {
        for piece in line.split('`').skip(1).step_by(2) {
            let (path, test) =
                piece.trim().split_once("::").map_or((piece.trim(), None), |(p, t)| (p, Some(t)));
            let is_path = folders.iter().any(|folder| path.starts_with(folder));
            if is_path && !path.contains(['*', '{', ' ', '…']) && !root().join(path).exists() {
                broken.push(format!("ARCHITECTURE.md:{}: there is no {path}", n + 1));
            } else if let Some(test) = test.filter(|_| path.starts_with("tests/") && path.ends_with(".rs")) {
                let source = fs::read_to_string(root().join(path)).unwrap_or_default();
                if !source.contains(&format!("fn {test}(")) {
                    broken.push(format!("ARCHITECTURE.md:{}: {path} has no test {test}", n + 1));
                }
            }
        }
    }
    assert_none(broken);
}
