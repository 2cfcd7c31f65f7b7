//! Steps: in an instance of their own, which lives from one to the next and no longer than that.

use std::time::{Duration, Instant};

use stepbox_domain::FailureKind;

use super::*;

/// Says how often this instance was called before: `0`, `1`, …; traps on `"trap"`, spins on
/// `"spin"`, computes for long on `"long"`.
fn counts() -> WatGuest {
    WatGuest::default().with("(global $calls (mut i32) (i32.const 0))").run_step(
        r#"
            (if (i32.eq (local.get $len) (i32.const 6)) (then
                (if (i32.eq (i32.load8_u (i32.add (local.get $ptr) (i32.const 1))) (i32.const 116))
                    (then unreachable))
                (if (i32.eq (i32.load8_u (i32.add (local.get $ptr) (i32.const 1))) (i32.const 115))
                    (then (loop $forever (br $forever))))))
            (global.set $out_len (i32.const 0))
            (call $put_byte (i32.add (i32.const 48) (global.get $calls)))
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            call $out call $step_ok"#,
    )
}

#[tokio::test]
async fn one_instance_serves_the_steps_of_a_leg_and_no_other_leg() {
    let bed = TestBed::new();
    let guest = bed.guest(counts()).await;
    let (mut one, mut other) = (bed.steps(&guest), bed.steps(&guest));
    for expected in ["0", "1", "2"] {
        assert_eq!(completed(one.run_step("f", &json("1"), 1).await), expected);
    }
    assert_eq!(completed(other.run_step("f", &json("1"), 1).await), "0");
}

#[tokio::test]
async fn after_a_trap_the_next_attempt_has_a_new_instance() {
    let bed = TestBed::new();
    let guest = bed.guest(counts()).await;
    let mut steps = bed.steps(&guest);
    assert_eq!(completed(steps.run_step("f", &json("1"), 1).await), "0");
    let failure = attempt_failed(steps.run_step("f", &json("\"trap\""), 2).await);
    assert_eq!((failure.kind, failure.retryable), (FailureKind::Trapped, true));
    assert_eq!(
        failure.message,
        "the step function `f` trapped: it reached `unreachable` (a panic, an abort)"
    );
    assert_eq!(failure.backtrace.as_deref(), Some("run-step"));
    assert_eq!(completed(steps.run_step("f", &json("1"), 3).await), "0");
}

/// An attempt is interrupted by dropping its future; that takes milliseconds, and the next one
/// has a new instance.
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
async fn an_attempt_that_is_dropped_leaves_the_runner_usable() {
    let bed = TestBed::with(|config| config.set(Limit::AttemptCpuMaxMs, 60_000));
    let guest = bed.guest(counts()).await;
    let mut steps = bed.steps(&guest);
    assert_eq!(completed(steps.run_step("f", &json("1"), 1).await), "0");

    let spin = json("\"spin\"");
    let start = Instant::now();
    let timed_out = tokio::time::timeout(Duration::from_millis(50), steps.run_step("f", &spin, 2)).await;
    assert!(timed_out.is_err());
    assert!(start.elapsed() < Duration::from_millis(500), "took {:?}", start.elapsed());

    assert_eq!(completed(steps.run_step("f", &json("1"), 3).await), "0");
}

/// The budget is one attempt's, not the leg's.
#[tokio::test]
async fn each_attempt_has_its_own_cpu_time() {
    let bed = TestBed::with(|config| {
        config.set(Limit::AttemptCpuMaxMs, 150);
        // A quick machine looks at the clock more often than a task may by default.
        config.set(Limit::HostCallsPerSecondMax, Limit::HostCallsPerSecondMax.default_ceiling());
    });
    let guest = bed
        .guest(WatGuest::default().with("(global $calls (mut i32) (i32.const 0))").run_step(
            // Some 60 ms of computing on any machine: it looks at the real clock.
            r#"
            (call $now (i32.const 512))
            (local.set $i (i32.add (i32.mul (i32.wrap_i64 (i64.load (i32.const 512))) (i32.const 1000))
                (i32.div_u (i32.load (i32.const 520)) (i32.const 1000000))))
            (loop $again
                (call $now (i32.const 512))
                (br_if $again (i32.lt_s (i32.const 0) (i32.sub (i32.add (local.get $i) (i32.const 60))
                    (i32.add (i32.mul (i32.wrap_i64 (i64.load (i32.const 512))) (i32.const 1000))
                        (i32.div_u (i32.load (i32.const 520)) (i32.const 1000000)))))))
            (call $put_byte (i32.add (i32.const 48) (global.get $calls)))
            (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
            (i32.sub (call $out) (i32.const 0)) drop drop
            (i32.add (i32.const 65535) (global.get $out_len)) (i32.const 1) call $step_ok"#,
        ))
        .await;
    let mut steps = bed.steps(&guest);
    for expected in ["0", "1", "2", "3", "4"] {
        assert_eq!(completed(steps.run_step("f", &json("1"), 1).await), expected);
    }
}

#[tokio::test]
async fn a_steps_own_error_says_whether_and_when_to_come_back() {
    let bed = TestBed::new();
    for retryable in [true, false] {
        let body = format!(r#"(i32.const {}) $"bank down" call $step_err"#, u8::from(retryable));
        let guest = bed.guest(WatGuest::default().run_step(&body)).await;
        let failure = attempt_failed(bed.steps(&guest).run_step("f", &json("1"), 1).await);
        assert_eq!((failure.kind, failure.message.as_str()), (FailureKind::Error, "bank down"));
        assert_eq!((failure.retryable, failure.retry_after_ms), (retryable, Some(1234)));
    }
}

#[tokio::test]
async fn a_result_that_is_no_json_or_too_large_is_not_retried() {
    let bed = TestBed::with(|config| config.set(Limit::ValueMaxBytes, 1000));
    let guest = bed.guest(WatGuest::default().run_step(r#"$"oops" call $step_ok"#)).await;
    let failure = attempt_failed(bed.steps(&guest).run_step("charge", &json("1"), 1).await);
    assert_eq!((failure.kind, failure.retryable), (FailureKind::Misuse, false));
    assert_eq!(
        failure.message,
        "the result of the step function `charge` is not JSON: expected value at line 1 column 1"
    );

    let guest = bed.guest(WatGuest::default().run_step("(i32.const 0) (i32.const 1001) call $step_ok")).await;
    let failure = attempt_failed(bed.steps(&guest).run_step("charge", &json("1"), 1).await);
    assert_eq!((failure.kind, failure.retryable), (FailureKind::OverLimit, false));
}

/// Every durable call but `context` and `log`.
#[tokio::test]
async fn durable_calls_inside_of_a_step_end_the_attempt_and_are_named() {
    let bed = TestBed::new();
    let step = r#"$"a" $"f" $"1" (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i64.const 0)
        (i32.const 0) (i32.const 0) (i64.const 0) (i32.const 0) (i32.const 512)"#;
    let calls = [
        ("step", format!("{step} call $step")),
        ("schedule", format!("{step} call $schedule")),
        ("wait-all", "(i32.const 0) (i32.const 0) (i32.const 512) call $wait-all".to_owned()),
        ("wait-any", "(i32.const 0) (i32.const 0) (i32.const 512) call $wait-any".to_owned()),
        ("sleep", r#"$"a" (i64.const 1) call $sleep"#.to_owned()),
        ("sleep-until", r#"$"a" (i64.const 1) call $sleep-until"#.to_owned()),
        ("wait-event", r#"$"a" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-event"#.to_owned()),
        ("capture", r#"$"a" $"1" (i32.const 512) call $capture"#.to_owned()),
        (
            "start-execution",
            r#"$"n" $"t" (i32.const 0) (i32.const 0) (i32.const 0) $"1" (i32.const 512) call $start-execution"#
                .to_owned(),
        ),
        (
            "wait-execution",
            r#"$"e" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-execution"#.to_owned(),
        ),
    ];
    for (name, call) in calls {
        let guest = bed.guest(WatGuest::default().run_step(&format!(r#"{call} $"1" call $step_ok"#))).await;
        let failure = attempt_failed(bed.steps(&guest).run_step("f", &json("1"), 1).await);
        assert_eq!((failure.kind, failure.retryable), (FailureKind::Misuse, false), "{name}");
        let start = format!("`{name}` was called inside of a step; ");
        assert!(failure.message.starts_with(&start), "{}", failure.message);
    }
}

#[tokio::test]
async fn a_step_may_ask_who_it_is_and_write_to_the_log() {
    let bed = TestBed::new();
    let guest = bed
        .guest(WatGuest::default().run_step(
            r#"(i32.const 512) call $context
            (i32.const 2) $"charge" (i32.load (i32.const 512)) (i32.load (i32.const 516)) call $log
            call $stdout $"half a line" (i32.const 512) call $write
            $"1" call $step_ok"#,
        ))
        .await;
    let mut steps = bed.steps(&guest);
    completed(steps.run_step("f", &json("1"), 1).await);
    assert_eq!(bed.logs.lines(), ["Info charge: order-7", "Info stdout: half a line"]);
}

#[tokio::test]
async fn a_trap_tells_the_panics_words_and_the_stack() {
    let bed = TestBed::new();
    let panic = r#"thread 'main' panicked at src/lib.rs:10:5:\nboom\nnote: run with `RUST_BACKTRACE=1`\n"#;
    let guest = bed
        .guest(
            WatGuest::default()
                .with(&format!(
                    r#"(func $_ZN4shop6charge17h0123456789abcdefE call $die)
                    (func $die call $stderr $"{panic}" (i32.const 512) call $write unreachable)"#
                ))
                .run_step("call $_ZN4shop6charge17h0123456789abcdefE unreachable"),
        )
        .await;
    let failure = attempt_failed(bed.steps(&guest).run_step("charge", &json("1"), 1).await);
    assert_eq!(failure.kind, FailureKind::Trapped);
    assert_eq!(failure.message, "the step function `charge` panicked: src/lib.rs:10:5: boom");
    assert_eq!(failure.backtrace.as_deref(), Some("die\nshop::charge\nrun-step"));
}

/// The variables of the environment, as `"A=1;B=2;"`; `$give` makes the result of it.
fn environment(give: &str) -> String {
    format!(
        r#"
            (global.set $out_len (i32.const 0))
            (call $env-vars (i32.const 256))
            (call $put_byte (i32.const 34))
            (local.set $i (i32.const 0))
            (block $done (loop $next
                (br_if $done (i32.ge_u (local.get $i) (i32.load (i32.const 260))))
                (local.set $ptr (i32.add (i32.load (i32.const 256)) (i32.mul (local.get $i) (i32.const 16))))
                (call $put (i32.load (local.get $ptr)) (i32.load offset=4 (local.get $ptr)))
                (call $put_byte (i32.const 61))
                (call $put (i32.load offset=8 (local.get $ptr)) (i32.load offset=12 (local.get $ptr)))
                (call $put_byte (i32.const 59))
                (local.set $i (i32.add (local.get $i) (i32.const 1)))
                (br $next)))
            (call $put_byte (i32.const 34))
            call $out call {give}"#
    )
}

#[tokio::test]
async fn the_environment_has_the_granted_variables_and_nothing_else_and_the_handlers_is_empty() {
    let bed = TestBed::new();
    let guest = WatGuest::default().run(&environment("$ok")).run_step(&environment("$step_ok"));
    let guest = bed.guest(guest).await;
    assert_eq!(completed(bed.steps(&guest).run_step("f", &json("1"), 1).await), "\"\"");
    let grants = serde_json::from_str(r#"{"env":{"REGION":"eu;x=y","A":""}}"#).unwrap();
    let setup = StepSetup { grants: Arc::new(grants), ..bed.step_setup() };
    let mut steps = guest.steps(setup);
    for attempt in 1..=2 {
        let seen = completed(steps.run_step("f", &json("1"), attempt).await);
        assert_eq!(seen, r#""A=;REGION=eu;x=y;""#);
    }
    assert_eq!(result(bed.run(&guest, nothing()).await), "\"\"");
}
