//! `/admin/v1/modules`: versions of modules and what runs on them. (What is refused: `uploads`.)

use crate::harness::*;

const PREFIXES: [&str; 2] = ["/admin/v1", "/zart/admin/v1"];

async fn marked(server: &Server, task: &str, mark: &str) -> Answer {
    server.upload(task, guests::scenario_marked(mark)).await
}

async fn activate(server: &Server, task: &str, version: &str) -> Answer {
    server.post(&format!("/admin/v1/modules/{task}/versions/{version}/activate")).await
}

/// What the code that ran calls itself.
async fn code_of(server: &Server, id: &str, task: &str) -> (Value, Value) {
    server.start(id, task, &script([json!("variant")])).await.expect(201);
    let over = server.over(id).await;
    (over["version"].clone(), over["result"][0].clone())
}

#[tokio::test]
async fn a_new_component_is_201_and_the_next_version_and_active() {
    let server = Server::empty().await;
    for prefix in PREFIXES {
        let task = format!("task{}", prefix.len());
        let component = guests::scenario();
        let size = component.len();
        let put = server.request("PUT", &format!("{prefix}/modules/{task}"));
        let version =
            server.send(put.header("content-type", "application/wasm").body(component)).await.expect(201);
        assert_eq!(version["taskName"], *task);
        assert_eq!(version["version"], 1);
        assert_eq!(version["sizeBytes"], size);
        assert!(version["compiledInMs"].is_u64(), "{version}");
        assert!(version["createdAt"].as_str().unwrap().ends_with('Z'));
        assert_eq!(version["manifest"]["stepbox"], "0.1.0");
        assert_eq!(version["manifest"]["description"], "Does what the script says.");
        let digest = version["digest"].as_str().unwrap();
        assert!(digest.contains(|c: char| c.is_ascii_hexdigit()) && digest.len() >= 64, "{digest}");
    }
    assert_eq!(marked(&server, "task9", "002").await.expect(201)["version"], 2);
    assert_eq!(code_of(&server, "o-1", "task9").await, (json!(2), json!("002")));
}

#[tokio::test]
async fn the_bytes_that_are_active_already_are_200_and_no_new_version() {
    let server = Server::start().await;
    let first = server.get("/admin/v1/modules/scenario").await.expect(200);

    let again = server.upload("scenario", guests::scenario()).await.expect(200);

    for field in ["taskName", "version", "digest", "sizeBytes", "compiledInMs", "createdAt", "manifest"] {
        assert_eq!(again[field], first[field], "{field}");
    }
    assert_eq!(
        server.get("/admin/v1/modules/scenario/versions").await.expect(200).as_array().unwrap().len(),
        1
    );
}

#[tokio::test]
async fn the_list_has_every_module_with_its_manifest_and_what_runs_on_it() {
    let server = Server::empty().await;
    assert_eq!(server.get("/admin/v1/modules").await.expect(200), json!([]));
    server.upload("b-task", guests::scenario()).await.expect(201);
    server.upload("a-task", guests::raw()).await.expect(201);
    server.start("o-1", "b-task", &script([wait_event("go")])).await.expect(201);
    server.start("o-2", "b-task", &script([])).await.expect(201);
    server.over("o-2").await;

    let modules = server.get("/admin/v1/modules").await.expect(200);

    let names: Vec<&Value> = modules.as_array().unwrap().iter().map(|module| &module["taskName"]).collect();
    assert_eq!(names, ["a-task", "b-task"]);
    assert_eq!(modules[0]["manifest"], json!({ "stepbox": "0.1.0" }));
    assert_eq!((&modules[0]["version"], &modules[0]["unfinishedExecutions"]), (&json!(1), &json!(0)));
    assert_eq!(modules[1]["unfinishedExecutions"], 1);
    assert_eq!(server.get("/admin/v1/modules/b-task").await.expect(200), modules[1]);
}

#[tokio::test]
async fn the_versions_are_listed_with_what_runs_on_each() {
    let server = Server::start().await;
    server.run_script("on-1", &script([wait_event("go")])).await;
    marked(&server, "scenario", "002").await.expect(201);
    for id in ["on-2", "on-2-too"] {
        server.run_script(id, &script([wait_event("go")])).await;
    }
    let versions = server.get("/admin/v1/modules/scenario/versions").await.expect(200);
    let told: Vec<(u64, bool, u64)> = versions
        .as_array()
        .unwrap()
        .iter()
        .map(|v| {
            (
                v["version"].as_u64().unwrap(),
                v["active"].as_bool().unwrap(),
                v["unfinishedExecutions"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(told, [(2, true, 2), (1, false, 1)]);
}

#[tokio::test]
async fn an_older_version_can_be_made_active_and_runs_under_way_keep_theirs_over_a_restart() {
    let mut server = Server::start().await;
    let lines = script([json!("variant"), wait_event("go"), json!("variant")]);
    server.run_script("on-1", &lines).await;
    server.until_waiting("on-1", "event").await;
    marked(&server, "scenario", "002").await.expect(201);
    server.run_script("on-2", &lines).await;
    server.until_waiting("on-2", "event").await;

    let active = activate(&server, "scenario", "1").await.expect(200);
    assert_eq!((&active["version"], &active["active"]), (&json!(1), &json!(true)));
    assert_eq!(server.get("/admin/v1/modules/scenario").await.expect(200)["version"], 1);
    assert_eq!(code_of(&server, "rolled-back", "scenario").await, (json!(1), json!("001")));

    server.kill_9().restart();

    assert_eq!(code_of(&server, "still-back", "scenario").await, (json!(1), json!("001")));
    for (id, version, mark) in [("on-1", 1, "001"), ("on-2", 2, "002")] {
        server.event(id, "go", &Value::Null).await.expect(202);
        let over = server.over(id).await;
        assert_eq!(over["version"], version);
        assert_eq!(over["result"], json!([mark, { "value": null }, mark]));
    }
    activate(&server, "scenario", "2").await.expect(200);
    assert_eq!(code_of(&server, "forward", "scenario").await, (json!(2), json!("002")));
}

#[tokio::test]
async fn bytes_that_were_uploaded_before_but_are_not_active_are_a_new_version() {
    let server = Server::start().await;
    marked(&server, "scenario", "002").await.expect(201);
    assert_eq!(server.upload("scenario", guests::scenario()).await.expect(201)["version"], 3);
    assert_eq!(code_of(&server, "o-1", "scenario").await, (json!(3), json!("001")));
}

#[tokio::test]
async fn a_module_can_be_removed_when_nothing_of_it_is_under_way() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    let answer = server.delete("/admin/v1/modules/scenario").await;
    let message = answer.error(409, "module_in_use");
    assert!(message.contains("scenario") && message.contains('1'), "{message}");
    assert_eq!(answer.json()["unfinishedExecutions"], 1);
    server.event("o-1", "go", &Value::Null).await.expect(202);
    let over = server.over("o-1").await;

    server.delete("/admin/v1/modules/scenario").await.expect_empty(204);

    server.get("/admin/v1/modules/scenario").await.error(404, "unknown_module");
    server.get("/admin/v1/modules/scenario/versions").await.error(404, "unknown_module");
    server.delete("/admin/v1/modules/scenario").await.error(404, "unknown_module");
    activate(&server, "scenario", "1").await.any_error(404);
    server.start("o-2", "scenario", &script([])).await.error(422, "unknown_task");
    // What it did is still known, also as the same start.
    assert_eq!(server.execution("o-1").await, over);
    server.start("o-1", "scenario", &script([wait_event("go")])).await.expect(200);
    // And it may come back.
    server.upload("scenario", guests::scenario()).await.expect(201);
    server.play("o-3", &script([])).await;
}

#[tokio::test]
async fn a_module_whose_executions_were_cancelled_can_be_removed() {
    let server = Server::start().await;
    server.run_script("o-1", &script([wait_event("go")])).await;
    server.cancel("o-1").await.expect_empty(204);
    server.delete("/zart/admin/v1/modules/scenario").await.expect_empty(204);
}

#[tokio::test]
async fn what_is_not_there_is_404() {
    let server = Server::start().await;
    for path in ["/modules/nobody", "/modules/nobody/versions"] {
        for prefix in PREFIXES {
            let message = server.get(&format!("{prefix}{path}")).await.error(404, "unknown_module");
            assert!(message.contains("nobody"), "{message}");
        }
    }
    activate(&server, "nobody", "1").await.any_error(404);
    for version in ["2", "0", "4294967295"] {
        let message = activate(&server, "scenario", version).await.error(404, "unknown_version");
        assert!(message.contains(version), "{message}");
    }
    for version in ["one", "-1", "99999999999999999999", "1.5"] {
        let status = activate(&server, "scenario", version).await.status;
        assert!([400, 404, 422].contains(&status), "version {version}: {status}");
    }
    assert_eq!(server.get("/admin/v1/modules/scenario").await.expect(200)["version"], 1);
}

#[tokio::test]
async fn modules_and_what_is_active_survive_kill_9() {
    let mut server = Server::start().await;
    marked(&server, "scenario", "002").await.expect(201);
    let before = server.get("/admin/v1/modules").await.expect(200);
    server.kill_9().restart();
    assert_eq!(server.get("/admin/v1/modules").await.expect(200), before);
    assert_eq!(code_of(&server, "o-1", "scenario").await, (json!(2), json!("002")));
}
