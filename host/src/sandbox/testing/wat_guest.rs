//! Guests in WebAssembly text: a core module with the few lines that a test is about, put into
//! the component of `frame.wat`.

/// A module in the making. Bodies are WebAssembly text in which `$"text"` stands for a pointer
/// and a length, and `call $step`, `call $now`, … reach the host (see [`IMPORTS`]).
#[derive(Clone)]
pub(crate) struct WatGuest {
    memory: &'static str,
    describe: String,
    run: String,
    run_step: String,
    more: String,
}

impl Default for WatGuest {
    /// Echoes: the handler its payload, a step its input.
    fn default() -> Self {
        WatGuest {
            memory: "4",
            describe: r#"$"{\"stepbox\":\"0.1.0\",\"steps\":[{\"function\":\"echo\"}]}" call $text"#
                .to_owned(),
            run: "local.get $ptr local.get $len call $ok".to_owned(),
            run_step: "local.get $ptr local.get $len call $step_ok".to_owned(),
            more: String::new(),
        }
    }
}

impl WatGuest {
    /// The handler: leaves what `$ok` gave. Locals: `$ptr $len` (the payload), `$i`, `$n` (i64).
    pub(crate) fn run(mut self, body: &str) -> Self {
        self.run = body.to_owned();
        self
    }

    /// A step: leaves what `$step_ok` gave. Locals: `$fptr $flen $ptr $len $attempt`, `$i`.
    pub(crate) fn run_step(mut self, body: &str) -> Self {
        self.run_step = body.to_owned();
        self
    }

    /// Leaves what `$text` gave.
    pub(crate) fn describe(mut self, body: &str) -> Self {
        self.describe = body.to_owned();
        self
    }

    /// `describe` returns this text.
    pub(crate) fn manifest(self, text: &str) -> Self {
        self.describe(&format!("$\"{}\" call $text", text.replace('"', "\\\"")))
    }

    /// Functions, globals, a `(start …)`.
    pub(crate) fn with(mut self, more: &str) -> Self {
        self.more.push_str(more);
        self
    }

    /// Limits of the memory, in pages.
    pub(crate) fn memory(mut self, pages: &'static str) -> Self {
        self.memory = pages;
        self
    }

    pub(crate) fn build(&self) -> Vec<u8> {
        self.build_with("", "")
    }

    /// With `from` replaced by `to` wherever it stands in the component around.
    pub(crate) fn build_with(&self, from: &str, to: &str) -> Vec<u8> {
        let mut frame = include_str!("frame.wat").to_owned();
        if !from.is_empty() {
            assert!(frame.contains(from), "the frame does not have {from}");
            frame = frame.replace(from, to);
        }
        let component = frame.replace("{memory}", self.memory).replace("{main}", &self.core());
        wat::parse_str(component).unwrap_or_else(|error| panic!("{error}"))
    }

    fn core(&self) -> String {
        let WatGuest { describe, run, run_step, more, .. } = self;
        let bodies = format!(
            r#"
            (func $describe (export "describe") (result i32) {describe})
            (func $run (export "run") (param $ptr i32) (param $len i32) (result i32)
                (local $i i32) (local $n i64)
                {run})
            (func $run-step (export "run-step") (param $fptr i32) (param $flen i32) (param $ptr i32)
                (param $len i32) (param $attempt i32) (result i32) (local $i i32)
                {run_step})
            {more}"#
        );
        let (bodies, data) = place_texts(&bodies);
        let imports = IMPORTS.join("\n");
        format!("{imports} (import \"env\" \"memory\" (memory 0)) {PRELUDE} {bodies} {data}")
    }
}

/// Puts every `$"text"` into a data segment and its place into the code.
fn place_texts(text: &str) -> (String, String) {
    const TEXTS_AT: usize = 2048;
    let (mut code, mut data) = (String::new(), String::new());
    let mut rest = text;
    let mut at = TEXTS_AT;
    while let Some(start) = rest.find("$\"") {
        code.push_str(&rest[..start]);
        rest = &rest[start + 2..];
        let mut end = 0;
        while !rest[end..].starts_with('"') {
            end += if rest[end..].starts_with('\\') { 2 } else { 1 };
        }
        let literal = rest[..end].replace("\\\"", "\"").replace("\\n", "\n");
        let bytes: String = literal.bytes().map(|byte| format!("\\{byte:02x}")).collect();
        code.push_str(&format!("(i32.const {at}) (i32.const {})", literal.len()));
        data.push_str(&format!("(data (i32.const {at}) \"{bytes}\")\n"));
        at += literal.len();
        rest = &rest[end + 1..];
    }
    code.push_str(rest);
    (code, data)
}

/// Memory: results at 1024, texts from 2048 on, `$out` at 65536, what the host gives from 131072 on.
const PRELUDE: &str = r#"
    (global $out_len (mut i32) (i32.const 0))
    (func (export "on-failure")
        (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32) (result i32) unreachable)

    ;; The result of `describe`.
    (func $text (param $ptr i32) (param $len i32) (result i32)
        (i32.store (i32.const 1024) (local.get $ptr))
        (i32.store (i32.const 1028) (local.get $len))
        (i32.const 1024))
    ;; Results of `run`: a JSON text, or a failure of kind `error`.
    (func $ok (param $ptr i32) (param $len i32) (result i32)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store (i32.const 1028) (local.get $ptr))
        (i32.store (i32.const 1032) (local.get $len))
        (i32.const 1024))
    (func $err (param $ptr i32) (param $len i32) (result i32)
        (i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store8 (i32.const 1028) (i32.const 0))
        (i32.store (i32.const 1032) (local.get $ptr))
        (i32.store (i32.const 1036) (local.get $len))
        (i32.store8 (i32.const 1040) (i32.const 0))
        (i32.store8 (i32.const 1052) (i32.const 0))
        (i32.store8 (i32.const 1064) (i32.const 0))
        (i32.const 1024))
    ;; Results of `run-step`: a JSON text, or an error that comes back after 1234 ms.
    (func $step_ok (param $ptr i32) (param $len i32) (result i32)
        (i32.store8 (i32.const 1024) (i32.const 0))
        (i32.store (i32.const 1032) (local.get $ptr))
        (i32.store (i32.const 1036) (local.get $len))
        (i32.const 1024))
    (func $step_err (param $retryable i32) (param $ptr i32) (param $len i32) (result i32)
        (i32.store8 (i32.const 1024) (i32.const 1))
        (i32.store (i32.const 1032) (local.get $ptr))
        (i32.store (i32.const 1036) (local.get $len))
        (i32.store8 (i32.const 1040) (i32.const 0))
        (i32.store8 (i32.const 1052) (local.get $retryable))
        (i32.store8 (i32.const 1056) (i32.const 1))
        (i64.store (i32.const 1064) (i64.const 1234))
        (i32.const 1024))
    ;; What the host answered at 512, in the shape of `run`'s result, given on as that.
    (func $answer (result i32)
        (memory.copy (i32.const 1024) (i32.const 512) (i32.const 48))
        (i32.const 1024))

    ;; Builds a text: `$put` appends one, `$put_hex` a number, `$out` is where it is.
    (func $put (param $ptr i32) (param $len i32)
        (memory.copy (i32.add (i32.const 65536) (global.get $out_len)) (local.get $ptr) (local.get $len))
        (global.set $out_len (i32.add (global.get $out_len) (local.get $len))))
    (func $put_byte (param $byte i32)
        (i32.store8 (i32.add (i32.const 65536) (global.get $out_len)) (local.get $byte))
        (global.set $out_len (i32.add (global.get $out_len) (i32.const 1))))
    (func $put_hex (param $n i64) (local $shift i64) (local $digit i32)
        (local.set $shift (i64.const 64))
        (loop $next
            (local.set $shift (i64.sub (local.get $shift) (i64.const 4)))
            (local.set $digit
                (i32.wrap_i64 (i64.and (i64.shr_u (local.get $n) (local.get $shift)) (i64.const 15))))
            (call $put_byte (i32.add (local.get $digit)
                (select (i32.const 48) (i32.const 87) (i32.lt_u (local.get $digit) (i32.const 10)))))
            (br_if $next (i64.ne (local.get $shift) (i64.const 0)))))
    (func $out (result i32 i32) (i32.const 65536) (global.get $out_len))
"#;

/// What a body can call. Answers of the durable calls go to the last parameter, 512 by custom.
const IMPORTS: &[&str] = &[
    // name, function, input, options (retry, timeout, scope), where the answer goes
    r#"(import "host" "step" (func $step (param i32 i32 i32 i32 i32 i32)
        (param i32 i32 i64 i32 i64 i32) (param i32 i64) (param i32) (param i32)))"#,
    r#"(import "host" "schedule" (func $schedule (param i32 i32 i32 i32 i32 i32)
        (param i32 i32 i64 i32 i64 i32) (param i32 i64) (param i32) (param i32)))"#,
    r#"(import "host" "wait-all" (func $wait-all (param i32 i32) (param i32)))"#,
    r#"(import "host" "wait-any" (func $wait-any (param i32 i32) (param i32)))"#,
    r#"(import "host" "sleep" (func $sleep (param i32 i32 i64)))"#,
    r#"(import "host" "sleep-until" (func $sleep-until (param i32 i32 i64)))"#,
    r#"(import "host" "wait-event" (func $wait-event (param i32 i32) (param i32 i64) (param i32)))"#,
    r#"(import "host" "capture" (func $capture (param i32 i32 i32 i32) (param i32)))"#,
    r#"(import "host" "start-execution"
        (func $start-execution (param i32 i32 i32 i32 i32 i32 i32 i32 i32) (param i32)))"#,
    r#"(import "host" "wait-execution" (func $wait-execution (param i32 i32) (param i32 i64) (param i32)))"#,
    r#"(import "host" "context" (func $context (param i32)))"#,
    r#"(import "host" "log" (func $log (param i32 i32 i32 i32 i32)))"#,
    r#"(import "host" "block" (func $block (param i32)))"#,
    r#"(import "host" "write" (func $write (param i32 i32 i32 i32)))"#,
    r#"(import "host" "now" (func $now (param i32)))"#,
    r#"(import "host" "mono" (func $mono (result i64)))"#,
    r#"(import "host" "subscribe" (func $subscribe (param i64) (result i32)))"#,
    r#"(import "host" "subscribe-instant" (func $subscribe-instant (param i64) (result i32)))"#,
    r#"(import "host" "random" (func $random (result i64)))"#,
    r#"(import "host" "random-bytes" (func $random-bytes (param i64 i32)))"#,
    r#"(import "host" "insecure" (func $insecure (result i64)))"#,
    r#"(import "host" "seed" (func $seed (param i32)))"#,
    r#"(import "host" "exit" (func $exit (param i32)))"#,
    r#"(import "host" "env-vars" (func $env-vars (param i32)))"#,
    r#"(import "host" "stdout" (func $stdout (result i32)))"#,
    r#"(import "host" "stderr" (func $stderr (result i32)))"#,
];
