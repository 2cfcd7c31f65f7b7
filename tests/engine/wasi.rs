//! What a handler sees of WASI, thing by thing: the same whenever it is called.

use std::collections::BTreeMap;

use crate::harness::*;

/// What a step sees of a thing.
#[derive(Clone, Copy, Debug, PartialEq)]
enum InSteps {
    /// The world: two attempts see two things.
    Differs,
    /// There is nothing of the world to see.
    Alike,
    /// It may be either.
    Either,
}
use InSteps::{Alike, Differs, Either};

/// Whether all of what is seen must be that there is nothing, and of what.
#[derive(Clone, Copy, Debug)]
enum Seen {
    /// Something, which depends on the run alone.
    OfTheRun,
    /// Something that depends on the run, and may well be the same in another.
    OfAnyRun,
    /// Something, the same in all runs.
    Fixed,
    /// That it is not there: empty, or refused with an error that the guest can read.
    Nothing,
}
use Seen::{Fixed, Nothing, OfAnyRun, OfTheRun};

/// Every thing that WASI offers and that could differ between two calls of a handler. What ends
/// the handler instead of answering has no row here: see `what_ends_the_handler_ends_it_always`.
const THINGS: &[(&str, Seen, InSteps)] = &[
    ("wall clock", OfTheRun, Differs),
    ("wall clock resolution", Fixed, Alike),
    ("monotonic clock", OfTheRun, Differs),
    ("monotonic clock resolution", Fixed, Alike),
    ("random bytes", OfTheRun, Differs),
    ("random number", OfTheRun, Differs),
    ("insecure random", OfTheRun, Differs),
    // Drawn once for each instance, and both attempts have the same.
    ("insecure seed", OfTheRun, Alike),
    ("hash keys", OfTheRun, Differs),
    ("hash map order", OfTheRun, Differs),
    ("environment", Nothing, Alike),
    ("arguments", Nothing, Alike),
    ("working directory", Fixed, Alike),
    ("standard input", Nothing, Alike),
    ("terminals", Nothing, Alike),
    ("preopened directories", Nothing, Alike),
    ("files", Nothing, Alike),
    ("TCP", Nothing, Alike),
    ("UDP", Nothing, Alike),
    ("name lookup", Nothing, Alike),
    // Whether a step may print by now is for the disk to say.
    ("poll order", Fixed, Either),
    ("threads", Nothing, Alike),
    ("processes", Nothing, Alike),
    ("bits of NaN", Fixed, Alike),
    ("floating point", Fixed, Alike),
    // Where things lie in memory, and every byte of it.
    ("addresses", OfAnyRun, Either),
    ("memory", OfTheRun, Either),
    ("fresh memory", Fixed, Alike),
];

/// Three calls of the handler see each thing: the first, one after the run was suspended, one after
/// the host was killed and started again. In between, other guests have had the places in which the
/// instances lie, and left all of their memory dirty.
#[tokio::test]
async fn every_thing_that_wasi_offers_is_the_same_in_every_replay() {
    let mut server = Server::with("park-max-ms", 0).start().await;
    server.upload("observer", guests::observer()).await.expect(201);
    let things: Vec<&str> = THINGS.iter().map(|(thing, ..)| *thing).collect();
    for id in ["o-1", "o-2"] {
        let started = server.start(id, "observer", &json!({ "things": things, "rounds": 2 })).await;
        started.expect(201);
        server.until_waiting(id, "event").await;
    }
    leave_dirt(&server, "before").await;
    for id in ["o-1", "o-2"] {
        server.event(id, "go", &Value::Null).await.expect(202);
        server.until(id, "stands at the second wait", |e| e["waitingFor"]["step"] == "go#2").await;
    }
    server.kill_9().restart();
    leave_dirt(&server, "after").await;

    let mut of_runs = Vec::new();
    for id in ["o-1", "o-2"] {
        server.event(id, "go", &Value::Null).await.expect(202);
        of_runs.push(server.result(id).await.as_array().unwrap().clone());
    }
    let table: BTreeMap<&str, (Seen, InSteps)> =
        THINGS.iter().map(|(thing, seen, in_steps)| (*thing, (*seen, *in_steps))).collect();
    assert_eq!(of_runs[0].len(), 3 * THINGS.len());
    for (number, (line, other)) in of_runs[0].iter().zip(&of_runs[1]).enumerate() {
        let thing = line["thing"].as_str().unwrap();
        let (seen, in_steps) = table[thing];
        for line in [line, other] {
            assert_eq!(line["seen"], line["recorded"], "look {number}, {thing}");
        }
        match seen {
            OfTheRun => assert_ne!(line["seen"], other["seen"], "{thing} of two runs"),
            OfAnyRun => {}
            Fixed => assert_eq!(line["seen"], other["seen"], "{thing} of two runs"),
            Nothing => {
                assert_eq!(line["seen"], other["seen"], "{thing} of two runs");
                assert_is_nothing(thing, &line["seen"]);
            }
        }
        if let [first, second] = line["inSteps"].as_array().map_or(&[][..], Vec::as_slice) {
            match in_steps {
                Differs => assert_ne!(first, second, "{thing} in two attempts"),
                Alike => assert_eq!(first, second, "{thing} in two attempts"),
                Either => {}
            }
        }
    }
    let (first, second) = (&of_runs[0][..THINGS.len()], &of_runs[0][THINGS.len()..2 * THINGS.len()]);
    for (before, after) in first.iter().zip(second).filter(|(line, _)| line["thing"] == "random number") {
        assert_ne!(before["seen"], after["seen"], "chance goes on after a wait");
    }
}

/// Empty, none, no, or an error in words.
#[track_caller]
fn assert_is_nothing(thing: &str, seen: &Value) {
    let errors = [
        "ermission",
        "denied",
        "not permitted",
        "not supported",
        "Not supported",
        "No such file",
        "failed to",
        "failure",
        "unresolvable",
    ];
    match seen {
        Value::Array(parts) => parts.iter().for_each(|part| assert_is_nothing(thing, part)),
        Value::String(text) => {
            let is_error = text.is_empty() || text == "0" || errors.iter().any(|word| text.contains(word));
            assert!(is_error, "{thing}: {text}");
        }
        other => assert!(
            matches!(other, Value::Null | Value::Bool(false)) || *other == json!(0),
            "{thing}: {other}"
        ),
    }
}

/// Other guests take the places one after the other, and fill their memory.
async fn leave_dirt(server: &Server, when: &str) {
    for n in 0..8 {
        let id = format!("dirt-{when}-{n}");
        let allocate = json!({ "allocate": { "bytes": 8 << 20 } });
        server
            .run_script(
                &id,
                &script([json!({ "do": allocate }), step_with("too", json!({ "act": allocate }))]),
            )
            .await;
        server.result(&id).await;
    }
}

/// What would tell calls apart and is not answered ends the handler, each time with the same words.
#[tokio::test]
async fn what_ends_the_handler_ends_it_always() {
    let server = Server::with("park-max-ms", 0).start().await;
    for (name, act, kind, words) in [
        ("a sleep of the language", json!({ "reallySleep": { "ms": 1 } }), "misuse", "sleep"),
        (
            "memory that does not grow",
            json!({ "allocate": { "bytes": 8_u64 << 30 } }),
            "over_limit",
            "memory",
        ),
        ("a stack that is used up", json!("recurse"), "trapped", "recursion"),
        ("an exit code", json!({ "exit": { "code": 3 } }), "trapped", "exit"),
        ("another exit code", json!({ "exit": { "code": 0 } }), "trapped", "exit"),
    ] {
        let mut heard = Vec::new();
        for n in 0..2 {
            let id = format!("{name} {n}");
            server.run_script(&id, &script([step("before"), sleep("nap", 5), json!({ "do": act })])).await;
            let failure = server.failure(&id).await;
            assert_eq!(failure["kind"], kind, "{name}: {failure}");
            assert!(failure["message"].as_str().unwrap().contains(words), "{name}: {failure}");
            heard.push((failure["message"].clone(), failure["backtrace"].clone()));
        }
        assert_eq!(heard[0], heard[1], "{name}");
    }
}
