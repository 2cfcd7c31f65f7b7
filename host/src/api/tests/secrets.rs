//! Secrets: what is taken, what is shown, and that no value ever is.

use super::harness::*;

const VALUE: &str = "hunter2-hunter2";

impl Host {
    async fn set(&self, path: &str, value: impl Into<axum::body::Body>) -> Answer {
        self.call("PUT", &format!("/admin/v1/secrets/{path}"), "text/plain", value).await
    }
}

#[tokio::test]
async fn one_is_set_listed_replaced_and_forgotten_and_its_value_never_shown() {
    let host = Host::empty().await;
    let created = host.set("bank?triggeredBy=ann&reason=new", VALUE).await;
    assert_eq!((created.status, created.text.as_str()), (201, r#"{"name":"bank","grantedTo":[]}"#));
    host.move_clock(1_000);
    let replaced = host.set("bank", format!("{VALUE}\n")).await;
    assert_eq!((replaced.status, replaced.text.as_str()), (200, r#"{"name":"bank","grantedTo":[]}"#));
    let listed = host.get("/zart/admin/v1/secrets").await;
    assert_eq!(
        listed.text,
        r#"[{"name":"bank","createdAt":"2026-01-31T12:00:00.000Z","updatedAt":"2026-01-31T12:00:01.000Z","usable":true,"grantedTo":[]}]"#
    );
    let trail = host.get("/admin/v1/audit").await;
    assert!(trail.text.contains(r#""actor":"ann","action":"set_secret""#), "{}", trail.text);
    let deleted = host.get("DELETE /admin/v1/secrets/bank?reason=leaked").await;
    assert_eq!((deleted.status, deleted.text.as_str()), (200, r#"{"name":"bank","grantedTo":[]}"#));
    assert_eq!(host.get("/admin/v1/secrets").await.text, "[]");
    let trail = host.get("/admin/v1/audit?action=delete_secret").await;
    assert!(trail.text.contains("leaked") && trail.text.contains(r#""target":"bank""#), "{}", trail.text);
    for answer in [created, replaced, listed, trail, deleted, host.get("/metrics").await] {
        assert!(!answer.text.contains("hunter2"), "{}", answer.text);
    }
}

#[tokio::test]
async fn what_cannot_be_kept_is_refused_without_being_repeated() {
    let host = Host::empty().await;
    let long = "x".repeat((16 << 10) + 1);
    for (path, value, expected) in [
        ("bank", "", "422 bad_secret: the value is empty"),
        (
            "bank",
            "hunter2\nhunter2",
            "422 bad_secret: byte 8 of the value (counted from 1) cannot stand in a header: visible ASCII and \
             blanks within are allowed, line breaks are not; encode what is binary in base64",
        ),
        ("bank", long.as_str(), "422 bad_secret: the value has more than 16384 bytes"),
        (
            "b%20k",
            VALUE,
            "422 out_of_range: `name`: \"b k\" is no name of a secret: it has 1 to 128 of A-Z a-z 0-9 . _ -",
        ),
        (
            "bank?by=ann",
            VALUE,
            "400 bad_query: there is no query parameter \"by\"; allowed are triggeredBy, reason",
        ),
    ] {
        let refused = host.set(path, value.to_owned()).await;
        assert_eq!(refused.refusal(), expected);
        assert!(!refused.text.contains("hunter2"));
    }
    let too_large = host.set("bank", "x".repeat(20 << 10)).await;
    assert!(too_large.refusal().starts_with("413 too_large: "), "{}", too_large.text);
    let as_json =
        host.call("PUT", "/admin/v1/secrets/bank", "application/json", r#"{"value":"hunter2"}"#).await;
    assert_eq!(
        as_json.refusal(),
        "415 wrong_content_type: the Content-Type must be text/plain, this is \"application/json\""
    );
    assert_eq!(host.get("/admin/v1/secrets").await.text, "[]");
    for path in ["bank", "b%20k"] {
        let gone = host.get(&format!("DELETE /admin/v1/secrets/{path}")).await.refusal();
        assert!(gone.starts_with("404 unknown_secret: there is no "), "{gone}");
    }
    let get = host.get("/admin/v1/secrets/bank").await.refusal();
    assert!(get.starts_with("405 method_not_allowed"), "there is no route that shows one: {get}");
}
