//! Guests that attack what they can send to: every way to an address that is not granted, to a host
//! that a secret is not for, and round the bounds on what comes back.
//!
//! A name that stands for one address when it is checked and for another when it is used needs a
//! resolver of the test's own: `host/src/sandbox/egress/tests/names.rs`.

use super::{
    arena::{Arena, attackers},
    attack::{Answered::Completed, Attack, Deed},
};
use crate::harness::{
    guests,
    web::{self, Web},
    *,
};

/// More than the attempts of any other attack here send.
const REQUESTS_MAX: usize = 40;
const SECRET: &str = "the-value-of-the-secret";

/// Every grant but the one that matters.
#[tokio::test]
async fn no_request_goes_where_it_may_not() {
    let start = |address: &'static str, answer: fn(&web::Heard) -> Vec<u8>| async move {
        attackers().spawn(Web::start_on(address, answer)).await.expect("it starts")
    };
    let private = start("127.0.0.1:0", |_| web::ok("private")).await;
    let elsewhere =
        start("127.0.0.2:0", |_| web::status("302 Found", "location: http://10.0.0.1/\r\n", "")).await;
    let bombs = start("127.0.0.2:0", |heard| match heard.line() {
        line if line.contains("/body") => web::ok(&"x".repeat(32 << 20)),
        line if line.contains("/headers") => {
            web::status("200 OK", &format!("x-long: {}\r\n", "y".repeat(4 << 20)), "")
        }
        _ => web::ok(""),
    })
    .await;

    let mut arena = Arena::open("requests").await;
    let server = arena.server();
    server.upload("egress", guests::egress()).await.expect(201);
    // Any name, and one address that is not of the public internet: not that of `private`.
    let ports = [80, private.address.port(), elsewhere.address.port(), bombs.address.port()];
    let http: Vec<Value> =
        ports.iter().map(|port| json!({ "scheme": "http", "host": "*", "port": port })).collect();
    let grants = json!({ "http": http, "addresses": ["127.0.0.2/32"], "secrets": { "KEY": ["127.0.0.3"] } });
    server.send(server.request("PUT", "/admin/v1/modules/egress/grants").json(&grants)).await.expect(200);
    let limits =
        json!({ "responseBodyMaxBytes": 1 << 20, "requestMaxMs": 2_000, "requestsMax": REQUESTS_MAX });
    server.send(server.request("PUT", "/admin/v1/modules/egress/limits").json(&limits)).await.expect(200);
    let secret =
        server.request("PUT", "/admin/v1/secrets/KEY").header("content-type", "text/plain").body(SECRET);
    let set = server.send(secret).await;
    assert!(set.status < 300, "{set:#?}");

    let port = private.address.port();
    let asks = |urls: &[String]| json!({ "requests": urls.iter().map(|url| json!({ "url": url, "timeoutMs": 2_000 })).collect::<Vec<_>>() });
    let run = |name: &str, payload: Value, holds: fn(&Value) -> bool| {
        Attack::new(name, Deed::Start { task: "egress", payload }, Completed(holds))
    };
    let with_secret = json!({ "requests": [{ "url": elsewhere.url("/"), "headers": { "authorization": "Bearer {{stepbox:secret:KEY}}" } }] });
    let flood = json!({ "flood": { "request": { "url": bombs.url("/flood") }, "times": 2_000 } });
    arena
        .withstand(vec![
            run("this machine, in thirty spellings", asks(&spellings_of_loopback(port)), nothing_came_back),
            run("other private addresses", asks(&private_addresses()), nothing_came_back),
            run(
                "a redirect to a private address",
                asks(&[elsewhere.url("/"), "http://10.0.0.1/".to_owned()]),
                |heard| heard[0]["status"] == 302 && heard[1]["kind"] == "Denied",
            ),
            run("a secret for who may not have it", with_secret, nothing_came_back),
            run("two thousand requests of one attempt", flood, |heard| {
                heard[0]["body"] == "40"
                    && heard[0]["kind"] == "OverLimit"
                    && heard[0]["error"].as_str().is_some_and(|error| error.contains("requestsMax is 40"))
            }),
            run("a body of 32 MB", asks(&[bombs.url("/body")]), |heard| heard[0]["kind"] == "OverLimit"),
            run("headers of 4 MB", asks(&[bombs.url("/headers")]), nothing_came_back),
            run(
                "sixty requests to nobody",
                asks(&vec!["http://192.0.2.1:80/".to_owned(); 3]),
                nothing_came_back,
            )
            .at_once(20),
        ])
        .await;
    assert_eq!(private.counts().made, 0, "{:?}", private.heard());
    // Of each flood so many, and not one more, have reached the server.
    let flooded = bombs.heard().iter().filter(|heard| heard.line().contains("/flood")).count();
    assert!(flooded > 0 && flooded % REQUESTS_MAX == 0, "{flooded} requests have arrived");
    let told = format!("{:?}", elsewhere.heard());
    assert!(!told.contains(SECRET), "the secret has left: {told}");
    arena.close().await;
}

fn nothing_came_back(heard: &Value) -> bool {
    heard.as_array().is_some_and(|heard| {
        !heard.is_empty() && heard.iter().all(|one| one["status"].is_null() && one["error"].is_string())
    })
}

fn spellings_of_loopback(port: u16) -> Vec<String> {
    [
        "127.0.0.1",
        "127.1",
        "127.0.1",
        "2130706433",
        "0x7f000001",
        "0x7f.0.0.1",
        "0177.0.0.1",
        "017700000001",
        "127.0.0.1.",
        "127.000.000.001",
        "localhost",
        "LOCALHOST",
        "localhost.",
        "a.localhost",
        "0",
        "0.0.0.0",
        "[::]",
        "[::1]",
        "[0:0:0:0:0:0:0:1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "[::127.0.0.1]",
        "[64:ff9b::7f00:1]",
        "[2002:7f00:1::]",
        "[64:ff9b:1::7f00:1]",
        "user@127.0.0.1",
        "example.com@127.0.0.1",
        "127.0.0.1%2f",
        "%31%32%37.0.0.1",
        "①②⑦.⓪.⓪.①",
        "127。0。0。1",
    ]
    .iter()
    .map(|host| format!("http://{host}:{port}/"))
    .collect()
}

fn private_addresses() -> Vec<String> {
    [
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.0.1",
        "169.254.169.254",
        "100.64.0.1",
        "198.18.0.1",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.0.170",
        "240.0.0.1",
        "[fe80::1]",
        "[fc00::1]",
        "[fd00:ec2::254]",
        "[ff02::1]",
        "[fec0::1]",
        "[::ffff:10.0.0.1]",
        "[::ffff:169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a00:1::]",
        "[2001::a00:1]",
    ]
    .iter()
    .map(|host| format!("http://{host}/"))
    .collect()
}
