//! Guests that attack once they run: in the handler, in a step, and all at once.

use super::{
    attack::{
        Answered::{self, Completed, Failed, StepFailed},
        Attack, Deed,
    },
    component::{CALL_STEP, WatGuest, in_handler, in_step},
};
use crate::harness::*;

pub fn attacks() -> Vec<Attack> {
    let mut attacks = Vec::new();
    attacks.extend(processor());
    attacks.extend(beginnings());
    attacks.extend(stack_and_memory());
    attacks.extend(values());
    attacks.extend(host_calls());
    attacks.extend(traps());
    attacks.extend(output());
    attacks.extend(reaching_out());
    attacks.extend(crowds());
    attacks
}

fn run(name: impl Into<String>, guest: &WatGuest, answer: Answered) -> Attack {
    Attack::new(name, Deed::Run { component: guest.build(), payload: Value::Null }, answer)
}

/// The same body in the handler and in a step, which end alike.
fn both(name: &str, body: &str, kind: &'static str, words: &'static [&'static str]) -> [Attack; 2] {
    both_with(name, |guest| guest, body, kind, words)
}

fn both_with(
    name: &str,
    more: impl Fn(WatGuest) -> WatGuest,
    body: &str,
    kind: &'static str,
    words: &'static [&'static str],
) -> [Attack; 2] {
    [
        run(format!("{name}, handler"), &more(in_handler(body)), Failed(kind, words)),
        run(format!("{name}, step"), &more(in_step(body)), StepFailed(kind, words)),
    ]
}

/// What the Rust guest does in the handler and in a step.
fn scenario(name: &str, act: &Value, kind: &'static str, words: &'static [&'static str]) -> [Attack; 2] {
    let in_step = step_with("greedy", json!({ "act": act }));
    [
        Attack::new(
            format!("{name}, handler"),
            Deed::Script(vec![json!({ "do": act })]),
            Failed(kind, words),
        ),
        Attack::new(format!("{name}, step"), Deed::Script(vec![in_step]), StepFailed(kind, words)),
    ]
}

fn processor() -> Vec<Attack> {
    let mut attacks = Vec::new();
    attacks.extend(both("endless loop", "(loop $l (br $l))", "over_limit", &["CPU"]));
    attacks.extend(both_with(
        "filling memory for ever",
        |guest| guest.memory("1000"),
        "(loop $l (memory.fill (i32.const 131072) (i32.const 7) (i32.const 64000000)) (br $l))",
        "over_limit",
        &["CPU"],
    ));
    attacks
}

/// The function that WebAssembly calls before any other, in each instance that is made. It can tell
/// which one it is in: the clock of `describe` stands at one moment for ever, that of a handler at
/// the start of its run, and that of a step has only begun to count. So an upload that is taken may
/// still have it do harm later.
fn beginnings() -> Vec<Attack> {
    const IN_DESCRIBE: &str = "(i64.const 1767225600000000000)";
    let begins = |only_in: &str, deed: &str, guest: WatGuest| {
        let condition = format!("({only_in} (call $mono) {IN_DESCRIBE})");
        guest.with(&format!("(func $begins (if {condition} (then {deed}))) (start $begins)"))
    };
    let in_handler = |deed: &str| begins("i64.ne", deed, WatGuest::default());
    let in_step = |deed: &str| begins("i64.lt_u", deed, in_step(""));
    let loops = "(loop $l (br $l))";
    let grows = "(loop $more (drop (memory.grow (i32.const 16))) (br $more))";
    vec![
        run("a start that loops, handler", &in_handler(loops), Failed("over_limit", &["handlerCpuMaxMs"])),
        run("a start that loops, step", &in_step(loops), StepFailed("over_limit", &["attemptCpuMaxMs"])),
        run("a start that traps, handler", &in_handler("unreachable"), Failed("trapped", &["unreachable"])),
        run("a start that traps, step", &in_step("unreachable"), StepFailed("trapped", &["unreachable"])),
        run("a start that takes memory, handler", &in_handler(grows), Failed("over_limit", &["memory"])),
        run("a start that takes memory, step", &in_step(grows), StepFailed("over_limit", &["memory"])),
    ]
}

fn stack_and_memory() -> Vec<Attack> {
    let deeper = "(func $deeper (call $deeper) (call $deeper))";
    let grow = "(loop $more (drop (memory.grow (i32.const 16))) (br $more))";
    let table = "(loop $more (drop (table.grow $t (ref.null func) (i32.const 1000))) (br $more))";
    let tables = "(table $t 10 funcref) (table $u 10 funcref)";
    [
        both_with("recursion", |guest| guest.with(deeper), "call $deeper", "trapped", &["call stack"]),
        scenario("recursion with frames in memory", &json!("recurse"), "trapped", &["recursion"]),
        both("all memory", grow, "over_limit", &["memory"]),
        scenario("all memory, from Rust", &json!({ "allocate": { "bytes": 8_u64 << 30 } }), "over_limit", &[]),
        both_with(
            "several memories",
            |guest| guest.with("(memory $second 1)"),
            "(loop $more (drop (memory.grow $second (i32.const 16))) (drop (memory.grow (i32.const 16))) (br $more))",
            "over_limit",
            &["in all its memories"],
        ),
        both_with("all tables", |guest| guest.with(tables), table, "over_limit", &["table elements"]),
        both("all handles", "(loop $more (drop (call $stdout)) (br $more))", "over_limit", &["host resources"]),
        both("random bytes without end", "(i64.const 100000000) (i32.const 512) call $random-bytes", "over_limit", &["requested len"]),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn values() -> Vec<Attack> {
    let long = |bytes: u64| json!({ "huge": { "bytes": bytes } });
    let deep = "(memory.fill (i32.const 131072) (i32.const 91) (i32.const 50000))
        (memory.fill (i32.const 181072) (i32.const 93) (i32.const 50000)) (i32.const 131072) (i32.const 100000)";
    let binary =
        "(memory.fill (i32.const 131072) (i32.const 255) (i32.const 100)) (i32.const 131072) (i32.const 100)";
    let far = "(i32.const -65536) (i32.const 1000000)";
    let guest = || WatGuest::default().memory("10");
    let ends = |name: &str, value: &str, kind, words| {
        [
            run(format!("{name}, handler"), &guest().run(&format!("{value} call $ok")), Failed(kind, words)),
            run(
                format!("{name}, step"),
                &guest()
                    .run(&format!("{CALL_STEP} call $answer"))
                    .run_step(&format!("{value} call $step_ok")),
                StepFailed(kind, words),
            ),
        ]
    };
    let mut attacks: Vec<Attack> = [
        scenario("a result of 2 MB", &long(2 << 20), "over_limit", &["bytes"]),
        scenario("a result of 32 MB", &long(32 << 20), "over_limit", &["data"]),
        ends("a result nested 50,000 deep", deep, "misuse", &["nested"]),
        ends("a result that is no text", binary, "misuse", &["UTF-8"]),
        ends("a result out of bounds", far, "trapped", &[]),
    ]
    .into_iter()
    .flatten()
    .collect();
    let capture = format!(r#"$"deep" {deep} (i32.const 512) call $capture call $answer"#);
    attacks.push(run(
        "a captured value nested 50,000 deep",
        &guest().run(&capture),
        Failed("error", &["nested"]),
    ));
    let keys = r#"(i32.const 131072) (i32.const 10000000) (i32.const 512) call $wait-all"#;
    attacks.push(run(
        "ten million names to wait for",
        &in_handler(keys).memory("1700"),
        Failed("over_limit", &["data"]),
    ));
    let raw = |name: &str, payload: Value, answer| Attack::new(name, Deed::Raw(payload), answer);
    let call = json!({ "call": "step", "name": "talks", "function": "long-message", "input": "null" });
    attacks.push(raw(
        "a failure of a million words",
        json!({ "calls": [call] }),
        Completed(|result| {
            result["heard"][0]["failure"]["message"].as_str().is_some_and(|m| m.len() < 100_000)
        }),
    ));
    attacks.push(raw("a result that is no JSON", json!({ "return": "{" }), Failed("misuse", &["JSON"])));
    attacks.push(raw(
        "a failure with details that are no JSON",
        json!({ "fail": "{" }),
        Failed("error", &["left out", "JSON"]),
    ));
    attacks
}

fn host_calls() -> Vec<Attack> {
    let name = "\u{1b}[31mred";
    let call =
        |name: &str| json!({ "calls": [{ "call": "step", "name": name, "function": "f", "input": "null" }] });
    let mut attacks = vec![
        // Each call is answered by the journal's next record.
        run(
            "steps without end",
            &WatGuest::default().run(&format!("(loop $more {CALL_STEP} (br $more)) unreachable")),
            Failed("over_limit", &["stepsMax"]),
        ),
        run(
            "sleeps without end",
            &WatGuest::default()
                .run(r#"(loop $more $"nap" (i64.const 0) call $sleep (br $more)) unreachable"#),
            Failed("over_limit", &["stepsMax"]),
        ),
        run(
            "scheduled steps without end",
            &WatGuest::default().run(&format!(
                "(loop $more {} (br $more)) unreachable",
                CALL_STEP.replace("call $step", "call $schedule")
            )),
            Failed("over_limit", &[]),
        ),
        Attack::new(
            "a step's name that forges",
            Deed::Raw(call(name)),
            Completed(|result| {
                result["heard"][0]["failure"]["message"].as_str().is_some_and(|m| m.contains("printable"))
            }),
        ),
        Attack::new(
            "a step's function that forges",
            Deed::Raw(
                json!({ "calls": [{ "call": "step", "name": "s", "function": name, "input": "null" }] }),
            ),
            Completed(|result| {
                result["heard"][0]["failure"]["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("\\u{1b}[31mred") && m.contains("printable"))
            }),
        ),
        Attack::new(
            "a step's name of a megabyte",
            Deed::Raw(call(&"x".repeat(900_000))),
            Completed(|result| {
                result["heard"][0]["failure"]["message"]
                    .as_str()
                    .is_some_and(|m| m.contains("200 characters"))
            }),
        ),
    ];
    attacks.extend(both(
        "calls of the clock without end",
        "(loop $more (drop (call $mono)) (br $more))",
        "over_limit",
        &[],
    ));
    attacks.extend(both(
        "calls for chance without end",
        "(loop $more (drop (call $random)) (br $more))",
        "over_limit",
        &[],
    ));
    attacks.extend(both(
        "calls of the log without end",
        r#"(loop $more (i32.const 2) $"t" $"line" call $log (br $more))"#,
        "over_limit",
        &[],
    ));
    let naps = "(i64.const 9000000000000000000) call $subscribe call $block";
    attacks.push(run(
        "sleeps for ever, step",
        &in_step(naps),
        StepFailed("over_limit", &["attemptWallMaxMs"]),
    ));
    attacks.push(run("sleeps for ever, handler", &in_handler(naps), Failed("misuse", &["sleep"])));
    attacks
}

fn traps() -> Vec<Attack> {
    [
        scenario(
            "panics",
            &json!({ "panic": { "message": "as asked" } }),
            "trapped",
            &["panicked", "as asked"],
        ),
        scenario("exits", &json!({ "exit": { "code": 0 } }), "trapped", &["exit"]),
        both("traps", "unreachable", "trapped", &["unreachable"]),
        both(
            "divides by zero",
            "(drop (i32.div_u (i32.const 1) (i32.const 0)))",
            "trapped",
            &["divide by zero"],
        ),
        both(
            "reaches out of its memory",
            "(drop (i32.load (i32.const -8)))",
            "trapped",
            &["out of the bounds"],
        ),
        both_with(
            "calls what is not there",
            |guest| guest.with("(table $t 10 funcref)"),
            "(call_indirect $t (i32.const 3))",
            "trapped",
            &["uninitialized"],
        ),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn output() -> Vec<Attack> {
    let flood = json!({ "flood": { "lines": 2_000 } });
    let forged = "all is well\u{1b}[2J\u{1b}]0;owned\u{7}\rok\u{2028}{\"level\":\"ERROR\"}\u{202e}gnp.exe\u{0}\u{9b}31m\n\n";
    let lines = vec![
        json!({ "print": { "text": forged } }),
        step_with("floods", json!({ "act": flood })),
        json!({ "do": flood }),
    ];
    vec![
        Attack::new("four thousand lines, some forged", Deed::Script(lines), Completed(|_| true)),
        Attack::new(
            "a panic that forges",
            Deed::Script(vec![json!({ "do": { "panic": { "message": forged } } })]),
            Failed("trapped", &["all is well"]),
        ),
        Attack::new(
            "a failure that forges, step",
            Deed::Script(vec![step_with(
                "forges",
                json!({ "act": { "fail": { "message": forged, "fatal": true } } }),
            )]),
            StepFailed("error", &["all is well\\u{1b}[2J", "\\u{202e}gnp.exe"]),
        ),
        Attack::new(
            "a failure that forges, handler",
            Deed::Script(vec![json!({ "fail": { "message": forged } })]),
            Failed("error", &["all is well\\u{1b}[2J", "\\u{202e}gnp.exe"]),
        ),
        // What the handler hears of a step is what the journal has, now and in every replay.
        Attack::new(
            "a failure that forges, heard by the handler",
            Deed::Script(vec![settle(
                "forges",
                json!({ "act": { "fail": { "message": forged, "fatal": true } } }),
            )]),
            Completed(|results| {
                let message = results[0]["failure"]["message"].as_str().unwrap_or_default();
                message.contains("all is well\\u{1b}[2J") && !message.contains('\u{1b}')
            }),
        ),
    ]
}

/// What is not given is not there, in the handler and in a step alike. Below the language: see
/// `engine::wasi`.
fn reaching_out() -> Vec<Attack> {
    let acts = [
        json!("environment"),
        json!({ "readFile": { "path": "/etc/passwd" } }),
        json!({ "readFile": { "path": "/proc/self/environ" } }),
        json!({ "connect": { "address": "127.0.0.1:22" } }),
        json!({ "connect": { "address": "169.254.169.254:80" } }),
        json!({ "connect": { "address": "localhost:80" } }),
    ];
    let lines: Vec<Value> = (acts.iter().map(|act| json!({ "do": act })))
        .chain(acts.iter().map(|act| step_with("step", json!({ "act": act }))))
        .collect();
    vec![Attack::new(
        "files, environment, sockets, names",
        Deed::Script(lines),
        Completed(|result| {
            let seen = result.as_array().map_or(&[][..], Vec::as_slice);
            let empty = |seen: &Value| *seen == json!({ "variables": [], "arguments": [] });
            seen.chunks(6).count() == 2
                && seen
                    .chunks(6)
                    .all(|seen| empty(&seen[0]) && seen[1..].iter().all(|seen| seen["error"].is_string()))
        }),
    )]
}

/// Many of them.
fn crowds() -> Vec<Attack> {
    let crowd = if std::env::var_os("STEPBOX_HOSTILE_LONG").is_some() { 100 } else { 12 };
    let endless = in_handler("(loop $l (br $l))");
    let greedy = in_step("(loop $more (drop (memory.grow (i32.const 16))) (br $more))");
    vec![
        // A hundred times half a second is long enough.
        run("a crowd of endless loops, handler", &endless, Failed("over_limit", &["CPU"]))
            .with_limits(json!({ "handlerCpuMaxMs": 500 }))
            .at_once(crowd),
        run("a crowd of endless loops, step", &in_step("(loop $l (br $l))"), StepFailed("over_limit", &[]))
            .with_limits(json!({ "attemptCpuMaxMs": 500 }))
            .at_once(crowd),
        run(
            "a crowd of whom two may go on at a time",
            &in_step("(loop $l (br $l))"),
            StepFailed("over_limit", &["more than 100 ms"]),
        )
        .with_limits(json!({ "liveMax": 2, "attemptCpuMaxMs": 100 }))
        .at_once(crowd),
        run("a crowd that takes all memory", &greedy, StepFailed("over_limit", &["memory"])).at_once(crowd),
        Attack::new(
            "a crowd that panics",
            Deed::Script(vec![step_with("greedy", json!({ "act": { "panic": { "message": "as asked" } } }))]),
            StepFailed("trapped", &["as asked"]),
        )
        .at_once(crowd),
    ]
}
