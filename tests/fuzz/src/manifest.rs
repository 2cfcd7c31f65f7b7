//! Manifests, nearly right.

use serde_json::{Value, json};
use stepbox_domain::Manifest;

use super::{dice::Dice, json as any_json, run::Run};

pub fn fuzz(run: &mut Run) {
    while let Some((number, mut dice)) = run.next() {
        let text = input(&mut dice);
        run.check(number, text.as_bytes(), || holds(&text));
    }
}

fn holds(text: &str) -> Result<String, String> {
    match Manifest::parse(text) {
        Ok(manifest) => {
            if Manifest::parse(text).as_ref() != Ok(&manifest) {
                return Err("it is read differently the second time".to_owned());
            }
            if manifest.steps.len() > 1_000 {
                return Err(format!("{} steps", manifest.steps.len()));
            }
            for step in &manifest.steps {
                step.options.retry.check().map_err(|error| format!("a policy was let in: {error}"))?;
                let name = stepbox_domain::StepName::parse(&step.function);
                name.map_err(|error| format!("a step's name was let in: {error}"))?;
            }
            // What the host keeps is the text, written anew: it has to mean the same.
            let again = serde_json::from_str::<Value>(text).map_err(|error| error.to_string())?.to_string();
            match Manifest::parse(&again) {
                Ok(other) if other == manifest => Ok("accepted".to_owned()),
                other => Err(format!("written anew it is {other:?}")),
            }
        }
        Err(error) => {
            let words = error.to_string();
            let is_said = words.len() > 10 && words.len() < 4_000;
            let kind = format!("{error:?}").chars().take_while(|c| c.is_alphanumeric()).collect::<String>();
            if is_said { Ok(format!("refused: {kind}")) } else { Err(format!("the refusal says {words:?}")) }
        }
    }
}

fn input(dice: &mut Dice) -> String {
    let mut manifest = manifest(dice);
    if !dice.one_in(3) {
        any_json::mutate(dice, &mut manifest);
    }
    any_json::text(dice, &manifest)
}

/// One that is right, but for what chance makes of its numbers and texts.
pub fn manifest(dice: &mut Dice) -> Value {
    let mut manifest = json!({ "stepbox": dice.pick(&["0.1.0", "0.1.9", "0.2.0", "0.1", "1.0.0"]) });
    let maybe = |dice: &mut Dice| dice.one_in(3);
    if maybe(dice) {
        manifest["sdk"] = json!(dice.text());
    }
    if maybe(dice) {
        manifest["description"] = json!(dice.text());
    }
    if maybe(dice) {
        manifest["task"] =
            json!({ "timeoutMs": dice.number(), "payload": schema(dice), "result": schema(dice) });
    }
    if !maybe(dice) {
        manifest["steps"] = (0..dice.below(5)).map(|n| step(dice, n)).collect();
    }
    if maybe(dice) {
        manifest["capabilities"] = capabilities(dice);
    }
    if dice.one_in(10) {
        manifest["onFailure"] = json!(dice.one_in(2));
    }
    if dice.one_in(10) {
        manifest["schedules"] = any_json::any(dice, 2);
    }
    manifest
}

fn step(dice: &mut Dice, number: usize) -> Value {
    let name = if dice.one_in(4) { dice.text() } else { format!("step-{number}") };
    let mut step = json!({ "function": name });
    if dice.one_in(2) {
        step["retry"] = json!({
            "attemptsMax": dice.below(6),
            "delayFirstMs": dice.number() >> 20,
            "growthPercent": dice.below(1_200),
            "delayMaxMs": dice.number() >> 10,
            "jitter": dice.one_in(2),
        });
    }
    if dice.one_in(3) {
        step["timeoutMs"] = json!(dice.number());
        step["timeoutScope"] = json!(dice.pick(&["all-attempts", "per-attempt", "never"]));
    }
    if dice.one_in(3) {
        step["input"] = schema(dice);
    }
    step
}

fn schema(dice: &mut Dice) -> Value {
    match dice.below(4) {
        0 => json!(true),
        1 => json!({ "type": "object", "properties": { dice.text(): { "type": dice.text() } } }),
        2 => json!({ "$ref": "#/definitions/a", "definitions": { "a": { "$ref": "#/definitions/a" } } }),
        _ => any_json::any(dice, 4),
    }
}

pub fn capabilities(dice: &mut Dice) -> Value {
    let host = |dice: &mut Dice| {
        dice.pick(&[
            "api.example.com",
            "*.example.com",
            "*",
            "127.0.0.1",
            "[::1]",
            "EXAMPLE.com.",
            "a..b",
            "*.*",
            "http://x",
        ])
        .to_owned()
    };
    let rule = |dice: &mut Dice| {
        let mut rule = json!({ "host": host(dice), "methods": [dice.pick(&["GET", "POST", "get", ""])] });
        if dice.one_in(2) {
            rule["port"] = json!(dice.number());
            rule["scheme"] = json!(dice.pick(&["http", "https", "ftp"]));
        }
        rule
    };
    let secret = |dice: &mut Dice| json!({ "name": dice.pick(&["KEY", "", "a b"]), "hosts": [host(dice)] });
    json!({
        "http": (0..dice.below(3)).map(|_| rule(dice)).collect::<Vec<_>>(),
        "secrets": (0..dice.below(3)).map(|_| secret(dice)).collect::<Vec<_>>(),
        "env": [dice.pick(&["LOG_LEVEL", "1A", "", "A=B"])],
    })
}
