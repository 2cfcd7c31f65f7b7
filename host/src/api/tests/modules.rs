//! What the routes of modules answer, under both prefixes.

use serde_json::json;

use super::harness::*;

#[tokio::test]
async fn an_upload_makes_a_version_and_the_same_bytes_make_none() {
    for prefix in ["/admin/v1", "/zart/admin/v1"] {
        let host = Host::empty().await;
        let path = format!("{prefix}/modules/order");
        let first = host.call("PUT", &path, WASM, "one").await;
        assert_eq!(first.status, 201);
        let expected = concat!(
            r#"{"taskName":"order","version":1,"#,
            r#""digest":"7692c3ad3540bb803c020b3aee66cd8887123234ea0c6e7143c0add73ff431ed","#,
            r#""sizeBytes":3,"compiledInMs":7,"createdAt":"2026-01-31T12:00:00.000Z","#,
            r#""manifest":{"stepbox":"0.1.0","task":{"payload":{"properties":{"items":{"type":"integer"}}}}},"#,
            r#""active":true,"unfinishedExecutions":0,"waiting":false,"#,
            r#""capabilities":{"wanted":{"http":[],"secrets":[],"env":[]},"#,
            r#""granted":{"http":[],"addresses":[],"secrets":{},"env":{}},"#,
            r#""missing":{"http":[],"secrets":[],"env":[]}}}"#,
        );
        assert_eq!(first.text, expected);
        let same = host.call("PUT", &path, WASM, "one").await;
        assert_eq!((same.status, same.text), (200, first.text));
        assert_eq!(host.call("PUT", &path, WASM, "two").await.json()["version"], 2);
    }
}

#[tokio::test]
async fn modules_are_listed_with_what_runs_on_them() {
    let host = Host::start().await;
    host.begin("on one", json!({ "do": "hang" })).await;
    host.upload("order", "two").await;
    host.upload("refund", "three").await;

    let modules = host.get("/admin/v1/modules").await.json();
    let names: Vec<_> = modules.as_array().unwrap().iter().map(|m| &m["taskName"]).collect();
    assert_eq!(names, ["order", "refund"]);
    let order = host.get("/zart/admin/v1/modules/order").await.json();
    assert_eq!(order, modules[0]);
    assert_eq!((&order["version"], &order["versions"]), (&json!(2), &json!(2)));
    assert_eq!(order["unfinishedExecutions"], 0, "none on the active version");
    assert_eq!(order["unfinishedExecutionsOfAllVersions"], 1);

    let versions = host.get("/admin/v1/modules/order/versions").await.json();
    let shown = |index: usize, field: &str| versions[index][field].clone();
    assert_eq!((shown(0, "version"), shown(0, "active")), (json!(2), json!(true)));
    assert_eq!((shown(1, "version"), shown(1, "active")), (json!(1), json!(false)));
    assert_eq!(shown(1, "unfinishedExecutions"), 1);
}

#[tokio::test]
async fn activate_rolls_back_and_forward() {
    let host = Host::start().await;
    host.upload("order", "two").await;
    for version in [1, 2] {
        let path = format!("POST /admin/v1/modules/order/versions/{version}/activate");
        let answer = host.get(&path).await;
        assert_eq!(answer.status, 200);
        assert_eq!((&answer.json()["version"], &answer.json()["active"]), (&json!(version), &json!(true)));
        let started = host.begin(&format!("e{version}"), json!(null)).await.json();
        assert_eq!(started["version"], version);
    }
}

#[tokio::test]
async fn a_module_is_removed_when_nothing_needs_it() {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "hang" })).await;
    let refused = host.get("DELETE /admin/v1/modules/order").await;
    assert_eq!(
        refused.refusal(),
        "409 module_in_use: task \"order\" has 1 executions that are not over; cancel them or wait for their \
         end before removing the module"
    );
    assert_eq!(refused.json()["unfinishedExecutions"], 1);
    host.get("POST /api/v1/executions/e/cancel").await;
    assert_eq!(host.get("DELETE /admin/v1/modules/order").await.status, 204);
    assert_eq!(host.get("/admin/v1/modules/order").await.status, 404);
    assert_eq!(host.begin("f", json!(null)).await.status, 422);
}

#[tokio::test]
async fn every_refusal_of_an_upload_has_its_status_and_code() {
    let host = Host::empty().await;
    let cases = [
        ("large", "413 too_large: the module is refused: the component has 5 bytes; at most 4 are allowed"),
        ("text", "422 not_a_component: the module is refused: this is not a WebAssembly component: it is "),
        (
            "no-compile",
            "422 does_not_compile: the module is refused: the component does not compile: of that",
        ),
        ("limit", "422 compile_limit: the module is refused: the component takes too much to compile: more "),
        (
            "import",
            "422 forbidden_import: the module is refused: the component imports `env:evil/x`: of that",
        ),
        ("export", "422 missing_export: the module is refused: the component does not export `run`; a task "),
        ("type", "422 wrong_type: the module is refused: the component does not fit the world `task` of "),
        (
            "describe",
            "422 describe_failed: the module is refused: the component does not describe itself: of ",
        ),
        ("manifest", "422 bad_manifest: the module is refused: the manifest is not JSON: of that"),
        (
            "schema",
            "422 bad_schema: the module is refused: `task.payload` of its description is not a usable ",
        ),
        ("later", "503 inspection_unavailable: the component could not be inspected now: of that"),
    ];
    for (component, expected) in cases {
        let answer = host.call("PUT", "/admin/v1/modules/order", WASM, component).await;
        assert!(answer.refusal().starts_with(expected), "{component}: {}", answer.refusal());
        assert_eq!(answer.header("retry-after"), if answer.status == 503 { "1" } else { "" });
    }
    let answer = host.call("PUT", "/admin/v1/modules/order", WASM, "describe").await;
    assert_eq!(answer.json()["backtrace"], "0: boom");
    assert_eq!(host.get("/admin/v1/modules").await.text, "[]", "none of them left anything behind");
}
