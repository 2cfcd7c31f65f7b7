//! A guest gives way at a tick that finds it computing, and for no tick that passed while it waited.

use std::time::Duration;

use futures_util::FutureExt as _;

use super::*;

/// Some ticks pass.
const A_WHILE: Duration = Duration::from_millis(15);

/// Answers its first call when the gate is open.
struct Waits(Arc<Gate>);

#[async_trait]
impl HostCalls for Waits {
    async fn step(&mut self, _: StepCall) -> Result<Answer, EndHandler> {
        unreachable!("it waits only")
    }

    async fn sleep(&mut self, _: StepName, _: Until) -> Result<Answer, EndHandler> {
        unreachable!("it waits only")
    }

    async fn wait_event(&mut self, _: EventName, _: Option<u64>) -> Result<Answer, EndHandler> {
        self.0.passed().await;
        Ok(Answer { outcome: Ok(json("1")), now: Timestamp::from_ms(STARTED_AT_MS) })
    }

    async fn capture(&mut self, _: StepName, _: Json) -> Result<Answer, EndHandler> {
        unreachable!("it waits only")
    }
}

/// Whether `go_on` goes through without giving way nearly always: a real tick may find it, too.
async fn goes_through(mut go_on: impl AsyncFnMut() -> bool) -> bool {
    const TRIES: usize = 20;
    let mut through = 0;
    for _ in 0..TRIES {
        through += usize::from(go_on().await);
    }
    through >= TRIES * 3 / 4
}

#[tokio::test]
async fn a_handler_goes_on_after_a_wait_without_giving_way() {
    let bed = TestBed::new();
    let waits = r#"$"paid" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-event"#;
    let guest = bed.guest(WatGuest::default().run(&format!("{waits} {waits} call $answer"))).await;
    let through = goes_through(async || {
        let gate = Arc::<Gate>::default();
        gate.shut();
        let mut run = std::pin::pin!(bed.run(&guest, Box::new(Waits(gate.clone()))));
        assert!(tokio::time::timeout(A_WHILE, &mut run).await.is_err(), "it waits");
        gate.open();
        match run.as_mut().now_or_never() {
            Some(exit) => result(exit) == "1",
            None => false,
        }
    });
    assert!(through.await);
}

#[tokio::test]
async fn a_step_begins_in_an_instance_that_has_rested_without_giving_way() {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default()).await;
    let mut steps = bed.steps(&guest);
    steps.run_step("f", &json("1"), 1).await;
    let through = goes_through(async || {
        tokio::time::sleep(A_WHILE).await;
        steps.run_step("f", &json("1"), 1).now_or_never().is_some()
    });
    assert!(through.await);
}

#[tokio::test]
async fn a_handler_that_goes_on_computing_gives_way() {
    let bed = TestBed::new();
    let waits = r#"$"paid" (i32.const 0) (i64.const 0) (i32.const 512) call $wait-event"#;
    let guest = bed.guest(WatGuest::default().run(&format!("{waits} (loop (br 0)) call $answer"))).await;
    let gate = Arc::<Gate>::default();
    gate.shut();
    let mut run = std::pin::pin!(bed.run(&guest, Box::new(Waits(gate.clone()))));
    assert!(tokio::time::timeout(A_WHILE, &mut run).await.is_err(), "it waits");
    gate.open();
    assert!(run.as_mut().now_or_never().is_none(), "or else this would not come back");
    assert_eq!(failed(run.await).kind, stepbox_domain::FailureKind::OverLimit);
}
