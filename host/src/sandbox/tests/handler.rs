//! The handler: what it is told, what it hears, how it ends.

use stepbox_domain::{FailureKind, StepKey};

use super::*;

/// A step called `charge` that runs `take` with input `[1]`, three attempts, a timeout of 5 s.
const CALL_STEP: &str = r#"
    $"charge" $"take" $"[1]"
    (i32.const 1) (i32.const 3) (i64.const 100) (i32.const 200) (i64.const 900) (i32.const 1)
    (i32.const 1) (i64.const 5000) (i32.const 1) (i32.const 512) call $step"#;

fn calls_a_step() -> WatGuest {
    WatGuest::default().run(&format!("{CALL_STEP} call $answer"))
}

#[tokio::test]
async fn a_payload_goes_in_and_a_result_comes_out() {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default()).await;
    let setup = HandlerSetup { context: bed.context(), limits: Arc::default(), meter: Arc::default() };
    let exit = guest.run(setup, &json(r#"{"a":[1,"é"]}"#), nothing()).await;
    assert_eq!(result(exit), r#"{"a":[1,"é"]}"#);
}

#[tokio::test]
async fn a_step_reaches_the_host_as_it_was_called_and_its_result_the_guest() {
    let bed = TestBed::new();
    let guest = bed.guest(calls_a_step()).await;
    let calls = script(|call| {
        assert_eq!(
            call,
            "step charge take [1] StepOptions { retry: RetryPolicy { attempts_max: 3, delay_first_ms: 100, \
             growth_percent: 200, delay_max_ms: 900, jitter: true }, timeout_ms: Some(5000), timeout_scope: \
             PerAttempt }"
        );
        Ok(Ok(json(r#"{"receipt":7}"#)))
    });
    assert_eq!(result(bed.run(&guest, calls).await), r#"{"receipt":7}"#);
}

#[tokio::test]
async fn a_failure_reaches_the_guest_and_comes_back_as_its_own() {
    let bed = TestBed::new();
    let guest = bed.guest(calls_a_step()).await;
    let failure = Failure::new(FailureKind::Exhausted, "no bank").with_details(Some(json("[7]")));
    let failure = failure.of_step(StepKey::parse("charge#2").unwrap(), 3);
    let answer = failure.clone();
    let exit = bed.run(&guest, script(move |_| Ok(Err(answer.clone())))).await;
    let GuestExit::Returned(Err(returned)) = exit else { panic!("{exit:?}") };
    assert_eq!(returned, failure);
}

#[tokio::test]
async fn a_handler_that_is_to_be_ended_ends_at_the_call() {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default().run(r#"$"nap" (i64.const 5) call $sleep unreachable"#)).await;
    let exit = bed.run(&guest, script(|_| Err(EndHandler))).await;
    assert!(matches!(exit, GuestExit::Ended), "{exit:?}");
}

#[tokio::test]
async fn sleeps_waits_and_captures_reach_the_host() {
    let bed = TestBed::new();
    let guest = bed
        .guest(WatGuest::default().run(
            r#"
            $"nap" (i64.const 5) call $sleep
            $"noon" (i64.const 1700000000123) call $sleep-until
            $"far" (i64.const -1) call $sleep-until
            $"paid" (i32.const 1) (i64.const 60000) (i32.const 512) call $wait-event
            $"paid" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-event
            $"id" $"{\"a\":1}" (i32.const 512) call $capture
            call $answer"#,
        ))
        .await;
    let seen = Arc::new(std::sync::Mutex::new(Vec::new()));
    let calls = script({
        let seen = seen.clone();
        move |call| {
            seen.lock().unwrap().push(call.to_owned());
            Ok(Ok(json("1")))
        }
    });
    assert_eq!(result(bed.run(&guest, calls).await), "1");
    assert_eq!(
        *seen.lock().unwrap(),
        [
            "sleep nap After(5)",
            "sleep noon At(Timestamp(1700000000123))",
            "sleep far At(Timestamp(253402300799999))",
            "wait-event paid Some(60000)",
            "wait-event paid None",
            r#"capture id {"a":1}"#,
        ]
    );
}

/// What makes no sense is answered with a failure that the guest can read, and costs no call.
#[tokio::test]
async fn calls_that_make_no_sense_are_answered_with_misuse() {
    let bed = TestBed::new();
    let step = |name: &str, function: &str, input: &str| {
        CALL_STEP
            .replace("$\"charge\"", &format!("$\"{name}\""))
            .replace("$\"take\"", &format!("$\"{function}\""))
            .replace("$\"[1]\"", &format!("$\"{input}\""))
    };
    let cases = [
        (step("", "f", "1"), "a step name must have 1 to 200 characters, this one has 0"),
        (
            step("a#2", "f", "1"),
            "a step name \"a#2\" must not end in # and a number: that is how repeats are told apart",
        ),
        (
            step("two\\nlines", "f", "1"),
            "a step name must be printable: the character '\\n' at position 3 is not allowed",
        ),
        (step("a", "", "1"), "step \"a\": the function \"\" must have 1 to 200 printable characters"),
        (
            step("a", "f", "{\\n1}"),
            "the input of step \"a\" is not JSON: key must be a string at line 2 column 1",
        ),
        (
            step("a", "f", ""),
            "the input of step \"a\" is not JSON: EOF while parsing a value at line 1 column 0",
        ),
        (
            r#"$"c" $"nul" (i32.const 512) call $capture"#.to_owned(),
            "the value of capture \"c\" is not JSON: EOF while parsing a value at line 1 column 3",
        ),
        (
            r#"$"" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-event"#.to_owned(),
            "`wait-event`: an event name must have 1 to 200 characters, this one has 0",
        ),
    ];
    for (call, expected) in cases {
        let guest = bed.guest(WatGuest::default().run(&format!("{call} call $answer"))).await;
        let exit = bed.run(&guest, script(|call| panic!("reached the host: {call}"))).await;
        let GuestExit::Returned(Err(failure)) = exit else { panic!("{exit:?}") };
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Misuse, expected));
    }
}

/// A sleep has no way to answer: the handler ends.
#[tokio::test]
async fn a_sleep_that_makes_no_sense_ends_the_handler() {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default().run(r#"$"" (i64.const 5) call $sleep unreachable"#)).await;
    let failure = failed(bed.run(&guest, nothing()).await);
    assert_eq!(failure.kind, FailureKind::Misuse);
    assert_eq!(failure.message, "a step name must have 1 to 200 characters, this one has 0");

    let guest = bed.guest(WatGuest::default().run(r#"$"a" (i64.const 5) call $sleep unreachable"#)).await;
    let refused = Failure::new(FailureKind::OverLimit, "too many calls");
    let exit = bed.run(&guest, script(move |_| Ok(Err(refused.clone())))).await;
    assert_eq!(failed(exit).message, "too many calls");
}

/// What the contract has and this host has not is answered, not a trap.
#[tokio::test]
async fn calls_that_are_not_offered_yet_say_so() {
    let bed = TestBed::new();
    let schedule = CALL_STEP.replace("call $step", "call $schedule");
    let calls = [
        ("schedule", schedule.as_str()),
        ("wait-all", "(i32.const 0) (i32.const 0) (i32.const 512) call $wait-all"),
        (
            "start-execution",
            r#"$"n" $"t" (i32.const 0) (i32.const 0) (i32.const 0) $"1" (i32.const 512) call $start-execution"#,
        ),
        ("wait-execution", r#"$"e" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-execution"#),
    ];
    for (name, call) in calls {
        let guest = bed.guest(WatGuest::default().run(&format!("{call} call $answer"))).await;
        let exit = bed.run(&guest, nothing()).await;
        let GuestExit::Returned(Err(failure)) = exit else { panic!("{name}: {exit:?}") };
        assert_eq!(failure.kind, FailureKind::Unsupported);
        let start = format!("`{name}` is part of the contract, but this host does not offer it yet; ");
        assert!(failure.message.starts_with(&start), "{}", failure.message);
    }
}

#[tokio::test]
async fn the_handler_is_told_which_execution_it_is() {
    let bed = TestBed::new();
    // The execution id stands first in the record.
    let guest = bed
        .guest(WatGuest::default().run(
            r#"
            (i32.const 512) call $context
            $"\"" call $put
            (i32.load (i32.const 512)) (i32.load (i32.const 516)) call $put
            $" " call $put
            (i32.load (i32.const 520)) (i32.load (i32.const 524)) call $put
            $" " call $put
            (i64.extend_i32_u (i32.load (i32.const 540))) call $put_hex
            $" " call $put
            (i64.load (i32.const 544)) call $put_hex
            $"\"" call $put
            call $out call $ok"#,
        ))
        .await;
    let told = result(bed.run(&guest, nothing()).await);
    let started_at = format!("{STARTED_AT_MS:016x}");
    assert_eq!(told, format!("\"order-7 order-7:run:0 0000000000000003 {started_at}\""));
}

#[tokio::test]
async fn output_goes_line_by_line_to_the_log() {
    let bed = TestBed::new();
    let guest = bed
        .guest(WatGuest::default().run(
            r#"
            call $stdout $"one\ntwo" (i32.const 512) call $write
            call $stderr $"oh\n" (i32.const 512) call $write
            (i32.const 3) $"shop" $"paid\nnot" call $log
            $"null" call $ok"#,
        ))
        .await;
    bed.run(&guest, nothing()).await;
    assert_eq!(
        bed.logs.lines(),
        ["Info stdout: one", "Warn stderr: oh", "Warn shop: paid\\nnot", "Info stdout: two"]
    );
}

#[tokio::test]
async fn a_result_that_is_no_json_or_too_large_fails_the_run() {
    let bed = TestBed::with(|config| config.set(Limit::ValueMaxBytes, 1000));
    let guest = bed.guest(WatGuest::default().run(r#"$"{\"a\":}" call $ok"#)).await;
    let failure = failed(bed.run(&guest, nothing()).await);
    assert_eq!(failure.kind, FailureKind::Misuse);
    assert_eq!(failure.message, "the result of the handler is not JSON: expected value at line 1 column 6");

    let guest = bed.guest(WatGuest::default().run("(i32.const 0) (i32.const 1001) call $ok")).await;
    let failure = failed(bed.run(&guest, nothing()).await);
    assert_eq!(failure.kind, FailureKind::OverLimit);
    assert_eq!(
        failure.message,
        "the result of the handler has 1001 bytes; a value may have 1000 bytes (valueMaxBytes): keep large data elsewhere \
         and pass a reference to it"
    );
}

#[tokio::test]
async fn the_handlers_own_error_is_kept_however_it_looks() {
    let bed = TestBed::with(|config| config.guest.message_max_bytes = 10);
    let guest = bed.guest(WatGuest::default().run(r#"$"out of stock" call $err"#)).await;
    let exit = bed.run(&guest, nothing()).await;
    let GuestExit::Returned(Err(failure)) = exit else { panic!("{exit:?}") };
    assert_eq!(failure.kind, FailureKind::Error);
    assert_eq!(failure.message, "out of sto… (cut: it had 12 bytes)");
}
