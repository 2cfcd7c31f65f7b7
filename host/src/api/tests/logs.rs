//! What guests printed.

use serde_json::{Value, json};
use stepbox_domain::{ExecutionId, RunId, StepKey};

use super::harness::*;
use crate::sandbox::{LogLevel, LogLine, LogSink as _};

impl Host {
    fn print(&self, execution: &str, step: Option<(&str, u32)>, level: LogLevel, message: &str) {
        let run = RunId::new(&ExecutionId::parse(execution).unwrap(), 0);
        let key = step.map(|(step, _)| StepKey::parse(step).unwrap());
        let step = key.as_ref().zip(step.map(|(_, attempt)| attempt));
        self.logs.line(LogLine { run: &run, step, level, target: "stdout", message });
    }

    async fn logs(&self, query: &str) -> Vec<String> {
        let answer = self.get(&format!("/admin/v1/executions/e/logs{query}")).await;
        assert_eq!(answer.status, 200, "{}", answer.text);
        let lines = answer.json();
        lines.as_array().unwrap().iter().map(|line| line["message"].as_str().unwrap().to_owned()).collect()
    }
}

async fn with_lines() -> Host {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "hang" })).await;
    host.print("e", None, LogLevel::Debug, "the handler begins");
    host.print("e", Some(("charge", 1)), LogLevel::Info, "Charging 5€");
    host.move_clock(1_000);
    host.print("e", Some(("charge", 1)), LogLevel::Error, "declined");
    host.print("e", Some(("charge", 2)), LogLevel::Info, "charging again");
    host.print("e", Some(("charge#2", 1)), LogLevel::Warn, "twice?");
    host
}

#[tokio::test]
async fn a_line_has_all_its_fields() {
    let host = with_lines().await;
    let mut lines = host.get("/admin/v1/executions/e/logs?limit=2").await.json();
    for line in lines.as_array_mut().unwrap() {
        assert!(line["sequence"].as_u64().unwrap() > 0, "{line}");
        line["sequence"] = Value::Null;
    }
    assert_eq!(
        lines,
        json!([
            { "sequence": null, "time": NOW, "runId": "e:run:0", "step": null, "attempt": null,
              "level": "debug", "target": "stdout", "message": "the handler begins" },
            { "sequence": null, "time": NOW, "runId": "e:run:0", "step": "charge", "attempt": 1,
              "level": "info", "target": "stdout", "message": "Charging 5€" },
        ])
    );
    let other = host.get("/zart/admin/v1/executions/e/logs?limit=2").await;
    assert_eq!(other.json()[1]["message"], "Charging 5€");
}

#[tokio::test]
async fn filters_and_pages() {
    let host = with_lines().await;
    for (query, expected) in [
        ("?step=charge", "Charging 5€, declined, charging again"),
        ("?step=charge%232", "twice?"),
        ("?step=charge&attempt=2", "charging again"),
        ("?level=warn", "declined, twice?"),
        ("?level=error", "declined"),
        ("?search=charging", "Charging 5€, charging again"),
        ("?runId=e:run:0&limit=1", "the handler begins"),
        ("?to=2026-01-31T12:00:00Z", "the handler begins, Charging 5€"),
        ("?from=2026-01-31T12:00:00.001Z&limit=2", "declined, charging again"),
        ("?order=desc&limit=2", "twice?, charging again"),
        ("?order=asc&limit=1&step=nobody", ""),
        ("?limit=0", ""),
    ] {
        assert_eq!(host.logs(query).await.join(", "), expected, "{query}");
    }
    // Page by page, either way.
    for order in ["asc", "desc"] {
        let (mut all, mut after) = (Vec::new(), String::new());
        loop {
            let path = format!("/admin/v1/executions/e/logs?limit=2&order={order}{after}");
            let page = host.get(&path).await.json();
            let Some(last) = page.as_array().unwrap().last() else { break };
            after = format!("&after={}", last["sequence"]);
            all.extend(page.as_array().unwrap().iter().map(|line| line["message"].clone()));
        }
        assert_eq!(all.len(), 5, "{order}: {all:?}");
    }
}

#[tokio::test]
async fn what_makes_no_sense_is_refused_and_what_does_is_named() {
    let host = with_lines().await;
    for (query, expected) in [
        (
            "?level=loud",
            "400 bad_query: level must be one of trace, debug, info, warn, error, this is \"loud\"",
        ),
        ("?order=up", "400 bad_query: order must be asc or desc, this is \"up\""),
        ("?attempt=0", "400 bad_query: attempt must be a whole number from 1, this is \"0\""),
        ("?after=-1", "400 bad_query: after must be a whole number, the sequence of a line, this is \"-1\""),
        ("?limit=1001", "400 bad_query: limit must be a whole number from 0 to 1000, this is \"1001\""),
        ("?follow=yes", "400 bad_query: follow must be true or false, this is \"yes\""),
        ("?step=", "400 bad_query: step must be the key of a step, like charge or charge#2, this is \"\""),
        (
            "?follow=true&order=desc",
            "400 bad_query: order and follow do not go together; leave one of them out",
        ),
        (
            "?runId=e:run:7",
            "404 unknown_run: the execution \"e\" has no run \"e:run:7\"; see GET \
             /admin/v1/executions/{id}/runs for those that it has",
        ),
        (
            "?from=monday",
            "400 bad_query: from must be a time like 2026-01-31T12:00:00.000Z (RFC 3339; write + as %2B), \
             this is \"monday\"",
        ),
    ] {
        let answer = host.get(&format!("/admin/v1/executions/e/logs{query}")).await;
        assert_eq!(answer.refusal(), expected);
    }
    let unknown = host.get("/admin/v1/executions/e/logs?page=2").await.refusal();
    assert!(
        unknown.starts_with("400 bad_query: there is no query parameter \"page\"; allowed are runId, step,")
    );
    for query in ["", "?follow=true"] {
        let nobody = host.get(&format!("/admin/v1/executions/nobody/logs{query}")).await.refusal();
        assert_eq!(nobody, "404 unknown_execution: there is no execution \"nobody\"");
    }
}

#[tokio::test]
async fn a_follower_of_one_that_is_over_gets_what_there_is_and_the_end() {
    let host = with_lines().await;
    host.post("/api/v1/executions/e/cancel", "").await;
    let stream = host.get("/admin/v1/executions/e/logs?follow=true&level=warn").await;
    assert_eq!((stream.status, stream.header("content-type")), (200, "text/event-stream"));
    let events: Vec<&str> = stream.text.split("\n\n").filter(|event| !event.is_empty()).collect();
    assert_eq!(events.len(), 4, "{events:?}");
    assert_eq!(events[0], ": the log follows");
    assert!(events[1].starts_with("id: ") && events[1].contains("\ndata: {\"sequence\":"), "{events:?}");
    assert!(events[1].contains("declined") && events[2].contains("twice?"), "{events:?}");
    assert_eq!(events[3], "event: end\ndata: {\"status\":\"cancelled\"}");
}

#[tokio::test]
async fn a_stop_ends_those_who_follow() {
    let host = with_lines().await;
    let (stream, ()) = tokio::join!(host.get("/admin/v1/executions/e/logs?follow=true"), async {
        tokio::task::yield_now().await;
        host.stop.send_replace(true);
    });
    assert!(!stream.text.contains("event: end"), "it may come back: {}", stream.text);
}

#[tokio::test]
async fn what_is_counted_is_shown() {
    let host = with_lines().await;
    host.logs("").await;
    let metrics = host.get("/metrics").await.text;
    for line in [
        "stepbox_log_lines_stored_total 5\n",
        "stepbox_log_lines_lost_total 0\n",
        "stepbox_log_followers 0\n",
    ] {
        assert!(metrics.contains(line), "no {line} in {metrics}");
    }
}
