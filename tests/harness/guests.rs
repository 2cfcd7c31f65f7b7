//! The components that the tests upload. Built once per run, on first use.

use std::{
    path::{Path, PathBuf},
    process::Command,
    sync::OnceLock,
};

use serde_json::Value;

/// A folder of its own, so that a `cargo test` that is still building is not waited for.
fn target_dir() -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join("guests")
}

const PROFILE: &str = "test-guest";
const EXAMPLES: [&str; 4] = ["order-fulfilment", "lockfile-report", "approval", "webhook"];

fn built() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let mut cargo = Command::new(env!("CARGO"));
        cargo.current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."));
        cargo.args([
            "build",
            "--quiet",
            "--target",
            "wasm32-wasip2",
            "--profile",
            PROFILE,
            "--lib",
            "--examples",
        ]);
        cargo.args(["--package", "test-guests"]);
        cargo.args(EXAMPLES.iter().flat_map(|example| ["--package", example]));
        cargo.arg("--target-dir").arg(target_dir());
        // What the outer cargo was told is not for these.
        for variable in ["RUSTFLAGS", "CARGO_ENCODED_RUSTFLAGS", "CARGO_BUILD_TARGET", "CARGO_TARGET_DIR"] {
            cargo.env_remove(variable);
        }
        let output = cargo.output().expect("cargo can be run");
        assert!(
            output.status.success(),
            "the guests cannot be built (rustup target add wasm32-wasip2?):\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
        target_dir().join("wasm32-wasip2").join(PROFILE)
    })
}

fn read(path: PathBuf) -> Vec<u8> {
    std::fs::read(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The guest that does what its payload says. See `tests/guests/examples/scenario.rs`.
pub fn scenario() -> Vec<u8> {
    read(built().join("examples/scenario.wasm"))
}

/// `scenario` as another version: its line `variant` answers with `mark` (three characters).
pub fn scenario_marked(mark: &str) -> Vec<u8> {
    marked(scenario(), mark)
}

/// The guest that wants to reach something, as the version with that mark. See
/// `tests/guests/examples/wanting.rs`.
pub fn wanting_marked(mark: &str) -> Vec<u8> {
    marked(read(built().join("examples/wanting.wasm")), mark)
}

/// The guest that sends requests. See `tests/guests/examples/egress.rs`.
pub fn egress() -> Vec<u8> {
    read(built().join("examples/egress.wasm"))
}

/// The guest below the SDK. See `tests/guests/examples/raw.rs`.
pub fn raw() -> Vec<u8> {
    read(built().join("examples/raw.wasm"))
}

/// The guest that looks at all of WASI. See `tests/guests/examples/observer.rs`.
pub fn observer() -> Vec<u8> {
    read(built().join("examples/observer.wasm"))
}

/// `raw`, with another manifest.
pub fn raw_with_manifest(manifest: &Value) -> Vec<u8> {
    raw_that_describes(&manifest.to_string())
}

/// `raw`, whose `describe` answers with `text`, to the letter; `!panic`, `!spin` and more make it
/// do something else.
pub fn raw_that_describes(text: &str) -> Vec<u8> {
    const BYTES: usize = 4096;
    assert!(text.len() <= BYTES, "a manifest for the raw guest has at most {BYTES} bytes");
    replace(raw(), br#"{"stepbox":"0.1.0"}  "#, format!("{text:BYTES$}").as_bytes())
}

/// One of the repository's examples, as its author would upload it.
pub fn example(package: &str) -> Vec<u8> {
    assert!(EXAMPLES.contains(&package), "{package} is not among the examples that are built");
    read(built().join(format!("{}.wasm", package.replace('-', "_"))))
}

fn marked(component: Vec<u8>, mark: &str) -> Vec<u8> {
    assert_eq!(mark.len(), 3);
    replace(component, b"variant-mark:", format!("variant-mark:{mark}").as_bytes())
}

/// Overwrites the one place that begins with `begins` with `text`.
fn replace(mut component: Vec<u8>, begins: &[u8], text: &[u8]) -> Vec<u8> {
    let places: Vec<usize> = component
        .windows(begins.len())
        .enumerate()
        .filter_map(|(at, window)| (window == begins).then_some(at))
        .collect();
    let [at] = places[..] else { panic!("{} places to overwrite instead of one", places.len()) };
    component[at..at + text.len()].copy_from_slice(text);
    component
}

/// A component in the text format.
pub fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).expect("the text is WebAssembly")
}
