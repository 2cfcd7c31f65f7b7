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

/// What a guest could find out about the machine that it runs on, or about who was there before: lines
/// that write it down.
const THINGS: [(&str, &str, &str); 7] = [
    ("bits of NaN", "", NANS),
    ("conversions", "", CONVERSIONS),
    (
        "memory at its maximum",
        "",
        "(call $put_hex (i64.extend_i32_s (memory.grow (i32.const 1))))
         (call $put_hex (i64.extend_i32_s (memory.grow (i32.const 65536))))
         (call $put_hex (i64.extend_i32_u (memory.size)))",
    ),
    (
        "a table at its maximum",
        "(table $t 10 20 funcref)",
        "(call $put_hex (i64.extend_i32_s (table.grow $t (ref.null func) (i32.const 10))))
         (call $put_hex (i64.extend_i32_s (table.grow $t (ref.null func) (i32.const 1))))
         (call $put_hex (i64.extend_i32_u (table.size $t)))",
    ),
    ("what is in fresh memory", "", "(call $put_hex (call $sum (i32.const 200000) (i32.const 500000)))"),
    (
        "what is in memory that grew",
        "(memory $second 1 4)",
        "(drop (memory.grow $second (i32.const 3)))
         (call $put_hex (i64.load $second (i32.const 0))) (call $put_hex (i64.load $second (i32.const 200000)))",
    ),
    (
        "what is in a fresh table and global",
        "(table $t 1000 funcref) (global $g (mut i64) (i64.const 0))",
        "(call $put_hex (i64.extend_i32_u (ref.is_null (table.get $t (i32.const 999)))))
         (call $put_hex (global.get $g))",
    ),
];

/// Each with operands that no compiler knows, signalling and with a payload.
const NANS: &str = "
    (i64.store (i32.const 600) (i64.const 0x7ff0deadbeef0001)) (i64.store (i32.const 608) (i64.const 0))
    (i64.store (i32.const 616) (i64.const 0xfff8000000000abc)) (i32.store (i32.const 624) (i32.const 0xff80beef))
    (call $put_hex (i64.reinterpret_f64 (f64.div (f64.load (i32.const 608)) (f64.load (i32.const 608)))))
    (call $put_hex (i64.reinterpret_f64 (f64.add (f64.load (i32.const 600)) (f64.load (i32.const 616)))))
    (call $put_hex (i64.reinterpret_f64 (f64.mul (f64.load (i32.const 616)) (f64.load (i32.const 600)))))
    (call $put_hex (i64.reinterpret_f64 (f64.min (f64.load (i32.const 600)) (f64.load (i32.const 608)))))
    (call $put_hex (i64.reinterpret_f64 (f64.max (f64.load (i32.const 608)) (f64.load (i32.const 616)))))
    (call $put_hex (i64.reinterpret_f64 (f64.sqrt (f64.load (i32.const 616)))))
    (call $put_hex (i64.reinterpret_f64 (f64.nearest (f64.load (i32.const 600)))))
    (call $put_hex (i64.reinterpret_f64 (f64.ceil (f64.load (i32.const 600)))))
    (call $put_hex (i64.reinterpret_f64 (f64.neg (f64.load (i32.const 600)))))
    (call $put_hex (i64.reinterpret_f64 (f64.promote_f32 (f32.load (i32.const 624)))))
    (call $put_hex (i64.extend_i32_u (i32.reinterpret_f32 (f32.demote_f64 (f64.load (i32.const 616))))))
    (call $put_hex (i64.extend_i32_u (i32.reinterpret_f32 (f32.sub (f32.load (i32.const 624)) (f32.load (i32.const 624))))))
    (call $put_hex (i64.extend_i32_u (i32.reinterpret_f32 (f32.min (f32.load (i32.const 624)) (f32.load (i32.const 608))))))
    (call $put_hex (i64.extend_i32_u (i32.reinterpret_f32 (f32.trunc (f32.load (i32.const 624))))))";

const CONVERSIONS: &str = "
    (i64.store (i32.const 600) (i64.const 0x7ff8000000000000)) (i64.store (i32.const 608) (i64.const 0x7e37e43c8800759c))
    (call $put_hex (i64.trunc_sat_f64_s (f64.load (i32.const 600))))
    (call $put_hex (i64.trunc_sat_f64_u (f64.load (i32.const 608))))
    (call $put_hex (i64.extend_i32_u (i32.trunc_sat_f64_s (f64.load (i32.const 608)))))
    (call $put_hex (i64.reinterpret_f64 (f64.convert_i64_u (i64.load (i32.const 608)))))
    (call $put_hex (i64.extend_i32_u (i32.reinterpret_f32 (f32.convert_i64_s (i64.load (i32.const 608))))))";

/// Sums up memory, eight bytes at a time.
const SUM: &str = "(func $sum (param $at i32) (param $end i32) (result i64) (local $sum i64)
    (loop $next
        (local.set $sum (i64.add (local.get $sum) (i64.load (local.get $at))))
        (br_if $next (i32.lt_u (local.tee $at (i32.add (local.get $at) (i32.const 8))) (local.get $end))))
    (local.get $sum))";

/// Leaves nothing as it was. Each has a number, and so places of its own: a pool gives a module
/// the place that it had last.
fn vandal(number: u32) -> WatGuest {
    let fill = format!(
        "(memory.fill (i32.const 200000) (i32.const {}) (i32.const 400000))
        (memory.fill $second (i32.const 0) (i32.const 0xbb) (i32.const 262144))
        (global.set $g (i64.const -1))
        (table.fill $t (i32.const 0) (ref.func $vandal) (i32.const 1000))",
        0xa0 + number
    );
    WatGuest::default()
        .memory("10 10")
        .with("(memory $second 4 4) (table $t 1000 funcref) (global $g (mut i64) (i64.const 0))")
        .with(&format!("(func $vandal (export \"vandal\") {fill})"))
        .run(r#"call $vandal $"1" call $ok"#)
        .run_step(r#"call $vandal $"1" call $step_ok"#)
}

/// In one place, which others use in between, and in another sandbox: always the same.
#[tokio::test]
async fn neither_the_machine_nor_who_was_there_before_can_be_seen() {
    let tight =
        || TestBed::with(|config| config.pool = PoolSizes { handlers_max: 1, steps_max: 1, ..config.pool });
    let (bed, other) = (tight(), tight());
    // As many as there are places, those for describing included.
    let mut vandals = Vec::new();
    for number in 0..6 {
        vandals.push(bed.guest(vandal(number)).await);
    }
    for (thing, more, lines) in THINGS {
        let look = format!(r#"$"\"" call $put {lines} $"\"" call $put call $out"#);
        let observer = WatGuest::default()
            .memory("10 10")
            .with(SUM)
            .with(more)
            .run(&format!("{look} call $ok"))
            .run_step(&format!("{look} call $step_ok"));
        let (here, there) = (bed.guest(observer.clone()).await, other.guest(observer).await);
        // Where nobody was before.
        let first = result(other.run(&there, nothing()).await);
        for _ in 0..3 {
            for vandal in &vandals {
                assert_eq!(result(bed.run(vandal, nothing()).await), "1");
                assert_eq!(completed(bed.steps(vandal).run_step("f", &json("1"), 1).await), "1");
            }
            assert_eq!(result(bed.run(&here, nothing()).await), first, "{thing}");
            // A step sees no more of it.
            assert_eq!(completed(bed.steps(&here).run_step("f", &json("1"), 1).await), first, "{thing}");
        }
        let seen = numbers(&first);
        match thing {
            "bits of NaN" => {
                let quiet = [0x7ff8_0000_0000_0000, 0x7fc0_0000];
                let passed_on = 8;
                let others = seen.iter().enumerate().filter(|(n, _)| *n != passed_on);
                assert!(others.clone().all(|(_, bits)| quiet.contains(bits)), "{seen:x?}");
            }
            "memory at its maximum" => assert_eq!(seen, [u64::MAX, u64::MAX, 10]),
            "a table at its maximum" => assert_eq!(seen, [10, u64::MAX, 20]),
            "what is in a fresh table and global" => assert_eq!(seen, [1, 0]),
            "conversions" => {}
            _ => assert!(seen.iter().all(|number| *number == 0), "{thing}: {seen:x?}"),
        }
    }
}

/// How deep it gets before its stack is used up: it tells the host at each level.
#[tokio::test]
async fn the_stack_is_used_up_at_the_same_depth_always() {
    let deeper = WatGuest::default()
        .with(r#"(func $deeper $"level" (i64.const 1) call $sleep (call $deeper))"#)
        .run("call $deeper unreachable");
    let mut depths = Vec::new();
    // So long that a busy machine gets to the end of the stack first.
    let bed = || TestBed::with(|config| config.set(Limit::HandlerCpuMaxMs, 60_000));
    for bed in [bed(), bed()] {
        let guest = bed.guest(deeper.clone()).await;
        for _ in 0..3 {
            let depth = Arc::new(std::sync::atomic::AtomicUsize::new(0));
            let counter = depth.clone();
            let calls = script(move |_| {
                counter.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                Ok(Ok(Json::null()))
            });
            let failure = failed(bed.run(&guest, calls).await);
            assert!(failure.message.contains("call stack"), "{failure:?}");
            depths.push(depth.load(std::sync::atomic::Ordering::Relaxed));
        }
    }
    assert!(depths[0] > 100 && depths.iter().all(|depth| *depth == depths[0]), "{depths:?}");
}

/// Growth that the host refuses is no answer: a guest could see by it how the host is set up.
#[tokio::test]
async fn growth_that_is_refused_ends_the_handler_whatever_the_limit() {
    for limit_mib in [4, 8] {
        let bed = TestBed::with(|config| config.set(Limit::MemoryMaxBytes, limit_mib << 20));
        for grow in [
            "(drop (memory.grow (i32.const 4000)))",
            "(drop (table.grow $t (ref.null func) (i32.const 60000)))",
        ] {
            let guest =
                WatGuest::default().with("(table $t 1 funcref)").run(&format!(r#"{grow} $"1" call $ok"#));
            let failure = failed(bed.run(&bed.guest(guest).await, nothing()).await);
            assert_eq!(failure.kind, stepbox_domain::FailureKind::OverLimit, "{failure:?}");
        }
    }
}
