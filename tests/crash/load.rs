//! Clients that start executions and send them events, and note outside of the host what it has
//! acknowledged; and the look whether all of that is there.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use reqwest::RequestBuilder;
use tokio::task::JoinHandle;

use crate::{
    checker::Promises,
    harness::{
        client::{encoded, execution_path},
        server::Effect,
        *,
    },
};

/// How long a client tries to get one answer.
const PATIENCE: Duration = Duration::from_secs(120);

/// The executions whose start was acknowledged, and whether their event was.
pub type Acknowledged = BTreeMap<String, bool>;

/// Clients at work.
pub struct Load {
    noted: Arc<Mutex<Acknowledged>>,
    stop: Arc<AtomicBool>,
    clients: Vec<JoinHandle<()>>,
}

fn payload() -> Value {
    let effect = |ms: u64| json!({ "act": { "effect": { "ms": ms } } });
    script([
        step_with("reserve", effect(0)),
        step_with("charge", effect(5)),
        wait_event("go"),
        sleep("nap", 30),
        step_with("ship", effect(5)),
    ])
}

/// Where in the result the step of that name has its value.
const STEPS: [(&str, usize); 3] = [("reserve", 0), ("charge", 1), ("ship", 4)];
const EVENT: usize = 2;

impl Load {
    pub fn begin(server: &Client, clients: usize) -> Load {
        let (noted, stop) = (Arc::<Mutex<Acknowledged>>::default(), Arc::new(AtomicBool::new(false)));
        let clients = (0..clients)
            .map(|n| tokio::spawn(work(n, server.clone(), noted.clone(), stop.clone())))
            .collect();
        Load { noted, stop, clients }
    }

    /// What has been acknowledged up to now.
    pub fn acknowledged(&self) -> Acknowledged {
        self.noted.lock().unwrap().clone()
    }

    /// Comes back when so many more executions have been sent their event.
    pub async fn until_more(&self, more: usize) {
        let told = || self.noted.lock().unwrap().values().filter(|told| **told).count();
        let wanted = told() + more;
        until("more is acknowledged", async || told(), |told| *told >= wanted).await;
    }

    /// Lets every client come to the end of what it is doing.
    pub async fn end(self) -> Acknowledged {
        self.stop.store(true, Relaxed);
        for client in self.clients {
            client.await.expect("no client gives up");
        }
        self.noted.lock().unwrap().clone()
    }

    /// Sends the clients away, for the host will not come back.
    pub fn abandon(self) {
        self.clients.iter().for_each(JoinHandle::abort);
    }
}

async fn work(n: usize, server: Client, noted: Arc<Mutex<Acknowledged>>, stop: Arc<AtomicBool>) {
    for round in 0.. {
        if stop.load(Relaxed) {
            return;
        }
        let id = format!("l{n}-{round}");
        let body = json!({ "executionId": id, "taskName": "scenario", "payload": payload() });
        let start = || server.request("POST", "/api/v1/executions").json(&body);
        let (answer, unanswered) = insist(&server, start).await;
        match answer.status {
            201 => {}
            200 if unanswered => {}
            _ => panic!("a start is 201, and 200 only if it may have been done before: {answer:#?}"),
        }
        noted.lock().unwrap().insert(id.clone(), false);

        let event = || server.request("POST", &event_path(&id)).json(&event_of(&id));
        let (answer, unanswered) = insist(&server, event).await;
        // One that had no answer may have brought the run to its end.
        assert!(answer.status == 202 || (answer.status == 409 && unanswered), "{answer:#?}");
        noted.lock().unwrap().insert(id, true);
    }
}

/// Sends a request over and over until it is done; whether one of them had no answer.
async fn insist(server: &Client, request: impl Fn() -> RequestBuilder) -> (Answer, bool) {
    let end = Instant::now() + PATIENCE;
    let mut unanswered = false;
    while Instant::now() < end {
        match server.try_send(request()).await {
            Ok(answer) if answer.status == 503 => _ = answer.any_error(503),
            Ok(answer) => return (answer, unanswered),
            Err(_) => unanswered = true,
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    panic!("not done in {PATIENCE:?}: {:?}", request());
}

fn event_path(id: &str) -> String {
    format!("/api/v1/events/{}/go", encoded(id))
}

fn event_of(id: &str) -> Value {
    json!({ "of": id })
}

/// What the host has promised by acknowledging it.
pub fn promises(acknowledged: &Acknowledged) -> Promises {
    let told = acknowledged.iter().filter(|(_, told)| **told);
    Promises {
        executions: acknowledged.keys().cloned().collect(),
        events: told.map(|(id, _)| (id.clone(), "go".to_owned(), event_of(id))).collect(),
        clock_was_set: false,
    }
}

/// Everything in `acknowledged` is there and comes to its end, with the outcomes of the attempts
/// that were the last to begin, so that none was run again after it was recorded.
pub async fn check_all_there(
    acknowledged: &Acknowledged,
    server: &Client,
    effects: impl Fn() -> Vec<Effect>,
) {
    for (id, told) in acknowledged {
        let answer = server.get(&execution_path(id)).await;
        assert_eq!(answer.status, 200, "{id} was acknowledged and is lost: {answer:#?}");
        if !told {
            let answer = server.event(id, "go", &event_of(id)).await;
            assert!(matches!(answer.status, 202 | 409), "{answer:#?}");
        }
    }
    let mut results = BTreeMap::new();
    for id in acknowledged.keys() {
        results.insert(id, server.result(id).await);
    }
    let mut last = BTreeMap::new();
    for effect in effects() {
        last.insert((effect.execution, effect.tag), effect.nonce);
    }
    for (id, result) in results {
        assert_eq!(result[EVENT], json!({ "value": event_of(id) }), "{id}");
        for (name, place) in STEPS {
            let nonce = last.get(&(id.clone(), name.to_owned())).map(String::as_str);
            assert_eq!(result[place]["nonce"].as_str(), nonce, "{name} of {id} ran again: {result}");
        }
    }
}
