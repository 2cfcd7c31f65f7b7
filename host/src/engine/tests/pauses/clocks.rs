//! While a rule holds them, the clocks of runs stand still.

use super::*;

#[test]
fn the_execution_deadline_stands_still_while_held() {
    for scope in [whole(), at_step()] {
        let guest = Scripted::new(|mut h| async move {
            h.step("charge", once()).await?;
            h.event("paid", None).await
        });
        let host = by_hand(&store(Some(1_000)), &guest, START);
        let rule = host.pause(scope, None);
        host.begin("e");
        host.held("e", &rule);
        host.advance(5_000);
        host.end_pause(&rule);
        host.until("e", |view| matches!(view.waiting, Some(Wait::Event { .. })));
        host.block_on(host.engine.0.live.empty());
        host.advance(999);
        assert_eq!(host.until("e", |_| true).status, ExecutionStatus::Running);
        host.advance(1);
        let end = host.end_of("e");
        assert_eq!(end.error.unwrap().kind, FailureKind::TimedOut);
        assert_eq!(end.completed_at, Some(START.plus_ms(6_000)));
    }
}

#[test]
fn the_timeout_over_all_attempts_stands_still_while_held() {
    for scope in [whole(), at_step()] {
        let options = StepOptions { timeout_ms: Some(1_000), ..retries(3, 400) };
        let guest = Scripted::new(move |mut h| {
            let options = options.clone();
            async move { h.step("charge", options).await }
        })
        .step("charge", |_| async { fails("busy") });
        let host = by_hand(&store(None), &guest, START);
        host.begin("e");
        host.waits("e");
        let rule = host.pause(scope, None);
        host.advance(400);
        host.held("e", &rule);
        host.advance(5_000);
        host.end_pause(&rule);
        host.until("e", |view| matches!(view.waiting, Some(Wait::Retry { attempt: 3, .. })));
        host.block_on(host.engine.0.live.empty());
        assert_eq!(guest.attempts_of("charge"), [1, 2]);
        host.advance(400);
        assert_eq!(host.end_of("e").error.unwrap().kind, FailureKind::Exhausted);
        assert_eq!(guest.attempts_of("charge"), [1, 2, 3]);
    }
}

#[test]
fn an_event_sent_during_a_pause_is_delivered_after_it_and_the_wait_does_not_run_out() {
    let guest = Scripted::new(|mut h| async move { h.event("paid", Some(1_000)).await });
    let host = by_hand(&store(None), &guest, START);
    host.begin("e");
    host.waits("e");
    let rule = host.pause(whole(), None);
    host.advance(3_000);
    host.held("e", &rule);
    host.send("e", "paid", json!(1)).unwrap();
    host.advance(3_000);
    assert_eq!(host.until("e", |_| true).status, ExecutionStatus::Running);
    host.end_pause(&rule);
    assert_eq!(host.end_of("e").result, Some(Json::from(json!(1))));
}

#[test]
fn a_wait_learns_of_a_pause_that_it_slept_through_after_a_restart_too() {
    for restarts in [false, true] {
        let guest = Scripted::new(|mut h| async move { h.event("paid", Some(10_000)).await });
        let store = store(None);
        let mut host = by_hand(&store, &guest, START);
        host.begin("e");
        host.waits("e");
        host.advance(1_000);
        let rule = host.pause(whole(), None);
        host.advance(2_000);
        host.end_pause(&rule);
        host.pause(whole(), Some(3_000));
        host.advance(3_000);
        if restarts {
            let now = host.engine.clock().now();
            host.crash();
            host = by_hand(&store, &guest, now);
        }
        host.advance(4_000);
        // Looked at, it finds that it has five seconds more.
        host.until("e", |view| {
            matches!(view.waiting, Some(Wait::Event { deadline: Some(deadline), .. }) if deadline == START.plus_ms(15_000))
        });
        host.block_on(host.engine.0.live.empty());
        host.advance(4_999);
        assert_eq!(host.until("e", |_| true).status, ExecutionStatus::Running);
        host.advance(1);
        let end = host.end_of("e");
        assert_eq!(end.error.unwrap().kind, FailureKind::TimedOut);
        assert_eq!(end.completed_at, Some(START.plus_ms(15_000)));
    }
}

#[test]
fn an_attempt_under_way_goes_on_without_its_clocks() {
    for (task_ms, step_ms, timeout_scope) in [
        (None, Some(600), TimeoutScope::PerAttempt),
        (None, Some(600), TimeoutScope::AllAttempts),
        (Some(600), None, TimeoutScope::AllAttempts),
    ] {
        let begun = Arc::new(Notify::new());
        let go_on = Arc::new(Notify::new());
        let (tell, wait) = (begun.clone(), go_on.clone());
        let options = StepOptions { timeout_ms: step_ms, timeout_scope, ..once() };
        let guest = Scripted::new(move |mut h| {
            let options = options.clone();
            async move { h.step("charge", options).await }
        })
        .step("charge", move |_| {
            let (tell, wait) = (tell.clone(), wait.clone());
            async move {
                tell.notify_one();
                wait.notified().await;
                StepExit::Completed(Json::null())
            }
        });
        let host = Host::start(&store(task_ms), &guest, config());
        host.begin("paused");
        host.block_on(begun.notified());
        let rule = host.pause(scope(None, Some("t"), None), None);
        // Longer than its time.
        std::thread::sleep(Duration::from_millis(700));
        go_on.notify_one();
        assert_eq!(host.end_of("paused").status, ExecutionStatus::Completed);

        // When the rule ends its time runs again.
        host.end_pause(&rule);
        host.begin("e");
        host.block_on(begun.notified());
        let rule = host.pause(whole(), Some(700));
        let end = host.end_of("e");
        assert_eq!(end.error.unwrap().kind, FailureKind::TimedOut);
        assert!(end.completed_at > rule.expires_at);
    }
}
