//! While its gate is shut, a step computes and nothing of it is seen.

use std::time::Duration;

use super::*;

/// Whether a step that does this came to its end while its gate was shut, and what it printed in
/// all. Nothing of it was seen before the gate was opened.
async fn seen(body: &str) -> (bool, Vec<String>) {
    let bed = TestBed::new();
    let guest = bed.guest(WatGuest::default().run_step(&format!("{body} $\"1\" call $step_ok"))).await;
    let gate: Arc<Gate> = Arc::default();
    let mut steps = guest.steps(StepSetup { gate: gate.clone(), ..bed.step_setup() });
    gate.shut();
    let input = json("null");
    let mut attempt = std::pin::pin!(steps.run_step("f", &input, 1));
    let early = tokio::time::timeout(Duration::from_millis(100), &mut attempt).await.ok();
    assert_eq!(bed.logs.lines(), [""; 0]);
    gate.open();
    let ended = early.is_some();
    let exit = match early {
        Some(exit) => exit,
        None => attempt.await,
    };
    assert_eq!(completed(exit), "1");
    (ended, bed.logs.lines())
}

#[tokio::test]
async fn one_that_only_computes_goes_through_to_its_end() {
    let computes = r#"(i32.const 512) call $context (i32.const 512) call $now"#;
    assert_eq!(seen(computes).await, (true, vec![]));
}

#[tokio::test]
async fn what_it_prints_waits_until_the_gate_is_open() {
    let prints = [
        (r#"call $stdout $"a line\n" (i32.const 512) call $write"#, "Info stdout: a line"),
        (r#"call $stderr $"a line\n" (i32.const 512) call $write"#, "Warn stderr: a line"),
        (r#"(i32.const 2) $"shop" $"a line" call $log"#, "Info shop: a line"),
    ];
    for (prints, line) in prints {
        assert_eq!(seen(prints).await, (false, vec![line.to_owned()]), "{prints}");
    }
}
