//! The wall clock jumps forward and back by up to an hour, while there is load and the host is
//! killed: nothing acknowledged is lost, nothing completed is repeated, everything comes to its end.
//!
//! `STEPBOX_CLOCK_JUMPS` says how often (12 without it), `STEPBOX_CLOCK_SEED` with which dice.

use super::load::{Load, check_all_there, promises};
use crate::{
    checker::{Promises, check_after},
    harness::{
        campaign::{Dice, seed, setting, tell},
        clock::OwnClock,
        *,
    },
};

const HOUR_MS: i64 = 3_600_000;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wall_clock_that_jumps_by_an_hour_loses_and_repeats_nothing() {
    let jumps = setting("STEPBOX_CLOCK_JUMPS").unwrap_or(12);
    let seed = seed("STEPBOX_CLOCK_SEED");
    let mut dice = Dice::new(seed, 0);
    let clock = OwnClock::new();
    let mut server = server::Setup::default().with_clock(clock.clone()).start().await;
    let load = Load::begin(&server, 4);
    let mut kills = 0;
    for jump in 0..jumps {
        load.until_more(4).await;
        // The first two are the whole hour, forth and back.
        let ahead_ms = match jump {
            0 => HOUR_MS,
            1 => -HOUR_MS,
            _ => dice.below(2 * HOUR_MS as usize) as i64 - HOUR_MS,
        };
        clock.set_ahead_ms(ahead_ms);
        if dice.one_in(3) {
            server.kill_9().restart();
            kills += 1;
        }
        load.until_more(4).await;
    }
    // What was begun while the clock was ahead sleeps until then.
    clock.set_ahead_ms(HOUR_MS);
    let acknowledged = load.end().await;
    check_all_there(&acknowledged, &server, || server.effects()).await;
    let told = acknowledged.len();
    tell(&format!(
        "clock campaign: {jumps} jumps and {kills} kills, STEPBOX_CLOCK_SEED={seed}; {told} executions completed"
    ));
    let promises = Promises { clock_was_set: true, ..promises(&acknowledged) };
    check_after("clock campaign", &mut server, &promises).await;
}

/// Else the campaign would prove nothing.
#[tokio::test]
async fn the_clock_of_one_host_can_be_set() {
    let clock = OwnClock::new();
    clock.set_ahead_ms(-HOUR_MS);
    let server = server::Setup::default().with_clock(clock.clone()).start().await;
    let scheduled_at = async |id| {
        let execution = server.play(id, &script([step("charge")])).await;
        time(&execution["scheduledAt"])
    };
    let (before, real) = (scheduled_at("before").await, now());
    clock.set_ahead_ms(HOUR_MS);
    let after = scheduled_at("after").await;
    assert!((real - before).num_minutes() >= 59, "{before} {real}");
    assert!((after - real).num_minutes() >= 59, "{after} {real}");
}
