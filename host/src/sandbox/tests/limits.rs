//! The limits that differ from task to task, and what an attempt is billed for.

use std::time::Duration;

use stepbox_domain::{FailureKind, Receipt};

use super::*;

const FLOOD: &str = "(loop $more (drop (call $mono)) (br $more))";

/// Asks what time it is, so many times.
fn asks(times: u32) -> String {
    format!(
        "(local.set $i (i32.const {times}))
         (loop $more
            (drop (call $mono))
            (br_if $more (local.tee $i (i32.sub (local.get $i) (i32.const 1)))))"
    )
}

fn step_setup(bed: &TestBed, settings: &[(Limit, u64)]) -> StepSetup {
    let limits = bed.limits.with(&settings.iter().copied().collect());
    StepSetup { limits: Arc::new(limits), ..bed.step_setup() }
}

async fn handler(bed: &TestBed, guest: &Arc<dyn Guest>, settings: &[(Limit, u64)]) -> GuestExit {
    let limits = bed.limits.with(&settings.iter().copied().collect());
    let setup = HandlerSetup { context: bed.context(), limits: Arc::new(limits), meter: Arc::default() };
    guest.run(setup, &json("null"), nothing()).await
}

#[tokio::test]
async fn calls_of_the_host_are_bounded_by_the_second() {
    let bed = TestBed::new();
    let wat =
        WatGuest::default().run(&format!("{FLOOD} unreachable")).run_step(&format!("{FLOOD} unreachable"));
    let guest = bed.guest(wat).await;
    let settings = [(Limit::HostCallsPerSecondMax, 1_000)];
    let failure = failed(handler(&bed, &guest, &settings).await);
    assert_eq!(failure.kind, FailureKind::OverLimit);
    assert_eq!(
        failure.message,
        "the handler was stopped: it called the host more than 1000 times in a second (hostCallsPerSecondMax)"
    );
    let mut steps = guest.steps(step_setup(&bed, &settings));
    let failure = attempt_failed(steps.run_step("f", &json("1"), 1).await);
    assert!(failure.retryable);
    assert_eq!(
        failure.message,
        "the step function `f` was stopped: it called the host more than 1000 times in a second \
         (hostCallsPerSecondMax)"
    );
}

#[tokio::test]
async fn who_calls_the_host_less_is_let_alone() {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default().run(&format!(r#"{} $"1" call $ok"#, asks(900)))).await;
    assert_eq!(result(handler(&bed, &guest, &[(Limit::HostCallsPerSecondMax, 1_000)]).await), "1");
}

#[tokio::test]
async fn a_leg_of_the_handler_is_bounded_by_the_clock() {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default().run("(loop $forever (br $forever)) unreachable")).await;
    let failure = failed(handler(&bed, &guest, &[(Limit::HandlerWallMaxMs, 30)]).await);
    assert_eq!(failure.kind, FailureKind::OverLimit);
    assert_eq!(
        failure.message,
        "the handler was stopped: it took more than 30 ms by the clock, without what it waited for in calls \
         of the host (handlerWallMaxMs)"
    );
}

/// Answers after a while.
struct Slow;

#[async_trait::async_trait]
impl HostCalls for Slow {
    async fn step(&mut self, _: StepCall) -> Result<Answer, EndHandler> {
        unreachable!()
    }
    async fn sleep(&mut self, _: StepName, _: Until) -> Result<Answer, EndHandler> {
        tokio::time::sleep(Duration::from_millis(80)).await;
        Ok(Answer { outcome: Ok(Json::null()), now: Timestamp::from_ms(STARTED_AT_MS) })
    }
    async fn wait_event(&mut self, _: EventName, _: Option<u64>) -> Result<Answer, EndHandler> {
        unreachable!()
    }
    async fn capture(&mut self, _: StepName, _: Json) -> Result<Answer, EndHandler> {
        unreachable!()
    }
}

#[tokio::test]
async fn what_the_handler_waits_for_in_calls_of_the_host_is_not_its_time() {
    let bed = TestBed::with(|config| config.set(Limit::HandlerWallMaxMs, 60));
    let naps = r#"$"a" (i64.const 1) call $sleep $"b" (i64.const 1) call $sleep $"1" call $ok"#;
    let guest = bed.guest(WatGuest::default().run(naps)).await;
    assert_eq!(result(bed.run(&guest, Box::new(Slow)).await), "1");
}

/// What holds comes with each setup; the pool has room for what the ceilings permit.
#[tokio::test]
async fn each_instance_has_the_limits_of_its_task() {
    let bed = TestBed::new();
    let grows =
        r#"(if (i32.lt_s (memory.grow (i32.const 6400)) (i32.const 0)) (then unreachable)) $"1" call $ok"#;
    let guest = bed.guest(WatGuest::default().run(grows)).await;
    let [little, much] = [[(Limit::MemoryMaxBytes, 1 << 20)], [(Limit::MemoryMaxBytes, 500 << 20)]];
    let (denied, granted) = tokio::join!(handler(&bed, &guest, &little), handler(&bed, &guest, &much));
    assert!(failed(denied).message.contains("an instance may have 1048576 bytes (1 MiB)"));
    assert_eq!(result(granted), "1");

    let echo = bed.guest(WatGuest::default()).await;
    let long = json(&format!("\"{}\"", "x".repeat(3_000)));
    let mut steps = echo.steps(step_setup(&bed, &[(Limit::ValueMaxBytes, 2_000)]));
    let failure = attempt_failed(steps.run_step("f", &long, 1).await);
    assert_eq!((failure.kind, failure.retryable), (FailureKind::OverLimit, false));
    assert!(failure.message.contains("a value may have 2000 bytes (valueMaxBytes)"), "{failure:?}");
    let mut steps = echo.steps(step_setup(&bed, &[]));
    completed(steps.run_step("f", &long, 1).await);
}

async fn billed(bed: &TestBed, guest: &Arc<dyn Guest>, input: &str, attempts: u32) -> Vec<Receipt> {
    let setup = bed.step_setup();
    let meter = setup.meter.clone();
    let mut steps = guest.steps(setup);
    let mut bills = Vec::new();
    for attempt in 1..=attempts {
        meter.begin();
        steps.run_step("f", &json(input), attempt).await;
        bills.push(meter.receipt());
    }
    bills
}

#[tokio::test]
async fn each_attempt_is_billed_for_itself() {
    let bed = TestBed::new();
    let grows = "(if (i32.eq (local.get $attempt) (i32.const 2)) (then (drop (memory.grow (i32.const 4)))))";
    let guest = WatGuest::default().run_step(&format!(r#"{} {grows} $"[1]" call $step_ok"#, asks(123)));
    let bills = billed(&bed, &bed.guest(guest).await, "\"in\"", 3).await;
    for bill in &bills {
        assert!(bill.wall_us >= bill.cpu_us && bill.cpu_us > 0, "{bill:?}");
        assert_eq!((bill.bytes_in, bill.bytes_out), (4, 3));
    }
    assert_eq!(bills[0].host_calls, 123);
    assert_eq!(bills[1].host_calls, 124, "growing the memory asks the host too");
    assert_eq!(bills[2].host_calls, 123);
    let memory: Vec<u64> = bills.iter().map(|bill| bill.memory_peak_bytes >> 16).collect();
    assert_eq!(memory, [4, 8, 8], "the instance keeps what it has");
}

#[tokio::test]
async fn time_that_is_computed_is_billed_and_ticks_are_no_calls() {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default().run_step("(loop $forever (br $forever)) unreachable")).await;
    // Over its limit of 200 ms.
    let bill = billed(&bed, &guest, "1", 1).await.remove(0);
    assert!((190_000..2_000_000).contains(&bill.cpu_us), "{bill:?}");
    assert_eq!(bill.host_calls, 0);
}

#[tokio::test]
async fn attempts_that_come_to_a_bad_end_are_billed_too() {
    let bed = TestBed::new();
    let trap = WatGuest::default().run_step(&format!("{} unreachable", asks(7)));
    let bill = billed(&bed, &bed.guest(trap).await, "1", 1).await.remove(0);
    assert_eq!((bill.host_calls, bill.bytes_in, bill.bytes_out), (7, 1, 0));
    assert_eq!(bill.memory_peak_bytes, 4 << 16);

    // Interrupted, as by a timeout or a stop of the host.
    let waits = format!("{} (i64.const 100000000000) call $subscribe call $block unreachable", asks(7));
    let guest = bed.guest(WatGuest::default().run_step(&waits)).await;
    let setup = bed.step_setup();
    let meter = setup.meter.clone();
    let mut steps = guest.steps(setup);
    let input = json("1");
    tokio::select! {
        exit = steps.run_step("f", &input, 1) => panic!("{exit:?}"),
        () = async { while meter.receipt().host_calls < 9 { tokio::task::yield_now().await } } => {}
    }
    let bill = meter.receipt();
    assert_eq!((bill.bytes_in, bill.memory_peak_bytes), (1, 4 << 16));
    assert!(bill.cpu_us > 0);
}

/// A hundred that compute without end, and one that is short, on two threads: it gets through while
/// they go on, and they all get on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endless_guests_leave_room_for_short_ones() {
    let bed = Arc::new(TestBed::with(|config| {
        config.pool.handlers_max = 110;
        config.set(Limit::HandlerCpuMaxMs, 60_000);
    }));
    let endless = bed.guest(WatGuest::default().run("(loop $forever (br $forever)) unreachable")).await;
    let short = bed.guest(WatGuest::default()).await;
    let meters: Vec<Arc<Meter>> = (0..100).map(|_| Arc::default()).collect();
    let loops: Vec<_> = meters
        .iter()
        .map(|meter| {
            let setup =
                HandlerSetup { context: bed.context(), limits: bed.limits.clone(), meter: meter.clone() };
            let endless = endless.clone();
            tokio::spawn(async move { endless.run(setup, &json("null"), nothing()).await })
        })
        .collect();
    let computed = || -> u64 { meters.iter().map(|meter| meter.receipt().cpu_us).sum() };
    let all_have_begun = async {
        while !meters.iter().all(|meter| meter.receipt().cpu_us > 1_000) {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), all_have_begun).await.expect("each gets its turn");
    // What the loops compute while a hundred short ones go through is a matter of a few turns:
    // without turns it would be a tick of each for every time that a short one is polled.
    let before = computed();
    for _ in 0..100 {
        assert_eq!(result(bed.run(&short, nothing()).await), "null");
    }
    let meanwhile = Duration::from_micros(computed() - before);
    assert!(meanwhile < Duration::from_secs(20), "the loops computed {meanwhile:?} meanwhile");
    for endless in loops {
        endless.abort();
    }
}
