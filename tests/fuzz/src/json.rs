//! JSON that is nearly what was expected.

use serde_json::{Map, Value, json};

use super::dice::Dice;

/// Any value, not deep.
pub fn any(dice: &mut Dice, depth: usize) -> Value {
    match dice.below(if depth == 0 { 6 } else { 8 }) {
        0 => Value::Null,
        1 => json!(dice.one_in(2)),
        2 => json!(dice.number()),
        3 => json!(-(dice.below(1_000_000) as i64)),
        4 => json!(dice.number() as f64 / 7.0),
        5 => json!(dice.text()),
        6 => (0..dice.below(4)).map(|_| any(dice, depth - 1)).collect(),
        _ => Value::Object((0..dice.below(4)).map(|_| (dice.text(), any(dice, depth - 1))).collect()),
    }
}

/// Changes something somewhere in `value`.
pub fn mutate(dice: &mut Dice, value: &mut Value) {
    if dice.one_in(3) {
        *value = any(dice, 3);
        return;
    }
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(dice.below(fields.len())).cloned().unwrap_or_default();
            match dice.below(5) {
                0 => drop(fields.remove(&name)),
                1 => drop(fields.insert(dice.text(), any(dice, 2))),
                2 => {
                    let taken = fields.remove(&name).unwrap_or_default();
                    fields.insert(name.to_uppercase(), taken);
                }
                _ => mutate(dice, fields.entry(name).or_insert(Value::Null)),
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = dice.below(items.len());
            match dice.below(4) {
                0 => drop(items.remove(at)),
                1 => {
                    let twice = items[at].clone();
                    items.push(twice);
                }
                _ => mutate(dice, &mut items[at]),
            }
        }
        other => *other = any(dice, 3),
    }
}

/// As text; now and then as no JSON writer would write it.
pub fn text(dice: &mut Dice, value: &Value) -> String {
    let text = value.to_string();
    match dice.below(12) {
        0 => {
            let mut bytes = text.into_bytes();
            dice.mutate(&mut bytes, &[]);
            String::from_utf8_lossy(&bytes).into_owned()
        }
        1 => {
            let depth_max = if dice.one_in(20) { 50_000 } else { 300 };
            let depth = dice.below(depth_max);
            format!("{}{text}{}", "[".repeat(depth), "]".repeat(depth))
        }
        2 => twice(&text),
        3 => text.replace(',', " ,\n\t"),
        4 => text.replacen('"', "\"\\ud800", 1),
        _ => text,
    }
}

/// The first field of an object, twice.
fn twice(text: &str) -> String {
    match serde_json::from_str::<Map<String, Value>>(text) {
        Ok(fields) if !fields.is_empty() => {
            let (name, value) = fields.iter().next().unwrap_or_else(|| unreachable!("there is one"));
            format!("{{{}:{value},{}", Value::from(name.as_str()), &text[1..])
        }
        _ => text.to_owned(),
    }
}
