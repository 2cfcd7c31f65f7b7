//! Admins and clients who all want something of the same executions at the same time, while these
//! run and the host is killed again and again; then everything is looked at from outside.
//!
//! `STEPBOX_RACE_DEEDS` says how much is done (600 without it), `STEPBOX_RACE_SEED` with which dice:
//! `STEPBOX_RACE_DEEDS=10000 cargo test --test it admin_race -- --nocapture`.

mod check;
mod found;
mod play;

use std::{
    collections::{BTreeMap, HashMap},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    check::Evidence,
    play::{Arena, Deed, Kind, Player, check_status},
};
use crate::checker::rows;
use crate::harness::{
    campaign::{Dice, seed, setting, tell},
    client::encoded,
    *,
};

const PLAYERS: usize = 6;
/// Who mends in the end what can be mended.
const MENDER: &str = "mender";
/// A step of the campaign's handlers that is retried so often succeeds.
const RETRIES_MAX: usize = 6;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn admins_who_race_each_other_and_a_host_that_is_killed_break_nothing() {
    let deeds = setting("STEPBOX_RACE_DEEDS").unwrap_or(600);
    let seed = seed("STEPBOX_RACE_SEED");
    tell(&format!("admin race: {deeds} deeds, STEPBOX_RACE_SEED={seed}"));
    let mut dice = Dice::new(seed, 0);
    let begun = Instant::now();

    // Repairs meet instances that are parked, and runs that are suspended.
    let mut server =
        Server::with("park-max-ms", dice.pick(&[1, 60, 1_000])).with("caution-s", 0).start().await;
    let arena = Arc::new(Arena::new(deeds));
    let players: Vec<_> = (0..PLAYERS)
        .map(|number| {
            let player = Player::new(number, (*server).clone(), Dice::new(seed, 1 + number));
            let arena = arena.clone();
            tokio::spawn(async move { player.play(&arena).await })
        })
        .collect();
    let mut kills = 0;
    while !arena.is_over() {
        // At a random moment: what there is to await is exactly that.
        tokio::time::sleep(Duration::from_millis(100 + dice.below(1_000) as u64)).await;
        server.kill_9();
        if dice.one_in(6) {
            server.start_and_kill_9(Duration::from_millis(dice.below(150) as u64));
        }
        server.restart();
        kills += 1;
    }
    let mut done = Vec::new();
    for player in players {
        done.extend(player.await.expect("no player gives up"));
    }
    let played = begun.elapsed();

    cancel_all_bulks(&server).await;
    lift_all_pauses(&server).await;
    let ids = arena.started.lock().unwrap().clone();
    for id in &ids {
        bring_to_an_end(&server, id).await;
    }
    let mut mended = 0;
    for id in &ids {
        mended += mend(&server, id).await;
    }
    let evidence = gather(&mut server, &ids, &arena, done).await;
    let found = evidence.check();
    tell(&format!(
        "admin race: {} deeds and {kills} kills in {played:.0?} ({}); {} executions, {} runs ({} by restart and \
         rerun) of {} records, {} steps ({} kept, {} resolved by hand), {} repairs within runs, {mended} of them \
         after the race, {} by {} bulk repairs; {} attempts seen; {} cancelled runs looked at again; {} audit entries; {:.0?} in all",
        evidence.deeds.len(),
        answers(&evidence.deeds),
        ids.len(),
        found.rows.runs,
        found.runs_after_the_first,
        found.rows.records,
        found.rows.steps,
        found.rows.kept,
        found.resolved,
        found.repairs_in_runs,
        found.items,
        evidence.bulks.len(),
        evidence.effects.len(),
        found.cancelled,
        evidence.audit.len(),
        begun.elapsed(),
    ));
    tell(&format!("admin race, checked from its rows: {}", found.rows));
    found.rows.assert_nothing_wrong();
}

/// How often each kind got which answer.
fn answers(deeds: &[Deed]) -> String {
    let mut counts: BTreeMap<Kind, BTreeMap<Option<u16>, usize>> = BTreeMap::new();
    for deed in deeds {
        *counts.entry(deed.kind).or_default().entry(deed.status).or_default() += 1;
    }
    let mut texts = Vec::new();
    for (kind, answers) in counts {
        let answers = answers.iter().map(|(status, count)| match status {
            Some(status) => format!("{status}×{count}"),
            None => format!("none×{count}"),
        });
        texts.push(format!("{kind} {}", answers.collect::<Vec<_>>().join(" ")));
    }
    texts.join(", ")
}

/// Or they would go on to repair what fails, and none would come to an end for good.
async fn cancel_all_bulks(client: &Client) {
    for bulk in bulks(client).await.iter().filter(|bulk| bulk["state"] == "running") {
        let bulk = bulk["bulkId"].as_str().expect("an id");
        let path = format!("/admin/v1/bulk/{}/cancel", encoded(bulk));
        let answer = client.post_json(&path, &json!({ "triggeredBy": MENDER })).await;
        // Some end by themselves meanwhile.
        assert!(matches!(answer.status, 200 | 409), "{answer:#?}");
    }
}

async fn bulks(client: &Client) -> Vec<Value> {
    client.get("/admin/v1/bulk").await.expect(200).as_array().expect("an array of bulk repairs").clone()
}

async fn lift_all_pauses(client: &Client) {
    let rules = client.get("/admin/v1/pause").await.expect(200);
    for rule in rules.as_array().expect("an array of rules") {
        let rule = rule["ruleId"].as_str().expect("an id");
        let answer = client.delete(&format!("/admin/v1/pause/{}", encoded(rule))).await;
        // Some expire by themselves meanwhile.
        assert!(matches!(answer.status, 204 | 404), "{answer:#?}");
    }
}

/// Invariant 9: with nothing that holds it and all events that it wants, it comes to an end.
async fn bring_to_an_end(client: &Client, id: &str) {
    let over = |execution: &Value| !matches!(execution["status"].as_str(), Some("scheduled" | "running"));
    let look = async || {
        let execution = client.execution(id).await;
        if execution["waitingFor"]["type"] == "event" {
            check_status(&client.event(id, "go", &json!({ "token": MENDER })).await);
        }
        execution
    };
    until(&format!("{id} is over"), look, over).await;
}

/// Whatever has happened to an execution that failed at a dead step, retrying that brings it on:
/// how often that took.
async fn mend(client: &Client, id: &str) -> usize {
    let path = format!("/admin/v1/executions/{}", encoded(id));
    for retries in 0.. {
        let execution = client.execution(id).await;
        if execution["status"] != "failed" {
            return retries;
        }
        assert!(retries < RETRIES_MAX, "{id} still fails after {retries} retries: {execution:#}");
        let step = &execution["error"]["step"];
        assert!(step.is_string(), "{id} failed of itself: {execution:#}");
        let body = json!({ "stepName": step, "triggeredBy": MENDER });
        client.post_json(&format!("{path}/retry-step"), &body).await.expect(200);
        bring_to_an_end(client, id).await;
    }
    unreachable!("it either ends or is given up")
}

/// Asks the host for all there is to tell, stops it, and reads its database.
async fn gather(server: &mut Server, ids: &[String], arena: &Arena, deeds: Vec<Deed>) -> Evidence {
    let mut told = HashMap::new();
    for id in ids {
        told.insert(id.clone(), found::told(server, id).await);
    }
    let audit = found::audit(server).await;
    let rules = server.get("/admin/v1/pause?includeDeleted=true").await.expect(200);
    let bulks = bulks(server).await;
    let status = server.terminate().await;
    assert!(status.success(), "{status}");

    let mut verify = Command::new(env!("CARGO_BIN_EXE_stepbox"));
    let verified = verify.args(["audit", "verify", "--data"]).arg(server.data()).output().expect("it runs");
    assert!(verified.status.success(), "the audit trail is broken: {verified:#?}");
    Evidence {
        told,
        tables: rows::read(&server.data()).await.expect("the database can be read"),
        effects: server.effects(),
        audit,
        deeds,
        cancelled: std::mem::take(&mut *arena.cancelled.lock().unwrap()),
        rules: rules.as_array().expect("an array of rules").clone(),
        bulks,
    }
}
