//! Invariant 6: a handler sees nothing that could differ between two calls.

use super::*;

/// Tells all that it sees, before and after a sleep.
fn looks_around() -> WatGuest {
    WatGuest::default()
        .run(r#"$"\"" call $put call $look $"nap" (i64.const 5) call $sleep call $look $"\"" call $put call $out call $ok"#)
        .run_step(r#"$"\"" call $put call $look $"\"" call $put call $out call $step_ok"#)
        .with(
            r#"(func $look
                (call $now (i32.const 512))
                (call $put_hex (i64.load (i32.const 512)))
                (call $put_hex (i64.extend_i32_u (i32.load (i32.const 520))))
                (call $put_hex (call $mono))
                (call $put_hex (call $random)) (call $put_hex (call $random))
                (call $put_hex (call $insecure))
                (call $seed (i32.const 512))
                (call $put_hex (i64.load (i32.const 512)))
                (call $env-vars (i32.const 512))
                (call $put_hex (i64.extend_i32_u (i32.load (i32.const 516)))))"#,
        )
}

/// The 16-digit numbers that the guest wrote.
fn numbers(text: &str) -> Vec<u64> {
    let digits = text.trim_matches('"').as_bytes();
    digits.chunks(16).map(|chunk| u64::from_str_radix(str::from_utf8(chunk).unwrap(), 16).unwrap()).collect()
}

#[tokio::test]
async fn a_handler_sees_the_same_world_whenever_it_is_called() {
    let bed = TestBed::new();
    let guest = bed.guest(looks_around()).await;
    let first = result(bed.run(&guest, nothing()).await);
    tokio::time::sleep(std::time::Duration::from_millis(5)).await;
    let other = TestBed::new();
    let again = other.guest(looks_around()).await;
    assert_eq!(result(bed.run(&guest, nothing()).await), first);
    assert_eq!(result(other.run(&again, nothing()).await), first);

    let [before, after] =
        numbers(&first).chunks(8).map(<[u64]>::to_vec).collect::<Vec<_>>()[..].to_vec().try_into().unwrap();
    let second = STARTED_AT_MS as u64 / 1000;
    let [seconds, nanos, mono, random, random2, insecure, seed, env_vars] = before[..] else { panic!() };
    assert_eq!((seconds, nanos, mono), (second, 0, STARTED_AT_MS as u64 * 1_000_000));
    assert_eq!(env_vars, 0);
    let all = [random, random2, insecure, seed];
    assert!(all.iter().enumerate().all(|(i, one)| !all[..i].contains(one)), "{all:?}");

    // The script's answers say that a millisecond has passed; both clocks say so too.
    assert_eq!((after[0], after[1], after[2]), (second, 1_000_000, mono + 1_000_000));
    assert!(!all.contains(&after[3]));
    assert_eq!(after[6], seed);
}

#[tokio::test]
async fn another_run_has_other_random_numbers() {
    let bed = TestBed::new();
    let guest = bed.guest(looks_around()).await;
    let first = numbers(&result(bed.run(&guest, nothing()).await));
    let context = GuestContext { run_id: RunId::parse("order-7:run:1").unwrap(), ..bed.context() };
    let exit = guest
        .run(
            HandlerSetup { context, limits: Arc::default(), meter: Arc::default() },
            &json("null"),
            nothing(),
        )
        .await;
    let second = numbers(&result(exit));
    for place in 3..7 {
        assert_ne!(first[place], second[place], "number {place}");
    }
}

#[tokio::test]
async fn a_step_sees_the_real_world() {
    let bed = TestBed::new();
    let guest = bed.guest(looks_around()).await;
    let look = async || {
        let exit = bed.steps(&guest).run_step("look", &json("null"), 1).await;
        numbers(&completed(exit))
    };
    let (first, second) = (look().await, look().await);
    assert!(first[0] > STARTED_AT_MS as u64 / 1000 + 1_000_000, "the year is not 2023: {}", first[0]);
    for place in 3..7 {
        assert_ne!(first[place], second[place], "number {place}");
    }
    assert_eq!(first[7], 0, "environment variables");
}

#[tokio::test]
async fn a_handler_cannot_wait_for_time_to_pass_and_a_step_can() {
    let bed = TestBed::new();
    let wait = "(i64.const 20000000) call $subscribe call $block";
    let until = "(i64.add (call $mono) (i64.const 1)) call $subscribe-instant call $block";
    for wait in [wait, until] {
        let guest = bed.guest(WatGuest::default().run(&format!(r#"{wait} $"1" call $ok"#))).await;
        let failure = failed(bed.run(&guest, nothing()).await);
        assert_eq!(failure.kind, stepbox_domain::FailureKind::Misuse);
        assert!(failure.message.contains("use Stepbox's `sleep`"), "{}", failure.message);
    }
    let guest = bed.guest(WatGuest::default().run_step(&format!(r#"{wait} $"1" call $step_ok"#))).await;
    let start = std::time::Instant::now();
    assert_eq!(completed(bed.steps(&guest).run_step("f", &json("1"), 1).await), "1");
    assert!(start.elapsed() >= std::time::Duration::from_millis(20));
}
