//! Guests in WebAssembly text: those of the sandbox's own tests, and shapes that attack the compiler.

#[path = "../../host/src/sandbox/testing/wat_guest.rs"]
#[expect(dead_code, reason = "the sandbox's own tests use all of it")]
mod wat_guest;

pub(crate) use wat_guest::WatGuest;

/// The handler does it.
pub fn in_handler(body: &str) -> WatGuest {
    WatGuest::default().run(&format!("{body} unreachable"))
}

/// A step does it, and what the host says of that is what the run fails with.
pub fn in_step(body: &str) -> WatGuest {
    WatGuest::default().run(&format!("{CALL_STEP} call $answer")).run_step(&format!("{body} unreachable"))
}

/// One attempt, no timeout; the answer goes to 512.
pub const CALL_STEP: &str = r#"$"greedy" $"f" $"null"
    (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i64.const 0) (i32.const 0)
    (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 512) call $step"#;

/// A guest that is fine but for a function that nobody calls.
pub fn with_function(body: &str) -> Vec<u8> {
    WatGuest::default().with(&format!("(func (export \"bomb\") (param i32) {body})")).build()
}

/// A long chain of additions: some hundred kB that take seconds, and a GiB.
pub fn add_chain(additions: usize) -> Vec<u8> {
    let chain = "local.get 0 i32.add ".repeat(additions);
    with_function(&format!("i32.const 0 local.get 0 {chain} i32.store"))
}

/// At each of the loops all locals may have changed.
pub fn loops(count: usize, locals: usize) -> Vec<u8> {
    let declared = " i32".repeat(locals);
    let loops: String = (1..=count)
        .map(|n| {
            let local = n % locals;
            format!("(loop (local.set {local} (i32.add (local.get {local}) (i32.const 1))) (br_if 0 (local.get 0)))")
        })
        .collect();
    with_function(&format!("(local {declared}) {loops}"))
}

pub fn empty_functions(count: usize) -> Vec<u8> {
    WatGuest::default().with(&"(func)".repeat(count)).build()
}

/// Components in components, below what the text format has patience for.
pub fn nested(depth: usize) -> Vec<u8> {
    const HEADER: &[u8] = b"\0asm\x0d\0\x01\0";
    const COMPONENT_SECTION: u8 = 4;
    (0..depth)
        .fold(HEADER.to_vec(), |inner, _| [HEADER, &[COMPONENT_SECTION], &leb(inner.len()), &inner].concat())
}

fn leb(mut number: usize) -> Vec<u8> {
    let mut bytes = Vec::new();
    loop {
        let last = number < 0x80;
        bytes.push(number as u8 & 0x7f | if last { 0 } else { 0x80 });
        if last {
            return bytes;
        }
        number >>= 7;
    }
}
