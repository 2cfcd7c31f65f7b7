//! What guests print reaches the log line by line, bounded, and can pass for nothing else.

use crate::harness::*;

#[tokio::test]
async fn what_it_prints_is_bounded_and_told_by_line() {
    // Not to be stopped for the rate of its calls before it has printed too much.
    let server = Server::with("limit", "hostCallsPerSecondMax=5000000").start().await;
    let lines = [
        json!({ "print": { "text": "one\ntwo \u{1b}[31mred\u{2028}{\"level\":\"ERROR\"}\u{202e}gnp\r\u{9b}2J" } }),
        step_with("floods", json!({ "act": { "flood": { "lines": 100_000 } } })),
        json!({ "do": { "flood": { "lines": 100_000 } } }),
    ];
    server.run_script("o-1", &script(lines)).await;
    server.result("o-1").await;
    let flood = server.written("o-1", "flood ").len();
    assert!((10..100_000).contains(&flood), "{flood} lines of 200,000");
    assert_eq!(server.written("o-1", "one"), [""]);
    let forged = server.written("o-1", "two").concat();
    assert!(forged.contains("gnp") && !forged.contains(forges), "{forged:?}");
    assert!(!server.written("o-1", "more than").is_empty(), "it is said that the rest is dropped");
}

/// Whether it could end a line, speak to a terminal, or turn the direction of what follows.
pub fn forges(c: char) -> bool {
    c.is_control() || matches!(c, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}
