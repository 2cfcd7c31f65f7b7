//! Grants by name, spellings, and what names stand for.

use super::*;

#[tokio::test]
async fn what_no_grant_allows_is_denied_before_anybody_is_asked() {
    let names = Names::new(&[("api.example.com", &[&["127.0.0.1"]])]);
    let bed =
        granted(json!({ "http": [{ "host": "api.example.com", "methods": ["GET"] }] })).names(&names).bed();
    for (method, url, origin) in [
        ("GET", "https://other.example.com/x?token=1", "https://other.example.com"),
        ("POST", "https://api.example.com/x", "https://api.example.com"),
        ("GET", "http://api.example.com/x", "http://api.example.com"),
        ("GET", "https://api.example.com:8443/x", "https://api.example.com:8443"),
        ("GET", "https://api.example.com.evil.example/x", "https://api.example.com.evil.example"),
        ("GET", "https://xapi.example.com/x", "https://xapi.example.com"),
    ] {
        let told = bed.send(request(method, url)).await;
        let words = format!(
            "denied: no grant allows {method} {origin}; grant it with PUT /admin/v1/modules/order/grants (`http`)"
        );
        assert_eq!(told, Err(words.clone()));
        let noted = bed.requests().pop().unwrap();
        assert_eq!(
            (noted.method.as_str(), noted.origin.as_str(), noted.path.as_str()),
            (method, origin, "/x")
        );
        assert_eq!((noted.status, noted.error), (None, Some(words)));
    }
    assert_eq!(names.asked(), 0);
}

#[tokio::test]
async fn methods_that_turn_a_connection_round_are_not_sent() {
    let bed = reaching(&[]).bed();
    for method in ["CONNECT", "TRACE"] {
        let told = bed.send(request(method, "https://api.example.com/")).await;
        assert_eq!(told, Err(format!("denied: {method} is not sent by this host")));
    }
}

/// Every way to write 127.0.0.1 (and its like) that anybody understands, with everything granted
/// by name.
const SPELLINGS: [&str; 26] = [
    "127.0.0.1",
    "127.1",
    "127.0.1",
    "0x7f.1",
    "0x7f000001",
    "2130706433",
    "017700000001",
    "0177.0.0.1",
    "127.0.0.01",
    "127.0.0.1.",
    "127.000.000.001",
    "0",
    "0.0.0.0",
    "localhost",
    "LOCALHOST",
    "LocalHost.",
    "[::1]",
    "[::]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::FFFF:7F00:1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[2002:7f00:1::]",
    "169.254.169.254",
    "[fe80::1%25lo]",
];

#[tokio::test]
async fn no_spelling_of_an_address_gets_round_the_check() {
    let web = Web::start_on("0.0.0.0:0", |_| ok("reached")).await;
    let port = web.address.port();
    let names = Names::new(&[("localhost", &[&["127.0.0.1"]])]);
    let all_names = || {
        let mut setup = reaching_ports([port]);
        setup.grants["addresses"] = json!([]);
        setup
    };
    for bed in [all_names().names(&names).bed(), all_names().bed()] {
        for host in SPELLINGS {
            let url = format!("http://{host}:{port}/");
            let Ok(request) = Request::get(&url).body(body(b"")) else { continue };
            let told = bed.send(request).await;
            assert_begins(&told, "denied: ");
        }
        for url in [
            format!("http://public.example@127.0.0.1:{port}/"),
            format!("http://public.example:80@localhost:{port}/"),
            format!("http://127.0.0.1:{port}@public.example/"),
            "http://a..b/".to_owned(),
            "http://-/".to_owned(),
            "http://a_b.0x1/".to_owned(),
            "http://public.example:0/".to_owned(),
            "http://public.example:99999/".to_owned(),
        ] {
            let Ok(request) = Request::get(&url).body(body(b"")) else { continue };
            assert!(bed.send(request).await.is_err(), "{url}");
        }
    }
    // What is no URI at all does not come so far.
    for url in
        ["http://１２７.０.０.１/", "http://127。0。0。1/", "http://%31%32%37.0.0.1/", "http://①②⑦.0.0.1/"]
    {
        match Request::get(url).body(body(b"")) {
            Err(_) => {}
            Ok(request) => assert_begins(&reaching(&[]).bed().send(request).await, "denied: "),
        }
    }
}

#[tokio::test]
async fn a_name_is_one_name_however_it_is_written() {
    let web = Web::start(|_| ok("reached")).await;
    let names = Names::new(&[("api.example.com", &[&["127.0.0.1"]])]);
    let port = web.address.port();
    let rule = json!({ "scheme": "http", "host": "api.example.com", "port": port });
    let bed = granted(json!({ "http": [rule], "addresses": ["127.0.0.1"] })).names(&names).bed();
    for host in ["api.example.com", "API.Example.COM", "api.example.com."] {
        let told = bed.get(&format!("http://{host}:{port}/")).await;
        assert_eq!(told, Ok((200, "reached".to_owned())));
    }
    for heard in web.heard() {
        assert_eq!(heard.header("host"), Some(format!("api.example.com:{port}").as_str()));
    }
}

#[tokio::test]
async fn the_connection_goes_to_the_address_that_was_checked_and_nobody_is_asked_again() {
    let web = Web::start(|_| web::status("200 OK", "connection: close\r\n", "checked")).await;
    let port = web.address.port();
    let trap = Web::start_on(&format!("127.0.0.2:{port}"), |_| ok("trapped")).await;
    let names = Names::new(&[("rebind.example", &[&["127.0.0.1"], &["127.0.0.2"]])]);
    let bed = reaching(&[&web]).names(&names).bed();
    let url = format!("http://rebind.example:{port}/");

    assert_eq!(bed.get(&url).await.unwrap().0, 200);
    assert_eq!(names.asked(), 1);
    web.until_all_are_closed().await;

    // Asked again for the next connection, and refused by what the name stands for now.
    assert_begins(&bed.get(&url).await, "denied: rebind.example stands for 127.0.0.2, which is loopback");
    assert_eq!((names.asked(), trap.counts().made), (2, 0));
}

#[tokio::test]
async fn a_name_that_stands_for_a_private_address_too_is_refused_whatever_the_order() {
    let names = Names::new(&[
        ("first.example", &[&["10.0.0.1", "93.184.216.34"]]),
        ("last.example", &[&["93.184.216.34", "2606:2800::1", "169.254.169.254"]]),
        ("nothing.example", &[&[]]),
    ]);
    let bed = reaching(&[]).names(&names).bed();
    assert_eq!(
        bed.get("https://first.example/").await.unwrap_err(),
        "denied: first.example stands for 10.0.0.1, which is private; if requests may go there, grant it with PUT \
         /admin/v1/modules/order/grants (`addresses`)"
    );
    assert_begins(&bed.get("https://last.example/").await, "denied: last.example stands for 169.254.169.254");
    assert_eq!(
        bed.get("https://nothing.example/").await.unwrap_err(),
        "unreachable: the name nothing.example was not found: it has no address"
    );
    assert_eq!(
        bed.get("https://unknown.example/").await.unwrap_err(),
        "unreachable: the name unknown.example was not found: no such name"
    );
}

#[tokio::test]
async fn a_redirect_is_an_answer_and_what_the_guest_makes_of_it_is_checked_anew() {
    let web =
        Web::start(|_| web::status("302 Found", "location: http://169.254.169.254/latest\r\n", "")).await;
    let bed = reaching(&[&web]).bed();
    assert_eq!(bed.get(&web.url("/")).await, Ok((302, String::new())));
    assert_begins(&bed.get("http://169.254.169.254/latest").await, "denied: the address is 169.254.169.254");
    assert_eq!(web.counts().made, 1);
}
