//! What pause rules hold, what stands still meanwhile, and what wakes when they end.

mod clocks;

use std::sync::atomic::Ordering;

use stepbox_domain::{
    audit::AuditAction,
    pause::{self, PauseRule, PauseScope},
    run::Wait,
};

use super::*;
use crate::store::{AuditFilter, ExecutionView, memory::Memory};

const START: Timestamp = Timestamp::from_ms(1_000_000);

fn scope(execution: Option<&str>, task: Option<&str>, step: Option<&str>) -> PauseScope {
    pause::scope(execution, task, step).unwrap()
}

fn whole() -> PauseScope {
    scope(Some("e"), None, None)
}

fn at_step() -> PauseScope {
    scope(None, None, Some("cha*"))
}

/// With a clock that stands until [`Host::advance`] moves it.
fn by_hand(store: &Arc<Memory>, guest: &Scripted, now: Timestamp) -> Host {
    Host::start_by(store, guest, config(), Clock::manual(now))
}

impl Host {
    fn pause(&self, scope: PauseScope, expires_in_ms: Option<u64>) -> PauseRule {
        let expires_at = expires_in_ms.map(|ms| self.engine.clock().now().plus_ms(ms));
        self.block_on(self.engine.pause(scope, expires_at, Who::default())).unwrap()
    }

    fn end_pause(&self, rule: &PauseRule) {
        self.block_on(self.engine.end_pause(&rule.id, Who::default())).unwrap();
    }

    fn resume(&self, scope: PauseScope) -> u64 {
        self.block_on(self.engine.resume(scope, Who::default())).unwrap()
    }

    /// Waits until the execution stands at `rule`, and nothing moves any more.
    fn held(&self, id: &str, rule: &PauseRule) -> ExecutionView {
        let view = self.until(
            id,
            |view| matches!(&view.waiting, Some(Wait::Pause { rule: stands_at, .. }) if *stands_at == rule.id),
        );
        self.block_on(self.engine.0.live.empty());
        view
    }

    fn waits(&self, id: &str) -> ExecutionView {
        let view = self.until(id, |view| view.waiting.is_some());
        self.block_on(self.engine.0.live.empty());
        view
    }

    fn advance(&self, ms: u64) {
        let engine = &self.engine.0;
        let now = engine.clock.now().plus_ms(ms);
        engine.clock.set(now);
        engine.pauses.look(&engine.clock, &engine.ready);
        // So that the timers look at the clock; there is no such run.
        engine.timers.set(crate::store::RunKey(0), now);
    }
}

fn charge() -> Scripted {
    Scripted::new(|mut h| async move {
        h.step("look", once()).await?;
        h.step("charge", once()).await
    })
}

#[test]
fn a_rule_holds_what_matches_all_that_it_sets() {
    let guest = charge();
    let host = Host::start(&store(None), &guest, config());
    let holds_at = |execution: Option<&str>, task: Option<&str>, step: Option<&str>, id: &str| {
        guest.attempts.lock().unwrap().clear();
        let rule = host.pause(scope(execution, task, step), None);
        host.begin(id);
        host.until(id, |view| view.status.is_terminal() || matches!(view.waiting, Some(Wait::Pause { .. })));
        let attempts =
            guest.attempts.lock().unwrap().iter().map(|(name, _)| name.clone()).collect::<Vec<_>>();
        host.end_pause(&rule);
        assert_eq!(host.end_of(id).status, ExecutionStatus::Completed);
        assert_eq!(guest.attempts.lock().unwrap().len(), 2);
        attempts.join(" ")
    };
    assert_eq!(holds_at(Some("a"), None, None, "a"), "");
    assert_eq!(holds_at(None, Some("t"), None, "b"), "");
    assert_eq!(holds_at(Some("c"), Some("t"), None, "c"), "");
    assert_eq!(holds_at(None, None, Some("look"), "d"), "");
    assert_eq!(holds_at(None, None, Some("ch?rge"), "e"), "look");
    assert_eq!(holds_at(Some("f"), None, Some("{pay,charge}"), "f"), "look");
    assert_eq!(holds_at(None, Some("t"), Some("charge"), "g"), "look");
    assert_eq!(holds_at(Some("h"), Some("t"), Some("c*"), "h"), "look");
    assert_eq!(holds_at(Some("another"), None, None, "i"), "look charge");
    assert_eq!(holds_at(Some("j"), Some("another"), None, "j"), "look charge");
    assert_eq!(holds_at(None, Some("another"), Some("*"), "k"), "look charge");
    assert_eq!(holds_at(Some("l"), None, Some("pay"), "l"), "look charge");
}

#[test]
fn a_start_is_held_before_its_handler_is_called() {
    let guest = charge();
    let host = Host::start(&store(None), &guest, config());
    let rule = host.pause(whole(), None);
    assert_eq!(host.begin("e").status, ExecutionStatus::Scheduled);
    let view = host.held("e", &rule);
    assert_eq!(view.waiting, Some(Wait::Pause { rule: rule.id.clone(), step: None, until: None }));
    assert_eq!(guest.legs.load(Ordering::Relaxed), 0);
    host.end_pause(&rule);
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
}

#[test]
fn a_run_that_slept_is_held_when_it_would_go_on() {
    let guest = Scripted::new(|mut h| async move {
        h.sleep("nap", 10_000).await?;
        h.step("charge", once()).await
    });
    let host = by_hand(&store(None), &guest, START);
    host.begin("e");
    host.waits("e");
    let rule = host.pause(scope(None, Some("t"), None), None);
    host.advance(10_000);
    host.held("e", &rule);
    assert_eq!(guest.legs.load(Ordering::Relaxed), 1, "it is not given to its guest");
    host.end_pause(&rule);
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    assert_eq!(guest.legs.load(Ordering::Relaxed), 2);
}

#[test]
fn a_step_is_held_between_its_attempts() {
    for (scope, legs) in [(whole(), 1), (at_step(), 2)] {
        let guest = Scripted::new(|mut h| async move { h.step("charge", retries(3, 10_000)).await })
            .step("charge", |attempt| async move {
                if attempt == 1 { fails("busy") } else { StepExit::Completed(Json::null()) }
            });
        let host = by_hand(&store(None), &guest, START);
        host.begin("e");
        host.waits("e");
        let rule = host.pause(scope, None);
        host.advance(10_000);
        host.held("e", &rule);
        assert_eq!(guest.attempts_of("charge"), [1]);
        assert_eq!(guest.legs.load(Ordering::Relaxed), legs);
        host.end_pause(&rule);
        assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
        assert_eq!(guest.attempts_of("charge"), [1, 2]);
    }
}

#[test]
fn expiry_wakes_what_was_held() {
    for scope in [whole(), at_step()] {
        let guest = charge();
        let host = Host::start(&store(None), &guest, config());
        let rule = host.pause(scope, Some(1_000));
        host.begin("e");
        let held = host.held("e", &rule);
        assert!(matches!(held.waiting, Some(Wait::Pause { until: Some(_), .. })));
        let end = host.end_of("e");
        assert_eq!(end.status, ExecutionStatus::Completed);
        assert!(end.completed_at >= rule.expires_at);
        let gone = host.block_on(host.engine.end_pause(&rule.id, Who::default()));
        assert!(matches!(gone, Err(EngineError::UnknownPauseRule(_))));
        assert_eq!(host.engine.0.pauses.held(), 0);
    }
}

#[test]
fn expiry_is_noticed_when_the_wall_clock_jumps() {
    let guest = charge();
    let host = by_hand(&store(None), &guest, START);
    let rule = host.pause(whole(), Some(3_600_000));
    host.begin("e");
    host.held("e", &rule);
    host.engine.clock().set(START.plus_ms(3_600_000));
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
}

#[test]
fn a_wall_clock_that_is_set_back_undoes_no_rule() {
    let host = by_hand(&store(None), &charge(), START);
    let rule = host.pause(at_step(), None);
    host.engine.clock().set(Timestamp::from_ms(0));
    host.begin("e");
    host.held("e", &rule);
    host.end_pause(&rule);
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
}

#[test]
fn resume_ends_the_rules_with_just_that_scope() {
    let guest = charge();
    let host = Host::start(&store(None), &guest, config());
    let by_task =
        [host.pause(scope(None, Some("t"), None), None), host.pause(scope(None, Some("t"), None), None)];
    let by_step = host.pause(scope(None, Some("t"), Some("charge")), None);
    host.begin("e");
    host.until("e", |view| view.waiting.is_some());
    assert_eq!(host.resume(scope(None, None, Some("charge"))), 0);
    assert_eq!(host.resume(whole()), 0);
    assert_eq!(host.resume(scope(None, Some("t"), None)), 2);
    host.held("e", &by_step);
    assert_eq!(guest.attempts_of("look"), [1]);
    let gone = host.block_on(host.engine.end_pause(&by_task[0].id, Who::default()));
    assert!(matches!(gone, Err(EngineError::UnknownPauseRule(_))));
    assert_eq!(host.resume(scope(None, Some("t"), Some("charge"))), 1);
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    let empty = host.block_on(host.engine.resume(PauseScope::default(), Who::default()));
    assert!(matches!(empty, Err(EngineError::EmptyScope)));
}

#[test]
fn a_rule_must_match_something_and_end_in_the_future() {
    let host = by_hand(&store(None), &charge(), START);
    let pause = |scope, expires_at| host.block_on(host.engine.pause(scope, expires_at, Who::default()));
    assert!(matches!(pause(PauseScope::default(), None), Err(EngineError::EmptyScope)));
    assert!(matches!(pause(whole(), Some(START)), Err(EngineError::ExpiresInThePast)));
}

#[test]
fn of_two_rules_the_last_to_end_lets_go() {
    for scopes in [[whole(), whole()], [at_step(), at_step()], [whole(), at_step()]] {
        let guest = charge();
        let host = Host::start(&store(None), &guest, config());
        let rules = scopes.map(|scope| host.pause(scope, None));
        host.begin("e");
        let view = host.until("e", |view| view.waiting.is_some());
        let Some(Wait::Pause { rule: named, .. }) = view.waiting else { panic!("{view:?}") };
        let (first, last) =
            if rules[0].id == named { (&rules[0], &rules[1]) } else { (&rules[1], &rules[0]) };
        host.end_pause(first);
        host.held("e", last);
        assert_eq!(guest.attempts_of("charge"), [0; 0]);
        host.end_pause(last);
        assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    }
}

#[test]
fn what_is_held_stays_held_over_a_restart() {
    for scope in [whole(), at_step()] {
        let guest = charge();
        let store = store(Some(60_000));
        let host = by_hand(&store, &guest, START);
        let rule = host.pause(scope.clone(), None);
        host.begin("e");
        host.held("e", &rule);
        host.crash();

        let host = by_hand(&store, &guest, START.plus_ms(100_000));
        while host.engine.0.pauses.held() == 0 {
            std::thread::sleep(Duration::from_millis(1));
        }
        host.held("e", &rule);
        assert_eq!(guest.attempts_of("charge"), [0; 0]);
        assert_eq!(host.resume(scope), 1);
        assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
    }
}

#[test]
fn what_was_held_goes_on_after_a_restart_when_its_rule_has_expired() {
    let guest = charge();
    let store = store(None);
    let host = by_hand(&store, &guest, START);
    let rule = host.pause(at_step(), Some(1_000));
    host.begin("e");
    host.held("e", &rule);
    host.crash();
    let host = by_hand(&store, &guest, START.plus_ms(1_000));
    assert_eq!(host.end_of("e").status, ExecutionStatus::Completed);
}

#[test]
fn once_taken_up_again_a_run_no_longer_shows_the_rule() {
    let begun = Arc::new(Notify::new());
    let tell = begun.clone();
    let guest =
        Scripted::new(|mut h| async move { h.step("charge", once()).await }).step("charge", move |_| {
            let tell = tell.clone();
            async move {
                tell.notify_one();
                std::future::pending().await
            }
        });
    let host = Host::start(&store(None), &guest, config());
    let rule = host.pause(at_step(), None);
    host.begin("e");
    host.held("e", &rule);
    host.end_pause(&rule);
    host.block_on(begun.notified());
    host.until("e", |view| view.waiting.is_none());
}

#[test]
fn no_rule_that_ends_leaves_a_run_behind() {
    let guest = charge();
    let host = Host::start(&store(None), &guest, config());
    for n in 0..300 {
        let id = format!("e{n}");
        let scope = match n % 3 {
            0 => scope(Some(&id), None, None),
            1 => scope(None, Some("t"), Some("charge")),
            _ => scope(None, Some("t"), None),
        };
        let engine = &host.engine;
        host.block_on(async {
            let rule = engine.pause(scope, None, Who::default()).await.unwrap();
            let started = engine.start(execution(&id), task(), Json::null());
            let ended = async {
                for _ in 0..n % 7 {
                    tokio::task::yield_now().await;
                }
                tokio::time::sleep(Duration::from_micros(n * 2)).await;
                engine.end_pause(&rule.id, Who::default()).await.unwrap();
            };
            let (started, ()) = futures_util::future::join(started, ended).await;
            started.unwrap();
        });
    }
    for n in 0..300 {
        assert_eq!(host.end_of(&format!("e{n}")).status, ExecutionStatus::Completed, "e{n}");
    }
    assert_eq!(guest.attempts_of("charge").len(), 300);
    assert_eq!(host.engine.0.pauses.held(), 0);
}

#[test]
fn who_paused_and_who_resumed_is_kept() {
    let store = store(None);
    let host = by_hand(&store, &charge(), START);
    let who = |by: &str, reason: &str| Who { by: Some(by.to_owned()), reason: Some(reason.to_owned()) };
    let rule = host.block_on(host.engine.pause(at_step(), None, who("ada", "the bank is down"))).unwrap();
    assert_eq!((rule.created_by.as_deref(), rule.reason.as_deref()), (Some("ada"), Some("the bank is down")));
    host.block_on(host.engine.end_pause(&rule.id, who("bob", "it is up"))).unwrap();
    let (entries, _) = host.block_on(store.audit(&AuditFilter::default(), 2, 0)).unwrap();
    let [resumed, paused] = &entries[..] else { panic!("{entries:?}") };
    assert_eq!(paused.entry.action, AuditAction::Pause);
    assert_eq!((paused.entry.actor.as_deref(), &paused.entry.before), (Some("ada"), &Json::null()));
    assert_eq!(paused.entry.target.as_deref(), Some(rule.id.as_str()));
    assert_eq!(resumed.entry.action, AuditAction::Resume);
    assert_eq!(resumed.entry.before, paused.entry.after);
    let after = resumed.entry.after.to_value().unwrap();
    assert_eq!(
        (&after["stepPattern"], &after["deletedBy"], &after["deletedAt"]),
        (&json!("cha*"), &json!("bob"), &json!("1970-01-01T00:16:40.000Z"))
    );
}
