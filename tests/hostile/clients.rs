//! Clients that attack.

use super::attack::{
    Answered::{self, Refused, RefusedEither, Taken},
    Attack, Deed,
};

const JSON: &str = "application/json";

fn post(name: &str, path: &str, body: impl Into<Vec<u8>>, answer: Answered) -> Attack {
    Attack::new(
        name,
        Deed::Request { method: "POST", path: path.to_owned(), kind: JSON, body: body.into() },
        answer,
    )
}

pub fn attacks() -> Vec<Attack> {
    let start = "/api/v1/executions";
    let deep = |depth: usize| format!("{}{}", "[".repeat(depth), "]".repeat(depth));
    let with_payload = |payload: &str| format!(r#"{{"taskName":"scenario","payload":{payload}}}"#);
    let large = format!("\"{}\"", "x".repeat(2 << 20));
    vec![
        post("a body nested 100,000 deep", start, deep(100_000), Refused(422, "wrong_shape", &["object"])),
        post(
            "a payload nested 100,000 deep",
            start,
            with_payload(&deep(100_000)),
            Refused(422, "out_of_range", &["nested"]),
        ),
        post("a payload of 2 MB", start, with_payload(&large), Refused(413, "too_large", &["bytes"])),
        post("a body of 200 MB", start, vec![b'['; 200 << 20], Refused(413, "too_large", &["bytes"])),
        post(
            "a hundred thousand fields",
            start,
            format!("{{{}}}", (0..60_000).map(|n| format!("\"f{n}\":0")).collect::<Vec<_>>().join(",")),
            Refused(422, "wrong_shape", &["taskName"]),
        ),
        post("binary", start, vec![0xff; 100_000], Refused(400, "not_json", &[])),
        post(
            "an id that forges",
            start,
            "{\"taskName\":\"scenario\",\"executionId\":\"a\\u001b[31m\\nb\"}",
            Refused(422, "out_of_range", &[]),
        ),
        post(
            "a task that is not there, five hundred times",
            start,
            r#"{"taskName":"none"}"#,
            Refused(422, "unknown_task", &["none"]),
        )
        .at_once(500),
        Attack::new(
            "uploads of nothing, a hundred at once",
            Deed::Request {
                method: "PUT",
                path: "/admin/v1/modules/attack".to_owned(),
                kind: "application/wasm",
                body: vec![0; 1 << 20],
            },
            RefusedEither([(422, "not_a_component"), (503, "too_many_uploads")]),
        )
        .at_once(100),
        post(
            "a thousand events for who does not wait",
            "/api/v1/events/none/go",
            "null",
            Refused(404, "unknown_execution", &[]),
        )
        .at_once(1_000),
        Attack::new(
            "a hundred lists",
            Deed::Request {
                method: "GET",
                path: "/api/v1/executions?limit=1000&search=a&sortBy=status".to_owned(),
                kind: JSON,
                body: Vec::new(),
            },
            Taken(200),
        )
        .at_once(100),
    ]
}
