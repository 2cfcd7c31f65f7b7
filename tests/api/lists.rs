//! `GET /api/v1/executions`

use crate::harness::{client::encoded, *};

/// A server with executions in every state that can be held: id, task and status.
async fn populated() -> Server {
    let server = Server::start().await;
    for (id, script) in [
        ("a-completed", script([])),
        ("b-failed", script([json!({ "fail": { "message": "as asked" } })])),
        ("c-waiting", script([wait_event("go")])),
        ("d-cancelled", script([wait_event("go")])),
        ("E-50%_off", script([sleep("long", 3_600_000)])),
    ] {
        server.run_script(id, &script).await;
    }
    server.start("f-raw", "raw", &Value::Null).await.expect(201);
    for id in ["a-completed", "b-failed", "f-raw"] {
        server.over(id).await;
    }
    server.until_waiting("c-waiting", "event").await;
    server.until_waiting("E-50%_off", "sleep").await;
    server.cancel("d-cancelled").await.expect_empty(204);
    server
}

#[tokio::test]
async fn a_list_is_an_array_of_the_execution_objects_with_the_total_beside_it() {
    let server = populated().await;
    let (executions, total) = server.list("").await;
    assert_eq!((executions.len(), total), (6, 6));
    for execution in executions {
        assert_eq!(execution, server.execution(execution["durableExecutionId"].as_str().unwrap()).await);
    }
}

#[tokio::test]
async fn filters_narrow_the_list_and_the_total() {
    let server = populated().await;
    for (query, expected) in [
        ("status=completed", "a-completed f-raw"),
        ("status=failed", "b-failed"),
        ("status=running", "E-50%_off c-waiting"),
        ("status=cancelled", "d-cancelled"),
        ("status=scheduled", ""),
        ("taskName=raw", "f-raw"),
        ("taskName=raw&status=completed", "f-raw"),
        ("taskName=raw&status=failed", ""),
        ("taskName=nobody", ""),
        ("search=FAIL", "b-failed"),
        ("search=e-50", "E-50%_off"),
        ("search=RA", "f-raw"),
        ("search=SCENAR", "E-50%_off a-completed b-failed c-waiting d-cancelled"),
        ("search=%25", "E-50%_off"),
        ("search=_", "E-50%_off"),
        ("search=%25_OFF", "E-50%_off"),
        ("search=%5C", ""),
        ("search=*", ""),
        ("search='", ""),
        ("search=d&status=cancelled", "d-cancelled"),
    ] {
        let mut ids = server.ids(&format!("?{query}")).await;
        ids.sort();
        assert_eq!(ids.join(" "), expected, "for {query}");
        assert_eq!(server.list(&format!("?{query}&limit=1")).await.1, ids.len() as u64, "total for {query}");
    }
}

#[tokio::test]
async fn from_and_to_bound_the_time_of_scheduling() {
    let server = Server::start().await;
    for id in ["1", "2", "3"] {
        server.start(id, "raw", &Value::Null).await.expect(201);
        server.over(id).await;
        // The bounds have milliseconds: the next one is to have another.
        let at = server.execution(id).await["scheduledAt"].clone();
        until("a millisecond is over", async || chrono_now(), |now| *now > parsed(&at)).await;
    }
    let second = server.execution("2").await["scheduledAt"].as_str().unwrap().to_owned();
    let elsewhere = (parsed(&json!(second)).with_timezone(&chrono::FixedOffset::east_opt(7_200).unwrap()))
        .to_rfc3339_opts(chrono::SecondsFormat::Millis, false);
    assert!(elsewhere.ends_with("+02:00"));
    let all = "?sortBy=scheduledAt&sortOrder=asc";
    for (bounds, expected) in [
        (format!("&from={second}"), "2 3"),
        (format!("&to={second}"), "1 2"),
        (format!("&from={second}&to={second}"), "2"),
        (format!("&from={}", encoded(&elsewhere)), "2 3"),
        ("&from=2000-01-01T00:00:00Z".to_owned(), "1 2 3"),
        ("&to=2000-01-01T00:00:00Z".to_owned(), ""),
        ("&from=2999-01-01T00:00:00Z".to_owned(), ""),
    ] {
        assert_eq!(server.ids(&format!("{all}{bounds}")).await.join(" "), expected, "for {bounds}");
    }
}

fn parsed(time: &Value) -> chrono::DateTime<chrono::Utc> {
    time.as_str().unwrap().parse().unwrap()
}

fn chrono_now() -> chrono::DateTime<chrono::Utc> {
    std::time::SystemTime::now().into()
}

#[tokio::test]
async fn the_list_is_sorted_as_asked() {
    let server = populated().await;
    let values = async |query: &str, field: &str| -> Vec<String> {
        let (executions, _) = server.list(query).await;
        executions.iter().map(|execution| execution[field].as_str().unwrap().to_owned()).collect()
    };
    for (sort_by, field) in [("scheduledAt", "scheduledAt"), ("taskName", "name"), ("status", "status")] {
        let ascending = values(&format!("?sortBy={sort_by}&sortOrder=asc"), field).await;
        let descending = values(&format!("?sortBy={sort_by}&sortOrder=desc"), field).await;
        assert_eq!(ascending.len(), 6);
        let mut sorted = ascending.clone();
        if sort_by == "status" {
            // By word or by course of life: what matters is that like stands by like.
            sorted.dedup();
            assert_eq!(sorted.len(), 4, "{ascending:?}");
        } else {
            sorted.sort();
            assert_eq!(ascending, sorted, "by {sort_by}");
        }
        assert_eq!(descending, ascending.into_iter().rev().collect::<Vec<_>>(), "by {sort_by}");
    }
}

#[tokio::test]
async fn pages_join_without_gap_or_overlap() {
    let server = Server::start().await;
    for n in 0..25 {
        server.start(&format!("p-{n:02}"), "raw", &Value::Null).await.expect(201);
    }
    let (first, total) = server.list("").await;
    assert_eq!((first.len(), total), (20, 25), "20 are given where nothing is asked");

    for order in ["sortBy=scheduledAt&sortOrder=asc", "sortBy=taskName&sortOrder=desc", "sortBy=status"] {
        let mut seen = Vec::new();
        for offset in (0..28).step_by(7) {
            seen.extend(server.ids(&format!("?{order}&limit=7&offset={offset}")).await);
        }
        seen.sort();
        let all: Vec<String> = (0..25).map(|n| format!("p-{n:02}")).collect();
        if order.contains("status") {
            // They move on meanwhile.
            seen.dedup();
            assert!(seen.len() <= 25);
        } else {
            assert_eq!(seen, all, "by {order}");
        }
    }
    assert_eq!(server.list("?offset=25").await, (vec![], 25));
    assert_eq!(server.list("?offset=9999999999").await, (vec![], 25));
}

#[tokio::test]
async fn an_unknown_filter_or_sort_value_is_400_and_names_the_allowed_ones() {
    let server = Server::start().await;
    for (query, named) in [
        ("status=done", "scheduled running completed failed cancelled"),
        ("status=Running", "running"),
        ("status=running,failed", "running"),
        ("sortBy=payload", "scheduledAt status taskName"),
        ("sortBy=scheduled_at", "scheduledAt"),
        ("sortOrder=up", "asc desc"),
        ("stauts=running", "status taskName from to search sortBy sortOrder limit offset"),
        ("task=raw", "taskName"),
        ("from=yesterday", "from"),
        ("to=2024-01-01", "to"),
        ("from=5", "from"),
        ("limit=many", "limit"),
        ("limit=-1", "limit"),
        ("limit=1.5", "limit"),
        ("offset=-1", "offset"),
        ("offset=99999999999999999999999", "offset"),
    ] {
        let message = server.get(&format!("/api/v1/executions?{query}")).await.any_error(400);
        for word in named.split(' ') {
            assert!(message.contains(word), "{query}: {message:?} does not name {word}");
        }
    }
}

#[tokio::test]
async fn a_limit_has_a_stated_maximum() {
    let server = Server::start().await;
    let (executions, _) = server.list("?limit=0").await;
    assert!(executions.is_empty(), "0 is for who wants the total only");
    for limit in ["1001", "100000", "4294967295", "18446744073709551615"] {
        let answer = server.get(&format!("/api/v1/executions?limit={limit}")).await;
        let message = answer.any_error(400);
        assert!(message.contains("limit") && message.contains("1000"), "{message}");
    }
}
