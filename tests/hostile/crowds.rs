//! A task that floods its host with runs has itself to wait for, and nobody else.

use crate::harness::*;

/// So many runs of the one task may go on at the same time, of so many that the host has room for.
const LIVE_MAX: usize = 2;
const PLACES: usize = 4;

/// Without its limit the flood would take every place for as long as it pleases, and the neighbour
/// would never begin.
#[tokio::test(flavor = "multi_thread")]
async fn a_task_that_floods_the_host_stands_in_its_own_line() {
    let server = Server::with("live-max", PLACES).start().await;
    server.upload("flood", guests::scenario()).await.expect(201);
    let limits = server.request("PUT", "/admin/v1/modules/flood/limits");
    server.send(limits.json(&json!({ "liveMax": LIVE_MAX }))).await.expect(200);
    // A step that does not come to its end as long as the test goes on.
    let hangs = script([step_with("hangs", json!({ "act": { "reallySleep": { "ms": 600_000 } } }))]);
    let ids: Vec<String> = (0..200).map(|n| format!("flood-{n}")).collect();
    let mut starting = tokio::task::JoinSet::new();
    for id in ids.clone() {
        let (client, hangs) = (Client::clone(&server), hangs.clone());
        starting.spawn(async move { client.start(&id, "flood", &hangs).await.expect(201) });
    }
    starting.join_all().await;
    let stand_in_line = async || {
        let mut standing = Vec::new();
        for id in &ids {
            let execution = server.execution(id).await;
            if execution["waitingFor"] == json!({ "type": "capacity", "liveMax": LIVE_MAX }) {
                standing.push(id.clone());
            }
        }
        standing
    };
    until("all but two stand in line", stand_in_line, |ids| ids.len() == 200 - LIVE_MAX).await;

    for n in 0..20 {
        let id = format!("neighbour-{n}");
        server.run_script(&id, &script([step("charge")])).await;
        assert_eq!(server.result(&id).await, json!([{ "attempt": 1 }]));
    }

    assert_eq!(stand_in_line().await.len(), 200 - LIVE_MAX, "the flood is where it was");
    assert_eq!(server.get("/readyz").await.status, 200);
    // Who goes makes room for the next in line, until none is left.
    for id in &ids {
        server.cancel(id).await.expect_empty(204);
    }
    server.run_script("last", &script([step("charge")])).await;
    server.result("last").await;
    let stats = server.stats().await;
    assert_eq!((&stats["cancelled"], &stats["completed"]), (&json!(200), &json!(21)), "{stats}");
}
