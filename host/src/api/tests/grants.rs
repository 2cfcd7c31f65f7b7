//! What a task is granted and how much it may take, under both prefixes.

use serde_json::{Value, json};

use super::harness::*;

const JSON: &str = "application/json";
const PREFIXES: [&str; 2] = ["/admin/v1", "/zart/admin/v1"];

const SHIP: &str = r#"wants {"http":[{"host":"api.ship.com","methods":["GET","POST"]}],"secrets":[{"name":"KEY","hosts":["api.ship.com"]}]}"#;

fn ship_wants() -> Value {
    json!({
        "http": [{ "scheme": "https", "host": "api.ship.com", "port": 443, "methods": ["GET", "POST"] }],
        "secrets": [{ "name": "KEY", "hosts": ["api.ship.com"] }],
        "env": [],
    })
}

fn nothing() -> Value {
    json!({ "http": [], "secrets": [], "env": [] })
}

impl Host {
    async fn grant(&self, grants: &Value) -> Answer {
        self.call("PUT", "/admin/v1/modules/order/grants", JSON, grants.to_string()).await
    }

    async fn limit(&self, limits: &Value) -> Answer {
        self.call("PUT", "/admin/v1/modules/order/limits", JSON, limits.to_string()).await
    }

    async fn put(&self, component: &str, query: &str) -> Answer {
        self.call("PUT", &format!("/admin/v1/modules/order{query}"), WASM, component.to_owned()).await
    }

    /// Each version: its number, and whether it is active or waits.
    async fn told(&self) -> String {
        let versions = self.get("/admin/v1/modules/order/versions").await.json();
        let word = |version: &Value| match (&version["active"], &version["waiting"]) {
            (Value::Bool(true), Value::Bool(false)) => "active",
            (Value::Bool(false), Value::Bool(true)) => "waits",
            (Value::Bool(false), Value::Bool(false)) => "rests",
            _ => "both",
        };
        let told = versions.as_array().unwrap().iter();
        told.map(|version| format!("{} {}", version["version"], word(version))).collect::<Vec<_>>().join(", ")
    }

    /// The newest entries of the trail: who did what to what, and why.
    async fn trail(&self, count: usize) -> Vec<String> {
        let entries = self.get(&format!("/admin/v1/audit?limit={count}")).await.json();
        let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
        let told = |entry: &Value| {
            let [actor, action, task, target, reason] =
                ["actor", "action", "taskName", "target", "reason"].map(|field| text(&entry[field]));
            format!("{actor} {action} {task} {target} {reason}")
        };
        entries.as_array().unwrap().iter().map(told).collect()
    }
}

#[tokio::test]
async fn a_version_that_wants_more_than_is_granted_waits_and_says_for_what() {
    let host = Host::start().await;

    let uploaded = host.put(SHIP, "").await;

    assert_eq!(uploaded.status, 201, "{}", uploaded.text);
    let version = uploaded.json();
    assert_eq!(
        (&version["version"], &version["active"], &version["waiting"]),
        (&json!(2), &json!(false), &json!(true))
    );
    let none = json!({ "http": [], "addresses": [], "secrets": {}, "env": {} });
    let capabilities = json!({ "wanted": ship_wants(), "granted": none, "missing": ship_wants() });
    assert_eq!(version["capabilities"], capabilities);
    assert_eq!(host.told().await, "2 waits, 1 active");
    for prefix in PREFIXES {
        let module = host.get(&format!("{prefix}/modules/order")).await.json();
        assert_eq!((&module["version"], &module["versions"]), (&json!(1), &json!(2)));
        assert_eq!(module["capabilities"]["missing"], nothing());
        assert_eq!(module["waitingVersion"], json!({ "version": 2, "missing": ship_wants() }));
        let versions = host.get(&format!("{prefix}/modules/order/versions")).await.json();
        assert_eq!(versions[0]["capabilities"], capabilities);
    }
    assert_eq!(host.begin("e", json!(1)).await.json()["version"], 1, "the active one goes on");

    // The same bytes again wait where they are.
    let again = host.put(SHIP, "").await;
    assert_eq!((again.status, &again.json()["version"]), (200, &json!(2)));
    let by_hand = host.get("POST /admin/v1/modules/order/versions/2/activate").await;
    assert_eq!(
        by_hand.refusal(),
        "409 not_granted: version 2 of task \"order\" has not been granted all that it wants: http GET,POST \
         https://api.ship.com; secret KEY for api.ship.com; grant it first, with PUT /admin/v1/modules/order/grants"
    );
    assert_eq!((&by_hand.json()["version"], &by_hand.json()["missing"]), (&json!(2), &ship_wants()));
}

#[tokio::test]
async fn it_becomes_active_by_itself_when_grants_suffice() {
    let host = Host::start().await;
    host.put(SHIP, "").await;
    let half = json!({ "http": [{ "host": "*.ship.com" }], "secrets": { "KEY": ["other.com"] } });

    let answer = host.grant(&half).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let http = json!([{ "scheme": "https", "host": "*.ship.com", "port": 443, "methods": [] }]);
    let granted = json!({ "http": http, "addresses": [], "secrets": { "KEY": ["other.com"] }, "env": {} });
    let missing = json!({ "http": [], "secrets": [{ "name": "KEY", "hosts": ["api.ship.com"] }], "env": [] });
    let expected = json!({
        "taskName": "order",
        "grants": granted,
        "activatedVersion": null,
        "waitingVersion": { "version": 2, "missing": missing },
    });
    assert_eq!(answer.json(), expected);
    assert_eq!(host.told().await, "2 waits, 1 active");

    let whole = json!({ "http": [{ "host": "*.ship.com" }], "secrets": { "KEY": ["*"] } });
    let path = "/zart/admin/v1/modules/order/grants?triggeredBy=ann&reason=agreed";
    let answer = host.call("PUT", path, JSON, whole.to_string()).await.json();

    assert_eq!((&answer["activatedVersion"], &answer["waitingVersion"]), (&json!(2), &Value::Null));
    assert_eq!(host.told().await, "2 active, 1 rests");
    assert_eq!(host.begin("e", json!(1)).await.json()["version"], 2);
    assert_eq!(host.trail(2).await, ["ann activate_version order 2 agreed", "ann set_grants order - agreed"]);
    let entry = &host.get("/admin/v1/audit?action=set_grants&limit=1").await.json()[0];
    assert_eq!(
        entry["before"],
        json!({ "http": [{ "scheme": "https", "host": "*.ship.com" }], "addresses": [],
        "secrets": { "KEY": ["other.com"] }, "env": {} })
    );

    // What is shown can be put as it is, and then nothing changes.
    let shown = host.get("/admin/v1/modules/order/grants").await;
    assert_eq!((shown.status, &shown.json()["secrets"]), (200, &json!({ "KEY": ["*"] })));
    let (_, before) = (host.grant(&shown.json()).await, host.trail(1).await);
    assert_eq!(before, ["ann activate_version order 2 agreed"]);
}

#[tokio::test]
async fn a_task_that_only_has_waiting_versions_is_listed_and_its_start_says_what_to_do() {
    let host = Host::empty().await;
    host.put(SHIP, "").await;
    let module = &host.get("/admin/v1/modules").await.json()[0];
    assert_eq!(
        (&module["taskName"], &module["version"], &module["active"]),
        (&json!("order"), &json!(1), &json!(false))
    );
    assert_eq!(module["capabilities"]["missing"], ship_wants());

    let refused = host.begin("e", json!(1)).await;

    assert_eq!(
        refused.refusal(),
        "422 waits_for_grants: no version of task \"order\" can be started yet: version 1 waits to be granted http \
         GET,POST https://api.ship.com; secret KEY for api.ship.com; an admin grants it with PUT \
         /admin/v1/modules/order/grants, or by uploading it again with ?grant=wanted"
    );
    assert_eq!(refused.json()["version"], 1);
    assert_eq!(host.get("/api/v1/executions/e").await.status, 404, "nothing was left behind");
    assert_eq!(host.put(SHIP, "?grant=wanted").await.status, 200);
    assert_eq!(host.begin("e", json!(1)).await.status, 201);
}

#[tokio::test]
async fn what_is_wanted_can_be_granted_with_the_upload() {
    let host = Host::start().await;
    let query = "?grant=wanted&triggeredBy=ann&reason=ours";
    let version = host.put(SHIP, query).await.json();
    assert_eq!(
        (&version["version"], &version["active"], &version["waiting"]),
        (&json!(2), &json!(true), &json!(false))
    );
    assert_eq!(version["capabilities"]["missing"], nothing());
    assert_eq!(version["capabilities"]["granted"]["secrets"], json!({ "KEY": ["api.ship.com"] }));
    let trail = [
        "ann activate_version order 2 ours",
        "ann set_grants order - ours",
        "ann upload_module order 2 ours",
    ];
    assert_eq!(host.trail(3).await, trail);

    // A variable has no value yet.
    let version = host.put(r#"wants {"http":[{"host":"b.com"}],"env":["REGION"]}"#, query).await.json();
    assert_eq!(version["capabilities"]["missing"], json!({ "http": [], "secrets": [], "env": ["REGION"] }));
    assert_eq!(version["waiting"], true);
    let mut grants = host.get("/admin/v1/modules/order/grants").await.json();
    assert_eq!(grants["http"].as_array().unwrap().len(), 2, "added to what there was");
    grants["env"]["REGION"] = json!("eu");
    assert_eq!(host.grant(&grants).await.json()["activatedVersion"], 3);
    let refused = host.put(SHIP, "?grant=all").await.refusal();
    assert_eq!(refused, "400 bad_query: grant must be wanted, this is \"all\"");
}

#[tokio::test]
async fn the_newest_for_which_it_suffices_becomes_active_and_no_older_one_later() {
    let host = Host::start().await;
    for wanted in ["A", "B", "C"] {
        host.put(&format!(r#"wants {{"env":["{wanted}"]}}"#), "").await;
    }
    assert_eq!(host.told().await, "4 waits, 3 waits, 2 waits, 1 active");
    assert_eq!(host.grant(&json!({ "env": { "B": "1" } })).await.json()["activatedVersion"], 3);
    assert_eq!(host.told().await, "4 waits, 3 active, 2 rests, 1 rests");
    let both = json!({ "env": { "A": "1", "B": "1" } });
    assert_eq!(host.grant(&both).await.json()["activatedVersion"], Value::Null, "its time is over");
    assert_eq!(host.get("POST /admin/v1/modules/order/versions/2/activate").await.status, 200, "but by hand");
    let all = json!({ "env": { "A": "1", "C": "1" } });
    assert_eq!(host.grant(&all).await.json()["activatedVersion"], 4);
    // What is taken away later does not change what is active.
    host.grant(&json!({})).await;
    assert_eq!(host.told().await, "4 active, 3 rests, 2 rests, 1 rests");
    assert_eq!(
        host.get("/admin/v1/modules/order").await.json()["capabilities"]["missing"]["env"],
        json!(["C"])
    );
    assert_eq!(host.begin("e", json!(1)).await.json()["version"], 4);
    assert_eq!(
        host.get("POST /admin/v1/modules/order/versions/4/activate").await.status,
        200,
        "it is already"
    );
    assert!(
        host.get("POST /admin/v1/modules/order/versions/3/activate")
            .await
            .refusal()
            .starts_with("409 not_granted")
    );
}

#[tokio::test]
async fn a_repair_cannot_name_a_version_that_waits() {
    let host = Host::start().await;
    host.begin("e", json!({ "do": "fail" })).await;
    host.until("e", |execution| execution["status"] == "failed").await;
    host.put(SHIP, "").await;
    let retry = json!({ "stepName": "charge", "moduleVersion": 2 }).to_string();
    for query in ["", "?dryRun=true"] {
        let answer = host.post(&format!("/admin/v1/executions/e/retry-step{query}"), &retry).await;
        assert!(
            answer.refusal().starts_with("409 not_granted: version 2 of task \"order\""),
            "{}",
            answer.text
        );
    }
    let bulk =
        json!({ "action": "retry-step", "filter": { "taskName": "order" }, "moduleVersion": 2 }).to_string();
    let answer = host.post("/admin/v1/bulk", &bulk).await;
    assert!(answer.refusal().starts_with("409 not_granted: version 2 of task \"order\""), "{}", answer.text);
    host.put(SHIP, "?grant=wanted").await;
    let answer = host.post("/admin/v1/executions/e/retry-step", &retry).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
}

/// A restart takes the active version, and says so when there is none any more.
#[tokio::test]
async fn a_restart_on_a_task_that_only_waits_says_so() {
    let host = Host::start().await;
    host.begin("e", json!(1)).await;
    host.until("e", |execution| execution["status"] == "completed").await;
    assert_eq!(host.get("DELETE /admin/v1/modules/order").await.status, 204);
    host.put(SHIP, "").await;
    for verb in ["restart", "rerun"] {
        let answer = host.post(&format!("/admin/v1/executions/e/{verb}"), "{}").await;
        assert!(answer.refusal().starts_with("422 waits_for_grants: "), "{}", answer.text);
    }
}

#[tokio::test]
async fn a_module_that_is_removed_takes_its_grants_and_limits_along() {
    let host = Host::empty().await;
    host.put(SHIP, "?grant=wanted").await;
    host.limit(&json!({ "stepsMax": 7 })).await;

    assert_eq!(host.get("DELETE /admin/v1/modules/order?triggeredBy=ann").await.status, 204);

    let entry = &host.get("/admin/v1/audit?limit=1").await.json()[0];
    assert_eq!(entry["before"]["grants"]["secrets"], json!({ "KEY": ["api.ship.com"] }));
    assert_eq!(entry["before"]["limits"], json!({ "stepsMax": 7 }));
    let grants = host.get("/admin/v1/modules/order/grants").await.json();
    assert_eq!(grants, json!({ "http": [], "addresses": [], "secrets": {}, "env": {} }));
    assert_eq!(host.get("/admin/v1/modules/order/limits").await.json()["stepsMax"]["set"], Value::Null);
    assert_eq!(host.put(SHIP, "").await.json()["waiting"], true);
}

#[tokio::test]
async fn grants_of_the_wrong_shape_are_422_and_named() {
    let host = Host::start().await;
    let cases = [
        (json!([]), "wrong_shape: the body must be a JSON object, this is an array"),
        (
            json!({ "htpp": [] }),
            "wrong_shape: the body has no field \"htpp\"; allowed are http, addresses, secrets, env",
        ),
        (
            json!({ "http": [{ "host": "a.com", "method": "GET" }] }),
            "wrong_shape: `http` cannot be taken: unknown field `method`, expected one of `scheme`, `host`, `port`, \
             `methods`",
        ),
        (json!({ "http": [{}] }), "wrong_shape: `http` cannot be taken: missing field `host`"),
        (
            json!({ "http": [{ "host": "a.com:443" }] }),
            "wrong_shape: `http` cannot be taken: \"a.com:443\" is no pattern of hosts: it is a name",
        ),
        (
            json!({ "http": [{ "host": "a.com", "port": 0 }] }),
            "out_of_range: `/http/0/port`: it must be from 1 to 65535",
        ),
        (
            json!({ "addresses": ["10.0.0.0/33"] }),
            "wrong_shape: `addresses` cannot be taken: \"10.0.0.0/33\" is no range of addresses",
        ),
        (
            json!({ "secrets": { "a b": [] } }),
            "wrong_shape: `secrets` cannot be taken: \"a b\" is no name of a secret",
        ),
        (json!({ "env": { "A": 1 } }), "wrong_shape: `env` cannot be taken: invalid type: integer `1`"),
        (json!({ "env": { "A": "\u{0}" } }), "out_of_range: `/env/A`: the character NUL ends a variable"),
    ];
    for (grants, expected) in cases {
        let refusal = host.grant(&grants).await.refusal();
        assert!(refusal.starts_with(&format!("422 {expected}")), "{grants}: {refusal}");
    }
    let answer = host.call("PUT", "/admin/v1/modules/order/grants", JSON, "{").await;
    assert!(answer.refusal().starts_with("400 not_json: "), "{}", answer.text);
    let answer = host.call("PUT", "/admin/v1/modules/order/grants", "text/plain", "{}").await;
    assert!(answer.refusal().starts_with("415 wrong_content_type: "), "{}", answer.text);
    let answer = host.call("PUT", "/admin/v1/modules/or%20der/grants", JSON, "{}").await;
    assert!(answer.refusal().starts_with("422 out_of_range: `taskName`"), "{}", answer.text);
    assert_eq!(host.trail(9).await.len(), 1, "nothing but the upload");
}

#[tokio::test]
async fn limits_are_shown_with_what_makes_them_and_replaced_as_a_whole() {
    let host = Host::start().await;
    let shown = host.get("/admin/v1/modules/order/limits").await.json();
    assert_eq!(shown.as_object().unwrap().len(), 17);
    let steps = json!({
        "value": 50_000, "default": 50_000, "ceiling": 200_000, "set": null,
        "meaning": "durable calls that a run may record",
    });
    assert_eq!(shown["stepsMax"], steps);

    let path = "/zart/admin/v1/modules/order/limits?triggeredBy=ann&reason=small";
    let set = json!({ "stepsMax": 100, "outputMaxBytes": 0, "liveMax": null }).to_string();
    let answer = host.call("PUT", path, JSON, set.clone()).await;

    assert_eq!(answer.status, 200, "{}", answer.text);
    let told = |shown: &Value, limit: &str| (shown[limit]["value"].clone(), shown[limit]["set"].clone());
    assert_eq!(told(&answer.json(), "stepsMax"), (json!(100), json!(100)));
    assert_eq!(told(&answer.json(), "outputMaxBytes"), (json!(0), json!(0)));
    assert_eq!(told(&answer.json(), "liveMax"), (json!(100_000), Value::Null));
    assert_eq!(host.get("/admin/v1/modules/order/limits").await.json(), answer.json());
    host.call("PUT", path, JSON, set).await;
    assert_eq!(host.trail(2).await[0], "ann set_limits order - small");
    assert_eq!(host.trail(2).await[1], "- upload_module order 1 -", "the second time changed nothing");

    let answer = host.limit(&json!({ "outputMaxBytes": 7 })).await.json();
    assert_eq!(told(&answer, "stepsMax"), (json!(50_000), Value::Null));
    let entry = &host.get("/admin/v1/audit?action=set_limits&limit=1").await.json()[0];
    assert_eq!(entry["before"], json!({ "stepsMax": 100, "outputMaxBytes": 0 }));
    assert_eq!(entry["after"], json!({ "outputMaxBytes": 7 }));
    // What is granted is another matter, and stays.
    host.grant(&json!({ "env": { "A": "1" } })).await;
    host.limit(&json!({})).await;
    assert_eq!(host.get("/admin/v1/modules/order/grants").await.json()["env"], json!({ "A": "1" }));
    host.limit(&json!({ "stepsMax": 3 })).await;
    host.grant(&json!({})).await;
    assert_eq!(
        told(&host.get("/admin/v1/modules/order/limits").await.json(), "stepsMax"),
        (json!(3), json!(3))
    );
}

#[tokio::test]
async fn limits_that_cannot_be_set_are_422_and_named() {
    let host = Host::start().await;
    for (limits, field, expected) in [
        (
            json!({ "steps": 1 }),
            "steps",
            "wrong_shape: the body has no field \"steps\"; allowed are memoryMaxBytes, ",
        ),
        (
            json!({ "stepsMax": "7" }),
            "stepsMax",
            "wrong_shape: `stepsMax` must be a whole number, this is a string",
        ),
        (
            json!({ "stepsMax": -1 }),
            "stepsMax",
            "out_of_range: `stepsMax`: must be a whole number from 0 to ",
        ),
        (json!({ "stepsMax": 0 }), "stepsMax", "out_of_range: stepsMax must be at least 1, this is 0"),
        (
            json!({ "stepsMax": 200_001 }),
            "stepsMax",
            "out_of_range: stepsMax may be 200000 at most on this host, this is 200001; the host's ceiling is raised \
             with --ceiling stepsMax=200001",
        ),
    ] {
        let answer = host.limit(&limits).await;
        let refusal = answer.refusal();
        assert!(refusal.starts_with(&format!("422 {expected}")), "{limits}: {refusal}");
        assert_eq!(answer.json()["field"], field);
    }
    assert_eq!(host.get("/admin/v1/modules/order/limits").await.json()["stepsMax"]["set"], Value::Null);
}
