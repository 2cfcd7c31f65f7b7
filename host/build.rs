//! Builds again when what is compiled in from outside this package changes.

fn main() {
    println!("cargo::rerun-if-changed=../wit");
    println!("cargo::rerun-if-changed=../migrations");
}
