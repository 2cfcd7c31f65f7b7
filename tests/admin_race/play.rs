//! The admins and clients of the campaign: each does one thing after the other to executions that
//! all share, and writes down what was answered.

use std::{
    fmt,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant, SystemTime},
};

use futures_util::future::join_all;

use crate::harness::{campaign::Dice, client::encoded, client::execution_path, *};

/// Executions that are played with at the same time: few, so that players meet.
const PLACES: usize = 8;
/// How long a start is tried again, over as many kills as come.
const PATIENCE: Duration = Duration::from_secs(120);
/// What can be done to a step, whether or not the handler calls it.
const STEPS: [&str; 8] = ["reserve", "charge", "pack", "pack#2", "fetch", "work", "tidy", "ship"];

/// What all players share.
pub struct Arena {
    /// Deeds that are still to be done.
    left: AtomicU64,
    places: Mutex<Vec<String>>,
    pub started: Mutex<Vec<String>>,
    /// Pause rules that somebody was told of.
    rules: Mutex<Vec<String>>,
    /// Bulk repairs that somebody was told of.
    bulks: Mutex<Vec<String>>,
    /// Cancelled runs, as they were when the answer had come.
    pub cancelled: Mutex<Vec<Cancelled>>,
}

pub struct Cancelled {
    pub execution: String,
    pub run: String,
    pub steps: Value,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Kind {
    RetryStep,
    Resolve,
    Restart,
    Rerun,
    Cancel,
    Pause,
    EndPause,
    Resume,
    Bulk,
    CancelBulk,
    DryRun,
    Event,
    StartAgain,
    Read,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self:?}")
    }
}

/// What somebody tried, and what came of it.
#[derive(Debug)]
pub struct Deed {
    /// What it gave as `triggeredBy`; no two have the same.
    pub tag: String,
    pub kind: Kind,
    pub execution: String,
    /// None: no answer came.
    pub status: Option<u16>,
    pub body: Value,
}

impl Arena {
    pub fn new(deeds: u64) -> Arena {
        Arena {
            left: AtomicU64::new(deeds),
            places: Mutex::default(),
            started: Mutex::default(),
            rules: Mutex::default(),
            bulks: Mutex::default(),
            cancelled: Mutex::default(),
        }
    }

    pub fn is_over(&self) -> bool {
        self.left.load(Relaxed) == 0
    }

    /// Whether there is one more deed to do.
    fn one_more(&self) -> bool {
        self.left.fetch_update(Relaxed, Relaxed, |left| left.checked_sub(1)).is_ok()
    }
}

/// Handlers with steps that die and fail the run, or die and are caught; with waits of each kind.
/// The inputs are the same each time, so nothing that is kept is ever called with another.
pub fn payload(variant: usize) -> Value {
    let effect = |name: &str, ms: u64| step_with(name, json!({ "act": { "effect": { "ms": ms } } }));
    let more = |failures: u32, attempts: u32, ms: u64| {
        json!({
            "act": { "effect": { "ms": ms } },
            "failures": failures,
            "retry": { "attempts": attempts, "delayMs": 4 },
        })
    };
    script(match variant % 4 {
        0 => vec![
            effect("reserve", 0),
            step_with("charge", more(3, 2, 8)),
            effect("pack", 15),
            sleep("settle", 30),
            effect("ship", 3),
        ],
        1 => vec![
            settle("fetch", more(2, 2, 3)),
            effect("work", 12),
            sleep("rest", 120),
            settle("tidy", more(1, 1, 0)),
            json!({ "captureRandom": { "name": "dice" } }),
            effect("ship", 0),
        ],
        2 => vec![
            effect("reserve", 0),
            wait_event("go"),
            step_with("charge", more(2, 2, 5)),
            effect("work", 40),
            wait_event("go"),
            settle("tidy", more(2, 1, 0)),
            effect("ship", 0),
        ],
        _ => vec![
            settle("fetch", more(3, 2, 0)),
            settle("tidy", more(2, 1, 5)),
            effect("pack", 0),
            step_with("charge", more(5, 2, 4)),
            step_with("pack", json!({ "act": { "effect": { "ms": 20 } }, "tag": "pack#2" })),
        ],
    })
}

pub struct Player {
    pub number: usize,
    pub client: Client,
    pub dice: Dice,
    deeds: Vec<Deed>,
}

impl Player {
    pub fn new(number: usize, client: Client, dice: Dice) -> Player {
        Player { number, client, dice, deeds: Vec::new() }
    }

    /// Plays until enough has been done: what this player did.
    pub async fn play(mut self, arena: &Arena) -> Vec<Deed> {
        while arena.one_more() {
            let execution = self.someone(arena).await;
            // Several at once now and then, of which at most one can have its way.
            let together = if self.dice.one_in(5) { 2 + self.dice.below(3) } else { 1 };
            let kind = self.kind();
            let mut asked = Vec::new();
            for n in 0..together {
                if n == 0 || arena.one_more() {
                    let kind = if self.dice.one_in(3) { self.kind() } else { kind };
                    asked.push(self.ask(arena, kind, &execution, n).await);
                }
            }
            let client = &self.client;
            let done = join_all(asked.into_iter().map(|asked| asked.carry_out(client, arena))).await;
            let lost = done.iter().any(|deed| deed.status.is_none());
            self.deeds.extend(done);
            // What there is to await is exactly that: the next moment.
            let ms = if lost { 20 } else { self.dice.below(40) };
            tokio::time::sleep(Duration::from_millis(ms as u64)).await;
        }
        self.deeds
    }

    /// One of those that are played with; now and then a new one takes a place.
    async fn someone(&mut self, arena: &Arena) -> String {
        let place = self.dice.below(PLACES);
        let known = arena.places.lock().unwrap().get(place).cloned();
        match known {
            Some(known) if !self.dice.one_in(25) => known,
            _ => {
                let new = self.start(arena).await;
                let mut places = arena.places.lock().unwrap();
                match places.get_mut(place) {
                    Some(place) => place.clone_from(&new),
                    None => places.push(new.clone()),
                }
                new
            }
        }
    }

    /// Starts one more execution, over and over until that is acknowledged.
    async fn start(&mut self, arena: &Arena) -> String {
        let id = {
            let mut started = arena.started.lock().unwrap();
            // The number is what its handler is made of.
            let id = format!("x-{}", started.len());
            started.push(id.clone());
            id
        };
        let end = Instant::now() + PATIENCE;
        while Instant::now() < end {
            match self.client.try_send(self.start_of(&id)).await {
                Ok(answer) if answer.status == 503 => {}
                Ok(answer) => {
                    assert!(matches!(answer.status, 200 | 201), "{answer:#?}");
                    return id;
                }
                Err(_) => {}
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("{id} could not be started in {PATIENCE:?}");
    }

    fn start_of(&self, id: &str) -> reqwest::RequestBuilder {
        let body = json!({ "executionId": id, "taskName": "scenario", "payload": payload(variant(id)) });
        self.client.request("POST", "/api/v1/executions").json(&body)
    }

    fn kind(&mut self) -> Kind {
        const KINDS: [(Kind, usize); 14] = [
            (Kind::RetryStep, 26),
            (Kind::Resolve, 10),
            (Kind::Restart, 4),
            (Kind::Rerun, 8),
            (Kind::Cancel, 4),
            (Kind::Pause, 8),
            (Kind::EndPause, 7),
            (Kind::Resume, 4),
            (Kind::Bulk, 3),
            (Kind::CancelBulk, 2),
            (Kind::DryRun, 5),
            (Kind::Event, 10),
            (Kind::StartAgain, 4),
            (Kind::Read, 5),
        ];
        let mut throw = self.dice.below(KINDS.iter().map(|(_, weight)| weight).sum());
        for (kind, weight) in KINDS {
            match throw.checked_sub(weight) {
                Some(rest) => throw = rest,
                None => return kind,
            }
        }
        Kind::Read
    }

    /// Puts together a request of that kind.
    async fn ask(&mut self, arena: &Arena, kind: Kind, id: &str, together: usize) -> Asked {
        let tag = format!("p{}-{}-{together}", self.number, self.deeds.len());
        let admin = ["/admin/v1", "/zart/admin/v1"][self.dice.below(2)];
        let path = format!("{admin}/executions/{}", encoded(id));
        let by = json!({ "triggeredBy": tag, "reason": "a race" });
        let with = |more: Value| merged(&by, more);
        let request = match kind {
            Kind::RetryStep => {
                let mut body = with(json!({ "stepName": self.dead_or_any(id).await }));
                if self.dice.one_in(6) {
                    body["attemptsMax"] = json!(1 + self.dice.below(4));
                }
                if self.dice.one_in(6) {
                    body["moduleVersion"] = json!(1);
                }
                self.post(&format!("{path}/retry-step"), &body)
            }
            Kind::Resolve => {
                let step = self.dead_or_any(id).await;
                let outcome = match self.dice.below(4) {
                    0 => json!({ "failure": { "message": "given up by hand" } }),
                    _ => json!({ "result": { "resolved": tag } }),
                };
                self.post(&format!("{path}/steps/{}/resolve", encoded(&step)), &with(outcome))
            }
            Kind::Restart => {
                let payload = payload(self.dice.below(4));
                let more = if self.dice.one_in(3) { json!({ "payload": payload }) } else { json!({}) };
                self.post(&format!("{path}/restart"), &with(more))
            }
            Kind::Rerun => {
                let steps = self.steps(id).await;
                let mut some = |sides| {
                    let n = self.dice.below(sides);
                    (0..n).map(|_| self.any(&steps)).collect::<Vec<_>>()
                };
                let more = json!({ "rerunSteps": some(3), "preserveSteps": some(2) });
                self.post(&format!("{path}/rerun"), &with(more))
            }
            Kind::DryRun => {
                let step = self.dead_or_any(id).await;
                match self.dice.below(3) {
                    0 => self
                        .post(&format!("{path}/retry-step?dryRun=true"), &with(json!({ "stepName": step }))),
                    1 => self.post(&format!("{path}/restart?dryRun=true"), &by),
                    _ => self.post(
                        &format!("{path}/rerun?dryRun=true"),
                        &with(json!({ "rerunSteps": [], "preserveSteps": [] })),
                    ),
                }
            }
            Kind::Cancel => self.post(&format!("{}/cancel", execution_path(id)), &by),
            Kind::Pause => {
                let mut scope = match self.dice.below(6) {
                    0 => json!({ "taskName": "scenario", "executionId": id }),
                    1 | 2 => {
                        json!({ "executionId": id, "stepPattern": *self.dice.pick(&["*", "p*", "charge"]) })
                    }
                    // Everything, so not for long.
                    3 => json!({ "taskName": "scenario", "expiresAt": in_ms(30 + self.dice.below(100)) }),
                    _ => json!({ "executionId": id }),
                };
                if self.dice.one_in(2) && scope.get("expiresAt").is_none() {
                    scope["expiresAt"] = in_ms(20 + self.dice.below(300));
                }
                self.post(&format!("{admin}/pause"), &with(scope))
            }
            Kind::EndPause => {
                let rule = {
                    let mut rules = arena.rules.lock().unwrap();
                    match rules.len() {
                        0 => "none".to_owned(),
                        // The newest: those before have mostly expired.
                        n if self.dice.one_in(2) => rules.remove(n - 1),
                        n => rules[self.dice.below(n)].clone(),
                    }
                };
                let path = format!("{admin}/pause/{}", encoded(&rule));
                match self.dice.one_in(2) {
                    true => self.post(&path, &by),
                    false => self.client.request("DELETE", &format!("{path}?triggeredBy={tag}")),
                }
            }
            Kind::Resume => self.post(&format!("{admin}/resume"), &with(json!({ "executionId": id }))),
            Kind::Bulk => {
                let more = json!({
                    "action": *self.dice.pick(&["retry-step", "retry-step", "restart"]),
                    "filter": { "taskName": "scenario" },
                    "ratePerSecond": 1 + self.dice.below(100),
                    "canary": self.dice.below(3),
                    "failedShareMaxPercent": *self.dice.pick(&[20, 100]),
                });
                self.post(&format!("{admin}/bulk"), &with(more))
            }
            Kind::CancelBulk => {
                let bulk = arena.bulks.lock().unwrap().pop().unwrap_or_else(|| "none".to_owned());
                self.post(&format!("{admin}/bulk/{}/cancel", encoded(&bulk)), &by)
            }
            Kind::Event => {
                let path = format!("/api/v1/events/{}/go", encoded(id));
                self.client.request("POST", &path).json(&json!({ "token": tag }))
            }
            Kind::StartAgain => self.start_of(id),
            Kind::Read => {
                let path = match self.dice.below(6) {
                    0 => format!("{path}/runs"),
                    4 => format!("{admin}/bulk"),
                    1 => format!("{admin}/pause?includeDeleted=true"),
                    2 => format!("{admin}/audit"),
                    3 => execution_path(id),
                    _ => format!("{path}/detail"),
                };
                self.client.request("GET", &path)
            }
        };
        Asked { tag, kind, execution: id.to_owned(), request }
    }

    fn post(&self, path: &str, body: &Value) -> reqwest::RequestBuilder {
        self.client.request("POST", path).json(body)
    }

    /// Mostly a step that is dead as far as can be seen; sometimes any.
    async fn dead_or_any(&mut self, id: &str) -> String {
        let steps = self.steps(id).await;
        let dead: Vec<&(String, bool)> = steps.iter().filter(|(_, dead)| *dead).collect();
        match dead.is_empty() || self.dice.one_in(6) {
            true => self.any(&steps),
            false => self.dice.pick(&dead).0.clone(),
        }
    }

    /// Mostly a step that the run has.
    fn any(&mut self, steps: &[(String, bool)]) -> String {
        match steps.is_empty() || self.dice.one_in(10) {
            true => (*self.dice.pick(&STEPS)).to_owned(),
            false => self.dice.pick(steps).0.clone(),
        }
    }

    /// What can be seen of the steps of the current run: their names, and whether they are dead.
    async fn steps(&self, id: &str) -> Vec<(String, bool)> {
        let path = format!("/admin/v1/executions/{}/detail", encoded(id));
        let Ok(answer) = self.client.try_send(self.client.request("GET", &path)).await else {
            return Vec::new();
        };
        check_status(&answer);
        if answer.status != 200 {
            return Vec::new();
        }
        let detail = answer.json();
        let steps = detail["steps"].as_array().expect("steps").iter();
        steps
            .map(|step| (step["name"].as_str().expect("a name").to_owned(), step["retryable"] == true))
            .collect()
    }
}

/// A request that is ready to go.
struct Asked {
    tag: String,
    kind: Kind,
    execution: String,
    request: reqwest::RequestBuilder,
}

impl Asked {
    async fn carry_out(self, client: &Client, arena: &Arena) -> Deed {
        let Asked { tag, kind, execution, request } = self;
        let answer = client.try_send(request).await.ok();
        if let Some(answer) = &answer {
            check_status(answer);
        }
        let status = answer.as_ref().map(|answer| answer.status);
        let body =
            answer.filter(|answer| !answer.text.is_empty()).map_or(Value::Null, |answer| answer.json());
        match (kind, status) {
            (Kind::Cancel, Some(204)) => {
                let cancelled = as_cancelled(client, &execution).await;
                arena.cancelled.lock().unwrap().extend(cancelled);
            }
            (Kind::Pause, Some(201)) => {
                arena.rules.lock().unwrap().push(body["ruleId"].as_str().expect("an id").to_owned());
            }
            (Kind::Bulk, Some(202)) => {
                arena.bulks.lock().unwrap().push(body["bulkId"].as_str().expect("an id").to_owned());
            }
            _ => {}
        }
        Deed { tag, kind, execution, status, body }
    }
}

/// The newest run of the execution that is cancelled, as it is now; none when no answer comes.
async fn as_cancelled(client: &Client, execution: &str) -> Option<Cancelled> {
    let path = format!("/admin/v1/executions/{}", encoded(execution));
    let runs = client.try_send(client.request("GET", &format!("{path}/runs"))).await.ok()?;
    let runs = (runs.status == 200).then(|| runs.json())?;
    let run = runs.as_array()?.iter().rfind(|run| run["status"] == "cancelled");
    let run = run.unwrap_or_else(|| panic!("{execution} was cancelled, and has no such run: {runs:#}"));
    let run = run["runId"].as_str()?.to_owned();
    let detail = format!("{path}/detail?runId={}", encoded(&run));
    let detail = client.try_send(client.request("GET", &detail)).await.ok()?;
    let steps = (detail.status == 200).then(|| detail.json()["steps"].clone())?;
    Some(Cancelled { execution: execution.to_owned(), run, steps })
}

/// What is asked makes sense, or comes too late, or names what is not there: nothing else is wrong
/// with it, and nothing breaks.
#[track_caller]
pub fn check_status(answer: &Answer) {
    assert!(matches!(answer.status, 200..=299 | 404 | 409 | 422 | 503), "{answer:#?}");
}

/// Of which of the handlers the execution is.
pub fn variant(id: &str) -> usize {
    id.trim_start_matches("x-").parse().unwrap_or_default()
}

fn merged(first: &Value, second: Value) -> Value {
    let mut all = first.clone();
    if let (Some(all), Value::Object(second)) = (all.as_object_mut(), second) {
        all.extend(second);
    }
    all
}

/// So many milliseconds from now, as the API wants it.
fn in_ms(ms: usize) -> Value {
    let at = chrono::DateTime::<chrono::Utc>::from(SystemTime::now() + Duration::from_millis(ms as u64));
    json!(at.to_rfc3339_opts(chrono::SecondsFormat::Millis, true))
}
