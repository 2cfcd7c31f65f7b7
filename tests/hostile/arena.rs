//! A host under attack, its neighbours, and what is measured of them.

use std::{
    fs,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicBool, AtomicU64, Ordering::Relaxed},
    },
    time::{Duration, Instant},
};

use stepbox::vault::{KEY_VARIABLE, SecretsKey};

use super::attack::{Answered, Attack, Deed, Outcome};
use crate::harness::{campaign::tell, server::Setup, *};

/// What the host may have more of when an attack is over: pages that its pools and its allocator
/// keep, and the caches of its database. What attacks ask for is far more.
const MEMORY_KEPT_MAX_BYTES: u64 = 96 << 20;

/// `make hostile`: more often, and latencies are held to their bound.
pub fn is_long() -> bool {
    std::env::var_os("STEPBOX_HOSTILE_LONG").is_some()
}

/// Where attackers work, and the servers that they need: apart from the neighbours, whose latency
/// would else be that of their own client's process. In the long form at a low priority, for they
/// would be on another machine.
pub fn attackers() -> &'static tokio::runtime::Runtime {
    static RUNTIME: LazyLock<tokio::runtime::Runtime> = LazyLock::new(|| {
        let mut builder = tokio::runtime::Builder::new_multi_thread();
        if is_long() {
            builder.on_thread_start(|| assert!(rustix::process::nice(19).is_ok(), "it can be lowered"));
        }
        builder.worker_threads(2).enable_all().build().expect("a runtime can be made")
    });
    &RUNTIME
}

pub struct Arena {
    title: &'static str,
    server: Server,
    /// The attackers' client.
    attacker: Client,
    rows: Vec<Row>,
    memory_at_first: u64,
}

struct Row {
    name: String,
    outcome: Outcome,
    took: Duration,
    /// Nothing where it was not measured.
    quiet: Option<Duration>,
    /// Beside as many clients who run what harms nobody, one run after the other; measured where the
    /// neighbours waited more than twice as long as when all is quiet.
    honest: Option<Duration>,
    during: Vec<Duration>,
    memory_before: u64,
    memory_after: u64,
}

impl Arena {
    /// A host with limits so low that each is reached soon, and not so low that a debug build on a busy
    /// machine reaches one where another is meant.
    pub async fn open(title: &'static str) -> Arena {
        Arena::open_with(title, Setup::default()).await
    }

    /// The same with a `setup` of its own besides.
    pub async fn open_with(title: &'static str, setup: Setup) -> Arena {
        let limits =
            ["handlerCpuMaxMs=1500", "attemptCpuMaxMs=1500", "stepsMax=300", "attemptWallMaxMs=8000"];
        let key = SecretsKey::generate().to_text().to_string();
        let server = setup.with("limit", limits.join(",")).with_variable(KEY_VARIABLE, &key).start().await;
        // What is loaded once is no leak.
        neighbours(&server, 20).await;
        let memory_at_first = resident_bytes(&server);
        let attacker = server.apart();
        Arena { title, server, attacker, rows: Vec::new(), memory_at_first }
    }

    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Lets all `attacks` come, one after the other.
    pub async fn withstand(&mut self, attacks: Vec<Attack>) {
        for attack in attacks {
            let row = self.attacked(attack).await;
            self.rows.push(row);
        }
    }

    async fn attacked(&self, attack: Attack) -> Row {
        let Attack { name, deed, answer, at_once, limits } = attack;
        self.prepare(&name, &deed, limits).await;
        let quiet = match is_long() {
            true => Some(median(&neighbours(&self.server, 40).await)),
            false => None,
        };
        let memory_before = resident_bytes(&self.server);

        let over = Arc::new(AtomicBool::new(false));
        let during = tokio::spawn(neighbours_until(Client::clone(&self.server), over.clone()));
        let begun = Instant::now();
        let mut outcome;
        let mut times = 0;
        loop {
            outcome = self.done(&name, &deed, &answer, at_once).await;
            times += 1;
            // Long enough for the neighbours to have felt it.
            if outcome.is_err() || !is_long() || begun.elapsed() > Duration::from_secs(3) || times == 20 {
                break;
            }
        }
        let took = begun.elapsed() / times;
        over.store(true, Relaxed);
        let during = during.await.unwrap_or_else(|error| panic!("{name}: a neighbour was hurt: {error}"));

        let ready = self.server.get("/readyz").await;
        assert_eq!(ready.status, 200, "{name}: {ready:#?}");
        until(&format!("{name} leaves no process behind"), async || children(&self.server), |n| *n == 0)
            .await;
        let kept = memory_before + MEMORY_KEPT_MAX_BYTES;
        let what = format!("memory is back after {name} ({} MiB before)", memory_before >> 20);
        let memory_after = until(&what, async || resident_bytes(&self.server), |now| *now <= kept).await;
        let honest = match quiet {
            Some(quiet) if median(&during) > 2 * quiet => Some(self.beside_honest(at_once).await),
            _ => None,
        };
        Row { name, outcome, took, quiet, honest, during, memory_before, memory_after }
    }

    /// What a neighbour waits beside `clients` others like itself.
    async fn beside_honest(&self, clients: usize) -> Duration {
        let over = Arc::new(AtomicBool::new(false));
        let mut others = tokio::task::JoinSet::new();
        for _ in 0..clients {
            others.spawn_on(neighbours_until(self.attacker.clone(), over.clone()), attackers().handle());
        }
        let beside = median(&neighbours(&self.server, 40).await);
        over.store(true, Relaxed);
        others.join_all().await;
        beside
    }

    /// Uploads and sets what the attack needs, and is no part of it.
    async fn prepare(&self, name: &str, deed: &Deed, limits: Option<Value>) {
        let Deed::Run { component, .. } = deed else { return };
        let task = task_of(name);
        let answer = self.server.upload(&task, component.clone()).await;
        assert_eq!(answer.status, 201, "{name}: {answer:#?}");
        if let Some(limits) = limits {
            let put = self.server.request("PUT", &format!("/admin/v1/modules/{task}/limits"));
            self.server.send(put.json(&limits)).await.expect(200);
        }
    }

    /// Does it so many times at once, and holds each answer to what it must be.
    async fn done(&self, name: &str, deed: &Deed, answer: &Answered, at_once: usize) -> Outcome {
        static NUMBER: AtomicU64 = AtomicU64::new(0);
        let mut all = tokio::task::JoinSet::new();
        for _ in 0..at_once {
            let (client, deed, answer) = (self.attacker.clone(), deed.clone(), answer.clone());
            let name = name.to_owned();
            let id = format!("attack-{}", NUMBER.fetch_add(1, Relaxed));
            let done = async move { do_once(&client, &name, &id, deed, &answer).await };
            all.spawn_on(done, attackers().handle());
        }
        let mut outcome = Ok(String::new());
        while let Some(done) = all.join_next().await {
            outcome = outcome.and(done.unwrap_or_else(|error| panic!("{name}: {error}")));
        }
        match at_once {
            1 => outcome,
            many => outcome.map(|outcome| format!("{many} × {outcome}")),
        }
    }

    /// Prints the table. In the long form, fails where a latency was more than twice the quiet one,
    /// and more than twice that beside as many honest clients.
    pub async fn close(self) {
        let wrong: Vec<String> = (self.rows.iter())
            .filter_map(|row| Some(format!("{}: {}", row.name, row.outcome.as_ref().err()?)))
            .collect();
        let mut text = format!(
            "\nattacks: {}\n{:<44} {:<26} {:>9} {:>8} {:>9} {:>8} {:>8} {:>5} {:>9} {:>9}\n",
            self.title,
            "attack",
            "answer",
            "took ms",
            "quiet ms",
            "honest ms",
            "p50 ms",
            "max ms",
            "n",
            "MiB before",
            "after"
        );
        let ms = |time: Duration| format!("{:.1}", time.as_secs_f64() * 1_000.0);
        let mut slow = Vec::new();
        for row in &self.rows {
            let p50 = median(&row.during);
            let is_slow = [row.quiet, row.honest].iter().flatten().max().is_some_and(|most| p50 > 2 * *most);
            if is_slow {
                slow.push(row.name.as_str());
            }
            text += &format!(
                "{:<44} {:<26} {:>9} {:>8} {:>9} {:>7}{} {:>8} {:>5} {:>9} {:>9}\n",
                row.name,
                row.outcome.as_deref().unwrap_or("WRONG"),
                ms(row.took),
                row.quiet.map_or("-".to_owned(), ms),
                row.honest.map_or("-".to_owned(), ms),
                ms(p50),
                if is_slow { '!' } else { ' ' },
                ms(row.during.iter().max().copied().unwrap_or_default()),
                row.during.len(),
                row.memory_before >> 20,
                row.memory_after >> 20,
            );
        }
        let memory = resident_bytes(&self.server);
        text += &format!(
            "{} attacks; {} of them within twice the quiet latency of their neighbours, all of whose runs \
             completed; memory {} MiB at first, {} MiB at last\n",
            self.rows.len(),
            self.rows.iter().filter(|row| row.quiet.is_some() && row.honest.is_none()).count(),
            self.memory_at_first >> 20,
            memory >> 20
        );
        for wrong in &wrong {
            text += &format!("WRONG {wrong}\n");
        }
        tell(&text);
        assert!(wrong.is_empty(), "not what must have come of it:\n{}", wrong.join("\n"));
        assert!(
            slow.is_empty(),
            "neighbours waited more than twice as long as beside honest clients: {slow:?}"
        );
    }
}

async fn do_once(client: &Client, name: &str, id: &str, deed: Deed, answer: &Answered) -> Outcome {
    let started = match deed {
        Deed::Upload(component) => {
            return answer.check_response(&client.upload("attack", component).await);
        }
        Deed::Request { method, path, kind, body } => {
            let request =
                client.request(method, &path.replace("{id}", id)).header("content-type", kind).body(body);
            return answer.check_response(&client.send(request).await);
        }
        Deed::Run { payload, .. } => client.start(id, &task_of(name), &payload).await,
        Deed::Start { task, payload } => client.start(id, task, &payload).await,
        Deed::Script(lines) => client.start(id, "scenario", &script(lines)).await,
        Deed::Raw(payload) => client.start(id, "raw", &payload).await,
    };
    if let Answered::Refused(..) = answer {
        return answer.check_response(&started);
    }
    match started.status {
        201 => answer.check_end(&client.over(id).await),
        status => Err(format!("not started: {status} {}", started.text)),
    }
}

/// A task of its own for each guest: letters, digits, dashes.
fn task_of(name: &str) -> String {
    name.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect()
}

/// `count` runs of a task that has nothing to do with it all, one after the other: how long each
/// took from its start to its result, as its client sees it.
async fn neighbours(client: &Client, count: usize) -> Vec<Duration> {
    let mut all = Vec::new();
    for _ in 0..count {
        all.push(neighbour(client).await);
    }
    all
}

/// The same until it is over; at least one.
async fn neighbours_until(client: Client, over: Arc<AtomicBool>) -> Vec<Duration> {
    let mut all = vec![neighbour(&client).await];
    while !over.load(Relaxed) {
        all.push(neighbour(&client).await);
    }
    all
}

async fn neighbour(client: &Client) -> Duration {
    static NUMBER: AtomicU64 = AtomicU64::new(0);
    let id = format!("neighbour-{}", NUMBER.fetch_add(1, Relaxed));
    let begun = Instant::now();
    client.run_script(&id, &script([step("charge")])).await;
    assert_eq!(client.result(&id).await, json!([{ "attempt": 1 }]));
    begun.elapsed()
}

fn median(all: &[Duration]) -> Duration {
    let mut all = all.to_vec();
    all.sort();
    all.get(all.len() / 2).copied().unwrap_or_default()
}

/// What the server's process has in memory.
fn resident_bytes(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process_id())).expect("it runs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("Linux says it");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// How many processes the server has started that are not gone.
fn children(server: &Server) -> usize {
    let id = server.process_id();
    let threads = fs::read_dir(format!("/proc/{id}/task")).expect("it runs");
    threads
        .filter_map(|thread| fs::read_to_string(thread.ok()?.path().join("children")).ok())
        .map(|children| children.split_whitespace().count())
        .sum()
}
