use std::sync::Arc;

use stepbox_domain::{ExecutionId, RunId, StepKey, Timestamp};

use super::{followers::FOLLOWERS_MAX, *};
use crate::{
    sandbox::LogLevel,
    store::logs::{LogBounds, memory::MemoryLogs},
};

struct Bed {
    store: Arc<MemoryLogs>,
    logs: GuestLogs,
}

impl Bed {
    fn new(bounds: QueueBounds) -> Self {
        let store = Arc::new(MemoryLogs::new(LogBounds::new(64 << 20)));
        let clock = Clock::manual(Timestamp::from_ms(1_000));
        Bed { logs: GuestLogs::begin(store.clone(), clock, bounds), store }
    }

    fn print(&self, execution: &str, message: &str) {
        let (run, step) = (RunId::new(&id(execution), 0), StepKey::parse("charge").unwrap());
        let step = Some((&step, 2));
        self.logs.line(LogLine { run: &run, step, level: LogLevel::Info, target: "stdout", message });
    }

    async fn messages(&self, execution: &str) -> Vec<String> {
        let lines = self.logs.lines(&LogFilter::of(id(execution), 100_000)).await.unwrap();
        lines.into_iter().map(|line| line.entry.message).collect()
    }
}

fn id(execution: &str) -> ExecutionId {
    ExecutionId::parse(execution).unwrap()
}

#[tokio::test]
async fn what_was_printed_before_the_question_is_in_the_answer() {
    let bed = Bed::new(QueueBounds::default());
    for n in 0..20 {
        bed.print("a:run:7", &n.to_string());
        assert_eq!(bed.messages("a:run:7").await.len(), n + 1);
    }
    let line = bed.logs.lines(&LogFilter::of(id("a:run:7"), 1)).await.unwrap().remove(0);
    assert_eq!(line.entry.run.as_str(), "a:run:7:run:0");
    assert_eq!(line.entry.step, Some((StepKey::parse("charge").unwrap(), 2)));
    assert_eq!(line.entry.at, Timestamp::from_ms(1_000));
}

#[tokio::test(start_paused = true)]
async fn what_is_printed_while_nothing_can_be_written_comes_later() {
    let bed = Bed::new(QueueBounds::default());
    bed.store.set_broken(true);
    bed.print("a", "one");
    assert!(bed.messages("a").await.is_empty());
    bed.print("a", "two");
    bed.store.set_broken(false);
    // By itself, without anybody asking.
    tokio::time::sleep(Duration::from_secs(3)).await;
    let kept = bed.store.lines(&LogFilter::of(id("a"), 10)).await.unwrap();
    assert_eq!(kept.iter().map(|line| line.entry.message.as_str()).collect::<Vec<_>>(), ["one", "two"]);
    assert!(bed.logs.0.metrics.failures.get() >= 1);
    assert_eq!(bed.logs.0.metrics.stored.get(), 2);
}

#[tokio::test]
async fn what_cannot_be_taken_is_counted_and_said_and_a_flood_leaves_room_for_others() {
    let bed = Bed::new(QueueBounds { bytes_max: 20_000, run_bytes_max: 5_000 });
    bed.store.set_broken(true);
    bed.print("first", "taken, and kept back");
    bed.messages("first").await;
    for n in 0..1_000 {
        bed.print("flood", &format!("flood {n}"));
    }
    bed.print("quiet", "still heard");
    bed.store.set_broken(false);
    assert_eq!(bed.messages("first").await, ["taken, and kept back"]);
    assert_eq!(bed.messages("quiet").await, ["still heard"]);
    let flood = bed.messages("flood").await;
    let lost = 1_000 - (flood.len() - 1);
    assert!((1..100).contains(&flood.len()), "{}", flood.len());
    assert_eq!(
        *flood.last().unwrap(),
        format!("{lost} lines that were printed before this could not be taken and are lost")
    );
    assert_eq!(bed.logs.0.metrics.lost.get(), lost as u64);
}

#[tokio::test]
async fn a_stop_writes_what_has_come() {
    let bed = Bed::new(QueueBounds::default());
    (0..10_000).for_each(|n| bed.print("a", &n.to_string()));
    bed.logs.close().await;
    assert_eq!(bed.store.lines(&LogFilter::of(id("a"), 100_000)).await.unwrap().len(), 10_000);
    // Nobody is there to ask any more: it answers all the same.
    assert_eq!(bed.messages("a").await.len(), 10_000);
}

#[tokio::test]
async fn a_follower_hears_of_its_own_execution_only() {
    let bed = Bed::new(QueueBounds::default());
    let (mut a, mut b) = (bed.logs.follow(&id("a")).unwrap(), bed.logs.follow(&id("b")).unwrap());
    bed.print("a", "one");
    bed.messages("a").await;
    a.news().await;
    let nothing = tokio::time::timeout(Duration::from_millis(20), b.news()).await;
    assert!(nothing.is_err(), "b heard of a");
    let nothing = tokio::time::timeout(Duration::from_millis(20), a.news()).await;
    assert!(nothing.is_err(), "a heard of it twice");
}

#[tokio::test]
async fn there_are_so_many_followers_and_each_gives_up_its_place() {
    let bed = Bed::new(QueueBounds::default());
    let all: Vec<Following> = (0..FOLLOWERS_MAX).map(|_| bed.logs.follow(&id("a")).unwrap()).collect();
    assert!(bed.logs.follow(&id("b")).is_err());
    drop(all);
    assert!(bed.logs.follow(&id("b")).is_ok());
}
