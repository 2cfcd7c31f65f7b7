//! What modules want, what an admin grants them, and what they then see.

use crate::harness::*;

/// All that the guest `wanting` wants.
fn all(region: &str) -> Value {
    json!({
        "http": [{ "host": "*.example.com", "methods": ["GET"] }],
        "secrets": { "API_KEY": ["api.example.com"] },
        "env": { "REGION": region },
    })
}

/// What a step then finds in its environment: of the secret, no more than where it would stand.
fn seen(region: &str) -> Value {
    json!({ "API_KEY": "{{stepbox:secret:API_KEY}}", "REGION": region })
}

async fn grant(server: &Server, grants: &Value) -> Value {
    let put = server.request("PUT", "/admin/v1/modules/order/grants?triggeredBy=ann&reason=agreed");
    server.send(put.json(grants)).await.expect(200)
}

async fn upload(server: &Server, mark: &str, query: &str) -> Answer {
    let put = server.request("PUT", &format!("/admin/v1/modules/order{query}"));
    server.send(put.header("content-type", "application/wasm").body(guests::wanting_marked(mark))).await
}

/// Each version: its number, and whether it is active or waits.
async fn told(server: &Server) -> Vec<(u64, bool, bool)> {
    let versions = server.get("/admin/v1/modules/order/versions").await.expect(200);
    let flag = |version: &Value, name: &str| version[name].as_bool().unwrap();
    let told = versions.as_array().unwrap().iter();
    told.map(|v| (v["version"].as_u64().unwrap(), flag(v, "active"), flag(v, "waiting"))).collect()
}

/// Starts it, and lets it look `times` times.
async fn looked(server: &Server, id: &str, times: u32) -> Value {
    server.start(id, "order", &json!(times)).await.expect(201);
    for _ in 0..times {
        server.event(id, "look", &Value::Null).await.expect(202);
    }
    server.result(id).await
}

#[tokio::test]
async fn a_version_that_wants_more_waits_until_it_is_granted_and_then_runs() {
    let server = Server::empty().await;
    server.upload("order", guests::scenario()).await.expect(201);

    let version = upload(&server, "002", "?triggeredBy=ann").await.expect(201);

    assert_eq!(
        (&version["version"], &version["active"], &version["waiting"]),
        (&json!(2), &json!(false), &json!(true))
    );
    let capabilities = &version["capabilities"];
    assert_eq!(capabilities["wanted"], capabilities["missing"]);
    assert_eq!(capabilities["wanted"]["http"][0]["host"], "api.example.com");
    assert_eq!(
        capabilities["wanted"]["secrets"],
        json!([{ "name": "API_KEY", "hosts": ["api.example.com"] }])
    );
    assert_eq!(told(&server).await, [(2, false, true), (1, true, false)]);
    // The one before goes on as if nothing had come.
    let started = server.start("before", "order", &script([json!("variant")])).await.expect(201);
    assert_eq!(started["version"], 1);
    assert_eq!(server.result("before").await, json!(["001"]));
    let activate = server.post("/admin/v1/modules/order/versions/2/activate").await;
    let message = activate.error(409, "not_granted");
    for named in ["GET https://api.example.com", "secret API_KEY", "env REGION", "modules/order/grants"] {
        assert!(message.contains(named), "{message}");
    }

    let granted = grant(&server, &all("eu-1")).await;

    assert_eq!((&granted["activatedVersion"], &granted["waitingVersion"]), (&json!(2), &Value::Null));
    assert_eq!(told(&server).await, [(2, true, false), (1, false, false)]);
    let expected = json!({ "variant": "002", "handler": {}, "steps": [seen("eu-1")] });
    assert_eq!(looked(&server, "after", 1).await, expected);

    let (entries, _) = server.audit("?taskName=order&limit=3").await;
    let done: Vec<(&Value, &Value, &Value)> =
        entries.iter().map(|entry| (&entry["action"], &entry["actor"], &entry["reason"])).collect();
    let (ann, agreed, none) = (json!("ann"), json!("agreed"), Value::Null);
    let words = ["activate_version", "set_grants", "upload_module"].map(|word| json!(word));
    assert_eq!(done, [(&words[0], &ann, &agreed), (&words[1], &ann, &agreed), (&words[2], &ann, &none)]);
    assert_eq!(entries[1]["after"]["env"], json!({ "REGION": "eu-1" }));
    assert!(entries[2]["after"]["waitsFor"].as_str().unwrap().contains("secret API_KEY"));
}

#[tokio::test]
async fn a_first_version_that_waits_is_shown_and_its_start_says_what_to_do() {
    let server = Server::empty().await;
    upload(&server, "001", "").await.expect(201);
    for prefix in ADMIN_PREFIXES {
        let modules = server.get(&format!("{prefix}/modules")).await.expect(200);
        assert_eq!((&modules[0]["taskName"], &modules[0]["active"]), (&json!("order"), &json!(false)));
        assert_eq!(modules[0]["waitingVersion"]["missing"]["env"], json!(["REGION"]));
    }
    let message = server.start("o-1", "order", &json!(1)).await.error(422, "waits_for_grants");
    assert!(message.contains("version 1") && message.contains("env REGION"), "{message}");
    assert_eq!(server.get("/api/v1/executions/o-1").await.status, 404);

    // All but the variable, which has no value yet.
    let version = upload(&server, "001", "?grant=wanted").await.expect(200);
    assert_eq!(version["capabilities"]["missing"], json!({ "http": [], "secrets": [], "env": ["REGION"] }));
    let message = server.start("o-1", "order", &json!(1)).await.error(422, "waits_for_grants");
    assert!(message.contains("env REGION") && !message.contains("API_KEY"), "{message}");
    let mut grants = server.get("/admin/v1/modules/order/grants").await.expect(200);
    grants["env"]["REGION"] = json!("eu-1");
    assert_eq!(grant(&server, &grants).await["activatedVersion"], 1);
    assert_eq!(looked(&server, "o-1", 1).await["steps"], json!([seen("eu-1")]));
}

#[tokio::test]
async fn what_is_taken_away_is_gone_for_the_attempts_that_begin_later() {
    let server = Server::empty().await;
    grant(&server, &all("eu-1")).await;
    upload(&server, "001", "").await.expect(201);
    server.start("o-1", "order", &json!(3)).await.expect(201);
    let look = async |count: usize| {
        server.event("o-1", "look", &Value::Null).await.expect(202);
        server
            .until_detail("o-1", "has looked", |detail| {
                let steps = detail["steps"].as_array().unwrap().iter();
                steps.filter(|step| step["kind"] == "step" && step["status"] == "completed").count() == count
            })
            .await;
    };
    look(1).await;
    grant(&server, &all("us-1")).await;
    look(2).await;
    grant(&server, &json!({})).await;
    server.event("o-1", "look", &Value::Null).await.expect(202);
    assert_eq!(server.result("o-1").await["steps"], json!([seen("eu-1"), seen("us-1"), {}]));
    // It stays what new runs get, although it would have to wait if it came now.
    assert_eq!(told(&server).await, [(1, true, false)]);
    assert_eq!(looked(&server, "o-2", 1).await["steps"], json!([{}]));
    assert_eq!(upload(&server, "002", "").await.expect(201)["waiting"], true);
}

#[tokio::test]
async fn a_restart_of_the_host_keeps_what_is_set_and_who_waits() {
    let mut server = Server::empty().await;
    upload(&server, "001", "").await.expect(201);
    grant(&server, &all("eu-1")).await;
    let limits = server.request("PUT", "/admin/v1/modules/order/limits").json(&json!({ "stepsMax": 77 }));
    server.send(limits).await.expect(200);
    grant(&server, &json!({ "env": { "REGION": "eu-1" } })).await;
    upload(&server, "002", "").await.expect(201);
    let shown = async |server: &Server| {
        let mut shown = Vec::new();
        for what in ["", "/versions", "/grants", "/limits"] {
            shown.push(server.get(&format!("/admin/v1/modules/order{what}")).await.expect(200));
        }
        shown
    };
    let before = shown(&server).await;
    assert_eq!(before[3]["stepsMax"]["value"], 77);

    server.kill_9().restart();

    assert_eq!(shown(&server).await, before);
    assert_eq!(told(&server).await, [(2, false, true), (1, true, false)]);
    assert_eq!(looked(&server, "o-1", 1).await["steps"], json!([{ "REGION": "eu-1" }]));
    assert_eq!(grant(&server, &all("eu-2")).await["activatedVersion"], 2);
    let expected = json!({ "variant": "002", "handler": {}, "steps": [seen("eu-2")] });
    assert_eq!(looked(&server, "o-2", 1).await, expected);
    server.kill_9().restart();
    assert_eq!(looked(&server, "o-3", 1).await, expected);
}

#[tokio::test]
async fn a_module_that_is_removed_takes_its_grants_along() {
    let server = Server::empty().await;
    grant(&server, &all("eu-1")).await;
    assert_eq!(upload(&server, "001", "").await.expect(201)["active"], true);
    looked(&server, "o-1", 1).await;

    server.delete("/admin/v1/modules/order?triggeredBy=ann").await.expect_empty(204);

    let (entries, _) = server.audit("?limit=1").await;
    assert_eq!(entries[0]["before"]["grants"]["env"], json!({ "REGION": "eu-1" }));
    assert_eq!(server.get("/admin/v1/modules/order/grants").await.expect(200)["env"], json!({}));
    let back = upload(&server, "001", "").await.expect(201);
    assert_eq!((&back["active"], &back["waiting"]), (&json!(false), &json!(true)));
    server.start("o-2", "order", &json!(1)).await.error(422, "waits_for_grants");
}

/// Two that grant at the same time: one after the other, and what the last one said holds.
#[tokio::test]
async fn grants_at_the_same_time_leave_one_of_them_whole() {
    let server = Server::empty().await;
    upload(&server, "001", "").await.expect(201);
    let regions: Vec<String> = (0..20).map(|n| format!("eu-{n}")).collect();
    let grants: Vec<Value> = regions.iter().map(|region| all(region)).collect();
    let answers = futures_util::future::join_all(grants.iter().map(|grants| grant(&server, grants))).await;
    let activated = answers.iter().filter(|answer| answer["activatedVersion"] == 1).count();
    assert_eq!(activated, 1, "only one was the first");
    let (entries, total) = server.audit("?action=set_grants").await;
    assert_eq!(total, 20);
    let last = server.get("/admin/v1/modules/order/grants").await.expect(200);
    assert_eq!(last["env"], entries[0]["after"]["env"]);
    for pair in entries.windows(2) {
        assert_eq!(pair[0]["before"], pair[1]["after"], "each saw what the one before had left");
    }
    assert_eq!(looked(&server, "o-1", 1).await["steps"][0]["REGION"], last["env"]["REGION"]);
}
