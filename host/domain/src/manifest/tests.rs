use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::capability::LIST_MAX;

fn refused(value: Value) -> String {
    Manifest::parse(&value.to_string()).unwrap_err().to_string()
}

/// The smallest manifest, with `fields` on top.
fn with(fields: Value) -> Value {
    let mut manifest = json!({ "stepbox": "0.1.0" });
    for (name, value) in fields.as_object().unwrap() {
        manifest[name] = value.clone();
    }
    manifest
}

/// The example in the documentation is read as the table there says.
#[test]
fn the_documented_example_is_read() {
    let page = include_str!("../../../../docs/manifest.md");
    let example = page.split("```json").nth(1).and_then(|rest| rest.split("```").next()).unwrap();

    let manifest = Manifest::parse(example).unwrap();

    assert_eq!(manifest.contract, CONTRACT);
    assert_eq!(manifest.sdk.as_deref(), Some("stepbox-guest 0.1.0"));
    assert_eq!(manifest.description.as_deref(), Some("Charges, ships and confirms one order."));
    assert_eq!(manifest.task.timeout_ms, Some(1_800_000));
    assert_eq!(manifest.task.payload.as_ref().unwrap()["properties"]["orderId"]["type"], "string");
    let [charge] = &manifest.steps[..] else { panic!("one step") };
    assert_eq!(charge.function, "charge");
    assert_eq!(charge.options.timeout_ms, Some(30_000));
    assert_eq!(charge.options.timeout_scope, TimeoutScope::AllAttempts);
    let retry = &charge.options.retry;
    assert_eq!((retry.attempts_max, retry.delay_first_ms, retry.growth_percent), (3, 2_000, 200));
    assert_eq!((retry.delay_max_ms, retry.jitter), (3_600_000, true));
    let [api] = &manifest.wants.http[..] else { panic!("one rule") };
    assert_eq!(api.to_string(), "POST https://api.stripe.com");
    assert_eq!(manifest.wants.secrets[0].name.as_str(), "STRIPE_KEY");
    assert_eq!(manifest.wants.env[0].as_str(), "REGION");
}

#[test]
fn the_version_alone_is_enough() {
    let manifest = Manifest::parse(r#"{"stepbox":"0.1.7"}"#).unwrap();
    assert_eq!(manifest.task, TaskManifest::default());
    assert_eq!(manifest.steps, []);
}

#[test]
fn null_is_as_good_as_left_out_and_unknown_fields_pass() {
    let manifest = with(json!({
        "description": null, "task": { "timeoutMs": null, "color": 1 }, "steps": null, "capabilities": null,
        "colour": { "any": "thing" }, "schedules": null, "onFailure": null,
    }));
    assert!(Manifest::parse(&manifest.to_string()).is_ok());
}

/// Each refusal names the field and what to do.
#[test]
fn refusals_name_the_field() {
    let refusals = [
        (json!([]), "the manifest must be a JSON object, this is an array"),
        (
            json!({}),
            "`/stepbox` is missing: it must be the version of the guest contract, as a string like \"0.1.0\"",
        ),
        (
            json!({"stepbox": 1}),
            "`/stepbox` must be the version of the guest contract, as a string like \"0.1.0\", this is a number",
        ),
        (
            json!({"stepbox": "0.1"}),
            "`/stepbox`: \"0.1\" is not the version of the guest contract, as a string like \"0.1.0\"",
        ),
        (
            json!({"stepbox": "0.2.0"}),
            "`/stepbox`: the module was made for version 0.2.0 of the guest contract and this host speaks \
             0.1.0; build it with an SDK for 0.1.x",
        ),
        (with(json!({"sdk": 5})), "`/sdk` must be a string, this is a number"),
        (
            with(json!({"description": "x".repeat(10_001)})),
            "`/description`: 10001 characters are too many; at most 10000 are allowed",
        ),
        (with(json!({"task": "t"})), "`/task` must be an object, this is a string"),
        (
            with(json!({"task": {"timeoutMs": -5}})),
            "`/task/timeoutMs` must be a whole number from 0 to 2^64-1, this is a negative number",
        ),
        (
            with(json!({"task": {"timeoutMs": 0}})),
            "`/task/timeoutMs`: a timeout of 0 ms would be over before anything starts; leave it out for none",
        ),
        (
            with(json!({"task": {"payload": 7}})),
            "`/task/payload` must be a JSON Schema (an object), this is a number",
        ),
        (with(json!({"steps": {}})), "`/steps` must be an array, this is an object"),
        (with(json!({"steps": [1]})), "`/steps/0` must be an object, this is a number"),
        (
            with(json!({"steps": [{"function": "a"}, {}]})),
            "`/steps/1/function` is missing: it must be the name that run-step dispatches on, as a string",
        ),
        (
            with(json!({"steps": [{"function": "a"}, {"function": "a"}]})),
            "`/steps/1/function`: \"a\" is in the list twice",
        ),
        (
            with(json!({"steps": [{"function": ""}]})),
            "`/steps/0/function`: a step name must have 1 to 200 characters, this one has 0",
        ),
        (
            with(json!({"steps": [{"function": "a", "retry": {"attemptsMax": 3}}]})),
            "`/steps/0/retry/delayFirstMs` is missing: it must be a whole number",
        ),
        (
            with(json!({"steps": [{"function": "a", "retry": {
                "attemptsMax": 3, "delayFirstMs": 1, "growthPercent": 50, "delayMaxMs": 1, "jitter": false }}]})),
            "`/steps/0/retry`: growth-percent must be from 100 (fixed) to 1000 (tenfold), got 50",
        ),
        (
            with(json!({"steps": [{"function": "a", "timeoutScope": "global"}]})),
            "`/steps/0/timeoutScope`: \"global\" is neither \"all-attempts\" nor \"per-attempt\"",
        ),
        (
            with(json!({"onFailure": true})),
            "`/onFailure`: compensation is not supported by this host yet; leave the field out",
        ),
        (with(json!({"onFailure": "yes"})), "`/onFailure` must be true or false, this is a string"),
        (
            with(json!({"schedules": [{}]})),
            "`/schedules`: starting a task on a schedule is not supported by this host yet; leave the field out",
        ),
    ];
    for (manifest, expected) in refusals {
        assert_eq!(refused(manifest), expected);
    }
}

#[test]
fn what_is_too_large_is_refused_before_it_is_read() {
    let text = " ".repeat(MANIFEST_MAX_BYTES + 1);
    assert!(matches!(Manifest::parse(&text), Err(ManifestError::TooLarge { .. })));

    let steps: Vec<Value> = (0..=STEPS_MAX).map(|n| json!({ "function": format!("s{n}") })).collect();
    assert_eq!(
        refused(with(json!({ "steps": steps }))),
        "`/steps`: 1001 steps are listed; at most 1000 are allowed"
    );
}

#[test]
fn what_is_not_json_is_named_with_its_place() {
    let error = Manifest::parse("{\n  \"stepbox\": 0.1.0\n}").unwrap_err().to_string();
    assert!(error.starts_with("the manifest is not JSON: ") && error.contains("line 2"), "{error}");
}

/// Any JSON, with the manifest's own field names here and there so that the reader is reached.
fn any_json() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        prop_oneof![Just("0.1.0".to_owned()), ".*".prop_map(|s: String| s)].prop_map(Value::from),
    ];
    leaf.prop_recursive(4, 64, 6, |inner| {
        let name = prop::sample::select(vec![
            "stepbox",
            "sdk",
            "description",
            "task",
            "timeoutMs",
            "payload",
            "result",
            "steps",
            "function",
            "retry",
            "attemptsMax",
            "delayFirstMs",
            "growthPercent",
            "delayMaxMs",
            "jitter",
            "timeoutScope",
            "input",
            "output",
            "onFailure",
            "capabilities",
            "http",
            "secrets",
            "env",
            "host",
            "hosts",
            "port",
            "methods",
            "schedules",
            "other",
        ]);
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::vec((name, inner), 0..6).prop_map(|fields| fields
                .into_iter()
                .map(|(name, value)| (name.to_owned(), value))
                .collect()),
        ]
    })
}

proptest! {
    #[test]
    fn never_panics_on_any_text(text in ".*") {
        let _ = Manifest::parse(&text);
    }

    #[test]
    fn never_panics_on_any_json(value in any_json()) {
        let mut value = value;
        let _ = Manifest::parse(&value.to_string());
        if let Some(fields) = value.as_object_mut() {
            fields.insert("stepbox".into(), "0.1.0".into());
            let _ = Manifest::parse(&value.to_string());
        }
    }

    /// What is accepted keeps the bounds that others rely on.
    #[test]
    fn what_is_accepted_is_within_bounds(value in any_json()) {
        let mut value = value;
        if let Some(fields) = value.as_object_mut() {
            fields.insert("stepbox".into(), "0.1.0".into());
        }
        if let Ok(manifest) = Manifest::parse(&value.to_string()) {
            prop_assert!(manifest.contract.speaks(CONTRACT));
            prop_assert!(manifest.steps.len() <= STEPS_MAX);
            prop_assert!(manifest.task.timeout_ms != Some(0));
            prop_assert!(manifest.wants.http.len() <= LIST_MAX && manifest.wants.env.len() <= LIST_MAX);
            for step in manifest.steps {
                prop_assert!(step.options.check().is_ok());
            }
        }
    }
}
