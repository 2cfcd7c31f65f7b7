//! Runs that go on from what was kept of them. (Whether that is what their journals say is looked at
//! wherever one does so in a test: see `worker::lead`.)

use std::{sync::atomic::Ordering::SeqCst, time::Duration};

use serde_json::json;
use stepbox_domain::{ExecutionStatus, Json, Run, run::RunFacts};

use super::scripted::*;
use crate::engine::{EngineConfig, Who, kept::Kept};

/// Does a step, waits for "go", does another, sleeps, and returns what it heard.
fn guest() -> Scripted {
    Scripted::new(|mut h| async move {
        h.step("a", Default::default()).await?;
        let heard = h.event("go", None).await?;
        h.step("b", Default::default()).await?;
        h.sleep("nap", 30).await?;
        Ok(heard)
    })
}

fn suspending() -> EngineConfig {
    EngineConfig { park_max: Duration::ZERO, ..config() }
}

fn kept(host: &Host) -> usize {
    host.engine.0.kept.len()
}

#[test]
fn a_run_is_kept_while_it_stands_and_goes_on_as_it_was() {
    let (store, guest) = (store(None), guest());
    let host = Host::start(&store, &guest, suspending());
    host.begin("e");
    host.until("e", |view| view.waiting.is_some() && kept(&host) == 1);
    host.send("e", "go", json!("went")).unwrap();
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("went"))));
    assert_eq!(guest.legs.load(SeqCst), 3);
    assert_eq!((guest.attempts_of("a"), guest.attempts_of("b")), (vec![1], vec![1]));
    assert_eq!(kept(&host), 0);
}

#[test]
fn what_is_kept_is_lost_with_the_host_and_the_run_goes_on_all_the_same() {
    let (store, guest) = (store(None), guest());
    let host = Host::start(&store, &guest, suspending());
    host.begin("e");
    host.until("e", |view| view.waiting.is_some() && kept(&host) == 1);
    host.crash();
    let host = Host::start(&store, &guest, suspending());
    host.send("e", "go", json!("went")).unwrap();
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("went"))));
    assert_eq!((guest.attempts_of("a"), guest.attempts_of("b")), (vec![1], vec![1]));
}

/// A repair may have put it on another version while it was being let go of.
#[test]
fn one_that_is_another_by_now_is_read_anew() {
    let (store, guest) = (store(None), guest());
    let host = Host::start(&store, &guest, suspending());
    host.begin("e");
    let run = host.until("e", |view| view.waiting.is_some() && kept(&host) == 1).run_key;
    let runs = &host.engine.0.kept;
    let Kept { run: was, records } = runs.take(run).unwrap();
    let facts = RunFacts { version: 7, ..was.facts().clone() };
    runs.keep(run, Kept { run: Run::new(facts, was.policy().clone()), records });
    host.send("e", "go", json!("went")).unwrap();
    assert_eq!(host.end_of("e").result, Some(Json::from(json!("went"))));
    assert_eq!((guest.attempts_of("a"), guest.attempts_of("b")), (vec![1], vec![1]));
}

#[test]
fn nothing_is_kept_of_a_run_that_is_cancelled() {
    let store = store(None);
    let host = Host::start(&store, &guest(), suspending());
    host.begin("e");
    host.until("e", |view| view.waiting.is_some() && kept(&host) == 1);
    host.block_on(host.engine.cancel(&execution("e"), Who::default())).unwrap();
    assert_eq!(kept(&host), 0);
    assert_eq!(host.end_of("e").status, ExecutionStatus::Cancelled);
}
