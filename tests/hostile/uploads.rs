//! Uploads that attack: by what they are made of, and by how they describe themselves.

use super::{
    attack::{
        Answered::{self, Refused},
        Attack, Deed,
    },
    component::{WatGuest, add_chain, empty_functions, loops, nested},
};
use crate::harness::guests::{raw_that_describes, wat};

fn upload(name: &str, component: Vec<u8>, answer: Answered) -> Attack {
    Attack::new(name, Deed::Upload(component), answer)
}

pub fn attacks() -> Vec<Attack> {
    let mut attacks = compiler_bombs();
    attacks.extend(shapes());
    attacks.extend(imports());
    attacks.extend(descriptions());
    attacks
}

/// Valid components that take minutes and gigabytes to compile.
fn compiler_bombs() -> Vec<Attack> {
    let limit = |what| Refused(422, "compile_limit", what);
    vec![
        upload(
            "a chain of two million additions",
            add_chain(2_000_000),
            limit(&["takes too much to compile"]),
        ),
        upload(
            "twenty thousand loops, a thousand locals",
            loops(20_000, 1_000),
            limit(&["takes too much to compile"]),
        ),
        upload(
            "three hundred thousand functions",
            empty_functions(300_000),
            limit(&["takes too much to compile"]),
        ),
        upload("four bombs at once", loops(20_000, 1_000), limit(&["takes too much to compile"])).at_once(4),
    ]
}

/// Components that are too many of something.
fn shapes() -> Vec<Attack> {
    let instances = |count: usize| {
        format!("(component (core module $m) {})", "(core instance (instantiate $m))".repeat(count))
    };
    let exports: String = (0..20_000).map(|n| format!("(export \"e{n}\" (func $describe))")).collect();
    let functions: String = (0..2_000).map(|n| format!("(func (export \"f{n}\"))")).collect();
    let types = "(type (record (field \"a\" (list (tuple u8 string)))))".repeat(20_000);
    let refused = |words| Refused(422, "does_not_compile", words);
    vec![
        upload(
            "two thousand exports of the module",
            WatGuest::default().with(&functions).build(),
            Answered::Taken(201),
        ),
        upload(
            "twenty thousand exports of the component",
            WatGuest::default().build_with(
                "(func (export \"on-failure\")",
                &format!("{} (func (export \"on-failure\")", exports_of(&exports)),
            ),
            Answered::Taken(201),
        ),
        upload("two thousand core instances", wat(&instances(2_000)), refused(&["instances"])),
        upload("nine hundred core instances", wat(&instances(900)), refused(&["instance"])),
        upload(
            "components nested a thousand deep",
            nested(1_000),
            Refused(422, "missing_export", &["describe"]),
        ),
        upload(
            "twenty thousand types",
            wat(&format!("(component {types})")),
            Refused(422, "missing_export", &["describe"]),
        ),
        upload(
            "a memory of 4 GiB from the start",
            WatGuest::default().memory("65536").build(),
            refused(&["memory"]),
        ),
        upload(
            "many memories",
            WatGuest::default().with(&"(memory 100)".repeat(50)).build(),
            refused(&["memor"]),
        ),
        upload(
            "a table of ten million",
            WatGuest::default().with("(table 10000000 funcref)").build(),
            refused(&["table"]),
        ),
        upload(
            "shared memory",
            WatGuest::default().with("(memory 1 1 shared)").build(),
            refused(&["shared"]),
        ),
        upload("64-bit memory", WatGuest::default().with("(memory i64 1)").build(), refused(&["memory64"])),
        upload("only three quarters of it", cut(WatGuest::default().build()), refused(&["parse"])),
    ]
}

fn exports_of(exports: &str) -> String {
    format!(
        "(func $describe (result string) (canon lift (core func $main \"describe\") (memory $memory))) {exports}"
    )
}

fn cut(mut component: Vec<u8>) -> Vec<u8> {
    component.truncate(component.len() * 3 / 4);
    component
}

/// What the host does not give is named.
fn imports() -> Vec<Attack> {
    [
        "acme:kernel/exec@1.0.0",
        "wasi:keyvalue/store@0.2.0",
        "wasi:cli/environment@0.3.0",
        "wasi:nn/graph@0.2.0",
    ]
    .into_iter()
    .map(|import| {
        let component = wat(&format!("(component (import \"{import}\" (instance (export \"f\" (func)))))"));
        upload(&format!("wants {import}"), component, Refused(422, "forbidden_import", &["imports `"]))
    })
    .collect()
}

/// `describe` is code of the upload's, and runs.
fn descriptions() -> Vec<Attack> {
    let describes = |name: &str, body: &str, words| {
        upload(name, WatGuest::default().describe(body).build(), Refused(422, "describe_failed", words))
    };
    let says = |name: &str, text: &str, words| {
        upload(name, raw_that_describes(text), Refused(422, "bad_manifest", words))
    };
    let deep = "(memory.fill (i32.const 131072) (i32.const 91) (i32.const 100000)) (i32.const 131072) (i32.const 100000) call $text";
    let huge = "(i32.const 200000) (i32.const 3000000) call $text";
    let enormous = "(i32.const 200000) (i32.const 60000000) call $text";
    vec![
        describes("describe loops", "(loop $l (br $l)) unreachable", &["CPU"]),
        describes("describe recurses", "call $describe", &["call stack"]),
        describes("describe traps", "unreachable", &["unreachable"]),
        describes(
            "describe takes all memory",
            "(loop $more (drop (memory.grow (i32.const 16))) (br $more)) unreachable",
            &["memory"],
        ),
        describes("describe exits", "(call $exit (i32.const 0)) unreachable", &["exit"]),
        describes(
            "describe waits for time to pass",
            "(i64.const 80000000) call $subscribe call $block unreachable",
            &["sleep"],
        ),
        describes(
            "describe calls a step",
            r#"$"a" (i64.const 1) call $sleep unreachable"#,
            &["may call nothing"],
        ),
        describes(
            "describe takes all handles",
            "(loop $more (drop (call $stdout)) (br $more)) unreachable",
            &["resources"],
        ),
        upload(
            "describe says 60 MB",
            WatGuest::default().memory("1000").describe(enormous).build(),
            Refused(422, "describe_failed", &["data"]),
        ),
        upload(
            "the start of the module loops",
            WatGuest::default().with("(func $spin (loop $l (br $l))) (start $spin)").build(),
            Refused(422, "describe_failed", &["CPU"]),
        ),
        upload(
            "describe says 3 MB",
            WatGuest::default().memory("60").describe(huge).build(),
            Refused(422, "bad_manifest", &["bytes"]),
        ),
        upload(
            "describe says a hundred thousand brackets",
            WatGuest::default().memory("10").describe(deep).build(),
            Refused(422, "bad_manifest", &["not JSON"]),
        ),
        says("describe speaks of another contract", r#"{"stepbox":"7.0.0"}"#, &["7.0.0"]),
        says(
            "describe lists a step twice",
            r#"{"stepbox":"0.1.0","steps":[{"function":"a"},{"function":"a"}]}"#,
            &["twice"],
        ),
        says("describe forges a line", "{\"stepbox\":\"\u{1b}[2J\\n\u{2028}INFO all is well\"}", &["not"]),
    ]
}
