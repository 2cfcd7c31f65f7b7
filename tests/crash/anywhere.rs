//! The process is killed again and again at random moments under load; then everything that was
//! acknowledged is looked for.
//!
//! `STEPBOX_CRASH_KILLS` says how often (100 without it), `STEPBOX_CRASH_SEED` with which dice.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use crate::{
    checker::{Promises, check_after},
    harness::{
        campaign::{Dice, seed, setting, tell},
        server::Effect,
        *,
    },
};

/// Clients that each start one execution after the other.
const CLIENTS: usize = 6;
/// Kills in a run of the tests.
const KILLS: u64 = 100;
/// How long a client tries to get one answer, over as many kills as come.
const PATIENCE: Duration = Duration::from_secs(120);

#[derive(Default)]
struct Counts {
    starts_acknowledged: AtomicU64,
    events_acknowledged: AtomicU64,
    events_unknown: AtomicU64,
    requests_lost: AtomicU64,
}

/// An event that was sent: what the handler must tell of it.
#[derive(Clone, Debug)]
struct Sent {
    token: String,
    /// False: no answer came, so it may or may not be there.
    acknowledged: bool,
    last: bool,
}

/// What a client knows of an execution that it has started.
struct Known {
    id: String,
    events: Vec<Sent>,
}

/// Steps with and without retries, sleeps that are parked and suspended, and events.
fn payload() -> Value {
    let effect = |ms: u64| json!({ "effect": { "ms": ms } });
    script([
        step_with("reserve", json!({ "act": effect(0) })),
        step_with(
            "charge",
            json!({ "act": effect(15), "failures": 1, "retry": { "attempts": 4, "delayMs": 10 } }),
        ),
        sleep("short", 20),
        step_with("pack", json!({ "act": effect(0) })),
        step_with("pack", json!({ "act": effect(40), "tag": "pack#2" })),
        json!({ "waitUntilLast": { "event": "go" } }),
        sleep("longer", 150),
        step_with("ship", json!({ "act": effect(5) })),
    ])
}

/// Fewer than those after which a step is given up.
const LIVES_OF_A_STEP: u64 = 3;

async fn completed(server: &Server) -> u64 {
    server.stats().await["completed"].as_u64().expect("a number")
}

/// Where in the result the step with that tag has its value.
const STEPS: [(&str, usize); 5] = [("reserve", 0), ("charge", 1), ("pack", 3), ("pack#2", 4), ("ship", 7)];
const EVENTS: usize = 5;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_and_nothing_completed_is_repeated_however_often_it_is_killed() {
    let kills = setting("STEPBOX_CRASH_KILLS").unwrap_or(KILLS);
    let seed = seed("STEPBOX_CRASH_SEED");
    tell(&format!("crash campaign: {kills} kills, STEPBOX_CRASH_SEED={seed}"));
    let mut dice = Dice::new(seed, 0);
    let begun = Instant::now();

    // Short parking: suspension is met as often as parking.
    let mut server = Server::with("park-max-ms", 60).with("caution-s", 0).start().await;
    let (counts, stop) = (Arc::new(Counts::default()), Arc::new(AtomicBool::new(false)));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|n| {
            let (client, counts, stop) = ((*server).clone(), counts.clone(), stop.clone());
            let dice = Dice::new(seed, 1 + n);
            tokio::spawn(load(n, client, counts, stop, dice))
        })
        .collect();

    let mut starts_killed = 0;
    for kill in 0..kills {
        // At a random moment: what there is to await is exactly that.
        tokio::time::sleep(Duration::from_millis(dice.below(700) as u64)).await;
        // A step under which the host dies five times in a row is given up, and on a machine that has
        // much else to do most lives are over before anything has got anywhere: now and then one has to.
        if kill % LIVES_OF_A_STEP == 0 {
            let before = completed(&server).await;
            until("some come to their end", async || completed(&server).await, |now| *now >= before + 2)
                .await;
        }
        server.kill_9();
        // Now and then it does not even come up.
        while dice.one_in(8) {
            server.start_and_kill_9(Duration::from_millis(dice.below(120) as u64));
            starts_killed += 1;
        }
        server.restart();
    }
    stop.store(true, Relaxed);
    let mut all = Vec::new();
    for client in clients {
        all.extend(client.await.expect("no client gives up"));
    }
    let moving = begun.elapsed();

    let mut over = HashMap::new();
    for known in &all {
        over.insert(known.id.clone(), server.over(&known.id).await);
    }
    let effects = server.effects();
    let attempts = effects.len();
    let cut_off = check_steps(&over, effects);
    check_events(&all, &over);
    let stats = server.stats().await;
    assert_eq!((&stats["scheduled"], &stats["running"]), (&json!(0), &json!(0)));
    assert_eq!(stats["completed"], all.len(), "none but those that were asked for: {stats}");

    tell(&format!(
        "crash campaign: {kills} kills under load and {starts_killed} while starting in {:.0?}; starts acknowledged: {}, completed: {}; attempts seen: \
         {attempts}, of these cut off and tried again: {cut_off}, repeated after completion: 0; events \
         acknowledged: {}, without an answer: {}, consumed twice or lost: 0; requests lost: {}; {:.0?} in all",
        moving,
        counts.starts_acknowledged.load(Relaxed),
        over.len(),
        counts.events_acknowledged.load(Relaxed),
        counts.events_unknown.load(Relaxed),
        counts.requests_lost.load(Relaxed),
        begun.elapsed(),
    ));
    check_after("crash campaign", &mut server, &promises(&all)).await;
}

/// What the clients have been told.
fn promises(all: &[Known]) -> Promises {
    let events = all.iter().flat_map(|known| {
        let acknowledged = known.events.iter().filter(|sent| sent.acknowledged);
        acknowledged.map(|sent| {
            (known.id.clone(), "go".to_owned(), json!({ "token": sent.token, "last": sent.last }))
        })
    });
    Promises {
        executions: all.iter().map(|known| known.id.clone()).collect(),
        events: events.collect(),
        clock_was_set: false,
    }
}

/// Starts executions and sends them their events, until it is told to stop; finishes the last.
async fn load(
    client_number: usize,
    client: Client,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    mut dice: Dice,
) -> Vec<Known> {
    let mut all = Vec::new();
    while !stop.load(Relaxed) {
        let id = format!("c{client_number}-{}", all.len());
        start(&client, &id, &counts).await;
        let mut known = Known { id, events: Vec::new() };
        let n = 1 + dice.below(3);
        for event in 0..n {
            send(&client, &mut known, event + 1 == n, &counts).await;
            // Sometimes at once, sometimes when it stands at its wait.
            tokio::time::sleep(Duration::from_millis(dice.below(60) as u64)).await;
        }
        all.push(known);
    }
    all
}

/// Starts `id` until that is acknowledged: the same start over and over, as clients do.
async fn start(client: &Client, id: &str, counts: &Counts) {
    let body = json!({ "executionId": id, "taskName": "scenario", "payload": payload() });
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let request = client.request("POST", "/api/v1/executions").json(&body);
        match client.try_send(request).await {
            Ok(answer) if answer.status == 503 => {}
            Ok(answer) => {
                assert!(matches!(answer.status, 200 | 201), "{answer:#?}");
                counts.starts_acknowledged.fetch_add(1, Relaxed);
                return;
            }
            Err(_) => _ = counts.requests_lost.fetch_add(1, Relaxed),
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("{id} could not be started in {PATIENCE:?}");
}

/// Sends an event until one is acknowledged, each time under another token.
async fn send(client: &Client, known: &mut Known, last: bool, counts: &Counts) {
    let end = Instant::now() + PATIENCE;
    while Instant::now() < end {
        let token = format!("{}-{}", known.id, known.events.len());
        let event = json!({ "token": token, "last": last });
        let request = client.request("POST", &format!("/api/v1/events/{}/go", known.id)).json(&event);
        let answer = client.try_send(request).await;
        match answer {
            Ok(answer) if answer.status == 503 => {}
            Ok(answer) if answer.status == 409 => {
                // One of the same that had no answer was there after all, and ended the run.
                assert!(last && known.events.iter().any(|sent| sent.last), "{answer:#?}");
                return;
            }
            Ok(answer) => {
                answer.expect(202);
                counts.events_acknowledged.fetch_add(1, Relaxed);
                known.events.push(Sent { token, acknowledged: true, last });
                return;
            }
            Err(_) => {
                counts.events_unknown.fetch_add(1, Relaxed);
                known.events.push(Sent { token, acknowledged: false, last });
            }
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("an event for {} could not be sent in {PATIENCE:?}", known.id);
}

/// Every execution is completed, and nothing was run again once it was recorded. Answers with how
/// many attempts were cut off.
fn check_steps(over: &HashMap<String, Value>, effects: Vec<Effect>) -> usize {
    let mut by_execution: HashMap<String, Vec<Effect>> = HashMap::new();
    for effect in effects {
        by_execution.entry(effect.execution.clone()).or_default().push(effect);
    }
    let mut cut_off = 0;
    for (id, execution) in over {
        assert_eq!(execution["status"], "completed", "{execution:#}");
        let began = by_execution.remove(id).unwrap_or_default();
        check_order(id, &began);
        for (tag, place) in STEPS {
            let value = &execution["result"][place];
            let attempts: Vec<&Effect> = began.iter().filter(|effect| effect.tag == tag).collect();
            let last =
                attempts.last().unwrap_or_else(|| panic!("{tag} of {id} never began, but has {value}"));
            // The attempt that counted is the last that began.
            assert_eq!(
                (&value["nonce"], &value["attempt"]),
                (&json!(last.nonce), &json!(last.attempt)),
                "{tag} of {id} was run again after it had completed: {attempts:#?}"
            );
            // `charge` fails by itself once.
            cut_off += attempts.len() - 1 - usize::from(tag == "charge").min(attempts.len() - 1);
        }
    }
    assert!(by_execution.is_empty(), "steps of executions that nobody started: {by_execution:#?}");
    cut_off
}

/// A handler goes on to the next step, and a step to its next attempt, when the one before is
/// recorded. So whoever begins after a later one was run again after it was recorded.
fn check_order(id: &str, began: &[Effect]) {
    let place = |effect: &Effect| {
        let step = STEPS.iter().position(|(tag, _)| *tag == effect.tag);
        (step.unwrap_or_else(|| panic!("{id} has no step {}", effect.tag)), effect.attempt)
    };
    for pair in began.windows(2) {
        assert!(
            place(&pair[0]) <= place(&pair[1]),
            "{} of {id} was run again after it was recorded: {began:#?}",
            pair[1].tag
        );
    }
}

/// Every event that was acknowledged is consumed once, in the order in which it was sent; one
/// without an answer at most once.
fn check_events(all: &[Known], over: &HashMap<String, Value>) {
    for known in all {
        let consumed = over[&known.id]["result"][EVENTS].as_array().expect("an array of events");
        let tokens: Vec<&str> = consumed.iter().map(|event| event["token"].as_str().unwrap()).collect();
        let mut expected = known.events.iter().map(|sent| sent.token.as_str());
        for token in &tokens {
            assert!(
                expected.any(|sent| sent == *token),
                "{}: {token} came twice or out of order: {tokens:?} of {:#?}",
                known.id,
                known.events
            );
        }
        for sent in known.events.iter().filter(|sent| sent.acknowledged && !sent.last) {
            assert!(tokens.contains(&sent.token.as_str()), "{} was lost: {tokens:?}", sent.token);
        }
        let lasts = known.events.iter().filter(|sent| sent.last && tokens.contains(&sent.token.as_str()));
        assert_eq!(lasts.count(), 1, "{}: the run ends with the first last one: {tokens:?}", known.id);
    }
}
