//! Invariant 7: no guest can hurt its host. Each limit, and the sentence that names it.

use std::time::{Duration, Instant};

use stepbox_domain::FailureKind;

use super::*;

/// Has `body` run as a step and as the handler; both end in the same way.
async fn both(bed: &TestBed, guest: WatGuest, body: &str) -> (Failure, stepbox_domain::step::AttemptFailure) {
    let guest = guest
        .run(&format!(r#"{body} $"null" call $ok"#))
        .run_step(&format!(r#"{body} $"null" call $step_ok"#));
    let guest = bed.guest(guest).await;
    let handler = failed(bed.run(&guest, nothing()).await);
    let step = attempt_failed(bed.steps(&guest).run_step("f", &json("1"), 1).await);
    assert_eq!(handler.kind, step.kind);
    (handler, step)
}

#[tokio::test]
async fn endless_computing_ends_with_the_cpu_budget() {
    let bed = TestBed::new();
    let start = Instant::now();
    let (handler, step) = both(&bed, WatGuest::default(), "(loop $forever (br $forever))").await;
    assert!(start.elapsed() < Duration::from_secs(10));
    assert_eq!(handler.kind, FailureKind::OverLimit, "{handler:?}");
    assert_eq!(
        handler.message,
        "the handler was stopped: it computed for more than 200 ms of CPU time (handlerCpuMaxMs); put computing into steps, and \
         note that a handler's clock stands still between two calls"
    );
    assert_eq!(
        step.message,
        "the step function `f` was stopped: it computed for more than 200 ms of CPU time (attemptCpuMaxMs)"
    );
    assert!(step.retryable);
}

/// Others get their turn: two endless guests on one thread, and a timer beside them.
#[tokio::test(flavor = "current_thread")]
async fn a_guest_that_computes_gives_way() {
    let bed = TestBed::with(|config| config.set(Limit::HandlerCpuMaxMs, 60_000));
    let guest = bed.guest(WatGuest::default().run("(loop $forever (br $forever)) unreachable")).await;
    let endless = async { tokio::join!(bed.run(&guest, nothing()), bed.run(&guest, nothing())) };
    let start = Instant::now();
    assert!(tokio::time::timeout(Duration::from_millis(100), endless).await.is_err());
    assert!(start.elapsed() < Duration::from_secs(2), "took {:?}", start.elapsed());
}

/// What a guest waits for is not counted, nor what the host does for it.
#[tokio::test]
async fn waiting_uses_up_no_cpu_time() {
    let bed = TestBed::with(|config| {
        config.set(Limit::HandlerCpuMaxMs, 50);
        config.set(Limit::AttemptCpuMaxMs, 50);
    });
    struct Slow;
    #[async_trait::async_trait]
    impl HostCalls for Slow {
        async fn step(&mut self, _: StepCall) -> Result<Answer, EndHandler> {
            unreachable!()
        }
        async fn sleep(&mut self, _: StepName, _: Until) -> Result<Answer, EndHandler> {
            tokio::time::sleep(Duration::from_millis(60)).await;
            // Computing of the host's.
            let start = Instant::now();
            while start.elapsed() < Duration::from_millis(60) {}
            Ok(Answer { outcome: Ok(Json::null()), now: Timestamp::from_ms(STARTED_AT_MS) })
        }
        async fn wait_event(&mut self, _: EventName, _: Option<u64>) -> Result<Answer, EndHandler> {
            unreachable!()
        }
        async fn capture(&mut self, _: StepName, _: Json) -> Result<Answer, EndHandler> {
            unreachable!()
        }
    }
    let guest = bed
        .guest(
            WatGuest::default()
                .run(r#"$"a" (i64.const 1) call $sleep $"b" (i64.const 1) call $sleep $"1" call $ok"#)
                .run_step(r#"(i64.const 80000000) call $subscribe call $block $"1" call $step_ok"#),
        )
        .await;
    assert_eq!(result(bed.run(&guest, Box::new(Slow)).await), "1");
    assert_eq!(completed(bed.steps(&guest).run_step("f", &json("1"), 1).await), "1");
}

#[tokio::test]
async fn memory_is_bounded_and_the_limit_is_named() {
    let bed = TestBed::new();
    let grow = "(loop $more (drop (memory.grow (i32.const 16))) (br $more))";
    let (handler, step) = both(&bed, WatGuest::default(), grow).await;
    assert_eq!(handler.kind, FailureKind::OverLimit, "{handler:?}");
    assert_eq!(
        handler.message,
        "the handler was stopped: it asked for 17039360 bytes of memory; an instance may have 16777216 bytes \
         (16 MiB) in all its memories (memoryMaxBytes)"
    );
    assert!(step.retryable);
}

/// Spin's gap (spin#3705): a limit for each memory is none for the instance.
#[tokio::test]
async fn all_memories_count_together() {
    let bed = TestBed::new();
    let more = "(memory $second 130) (memory $third 130)";
    let guest = bed.guest(WatGuest::default().with(more)).await;
    let failure = failed(bed.run(&guest, nothing()).await);
    assert_eq!(failure.kind, FailureKind::OverLimit, "{failure:?}");
    assert!(failure.message.contains("in all its memories"), "{failure:?}");
}

#[tokio::test]
async fn tables_are_bounded() {
    let bed = TestBed::new();
    let more = "(table $t 10 funcref)";
    let grow = "(drop (table.grow $t (ref.null func) (i32.const 50000)))";
    let (handler, _) = both(&bed, WatGuest::default().with(more), grow).await;
    assert_eq!(handler.kind, FailureKind::OverLimit, "{handler:?}");
    assert_eq!(
        handler.message,
        "the handler was stopped: it asked for 50010 table elements; an instance may have 40000 in all its tables (tableMaxElements)"
    );
}

#[tokio::test]
async fn endless_recursion_traps() {
    let bed = TestBed::new();
    let guest = WatGuest::default().with("(func $deeper (call $deeper) (call $deeper))");
    let (handler, step) = both(&bed, guest, "call $deeper").await;
    assert_eq!(handler.kind, FailureKind::Trapped);
    assert_eq!(handler.message, "the handler trapped: its call stack is used up (endless recursion?)");
    assert_eq!(handler.backtrace.as_deref(), Some("deeper (50 times)"));
    assert!(step.retryable);
}

#[tokio::test]
async fn reaching_out_of_bounds_and_exiting_trap() {
    let bed = TestBed::new();
    let (handler, _) = both(&bed, WatGuest::default(), "(drop (i32.load (i32.const -8)))").await;
    assert_eq!(handler.kind, FailureKind::Trapped);
    assert!(handler.message.starts_with("the handler trapped: it reached out of the bounds"), "{handler:?}");

    let (_, step) = both(&bed, WatGuest::default(), "(call $exit (i32.const 1))").await;
    assert_eq!(step.message, "the step function `f` called exit instead of returning");

    let (_, step) = both(&bed, WatGuest::default(), "(drop (i32.div_u (i32.const 1) (i32.const 0)))").await;
    assert_eq!(step.message, "the step function `f` trapped: integer divide by zero");
}

/// A string of a hundred MiB as a result, or in a call, is refused before it is copied.
#[tokio::test]
async fn huge_values_are_not_copied() {
    let bed = TestBed::with(|config| config.set(Limit::MemoryMaxBytes, 128 << 20));
    let huge = "(i32.const 200000) (i32.const 110000000)";
    let guest = bed
        .guest(
            WatGuest::default()
                .memory("1700")
                .run(&format!("{huge} call $ok"))
                .run_step(&format!("{huge} call $step_ok")),
        )
        .await;
    let handler = failed(bed.run(&guest, nothing()).await);
    assert_eq!(
        handler.message,
        "the handler was stopped: it passed far more data in one call than the 1048576 bytes of one value (valueMaxBytes)"
    );
    let step = attempt_failed(bed.steps(&guest).run_step("f", &json("1"), 1).await);
    assert_eq!(step.kind, FailureKind::OverLimit);

    let call = format!(r#"(i32.const 2) $"t" {huge} call $log"#);
    let (handler, _) = both(&bed, WatGuest::default().memory("1700"), &call).await;
    assert_eq!(handler.kind, FailureKind::OverLimit, "{handler:?}");

    // A list of ten million names.
    let keys = r#"(i32.const 200000) (i32.const 10000000) (i32.const 512) call $wait-all $"1" call $ok"#;
    let guest = bed.guest(WatGuest::default().memory("1700").run(keys)).await;
    assert_eq!(failed(bed.run(&guest, nothing()).await).kind, FailureKind::OverLimit);
}

#[tokio::test]
async fn handles_are_bounded() {
    let bed = TestBed::new();
    let (handler, _) = both(&bed, WatGuest::default(), "(loop $more (drop (call $stdout)) (br $more))").await;
    assert_eq!(handler.kind, FailureKind::OverLimit, "{handler:?}");
    assert!(
        handler.message.contains("more host resources (streams, pollables, …) than the 1000"),
        "{handler:?}"
    );
}

#[tokio::test]
async fn random_bytes_are_bounded() {
    let bed = TestBed::new();
    let ask = "(i64.const 100000000) (i32.const 512) call $random-bytes";
    let (handler, _) = both(&bed, WatGuest::default(), ask).await;
    assert_eq!(handler.kind, FailureKind::OverLimit, "{handler:?}");
}

#[tokio::test]
async fn a_flood_of_output_is_cut() {
    let bed = TestBed::with(|config| config.set(Limit::OutputMaxBytes, 1000));
    let guest = bed
        .guest(WatGuest::default().run_step(
            r#"(local.set $i (i32.const 1000))
            (loop $more
                (i32.const 2) $"t" $"line" call $log
                (br_if $more (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))
            $"1" call $step_ok"#,
        ))
        .await;
    let mut steps = bed.steps(&guest);
    completed(steps.run_step("f", &json("1"), 1).await);
    let lines = bed.logs.lines();
    assert_eq!(lines.len(), 28, "{lines:?}");
    assert_eq!(lines[27], "Warn stepbox: more than 1000 bytes of output: the rest is dropped");
    // The next attempt may write again.
    completed(steps.run_step("f", &json("1"), 2).await);
    assert_eq!(bed.logs.lines().len(), 56);
}

/// A `start` function runs while the instance is made: the same limits are around it.
#[tokio::test]
async fn what_runs_at_the_start_is_bounded_too() {
    let bed = TestBed::new();
    let spin = WatGuest::default().with("(func $spin (loop $l (br $l))) (start $spin)");
    let guest = bed.guest(spin).await;
    assert_eq!(failed(bed.run(&guest, nothing()).await).kind, FailureKind::OverLimit);
    let failure = attempt_failed(bed.steps(&guest).run_step("f", &json("1"), 1).await);
    assert!(failure.message.contains("200 ms of CPU time"), "{failure:?}");

    let trap = WatGuest::default().with("(func $boom unreachable) (start $boom)");
    let guest = bed.guest(trap).await;
    assert_eq!(failed(bed.run(&guest, nothing()).await).kind, FailureKind::Trapped);

    let call = WatGuest::default().with(r#"(func $call $"a" (i64.const 1) call $sleep) (start $call)"#);
    let guest = bed.guest(call).await;
    let exit = bed.run(&guest, script(|_| Err(EndHandler))).await;
    assert!(matches!(exit, GuestExit::Ended), "{exit:?}");
}

/// All handlers together have a share of the host's memory: who comes when it is used up is called
/// later, and nothing of it is the guest's fault.
#[tokio::test]
async fn when_the_hosts_memory_is_used_up_a_handler_is_called_later() {
    let bed = TestBed::with(|config| {
        config.pool.handlers_memory_max_bytes = 20 << 16;
        config.pool.steps_memory_max_bytes = 20 << 16;
    });
    let naps = r#"$"nap" (i64.const 5) call $sleep"#;
    let waits = "(i64.const 10000000000) call $subscribe call $block";
    let large = WatGuest::default().memory("12").run(&format!(r#"{naps} $"1" call $ok"#)).run_step(&format!(
        r#"(if (i32.eq (local.get $attempt) (i32.const 7)) (then {waits})) $"1" call $step_ok"#
    ));
    let guest = bed.guest(large).await;
    let in_between = async {
        let exit = bed.run(&guest, nothing()).await;
        assert!(matches!(&exit, GuestExit::Unavailable(why) if why.contains("1310720 bytes")), "{exit:?}");
        let exit = bed.steps(&guest).run_step("f", &json("1"), 1).await;
        assert!(matches!(exit, StepExit::Unavailable(_)), "{exit:?}");
        // A step that grows has run in part: that was an attempt.
        let grows = r#"(drop (memory.grow (i32.const 12))) $"1" call $step_ok"#;
        let small = bed.guest(WatGuest::default().run_step(grows)).await;
        let failure = attempt_failed(bed.steps(&small).run_step("f", &json("1"), 1).await);
        assert_eq!((failure.kind, failure.retryable), (FailureKind::OverLimit, true));
        // So does a handler, but that does no harm: it is called again from the top.
        let grows = r#"(drop (memory.grow (i32.const 12))) $"1" call $ok"#;
        let small = bed.guest(WatGuest::default().run(grows)).await;
        let exit = bed.run(&small, nothing()).await;
        assert!(matches!(exit, GuestExit::Unavailable(_)), "{exit:?}");
    };
    let mut steps = bed.steps(&guest);
    let input = json("1");
    tokio::select! {
        biased;
        exit = async { tokio::join!(bed.run(&guest, Box::new(Forever)), steps.run_step("f", &input, 7)) } => panic!("{exit:?}"),
        () = in_between => {}
    }
    // And all of it comes back.
    for _ in 0..3 {
        assert_eq!(result(bed.run(&guest, nothing()).await), "1");
        assert_eq!(completed(bed.steps(&guest).run_step("f", &input, 1).await), "1");
    }
}

/// What no amount of waiting could give is the guest's own matter.
#[tokio::test]
async fn more_memory_than_all_together_may_have_is_over_the_limit() {
    let bed = TestBed::with(|config| config.pool.handlers_memory_max_bytes = 1 << 20);
    let guest = bed.guest(WatGuest::default().memory("20")).await;
    let failure = failed(bed.run(&guest, nothing()).await);
    assert_eq!(failure.kind, FailureKind::OverLimit);
    assert!(failure.message.contains("an instance may have 1048576 bytes"), "{failure:?}");
}

/// Never answers.
struct Forever;

#[async_trait::async_trait]
impl HostCalls for Forever {
    async fn step(&mut self, _: StepCall) -> Result<Answer, EndHandler> {
        std::future::pending().await
    }
    async fn sleep(&mut self, _: StepName, _: Until) -> Result<Answer, EndHandler> {
        std::future::pending().await
    }
    async fn wait_event(&mut self, _: EventName, _: Option<u64>) -> Result<Answer, EndHandler> {
        std::future::pending().await
    }
    async fn capture(&mut self, _: StepName, _: Json) -> Result<Answer, EndHandler> {
        std::future::pending().await
    }
}
