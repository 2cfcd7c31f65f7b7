//! Secrets reach the servers that they are granted for, and nothing else.

use super::*;
use crate::sandbox::egress::environment::of_steps;

/// With the secrets KEY, TWO_LINES and GONE for 127.0.0.1, and leave to reach `webs`.
fn with_secrets(webs: &[&Web]) -> Setup {
    let mut setup = reaching(webs);
    setup.grants["secrets"] =
        json!({ "KEY": ["127.0.0.1", "bank.example"], "TWO_LINES": ["127.0.0.1"], "GONE": ["127.0.0.1"] });
    setup.secrets = Arc::new(OneSecret);
    setup
}

fn with_header(url: &str, value: &str) -> Request<WasiBody> {
    Request::get(url).header("authorization", value).body(body(b"")).unwrap()
}

#[tokio::test]
async fn the_value_is_put_in_wherever_its_placeholder_stands() {
    let web = Web::start(|_| ok("thanks")).await;
    let bed = with_secrets(&[&web]).bed();
    for (written, sent) in [
        ("{{stepbox:secret:KEY}}", VALUE.to_owned()),
        ("Bearer {{stepbox:secret:KEY}}", format!("Bearer {VALUE}")),
        ("a={{stepbox:secret:KEY}}; b={{stepbox:secret:KEY}};", format!("a={VALUE}; b={VALUE};")),
        ("Basic {{stepbox:basic:ada:KEY}}", "Basic YWRhOnMzY3IzdC92QGx1ZQ==".to_owned()),
        ("{{stepbox", "{{stepbox".to_owned()),
        ("}} {{other:secret:KEY}}", "}} {{other:secret:KEY}}".to_owned()),
    ] {
        assert_eq!(
            bed.send(with_header(&web.url("/?k={{stepbox:secret:KEY}}"), written)).await.unwrap().0,
            200
        );
        assert_eq!(web.heard().pop().unwrap().header("authorization"), Some(sent.as_str()));
    }
    // Headers only: anything else is sent as it was written.
    assert!(web.heard()[0].line().contains("stepbox:secret:KEY"), "{:?}", web.heard()[0]);
    assert!(!format!("{:?}", bed.meter.receipt()).contains(VALUE));
}

#[tokio::test]
async fn a_secret_goes_to_no_other_host_and_no_other_secret_goes_anywhere() {
    let web = Web::start(|_| ok("caught")).await;
    let names = Names::new(&[("thief.example", &[&["127.0.0.1"]])]);
    let bed = with_secrets(&[&web]).names(&names).bed();
    let thief = format!("http://thief.example:{}/", web.address.port());
    for (url, written, told) in [
        (
            thief.as_str(),
            "Bearer {{stepbox:secret:KEY}}",
            "denied: the secret KEY in the header `authorization` may not be sent to thief.example; grant it with PUT \
             /admin/v1/modules/order/grants (`secrets`)",
        ),
        (
            &thief,
            "{{stepbox:basic:ada:KEY}}",
            "denied: the secret KEY in the header `authorization` may not be sent to thief.example",
        ),
        (
            &web.url("/"),
            "{{stepbox:secret:OTHER}}",
            "denied: the secret OTHER in the header `authorization` may not be sent to 127.0.0.1",
        ),
        (
            &web.url("/"),
            "{{stepbox:secret:GONE}}",
            "denied: the secret GONE is granted, but this host has no value for it; set it with PUT /admin/v1/secrets/GONE",
        ),
        (&web.url("/"), "{{stepbox:secret:KEY", "denied: a placeholder has no end"),
        (&web.url("/"), "{{stepbox:secret:a b}}", "denied: \"a b\" is no name of a secret"),
        (&web.url("/"), "{{stepbox:shout:KEY}}", "denied: `{{stepbox:shout:KEY}}` is no placeholder"),
        (&web.url("/"), "{{stepbox:basic:KEY}}", "denied: a placeholder for Basic has no user"),
        (&web.url("/"), "{{stepbox:basic:a:b:KEY}}", "denied: the user of Basic authentication has no colon"),
        (
            &web.url("/"),
            "{{stepbox:secret:TWO_LINES}}",
            "denied: the value of a secret in the header `authorization` has characters that no header can have",
        ),
    ] {
        let answer = bed.send(with_header(url, written)).await;
        assert_begins(&answer, told);
        assert!(!answer.unwrap_err().contains("a\r\nb"));
    }
    assert!(web.heard().is_empty());
}

#[tokio::test]
async fn over_http_a_secret_goes_only_to_an_address_that_was_granted() {
    let web = Web::start(|_| ok("")).await;
    let bed = with_secrets(&[&web]).bed();
    let headers = with_header("http://bank.example/", "{{stepbox:secret:KEY}}").headers().clone();
    let target = |url: &str| target::Target::of(&url.parse().unwrap()).unwrap();
    let (public, granted): (IpAddr, IpAddr) =
        ("93.184.216.34".parse().unwrap(), "127.0.0.1".parse().unwrap());

    let refused = bed.egress.reveal_secrets(&headers, &target("http://bank.example/"), public).unwrap_err();
    assert_eq!(
        refused.to_string(),
        "denied: the secret KEY in the header `authorization` is sent to bank.example over https only; over http only \
         to an address that the task was granted by itself"
    );
    assert!(bed.egress.reveal_secrets(&headers, &target("https://bank.example/"), public).is_ok());
    let revealed = bed.egress.reveal_secrets(&headers, &target("http://bank.example/"), granted).unwrap();

    // What has the value does not show it.
    assert_eq!(revealed["authorization"], VALUE);
    let shown = format!("{revealed:?}");
    assert!(!shown.contains(VALUE) && shown.contains("Sensitive"), "{shown}");
}

#[tokio::test]
async fn the_headers_are_bounded_with_the_values_in_them() {
    struct Long;
    impl Secrets for Long {
        fn reveal(&self, _: &SecretName) -> Option<Zeroizing<String>> {
            Some(Zeroizing::new("x".repeat(70_000)))
        }
    }
    let web = Web::start(|_| ok("")).await;
    let mut setup = with_secrets(&[&web]);
    setup.secrets = Arc::new(Long);
    let told = setup.bed().send(with_header(&web.url("/"), "{{stepbox:secret:KEY}}")).await;
    assert_begins(&told, "limit: the path and the headers of the request have more than");
}

#[test]
fn a_step_finds_placeholders_and_granted_variables_in_its_environment() {
    let grants: Grants = serde_json::from_value(json!({
        "secrets": { "KEY": ["a.example"], "no-variable": ["a.example"], "BOTH": ["a.example"] },
        "env": { "REGION": "eu", "BOTH": "set" },
    }))
    .unwrap();
    let found = of_steps(&grants);
    let found: Vec<(&str, &str)> =
        found.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    assert_eq!(found, [("BOTH", "set"), ("KEY", "{{stepbox:secret:KEY}}"), ("REGION", "eu")]);
}
