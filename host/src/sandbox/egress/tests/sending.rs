//! What goes over the wire, and what is noted of it.

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};

use super::*;

#[tokio::test]
async fn a_request_and_its_answer_are_noted_without_query_headers_or_bodies() {
    let web = Web::start(|heard| ok(&format!("{} bytes came", heard.body.len()))).await;
    let bed = reaching(&[&web]).bed();
    let sent = Request::post(web.url("/orders/7?token=hidden"))
        .header("authorization", "Bearer hidden")
        .header("content-length", "11")
        .body(body(b"hidden body"))
        .unwrap();

    assert_eq!(bed.send(sent).await, Ok((200, "11 bytes came".to_owned())));

    let heard = web.heard().pop().unwrap();
    assert_eq!(heard.line(), "POST /orders/7?token=hidden HTTP/1.1");
    assert_eq!(heard.header("host"), Some(web.address.to_string().as_str()));
    assert_eq!(heard.header("authorization"), Some("Bearer hidden"));
    let receipt = bed.meter.receipt();
    assert_eq!((receipt.bytes_out, receipt.bytes_in), (11, 13));
    let noted = &receipt.requests[0];
    assert_eq!(noted.origin, format!("http://{}", web.address));
    assert_eq!((noted.method.as_str(), noted.path.as_str()), ("POST", "/orders/7"));
    assert_eq!((noted.status, &noted.error), (Some(200), &None));
    assert_eq!((noted.bytes_out, noted.bytes_in), (11, 13));
    let shown = format!("{receipt:?}");
    assert!(!shown.contains("hidden"), "{shown}");
}

#[tokio::test]
async fn one_connection_serves_one_request_after_the_other() {
    let web = Web::start(|_| ok("again")).await;
    let bed = reaching(&[&web]).bed();
    for _ in 0..20 {
        assert_eq!(bed.get(&web.url("/")).await, Ok((200, "again".to_owned())));
    }
    assert_eq!((web.counts().made, web.heard().len()), (1, 20));
    assert!(bed.egress.is_at_rest());

    drop(bed);
    web.until_all_are_closed().await;
}

#[tokio::test]
async fn a_connection_that_the_server_closed_is_made_anew() {
    let web = Web::start(|_| web::status("200 OK", "connection: close\r\n", "bye")).await;
    let bed = reaching(&[&web]).bed();
    for _ in 0..3 {
        assert_eq!(bed.get(&web.url("/")).await, Ok((200, "bye".to_owned())));
        web.until_all_are_closed().await;
    }
    assert_eq!(web.counts().made, 3);
}

#[tokio::test]
async fn an_answer_in_chunks_with_trailers_is_complete() {
    let web = Web::raw(|mut wire| async move {
        web::read(&mut wire).await;
        let answer = "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\
                          x-sum: 6\r\n\r\n";
        let _ = wire.write_all(answer.as_bytes()).await;
        web::read(&mut wire).await;
    })
    .await;
    let bed = reaching(&[&web]).bed();
    assert_eq!(bed.get(&web.url("/")).await, Ok((200, "onetwo".to_owned())));
    assert_eq!(bed.requests()[0].bytes_in, 6);
}

#[tokio::test]
async fn an_answer_without_a_body_leaves_the_connection_usable() {
    let web = Web::start(|heard| match heard.line().starts_with("HEAD") {
        true => b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n".to_vec(),
        false => b"HTTP/1.1 204 No Content\r\n\r\n".to_vec(),
    })
    .await;
    let bed = reaching(&[&web]).bed();
    assert_eq!(bed.send(request("HEAD", &web.url("/"))).await, Ok((200, String::new())));
    assert_eq!(bed.get(&web.url("/")).await, Ok((204, String::new())));
    assert_eq!(web.counts().made, 1);
}

#[tokio::test]
async fn headers_of_the_connection_are_the_hosts() {
    let mut hooks = Hooks::nothing();
    for name in
        ["host", "connection", "transfer-encoding", "upgrade", "te", "proxy-authorization", "keep-alive"]
    {
        assert!(hooks.is_forbidden_header(&name.parse().unwrap()), "{name}");
    }
    assert!(!hooks.is_forbidden_header(&"authorization".parse().unwrap()));
}

#[tokio::test]
async fn what_is_dropped_closes_its_connections_at_once() {
    // One answers the head and then nothing, one nothing at all, one does not even take the body.
    let half = Web::raw(|mut wire| async move {
        web::read(&mut wire).await;
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
        let _ = wire.read(&mut [0; 1]).await;
    })
    .await;
    let silent = Web::raw(|mut wire| async move {
        web::read(&mut wire).await;
        let _ = wire.read(&mut [0; 1]).await;
    })
    .await;
    let bed = reaching(&[&half, &silent]).bed();
    let answer =
        bed.egress.clone().send(request("GET", &half.url("/")), RequestOptions::default()).await.unwrap();
    let waiting =
        tokio::spawn(bed.egress.clone().send(request("GET", &silent.url("/")), RequestOptions::default()));
    silent.until("a connection", |counts| counts.open == 1).await;
    assert!(!bed.egress.is_at_rest());

    drop(answer);
    half.until_all_are_closed().await;
    waiting.abort();
    silent.until_all_are_closed().await;
    assert_eq!(bed.last_error().unwrap(), "broken: the attempt ended before there was an answer");
}

#[tokio::test]
async fn a_server_that_is_not_there_or_speaks_no_http_is_told_by_its_origin() {
    let rude = Web::raw(|mut wire| async move {
        web::read(&mut wire).await;
        let _ = wire.write_all(b"SSH-2.0-OpenSSH_9.2\r\n").await;
    })
    .await;
    let short = Web::raw(|mut wire| async move {
        web::read(&mut wire).await;
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
    })
    .await;
    let nobody = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let ports = [nobody, rude.address.port(), short.address.port()];
    let bed = reaching_ports(ports).bed();
    let told = bed.get(&format!("http://127.0.0.1:{nobody}/")).await;
    assert_begins(&told, &format!("unreachable: http://127.0.0.1:{nobody}: "));
    assert_begins(&bed.get(&rude.url("/")).await, "broken: ");
    assert_begins(&bed.get(&short.url("/")).await, "broken: in the body of the answer: ");
    let noted = bed.requests().pop().unwrap();
    assert_eq!((noted.status, noted.bytes_in), (Some(200), 4));
    assert!(noted.error.unwrap().starts_with("broken: in the body"));
}
