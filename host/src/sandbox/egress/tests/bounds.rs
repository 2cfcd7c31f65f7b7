//! What a request may take, each bound with its own words.

use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use web::Wire;

use super::*;

/// A server that hears a request and then does what it should not.
async fn misbehaving<F>(how: impl Fn(Box<dyn Wire>) -> F + Send + Sync + Copy + 'static) -> Web
where
    F: Future<Output = ()> + Send + 'static,
{
    Web::raw(move |mut wire| async move {
        if web::read(&mut wire).await.is_some() {
            how(wire).await;
        }
    })
    .await
}

/// Writes `bytes` for ever, with a pause after each time.
async fn for_ever(mut wire: Box<dyn Wire>, bytes: &[u8], pause: Duration) {
    while wire.write_all(bytes).await.is_ok() && wire.flush().await.is_ok() {
        tokio::time::sleep(pause).await;
    }
}

#[tokio::test]
async fn an_answer_that_drips_is_cut_off_when_its_time_is_up() {
    let web = misbehaving(|mut wire| async move {
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\n").await;
        for_ever(wire, b"x-drop: y\r\n", Duration::from_millis(5)).await;
    })
    .await;
    let bed = reaching(&[&web]).limit(Limit::RequestMaxMs, 150).bed();
    let told = bed.get(&web.url("/")).await;
    assert_eq!(told.unwrap_err(), "timeout: no answer came within 150 ms, which is requestMaxMs");
    web.until_all_are_closed().await;
}

#[tokio::test]
async fn a_body_that_drips_is_cut_off_when_its_time_is_up() {
    let web = misbehaving(|mut wire| async move {
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1000000\r\n\r\n").await;
        for_ever(wire, b".", Duration::from_millis(5)).await;
    })
    .await;
    let bed = reaching(&[&web]).limit(Limit::RequestMaxMs, 600).bed();
    let told = bed.get(&web.url("/")).await;
    assert_eq!(
        told.unwrap_err(),
        "timeout: the answer was not complete within 600 ms, which is requestMaxMs"
    );
    web.until_all_are_closed().await;
    let noted = bed.requests().pop().unwrap();
    assert!(noted.status == Some(200) && noted.bytes_in > 0 && noted.ms >= 600, "{noted:?}");
}

#[tokio::test]
async fn a_guest_may_be_less_patient_than_its_host_but_not_more() {
    let web = misbehaving(|mut wire| async move {
        let _ = wire.read(&mut [0; 1]).await;
    })
    .await;
    let half = misbehaving(|mut wire| async move {
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nhalf").await;
        let _ = wire.read(&mut [0; 1]).await;
    })
    .await;
    let bed = reaching(&[&web, &half]).limit(Limit::RequestMaxMs, 300).bed();
    let patience = |ms| RequestOptions {
        connect_timeout: None,
        first_byte_timeout: Some(Duration::from_millis(ms)),
        between_bytes_timeout: Some(Duration::from_millis(ms)),
    };
    assert_eq!(
        bed.send_with(request("GET", &web.url("/")), patience(50)).await.unwrap_err(),
        "timeout: no answer came within 50 ms, which is what the guest asked for"
    );
    assert_eq!(
        bed.send_with(request("GET", &half.url("/")), patience(50)).await.unwrap_err(),
        "timeout: nothing more of the answer came for 50 ms, which is what the guest asked for"
    );
    let begun = std::time::Instant::now();
    assert_eq!(
        bed.send_with(request("GET", &web.url("/")), patience(u64::MAX / 1_000_000)).await.unwrap_err(),
        "timeout: no answer came within 300 ms, which is requestMaxMs"
    );
    assert!(begun.elapsed() < Duration::from_secs(10));
}

#[tokio::test]
async fn a_head_without_end_is_cut_off() {
    let long = misbehaving(|mut wire| async move {
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\nx-long: ").await;
        for_ever(wire, &[b'x'; 4096], Duration::ZERO).await;
    })
    .await;
    let many = misbehaving(|mut wire| async move {
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\n").await;
        let _ = wire.write_all("x: y\r\n".repeat(HEADERS_MAX + 1).as_bytes()).await;
        let _ = wire.write_all(b"\r\n").await;
        let _ = wire.read(&mut [0; 1]).await;
    })
    .await;
    let bed = reaching(&[&long, &many]).bed();
    let words = "limit: the headers of the answer have more than 65536 bytes or 256 lines";
    for web in [&long, &many] {
        assert_eq!(bed.get(&web.url("/")).await.unwrap_err(), words);
        web.until_all_are_closed().await;
    }
}

#[tokio::test]
async fn a_body_that_is_too_large_is_not_read_to_its_end() {
    let endless = misbehaving(|mut wire| async move {
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n").await;
        let chunk = ["400\r\n", &"x".repeat(1024), "\r\n"].concat();
        for_ever(wire, chunk.as_bytes(), Duration::ZERO).await;
    })
    .await;
    let announced = misbehaving(|mut wire| async move {
        let _ = wire.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100001\r\n\r\n").await;
        let _ = wire.read(&mut [0; 1]).await;
    })
    .await;
    let bed = reaching(&[&endless, &announced]).limit(Limit::ResponseBodyMaxBytes, 100_000).bed();
    let words = "limit: the body of the answer is too large; responseBodyMaxBytes is 100000";
    for web in [&endless, &announced] {
        assert_eq!(bed.get(&web.url("/")).await.unwrap_err(), words);
        web.until_all_are_closed().await;
        assert_eq!(bed.last_error().unwrap(), words);
    }
    assert!(bed.meter.receipt().bytes_in <= 100_000);
}

#[tokio::test]
async fn a_request_that_is_too_large_is_not_sent() {
    let web = Web::start(|_| ok("")).await;
    let bed = reaching(&[&web]).limit(Limit::RequestBodyMaxBytes, 10).bed();
    let words = "limit: the body of the request is too large; requestBodyMaxBytes is 10";
    let announced =
        Request::post(web.url("/")).header("content-length", "11").body(body(b"hello world")).unwrap();
    assert_eq!(bed.send(announced).await.unwrap_err(), words);
    assert_eq!(web.counts().made, 0);

    let not_announced = Request::post(web.url("/")).body(body(b"hello world")).unwrap();
    assert_eq!(bed.send(not_announced).await.unwrap_err(), words);
    let just_right = Request::post(web.url("/")).body(body(b"hello worl")).unwrap();
    assert_eq!(bed.send(just_right).await.unwrap().0, 200);

    let long = Request::get(web.url("/")).header("x-long", "x".repeat(70_000)).body(body(b"")).unwrap();
    assert_eq!(
        bed.send(long).await.unwrap_err(),
        "limit: the path and the headers of the request have more than 65536 bytes"
    );
}

#[tokio::test]
async fn an_attempt_sends_so_many_requests_and_the_next_begins_anew() {
    let web = Web::start(|_| ok("")).await;
    let bed = reaching(&[&web]).limit(Limit::RequestsMax, 3).bed();
    for _ in 0..3 {
        assert!(bed.get(&web.url("/")).await.is_ok());
    }
    let words = "limit: the attempt has sent as many requests as it may; requestsMax is 3";
    assert_eq!(bed.get(&web.url("/")).await.unwrap_err(), words);
    Hooks::outgoing(bed.egress.clone()).begin_attempt();
    bed.meter.begin();
    assert!(bed.get(&web.url("/")).await.is_ok());
    assert_eq!(bed.requests().len(), 1);
}

#[tokio::test]
async fn three_thousand_requests_at_once_take_their_turn_on_a_few_connections() {
    let web = Web::start(|_| ok("served")).await;
    let bed = reaching(&[&web]).limit(Limit::RequestsMax, 3_000).limit(Limit::ConnectionsMax, 8).bed();
    let url = web.url("/");
    let sent = (0..3_000).map(|_| bed.get(&url));
    let told = futures_util::future::join_all(sent).await;
    assert!(told.iter().all(|told| *told == Ok((200, "served".to_owned()))));
    assert!(web.counts().most_open <= 8, "{:?}", web.counts());
    let receipt = bed.meter.receipt();
    assert_eq!((receipt.requests.len(), receipt.requests_unlisted), (50, 2_950));
}

#[tokio::test]
async fn who_holds_all_its_connections_waits_for_them_in_vain() {
    let web = Web::start(|_| ok("not read")).await;
    let bed = reaching(&[&web]).limit(Limit::ConnectionsMax, 2).limit(Limit::RequestMaxMs, 600).bed();
    let mut held = Vec::new();
    for _ in 0..2 {
        let sent = bed.egress.clone().send(request("GET", &web.url("/")), RequestOptions::default());
        held.push(sent.await.unwrap());
    }
    let words = "limit: no connection became free within 600 ms; connectionsMax is 2";
    assert_eq!(bed.get(&web.url("/")).await.unwrap_err(), words);
    held.pop();
    assert!(bed.get(&web.url("/")).await.is_ok());
}

#[tokio::test]
async fn an_idle_connection_makes_room_for_one_to_another_server() {
    let (one, other) = (Web::start(|_| ok("one")).await, Web::start(|_| ok("other")).await);
    let bed = reaching(&[&one, &other]).limit(Limit::ConnectionsMax, 1).bed();
    for _ in 0..3 {
        assert!(bed.get(&one.url("/")).await.is_ok());
        assert!(bed.get(&other.url("/")).await.is_ok());
    }
    assert_eq!((one.counts().made, other.counts().made), (3, 3));
}

#[tokio::test]
async fn connections_of_all_steps_together_are_bounded_too() {
    let web = Web::start(|_| ok("not read")).await;
    let mut setup = reaching(&[&web]).limit(Limit::RequestMaxMs, 600);
    setup.config.connections_max = 1;
    let bed = setup.bed();
    let held =
        bed.egress.clone().send(request("GET", &web.url("/")), RequestOptions::default()).await.unwrap();
    let told = bed.get(&web.url("/")).await;
    assert_begins(&told, "limit: no connection became free within 600 ms");
    drop(held);
    assert!(bed.get(&web.url("/")).await.is_ok());
}

/// A task that holds all that it can, in as many runs as it likes, leaves half to the others.
#[tokio::test]
async fn one_task_cannot_take_all_connections_of_the_host() {
    let web = Web::start(|_| ok("not read")).await;
    let setup = || reaching(&[&web]).limit(Limit::RequestMaxMs, 600);
    let config = EgressConfig { connections_max: 4, ..EgressConfig::default() };
    let outside = Outside::new(&config, Arc::new(NoSecrets)).unwrap();
    let greedy = [setup().bed_of("greedy", &outside), setup().bed_of("greedy", &outside)];
    let send = |bed: &Bed| bed.egress.clone().send(request("GET", &web.url("/")), RequestOptions::default());
    let held = [send(&greedy[0]).await.unwrap(), send(&greedy[1]).await.unwrap()];
    for bed in &greedy {
        assert_begins(&bed.get(&web.url("/")).await, "limit: no connection became free within 600 ms");
    }

    let neighbour = setup().bed_of("neighbour", &outside);
    let theirs = [send(&neighbour).await.unwrap(), send(&neighbour).await.unwrap()];

    assert_eq!(web.counts().open, 4);
    drop((held, theirs));
    assert!(greedy[0].get(&web.url("/")).await.is_ok());
}
