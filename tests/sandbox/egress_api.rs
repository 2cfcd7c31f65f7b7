//! Requests end to end: the real binary, grants over the API, receipts in the detail.

use crate::harness::{
    web::{self, Web, ok},
    *,
};

async fn granted(server: &Server, task: &str, grants: &Value) {
    let put = server.request("PUT", &format!("/admin/v1/modules/{task}/grants"));
    server.send(put.json(grants)).await.expect(200);
}

fn rule(web: &Web) -> Value {
    json!({ "scheme": "http", "host": "127.0.0.1", "port": web.address.port() })
}

#[tokio::test]
async fn a_request_is_granted_sent_answered_and_shown_in_the_detail() {
    let web = Web::start(|heard| web::status("201 Created", "", &String::from_utf8_lossy(&heard.body))).await;
    let server = Server::start().await;
    server.upload("egress", guests::egress()).await.expect(201);
    let ask = json!({ "method": "POST", "url": web.url("/orders?token=hidden"), "body": "one order" });
    let plan = json!({ "requests": [ask] });

    server.start("before", "egress", &plan).await.expect(201);
    let heard = server.result("before").await;
    assert_eq!(heard[0]["kind"], "Denied");
    assert!(heard[0]["error"].as_str().unwrap().contains("PUT /admin/v1/modules/egress/grants"), "{heard}");

    granted(&server, "egress", &json!({ "http": [rule(&web)], "addresses": ["127.0.0.1"] })).await;
    server.start("after", "egress", &plan).await.expect(201);
    assert_eq!(
        server.result("after").await,
        json!([{ "status": 201, "body": "one order", "kind": null, "error": null }])
    );

    let origin = format!("http://{}", web.address);
    let request_of = |detail: &Value| step_in(detail, "ask")["attempts"][0]["receipt"]["requests"][0].clone();
    let denied = request_of(&server.detail("before").await);
    assert_eq!((&denied["origin"], &denied["path"]), (&json!(origin), &json!("/orders")));
    assert!(denied["error"].as_str().unwrap().starts_with("denied: no grant allows POST"), "{denied}");
    let detail = server.detail("after").await;
    let sent = request_of(&detail);
    assert_eq!(
        (&sent["method"], &sent["status"], &sent["error"]),
        (&json!("POST"), &json!(201), &Value::Null)
    );
    assert_eq!((&sent["bytesOut"], &sent["bytesIn"]), (&json!(9), &json!(9)));
    assert!(!detail["steps"].to_string().contains("hidden"), "{detail}");
}

#[tokio::test]
async fn a_handler_that_sends_a_request_fails_its_run_and_says_where_it_belongs() {
    let web = Web::start(|_| ok("")).await;
    let server = Server::start().await;
    server.upload("egress", guests::egress()).await.expect(201);
    granted(&server, "egress", &json!({ "http": [rule(&web)], "addresses": ["127.0.0.1"] })).await;
    server.start("e", "egress", &json!({ "outside": { "url": web.url("/") } })).await.expect(201);
    let failure = server.failure("e").await;
    assert_eq!(failure["kind"], "misuse");
    assert!(failure["message"].as_str().unwrap().contains("send it inside of a step"), "{failure}");
    assert_eq!(web.counts().made, 0);
}

#[tokio::test]
async fn a_request_in_the_middle_of_which_the_host_dies_is_sent_again_by_the_next_attempt() {
    let web = Web::start(|_| ok("taken")).await;
    let mut server = Server::start().await;
    server.upload("egress", guests::egress()).await.expect(201);
    granted(&server, "egress", &json!({ "http": [rule(&web)], "addresses": ["127.0.0.1"] })).await;
    let silent = Web::raw(|mut wire| async move {
        use tokio::io::AsyncReadExt as _;
        while wire.read(&mut [0; 1024]).await.is_ok_and(|bytes| bytes > 0) {}
    })
    .await;
    let grants = json!({ "http": [rule(&web), rule(&silent)], "addresses": ["127.0.0.1"] });
    granted(&server, "egress", &grants).await;
    let asks =
        json!({ "requests": [{ "url": web.url("/") }, { "url": silent.url("/"), "timeoutMs": 5_000 }] });
    server.start("e", "egress", &asks).await.expect(201);
    silent.until("a connection", |counts| counts.made == 1).await;

    server.kill_9().restart();

    let heard = server.result("e").await;
    assert_eq!((&heard[0]["body"], &heard[1]["kind"]), (&json!("taken"), &json!("TimedOut")));
    assert_eq!((web.heard().len(), silent.counts().made), (1, 2));
}
