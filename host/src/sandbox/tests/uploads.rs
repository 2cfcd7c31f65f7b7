//! What may be uploaded: every no says why.

use std::time::Duration;

use stepbox_domain::manifest::ManifestError;

use super::*;

async fn rejected(component: &[u8]) -> String {
    TestBed::new().sandbox.inspect(component).await.unwrap_err().to_string()
}

fn wat(text: &str) -> Vec<u8> {
    wat::parse_str(text).unwrap()
}

#[tokio::test]
async fn a_task_module_is_described_as_it_is() {
    let bed = TestBed::new();
    let component = WatGuest::default().build();
    let inspected = bed.sandbox.inspect(&component).await.unwrap();
    assert_eq!(inspected.digest, Digest::of(&component));
    assert_eq!(inspected.size_bytes, component.len());
    assert_eq!(inspected.manifest.steps[0].function, "echo");
    assert_eq!(inspected.manifest_text.as_str(), r#"{"stepbox":"0.1.0","steps":[{"function":"echo"}]}"#);
    let durable = inspected.imports.iter().find(|item| item.name == "stepbox:task/durable@0.1.0").unwrap();
    assert!(durable.functions.contains(&"wait-event".to_owned()));
    let exports: Vec<_> = inspected.exports.iter().map(|item| item.name.as_str()).collect();
    assert_eq!(exports, ["describe", "run", "run-step", "on-failure"]);

    // Ready to be loaded: nobody has to bring the component.
    let loaded = bed.sandbox.load(&inspected.digest, async || anyhow::bail!("not needed")).await;
    assert!(loaded.is_ok());
}

#[tokio::test]
async fn what_is_no_component_is_told_how_to_become_one() {
    let core = wat("(module)");
    let machine_code = wasmtime::Engine::default().precompile_module(&core).unwrap();
    let cases: [(&[u8], &str); 5] = [
        (b"", "it is empty"),
        (
            &core,
            "it is a core module; build it for the target wasm32-wasip2, or make a component of it with \
             `wasm-tools component new`",
        ),
        (b"\n (component)", "it is WebAssembly text; make a component of it with `wasm-tools parse`"),
        (&machine_code, "it is machine code of wasmtime's; upload the component that it was made of"),
        (b"#!/bin/sh", "it does not begin with the bytes of WebAssembly (00 61 73 6d)"),
    ];
    for (bytes, why) in cases {
        assert_eq!(rejected(bytes).await, format!("this is not a WebAssembly component: {why}"));
    }
}

#[tokio::test]
async fn a_damaged_component_does_not_compile() {
    let component = WatGuest::default().build();
    let cut = rejected(&component[..component.len() * 3 / 4]).await;
    assert!(cut.starts_with("the component does not compile: failed to parse"), "{cut}");

    // Bits that flip lead to a refusal, or do no harm; never to a panic.
    let bed = TestBed::new();
    for place in (8..component.len()).step_by(97) {
        let mut damaged = component.clone();
        damaged[place] ^= 0x15;
        let _ = bed.sandbox.inspect(&damaged).await;
    }
}

#[tokio::test]
async fn a_component_that_is_too_large_is_not_even_looked_at() {
    let bed = TestBed::with(|config| config.compile.upload_max_bytes = 100);
    let component = WatGuest::default().build();
    let error = bed.sandbox.inspect(&component).await.unwrap_err();
    assert_eq!(error, Rejected::TooLarge { bytes: component.len(), max_bytes: 100 });
}

#[tokio::test]
async fn a_component_that_asks_for_more_than_there_is_room_for_is_refused() {
    let many = "(memory $a 1) (memory $b 1) (memory $c 1) (memory $d 1) (memory $e 1)";
    let large_table = "(table 1000000 funcref)";
    for (guest, what) in [
        (WatGuest::default().memory("20000"), "memory"),
        (WatGuest::default().with(many), "memor"),
        (WatGuest::default().with(large_table), "table"),
    ] {
        let refused = rejected(&guest.build()).await;
        let start = "the component does not compile: it asks for more than an instance may have: ";
        assert!(refused.starts_with(start) && refused.contains(what), "{refused}");
    }
}

#[tokio::test]
async fn imports_that_are_not_offered_are_named_with_the_reason() {
    let offered = "this host offers `stepbox:task/durable` and, of WASI 0.2, `wasi:cli`, `wasi:clocks`, \
                   `wasi:filesystem`, `wasi:http`, `wasi:io`, `wasi:random`, `wasi:sockets`";
    let cases = [
        ("wasi:http/outgoing-handler@0.3.0", "this host offers WASI 0.2"),
        ("wasi:clocks/system-clock@0.3.0", "this host offers WASI 0.2"),
        ("acme:kv/store@1.0.0", offered),
        ("wasi:keyvalue/store@0.2.0", offered),
        ("stepbox:task/durable@0.2.0", "this host speaks version 0.1.0 of the guest contract"),
    ];
    for (name, why) in cases {
        let component = wat(&format!(r#"(component (import "{name}" (instance (export "f" (func)))))"#));
        assert_eq!(rejected(&component).await, format!("the component imports `{name}`: {why}"));
    }
    let component = wat(r#"(component (import "f" (func)))"#);
    assert_eq!(rejected(&component).await, format!("the component imports `f`: {offered}"));
}

#[tokio::test]
async fn a_later_patch_release_of_an_interface_is_taken() {
    let frame = WatGuest::default();
    assert!(TestBed::new().sandbox.inspect(&frame.build_with("@0.2.6", "@0.2.99")).await.is_ok());
    assert!(
        TestBed::new()
            .sandbox
            .inspect(&frame.build_with("task/durable@0.1.0", "task/durable@0.1.9"))
            .await
            .is_ok()
    );
}

#[tokio::test]
async fn functions_that_an_interface_does_not_have_are_named() {
    let component = WatGuest::default()
        .build_with(r#"(export "get-stdout" (func"#, r#"(export "fly" (func)) (export "get-stdout" (func"#);
    let error = rejected(&component).await;
    assert!(error.contains("`wasi:cli/stdout@0.2.6`") && error.contains("`fly`"), "{error}");
}

#[tokio::test]
async fn exports_that_are_missing_or_wrong_are_named() {
    assert_eq!(
        rejected(&wat("(component)")).await,
        "the component does not export `describe`; a task module exports `describe`, `run`, `run-step` and \
         `on-failure` (world `task` of wit/task.wit)"
    );
    let without = WatGuest::default().build_with(r#"(export "run-step")"#, r#"(export "run-stop")"#);
    assert!(rejected(&without).await.starts_with("the component does not export `run-step`;"));

    let wrong = WatGuest::default().build_with(
        r#"(func (export "describe") (result string)
    (canon lift (core func $main "describe") (memory $memory)))"#,
        r#"(func (export "describe") (result u32) (canon lift (core func $main "describe")))"#,
    );
    let error = rejected(&wrong).await;
    assert!(
        error.starts_with("the component does not fit the world `task` of wit/task.wit: ")
            && error.contains("`describe`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_module_must_describe_itself_within_bounds() {
    let cases = [
        (
            "(loop $l (br $l)) unreachable",
            "`describe` was stopped: it computed for more than 200 ms of CPU time",
        ),
        ("unreachable", "`describe` trapped: it reached `unreachable` (a panic, an abort)"),
        (
            r#"$"a" (i64.const 1) call $sleep unreachable"#,
            "`sleep` was called inside of `describe`, which may call nothing of the host",
        ),
        (
            "(i32.const 512) call $context unreachable",
            "`context` was called inside of `describe`, which may call nothing of the host",
        ),
        (
            "(drop (memory.grow (i32.const 300))) unreachable",
            "`describe` was stopped: it asked for 19922944 bytes of memory; an instance may have 16777216 bytes \
             (16 MiB) in all its memories (memoryMaxBytes)",
        ),
        (
            r#"call $stderr $"no such table" (i32.const 512) call $write (call $exit (i32.const 1)) unreachable"#,
            "`describe` called exit instead of returning; its last words: no such table",
        ),
    ];
    for (body, why) in cases {
        let error = TestBed::new().inspect(WatGuest::default().describe(body)).await.unwrap_err();
        assert_eq!(error.to_string(), format!("the component does not describe itself: {why}"));
    }
}

/// A module that no task by default could run is taken for one that has room for it.
#[tokio::test]
async fn describe_runs_within_the_limits_of_the_task() {
    let bed = TestBed::new();
    let wide = WatGuest::default().memory("300").build();
    let error = bed.sandbox.inspect(&wide).await.unwrap_err().to_string();
    assert!(error.contains("an instance may have 16777216 bytes"), "{error}");
    let room = Arc::new(limits(&[(Limit::MemoryMaxBytes, 32 << 20)]));
    bed.sandbox.inspect_within(&wide, &room).await.unwrap();
    let narrow = Arc::new(limits(&[(Limit::MemoryMaxBytes, 1 << 20)]));
    let error = bed.sandbox.inspect_within(&wide, &narrow).await.unwrap_err().to_string();
    assert!(error.contains("an instance may have 1048576 bytes (1 MiB)"), "{error}");
}

#[tokio::test]
async fn a_manifest_that_lies_is_refused_by_field() {
    let cases = [
        ("hello", "the manifest is not JSON: expected value at line 1 column 1"),
        (r#"{"stepbox":"0.2.0"}"#, "`/stepbox`: the module was made for version 0.2.0"),
        (r#"{"stepbox":"0.1.0","onFailure":true}"#, "`/onFailure`: compensation is not supported"),
    ];
    for (manifest, start) in cases {
        let error = TestBed::new().inspect(WatGuest::default().manifest(manifest)).await.unwrap_err();
        assert!(matches!(error, Rejected::BadManifest(_)));
        assert!(error.to_string().starts_with(start), "{error}");
    }
    let huge = WatGuest::default().memory("40").describe("(i32.const 200000) (i32.const 1100000) call $text");
    let error = TestBed::new().inspect(huge).await.unwrap_err();
    assert!(matches!(error, Rejected::BadManifest(ManifestError::TooLarge { .. })), "{error}");
}

/// A module describes itself in the same way whenever it is asked.
#[tokio::test]
async fn describing_is_deterministic() {
    let looks = r#"$"{\"stepbox\":\"0.1.0\",\"seen\":\"" call $put
        (call $now (i32.const 512)) (call $put_hex (i64.load (i32.const 512)))
        (call $put_hex (call $random)) (call $put_hex (call $mono))
        $"\"}" call $put call $out call $text"#;
    let mut seen = Vec::new();
    for _ in 0..2 {
        let inspected = TestBed::new().inspect(WatGuest::default().describe(looks)).await.unwrap();
        seen.push(inspected.manifest_text.to_string());
    }
    assert_eq!(seen[0], seen[1]);
}

/// Whatever is taken, an upload that is not accepted leaves nothing behind.
#[tokio::test]
async fn what_is_refused_leaves_no_machine_code() {
    let bed = TestBed::new();
    bed.inspect(WatGuest::default().manifest("{}")).await.unwrap_err();
    bed.sandbox.inspect(&wat("(component)")).await.unwrap_err();
    assert_eq!(std::fs::read_dir(bed.dir.path().join("cache")).unwrap().count(), 0);
}

/// Two components each within bounds, memories nested in instances: without multi-memory this
/// made the compiler panic.
#[tokio::test]
async fn components_within_components_do_not_upset_the_compiler() {
    let nested = wat(r#"(component
        (component $a
            (core module $m (memory (export "m") 1)
                (func (export "r") (param i32 i32 i32 i32) (result i32) i32.const 0)
                (func (export "f") (param i32 i32)))
            (core instance $i (instantiate $m))
            (func (export "f") (param "s" string)
                (canon lift (core func $i "f") (memory (core memory $i "m")) (realloc (core func $i "r")))))
        (component $b
            (import "f" (func $f (param "s" string)))
            (core module $mem (memory (export "m") 1))
            (core instance $mem (instantiate $mem))
            (core func $f' (canon lower (func $f) (memory (core memory $mem "m"))))
            (core module $m (import "" "f" (func (param i32 i32))) (func (export "g")))
            (core instance $i (instantiate $m (with "" (instance (export "f" (func $f'))))))
            (func (export "g") (canon lift (core func $i "g"))))
        (instance $ia (instantiate $a))
        (instance $ib (instantiate $b (with "f" (func $ia "f"))))
        (export "g" (func $ib "g")))"#);
    assert!(rejected(&nested).await.starts_with("the component does not export `describe`;"));
}

/// Inspecting does not hold up the threads that runs are on.
#[tokio::test(flavor = "current_thread")]
async fn compiling_is_off_the_async_threads() {
    let bed = TestBed::new();
    let component = compile::bomb(2_000);
    let mut ticks = 0;
    let ticking = async {
        loop {
            tokio::time::sleep(Duration::from_millis(1)).await;
            ticks += 1;
        }
    };
    let inspected = tokio::select! {
        inspected = bed.sandbox.inspect(&component) => inspected.unwrap(),
        never = ticking => never,
    };
    assert!(ticks >= 10, "{ticks} ticks in {} ms", inspected.compiled_in_ms);
}

#[test]
fn what_the_api_awaits_can_move_between_threads() {
    fn send<T: Send>(value: T) -> T {
        value
    }
    let bed = TestBed::new();
    drop(send(bed.sandbox.inspect(b"")));
    drop(send(bed.sandbox.load(&Digest::of(b""), async || anyhow::bail!("no"))));
}
