//! Whether and when a failed attempt is tried again.

use crate::harness::*;

#[tokio::test]
async fn a_step_is_tried_until_it_succeeds() {
    let server = Server::start().await;
    for (id, retry) in [
        ("fixed", json!({ "attempts": 4, "delayMs": 5 })),
        ("at-once", json!({ "attempts": 4, "delayMs": 0 })),
        ("exponential", json!({ "attempts": 4, "delayMs": 5, "exponential": true })),
    ] {
        let charge = step_with("charge", json!({ "failures": 3, "retry": retry }));
        server.run_script(id, &script([charge])).await;
        assert_eq!(server.result(id).await, json!([{ "attempt": 4 }]));
        assert_eq!(server.effects_of(id), ["charge 1", "charge 2", "charge 3", "charge 4"]);
    }
}

#[tokio::test]
async fn attempts_go_on_after_the_instance_was_given_up_in_between() {
    let server = Server::with("park-max-ms", 0).start().await;
    let charge = json!({ "failures": 3, "retry": { "attempts": 4, "delayMs": 20 } });
    server.run_script("o-1", &script([step("before"), step_with("charge", charge)])).await;
    assert_eq!(server.result("o-1").await[1], json!({ "attempt": 4 }));
    assert_eq!(server.effects_of("o-1"), ["before 1", "charge 1", "charge 2", "charge 3", "charge 4"]);
}

#[tokio::test]
async fn a_step_dies_when_its_attempts_are_used_up() {
    let server = Server::start().await;
    let charge = json!({ "failures": 9, "retry": { "attempts": 3 } });
    server.run_script("o-1", &script([step_with("charge", charge), step("never")])).await;
    let failure = server.failure("o-1").await;
    assert_eq!(
        (&failure["kind"], &failure["attempt"], &failure["details"]),
        (&json!("exhausted"), &json!(3), &json!(3))
    );
    assert_eq!(server.effects_of("o-1"), ["charge 1", "charge 2", "charge 3"]);
}

#[tokio::test]
async fn without_a_policy_there_is_one_attempt() {
    let server = Server::start().await;
    server.run_script("o-1", &script([step_with("charge", json!({ "failures": 1 }))])).await;
    let failure = server.failure("o-1").await;
    assert_eq!((&failure["kind"], &failure["attempt"]), (&json!("error"), &json!(1)));
    assert_eq!(server.effects_of("o-1"), ["charge 1"]);
}

#[tokio::test]
async fn an_error_that_is_not_retryable_ends_the_step_at_once() {
    let server = Server::start().await;
    let fatal =
        json!({ "act": { "fail": { "message": "declined", "fatal": true } }, "retry": { "attempts": 5 } });
    server.run_script("o-1", &script([step_with("charge", fatal)])).await;
    let failure = server.failure("o-1").await;
    assert_eq!(
        (&failure["kind"], &failure["message"], &failure["attempt"]),
        (&json!("error"), &json!("declined"), &json!(1))
    );

    let own = json!({ "name": "charge", "act": { "ownError": { "code": 7, "mayPass": false } }, "retry": { "attempts": 5 } });
    server.run_script("o-2", &script([json!({ "outcome": own })])).await;
    assert_eq!(server.result("o-2").await[0]["failure"]["attempt"], 1);
    for id in ["o-1", "o-2"] {
        assert_eq!(server.effects_of(id), ["charge 1"]);
    }
}

#[tokio::test]
async fn an_error_can_say_when_to_come_back() {
    let server = Server::start().await;
    let fail =
        |ms: u64| json!({ "fail": { "message": "asked too often", "fatal": false, "retryAfterMs": ms } });
    let later = json!({ "act": fail(3_600_000), "retry": { "attempts": 2, "delayMs": 1 } });
    let soon = json!({ "act": fail(1), "retry": { "attempts": 2, "delayMs": 3_600_000 } });
    server.run_script("later", &script([step_with("charge", later)])).await;
    server.run_script("soon", &script([step_with("charge", soon)])).await;

    assert_eq!(server.failure("soon").await["kind"], "exhausted");
    let waits = server.until_waiting("later", "retry").await;
    let [at, since]: [chrono::DateTime<chrono::Utc>; 2] = [&waits["waitingFor"]["at"], &waits["scheduledAt"]]
        .map(|time| time.as_str().unwrap().parse().unwrap());
    assert!((at - since).num_minutes() >= 60, "{waits}");
}

/// Zart's back-off was documented with jitter and had none. Runs that fail together are not to
/// come back together.
#[tokio::test]
async fn delays_with_jitter_differ_between_runs_and_stay_below_the_nominal_one() {
    let server = Server::start().await;
    let policy = |exponential| json!({ "failures": 1, "retry": { "attempts": 2, "delayMs": 3_600_000, "exponential": exponential } });
    let delays_of = async |exponential: bool| -> Vec<i64> {
        let mut delays = Vec::new();
        for n in 0..12 {
            let id = format!("{exponential}-{n}");
            // The effect's time is not known to the outside: count from the start of the run.
            server.run_script(&id, &script([step_with("charge", policy(exponential))])).await;
            let waits = server.until_waiting(&id, "retry").await;
            let [at, since]: [chrono::DateTime<chrono::Utc>; 2] =
                [&waits["waitingFor"]["at"], &waits["scheduledAt"]]
                    .map(|t| t.as_str().unwrap().parse().unwrap());
            delays.push((at - since).num_milliseconds());
        }
        delays
    };
    let nominal = 3_600_000;
    let slack = 60_000; // between the start of the run and the failure
    let jittered = delays_of(true).await;
    assert!(jittered.iter().all(|delay| (0..nominal + slack).contains(delay)), "{jittered:?}");
    // Twelve even draws of an hour lie within a minute of each other once in 10^18.
    let spread = jittered.iter().max().unwrap() - jittered.iter().min().unwrap();
    assert!(spread > slack, "no jitter in {jittered:?}");
    let fixed = delays_of(false).await;
    assert!(fixed.iter().all(|delay| (nominal..nominal + slack).contains(delay)), "{fixed:?}");
}
