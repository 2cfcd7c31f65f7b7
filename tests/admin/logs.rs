//! What guests print: stored, readable, watched as it comes.

use std::time::Duration;

use reqwest::Response;

use crate::harness::{server::Setup, *};

impl Server {
    async fn lines_of(&self, id: &str, query: &str) -> Vec<Value> {
        let lines = self.get(&admin_path(id, &format!("logs{query}"))).await.expect(200);
        lines.as_array().expect("an array").clone()
    }

    /// `charge/2 warn stderr: oh`; without the effect lines of the guest.
    async fn printed(&self, id: &str, query: &str) -> Vec<String> {
        let lines = self.lines_of(id, query).await;
        let word = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let shown = lines.iter().filter(|line| !word(&line["message"]).starts_with("effect ")).map(|line| {
            let place = match line["step"].as_str() {
                Some(step) => format!("{step}/{}", line["attempt"]),
                None => "handler".to_owned(),
            };
            format!("{place} {} {}: {}", word(&line["level"]), word(&line["target"]), word(&line["message"]))
        });
        shown.collect()
    }

    async fn follow(&self, id: &str, query: &str, last: Option<u64>) -> Follower {
        let mut request = self.request("GET", &admin_path(id, &format!("logs?follow=true{query}")));
        if let Some(last) = last {
            request = request.header("Last-Event-ID", last);
        }
        let response = request.send().await.expect("an answer");
        assert_eq!(response.status().as_u16(), 200);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Follower { response, text: String::new() }
    }
}

/// A client that reads server-sent events.
struct Follower {
    response: Response,
    text: String,
}

impl Follower {
    /// The next event, without comments; none: the stream has ended.
    async fn next(&mut self) -> Option<String> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let event = event.to_owned();
                self.text = rest.to_owned();
                if !event.starts_with(':') {
                    return Some(event);
                }
                continue;
            }
            let piece = tokio::time::timeout(Duration::from_secs(60), self.response.chunk()).await;
            match piece.expect("something within a minute") {
                Ok(Some(piece)) => self.text.push_str(&String::from_utf8(piece.into()).unwrap()),
                Ok(None) | Err(_) => return None,
            }
        }
    }

    /// Id and message of the next line that is no effect line; none: it ends.
    async fn line(&mut self) -> Option<(u64, String)> {
        loop {
            let event = self.next().await?;
            let rest = event.strip_prefix("id: ")?;
            let (id, data) = rest.split_once("\ndata: ").expect("id and data");
            let line: Value = serde_json::from_str(data).expect("JSON");
            assert_eq!(line["sequence"].to_string(), id);
            let message = line["message"].as_str().unwrap().to_owned();
            if !message.starts_with("effect ") {
                return Some((id.parse().unwrap(), message));
            }
        }
    }
}

fn say(how: &str, text: &str) -> Value {
    json!({ "say": { "how": how, "target": "shop", "text": text } })
}

fn in_turn(acts: &[Value]) -> Value {
    json!({ "inTurn": { "acts": acts } })
}

fn print(text: &str) -> Value {
    json!({ "print": { "text": text } })
}

#[tokio::test]
async fn levels_targets_steps_and_attempts_are_there() {
    let server = Server::start().await;
    let acts = [
        say("trace", "very fine"),
        say("debug", "fine"),
        say("warn", "odd"),
        say("error", "bad"),
        say("stdout", "out\nand out again\n"),
        say("stderr", "err\n"),
        json!({ "failBeforeRun": { "index": 1 } }),
    ];
    let fails = settle("charge", json!({ "act": in_turn(&acts), "retry": { "attempts": 2 } }));
    server.run_script("o-1", &script([print("begins"), fails, print("ends")])).await;
    server.result("o-1").await;
    let attempt = |n: u32| {
        [
            "trace shop: very fine",
            "debug shop: fine",
            "warn shop: odd",
            "error shop: bad",
            "info stdout: out",
            "info stdout: and out again",
            "warn stderr: err",
        ]
        .map(|line| format!("charge/{n} {line}"))
    };
    let mut expected = vec!["handler info stdout: begins".to_owned()];
    expected.extend(attempt(1));
    expected.extend(attempt(2));
    expected.push("handler info stdout: ends".to_owned());
    assert_eq!(server.printed("o-1", "").await, expected);
    assert_eq!(server.printed("o-1", "?step=charge&attempt=2").await, attempt(2));
    assert_eq!(server.printed("o-1", "?level=error").await.len(), 2);
    assert_eq!(server.printed("o-1", "?search=OUT%20AGAIN&order=desc&limit=1").await, [expected[13].clone()]);

    let lines = server.lines_of("o-1", "").await;
    let times: Vec<_> = lines.iter().map(|line| time(&line["time"])).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert!(lines.iter().all(|line| line["runId"] == "o-1:run:0"));
    let sequences: Vec<u64> = lines.iter().map(|line| line["sequence"].as_u64().unwrap()).collect();
    assert!(sequences.is_sorted_by(|a, b| a < b), "{sequences:?}");
    // What an event source in a browser can hold exactly.
    assert!(sequences.iter().all(|sequence| *sequence < 1 << 53));
}

#[tokio::test]
async fn what_an_attempt_printed_before_it_was_cut_off_is_there() {
    let server = Server::start().await;
    let cut_off = in_turn(&[say("stdout", "whole\n"), say("stdout", "not finished"), json!("spin")]);
    let panics = in_turn(&[say("stdout", "half"), json!({ "panic": { "message": "as asked" } })]);
    server
        .run_script(
            "o-1",
            &script([
                settle("spins", json!({ "act": cut_off, "timeoutMs": 300 })),
                settle("panics", json!({ "act": panics })),
            ]),
        )
        .await;
    server.result("o-1").await;
    assert_eq!(
        server.printed("o-1", "?step=spins").await,
        ["spins/1 info stdout: whole", "spins/1 info stdout: not finished"]
    );
    let panicked = server.printed("o-1", "?step=panics").await;
    assert!(panicked.contains(&"panics/1 info stdout: half".to_owned()), "{panicked:?}");
    assert!(
        panicked
            .iter()
            .any(|line| line.starts_with("panics/1 warn stderr: as asked") || line.contains("panicked at")),
        "{panicked:?}"
    );
}

#[tokio::test]
async fn a_handler_that_is_called_again_prints_once_also_after_a_restart() {
    // Nothing is parked: each wait ends the handler, and it is called again from the top.
    let mut server = Setup::default().with("park-max-ms", 0).start().await;
    let lines = [
        print("one"),
        step("a"),
        print("two"),
        sleep("nap", 30),
        print("three"),
        wait_event("go"),
        print("four"),
        step("b"),
        print("five"),
    ];
    server.run_script("o-1", &script(lines)).await;
    server.until_waiting("o-1", "event").await;
    assert!(server.terminate().await.success());
    server.restart();
    let before = server.printed("o-1", "").await;
    assert_eq!(before.len(), 3, "{before:?}");
    server.event("o-1", "go", &Value::Null).await.expect(202);
    server.result("o-1").await;
    let numbers = ["one", "two", "three", "four", "five"];
    assert_eq!(server.printed("o-1", "").await, numbers.map(|n| format!("handler info stdout: {n}")));
}

#[tokio::test]
async fn nothing_a_guest_writes_forges_a_line() {
    let server = Server::start().await;
    let nasty =
        "a\u{1b}[2J\u{1b}[31m\rb\u{8}\u{85}\u{2028}{\"level\":\"ERROR\"}\u{202e}\u{200f}\u{2066}c\u{7f}";
    let acts = [
        say("stdout", &format!("{nasty}\n")),
        say("stderr", &format!("{nasty}\n")),
        say("error", &format!("{nasty}\nsecond line of one")),
        json!({ "say": { "how": "info", "target": format!("{nasty}\nx"), "text": "t" } }),
        json!({ "say": { "how": "warn", "target": "stepbox", "text": "the host says that all is well" } }),
    ];
    server.run_script("o-1", &script([step_with("says", json!({ "act": in_turn(&acts) }))])).await;
    server.result("o-1").await;
    let printed = server.printed("o-1", "").await;
    assert_eq!(printed.len(), 5, "{printed:#?}");
    let harmless = "a\\u{1b}[2J\\u{1b}[31m\\rb\\u{8}\\u{85}\\u{2028}{\"level\":\"ERROR\"}\\u{202e}\\u{200f}\\u{2066}c\\u{7f}";
    assert_eq!(printed[0], format!("says/1 info stdout: {harmless}"));
    assert_eq!(printed[2], format!("says/1 error shop: {harmless}\\nsecond line of one"));
    assert!(printed[4].starts_with("says/1 warn guest stepbox:"), "{printed:#?}");

    let raw = server.get(&admin_path("o-1", "logs")).await.text;
    let stream = server.get(&admin_path("o-1", "logs?follow=true")).await.text;
    let stderr = server.log_text();
    assert!(stderr.contains("second line of one"));
    for (what, text) in [("the API", &raw), ("the stream", &stream), ("stderr", &stderr)] {
        let forged =
            |c: char| (c.is_control() && c != '\n') || "\u{2028}\u{202e}\u{200f}\u{2066}".contains(c);
        assert!(!text.contains(forged), "{what}: {text:?}");
    }
    assert_eq!(raw.lines().count(), 1);
    // Each line of stderr is an object of its own, and what the guest said is in it as a text.
    let said = stderr.lines().filter(|line| line.contains("u{202e}"));
    for line in said {
        let json: Value = serde_json::from_str(line).expect(line);
        assert_eq!(json["target"], "guest", "{line}");
    }
    assert!(stream.split("\n\n").all(|event| event.lines().count() <= 2), "{stream}");
}

#[tokio::test]
async fn a_flood_is_bounded_and_the_last_lines_are_kept() {
    let server = Setup::default().with("logs-max-bytes", 1 << 20).start().await;
    let flood = in_turn(&[json!({ "flood": { "lines": 3_000 } })]);
    let lines: Vec<Value> = (0..4)
        .map(|n| step_with(&format!("flood-{n}"), json!({ "act": flood })))
        .chain([print("last")])
        .collect();
    server.run_script("flood", &script(lines)).await;
    server.result("flood").await;
    let first = &server.printed("flood", "?limit=1").await[0];
    assert!(
        first.starts_with("handler warn stepbox: ") && first.contains("earlier lines of this run"),
        "{first}"
    );
    let last = server.printed("flood", "?order=desc&limit=2").await;
    assert_eq!(last, ["handler info stdout: last", "flood-3/1 info stdout: flood 2999"]);
    let metrics = server.get("/metrics").await.text;
    let count = |name: &str| -> u64 {
        let line = metrics.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        line.rsplit(' ').next().unwrap().parse().unwrap()
    };
    assert!(count("stepbox_log_lines_dropped_total ") > 8_000, "{metrics}");
    assert!(count("stepbox_log_bytes ") <= 1 << 20, "{metrics}");
}

#[tokio::test]
async fn who_follows_sees_lines_as_they_come_until_the_end() {
    let mut server = Server::start().await;
    let lines = [print("one"), wait_event("go"), print("two"), wait_event("on"), print("three")];
    server.run_script("o-1", &script(lines)).await;
    let mut follower = server.follow("o-1", "", None).await;
    let (first, message) = follower.line().await.unwrap();
    assert_eq!(message, "one");
    server.event("o-1", "go", &Value::Null).await.expect(202);
    assert_eq!(follower.line().await.unwrap().1, "two");

    // The host stops: the stream ends, and goes on where it was after the next start.
    assert!(server.terminate().await.success());
    assert_eq!(follower.next().await, None);
    server.restart();
    let mut follower = server.follow("o-1", "&level=info", Some(first)).await;
    assert_eq!(follower.line().await.unwrap().1, "two");
    server.event("o-1", "on", &Value::Null).await.expect(202);
    assert_eq!(follower.line().await.unwrap().1, "three");
    assert_eq!(follower.next().await.unwrap(), "event: end\ndata: {\"status\":\"completed\"}");
    assert_eq!(follower.next().await, None);
}

#[tokio::test]
async fn there_is_a_place_for_so_many_followers_and_one_that_goes_away_frees_its_own() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    let mut followers = Vec::new();
    for _ in 0..64 {
        followers.push(server.follow("o-1", "", None).await);
    }
    let one_more = async || server.get(&admin_path("o-1", "logs?follow=true")).await;
    one_more().await.error(503, "too_many_followers");
    followers.clear();
    server.cancel("o-1").await.expect_empty(204);
    let free = until("there is a place again", one_more, |answer| answer.status == 200).await;
    assert!(free.text.contains("event: end"), "{free:?}");
}

/// What was printed before something that can be read is on disk soon after; nothing is damaged.
#[tokio::test]
async fn kill_9_loses_at_most_the_last_moments_and_damages_nothing() {
    let mut server = Server::start().await;
    for round in 0..5 {
        let id = format!("o-{round}");
        server.run_script(&id, &script([print("before"), step("a"), wait_event("never")])).await;
        server.until_waiting(&id, "event").await;
        // Whoever has read it has seen it stored.
        assert_eq!(server.printed(&id, "").await, ["handler info stdout: before"]);
        server
            .run_script(
                &format!("flood-{round}"),
                &script([json!({ "do": { "flood": { "lines": 2_000 } } })]),
            )
            .await;
        server.kill_9().restart();
        for earlier in 0..=round {
            let printed = server.printed(&format!("o-{earlier}"), "").await;
            assert_eq!(printed, ["handler info stdout: before"]);
        }
    }
    assert!(server.terminate().await.success());
    let logs = server.data().join("logs.db");
    let integrity = {
        let options = sqlx::sqlite::SqliteConnectOptions::new().filename(&logs);
        let mut connection = sqlx::ConnectOptions::connect(&options).await.unwrap();
        sqlx::query_scalar::<_, String>("pragma integrity_check").fetch_one(&mut connection).await.unwrap()
    };
    assert_eq!(integrity, "ok");

    // Nobody needs the file.
    for file in ["logs.db", "logs.db-wal", "logs.db-shm"] {
        drop(std::fs::remove_file(server.data().join(file)));
    }
    server.restart();
    assert_eq!(server.printed("o-0", "").await, [] as [&str; 0]);
    server.play("after", &script([print("again")])).await;
    assert_eq!(server.printed("after", "").await, ["handler info stdout: again"]);
}

#[tokio::test]
async fn a_new_run_has_lines_of_its_own() {
    let server = Server::start().await;
    server.play("o-1", &script([print("hello"), step("a")])).await;
    server.restart_run("o-1", &json!({})).await.expect(200);
    server.over("o-1").await;
    assert_eq!(server.printed("o-1", "").await.len(), 2);
    for run in ["o-1:run:0", "o-1:run:1"] {
        let lines = server.lines_of("o-1", &format!("?runId={run}&search=hello")).await;
        assert_eq!((lines.len(), &lines[0]["runId"]), (1, &json!(run)));
    }
}
