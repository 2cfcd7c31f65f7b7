//! `PUT /admin/v1/modules/{taskName}`: what is refused, with which words, and that nothing changes.

use crate::harness::*;

/// Uploads what must be refused with `code`; the sentence, given that nothing has changed.
async fn refused(server: &Server, component: Vec<u8>, code: &str) -> String {
    let before = server.get("/admin/v1/modules").await.expect(200);
    let answer = server.upload("scenario", component).await;
    let message = answer.error(422, code);
    assert_eq!(server.get("/admin/v1/modules").await.expect(200), before);
    message
}

fn assert_contains(message: &str, words: &[&str]) {
    for word in words {
        assert!(message.contains(word), "{message:?} lacks {word:?}");
    }
}

#[tokio::test]
async fn what_is_not_a_component_is_named_for_what_it_is() {
    let server = Server::start().await;
    for (bytes, words) in [
        (b"".to_vec(), ["empty"]),
        (b"PK\x03\x04 a zip".to_vec(), ["WebAssembly"]),
        (b"\x7fELF".to_vec(), ["WebAssembly"]),
        (b"\0asm".to_vec(), ["WebAssembly"]),
        (vec![0; 100_000], ["WebAssembly"]),
        (b"(component)".to_vec(), ["text"]),
        (guests::wat("(module)"), ["core module"]),
        (guests::wat("(module (func (export \"run\")))"), ["core module"]),
    ] {
        let message = refused(&server, bytes, "not_a_component").await;
        assert_contains(&message, &words);
    }
}

#[tokio::test]
async fn a_component_without_an_export_is_told_which_one() {
    let server = Server::start().await;
    let message = refused(&server, guests::wat("(component)"), "missing_export").await;
    assert_contains(&message, &["describe"]);
}

#[tokio::test]
async fn a_component_that_wants_what_the_host_does_not_give_is_told_what() {
    let server = Server::start().await;
    for (import, words) in [
        (
            r#"(import "acme:billing/charge@1.2.3" (instance (export "charge" (func))))"#,
            "acme:billing/charge",
        ),
        (r#"(import "wasi:http/handler@0.3.0" (instance))"#, "wasi:http/handler@0.3.0"),
        (r#"(import "wasi:cli/environment@0.3.0" (instance))"#, "wasi:cli/environment@0.3.0"),
        (r#"(import "stepbox:task/durable@9.0.0" (instance))"#, "stepbox:task/durable@9.0.0"),
        (r#"(import "env" (func))"#, "env"),
    ] {
        let message =
            refused(&server, guests::wat(&format!("(component {import})")), "forbidden_import").await;
        assert_contains(&message, &[words]);
    }
}

#[tokio::test]
async fn an_export_of_another_type_is_told() {
    let server = Server::start().await;
    let component = guests::wat(
        r#"(component
            (core module $m (func (export "f") (result i32) i32.const 0))
            (core instance $i (instantiate $m))
            (func $f (result u32) (canon lift (core func $i "f")))
            (export "describe" (func $f))
            (export "run" (func $f))
            (export "run-step" (func $f))
            (export "on-failure" (func $f)))"#,
    );
    let message = refused(&server, component, "wrong_type").await;
    assert_contains(&message, &["describe"]);
}

#[tokio::test]
async fn a_manifest_that_does_not_parse_is_told_by_field() {
    let server = Server::start().await;
    for (manifest, words) in [
        ("", [""]),
        ("nonsense", [""]),
        ("[]", [""]),
        ("{}", ["stepbox"]),
        (r#"{"stepbox":"9.0.0"}"#, ["9.0.0"]),
        (r#"{"stepbox":1}"#, ["stepbox"]),
        (r#"{"stepbox":"0.1.0","task":{"timeoutMs":0}}"#, ["timeoutMs"]),
        (r#"{"stepbox":"0.1.0","task":{"timeoutMs":"5m"}}"#, ["timeoutMs"]),
        (r#"{"stepbox":"0.1.0","steps":[{"function":""}]}"#, ["function"]),
        (r#"{"stepbox":"0.1.0","steps":[{"function":"a"},{"function":"a"}]}"#, ["\"a\""]),
        (r#"{"stepbox":"0.1.0","steps":[{"function":"a","retry":{"attemptsMax":0}}]}"#, ["retry"]),
        (r#"{"stepbox":"0.1.0","onFailure":true}"#, ["onFailure"]),
        (r#"{"stepbox":"0.1.0","capabilities":{"http":["example.com"]}}"#, ["capabilities"]),
        (r#"{"stepbox":"0.1.0","schedules":[{"cron":"* * * * *"}]}"#, ["schedules"]),
    ] {
        let message = refused(&server, guests::raw_that_describes(manifest), "bad_manifest").await;
        assert_contains(&message, &words);
    }
}

#[tokio::test]
async fn a_payload_schema_that_is_no_schema_is_told() {
    let server = Server::start().await;
    for schema in
        [r#"{"type":"nonsense"}"#, r##"{"$ref":"https://example.com/schema"}"##, r#"{"pattern":"("}"#]
    {
        let manifest = format!(r#"{{"stepbox":"0.1.0","task":{{"payload":{schema}}}}}"#);
        let answer = server.upload("scenario", guests::raw_that_describes(&manifest)).await;
        assert_contains(&answer.any_error(422), &["payload"]);
    }
    assert_eq!(server.get("/admin/v1/modules/scenario").await.expect(200)["version"], 1);
}

#[tokio::test]
async fn a_module_that_cannot_describe_itself_is_told_why() {
    let server = Server::start().await;
    for (text, words) in [
        ("!panic", "nothing to say"),
        // Its time of the processor, or of the clock where others take the processor.
        ("!spin", " ms"),
        ("!recurse", "recursion"),
        ("!allocate", "memory"),
        ("!context", "context"),
        ("!step", "step"),
        ("!huge", ""),
    ] {
        let answer = server.upload("scenario", guests::raw_that_describes(text)).await;
        assert_contains(&answer.any_error(422), &[words]);
        assert_eq!(answer.json()["code"], "describe_failed", "{text}: {answer:#?}");
    }
    assert_eq!(server.get("/admin/v1/modules/scenario").await.expect(200)["version"], 1);
}

/// A generator that gives the same numbers every time (xorshift).
struct Dice(u64);

impl Dice {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

#[tokio::test]
async fn a_truncated_or_damaged_component_is_refused_or_harmless() {
    let server = Server::start().await;
    let whole = guests::raw();
    let mut dice = Dice(0x5eed_0001);
    let mut damaged: Vec<(String, Vec<u8>)> = Vec::new();
    for n in 0..20 {
        let length = 9 + dice.below(whole.len() - 9);
        damaged.push((format!("cut off after {length} bytes"), whole[..length].to_vec()));
        let (mut flipped, at) = (whole.clone(), 8 + dice.below(whole.len() - 8));
        flipped[at] ^= 1 << (n % 8);
        damaged.push((format!("bit {} of byte {at} flipped", n % 8), flipped));
        let mut noise = whole[..8].to_vec();
        noise.extend((0..1_000).map(|_| dice.below(256) as u8));
        damaged.push((format!("noise {n}"), noise));
    }
    let mut twice = whole.clone();
    twice.extend(&whole);
    damaged.push(("twice".to_owned(), twice));

    let (mut refusals, mut versions) = (0, 0);
    for (what, component) in damaged {
        let answer = server.upload("damaged", component).await;
        match answer.status {
            // A flipped bit may well make another component that is fine.
            200 | 201 if what.contains("flipped") => versions += 1,
            _ => {
                println!("{what}: {}", answer.any_error(422));
                refusals += 1;
            }
        }
    }
    println!("refused: {refusals}, taken: {versions}");
    // The neighbours live.
    server.run_script("o-1", &script([step("charge")])).await;
    server.result("o-1").await;
}

#[tokio::test]
async fn too_large_a_component_is_413_and_says_the_limit() {
    let server = Server::start().await;
    let before = server.get("/admin/v1/modules").await.expect(200);
    let mut huge = guests::raw();
    huge.resize(65 << 20, 0);
    let message = server.upload("scenario", huge).await.error(413, "too_large");
    assert!(message.contains(|c: char| c.is_ascii_digit()), "no limit in: {message}");
    assert_eq!(server.get("/admin/v1/modules").await.expect(200), before);
}

#[tokio::test]
async fn another_content_type_is_415() {
    let server = Server::empty().await;
    for kind in [None, Some("application/octet-stream"), Some("application/json"), Some("text/plain")] {
        let mut request = server.request("PUT", "/admin/v1/modules/task").body(guests::raw());
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let message = server.send(request).await.any_error(415);
        assert!(message.contains("application/wasm"), "{message}");
    }
    assert_eq!(server.get("/admin/v1/modules").await.expect(200), json!([]));
}

#[tokio::test]
async fn a_task_name_is_made_of_letters_digits_and_a_few_marks() {
    let server = Server::empty().await;
    for bad in ["no%20spaces", "a%2Fb", "%C3%A4", "%00", &"x".repeat(129), "a%0Ab"] {
        server.upload(bad, guests::raw()).await.any_error(422);
    }
    assert_eq!(server.get("/admin/v1/modules").await.expect(200), json!([]));
    for good in ["Task.name_with-9", &"x".repeat(128)] {
        server.upload(good, guests::raw()).await.expect(201);
    }
}
