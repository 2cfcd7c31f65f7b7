//! What can cross between a handler and its steps: JSON with a schema.

use std::collections::BTreeMap;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Value, json};

/// A type that can cross between a handler and its steps. Nobody implements this by hand: derive
/// `serde::Serialize`, `serde::Deserialize` and `schemars::JsonSchema`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross between a handler and its steps",
    label = "needs `Serialize`, `Deserialize` and `JsonSchema`, and must own its data",
    note = "add `#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]` to `{Self}`"
)]
pub trait Data: Serialize + DeserializeOwned + JsonSchema {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + JsonSchema> Data for T {}

/// The payload of a task: read, never written, by the guest.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the payload of a task",
    label = "needs `Deserialize` and `JsonSchema`, and must own its data",
    note = "add `#[derive(serde::Deserialize, schemars::JsonSchema)]` to `{Self}`"
)]
pub trait Payload: DeserializeOwned + JsonSchema {}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + JsonSchema> Payload for T {}

/// The result of a task: written, never read, by the guest.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task",
    label = "needs `Serialize` and `JsonSchema`",
    note = "add `#[derive(serde::Serialize, schemars::JsonSchema)]` to `{Self}`"
)]
pub trait Output: Serialize + JsonSchema {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + JsonSchema> Output for T {}

/// The arguments of a step: on the wire a JSON object with their names. Implemented for tuples.
pub trait Arguments: Sized {
    fn to_json(&self, names: &[&str]) -> serde_json::Result<String>;
    /// A message for people when `json` does not fit.
    fn from_json(names: &[&str], json: &str) -> Result<Self, String>;
    fn schema(names: &[&str]) -> Value;
}

macro_rules! arguments {
    ($($T:ident $index:tt),*) => {
        impl<$($T: Data),*> Arguments for ($($T,)*) {
            fn to_json(&self, names: &[&str]) -> serde_json::Result<String> {
                let mut json = Vec::new();
                let mut serializer = serde_json::Serializer::new(&mut json);
                #[allow(unused_mut)]
                let mut map = serializer.serialize_map(Some(names.len()))?;
                $(map.serialize_entry(names[$index], &self.$index)?;)*
                map.end()?;
                // serde_json writes UTF-8 only.
                Ok(String::from_utf8_lossy(&json).into_owned())
            }

            #[allow(unused_variables)]
            fn from_json(names: &[&str], json: &str) -> Result<Self, String> {
                let given: BTreeMap<String, &RawValue> = serde_json::from_str(json)
                    .map_err(|error| format!("its arguments are not a JSON object: {error}"))?;
                Ok(($(argument::<$T>(&given, names[$index])?,)*))
            }

            #[allow(unused_mut, unused_variables)]
            fn schema(names: &[&str]) -> Value {
                let mut generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
                let schemas: Vec<(Schema, bool)> = vec![$(argument_schema::<$T>(&mut generator)),*];
                object_schema(names, schemas, generator)
            }
        }
    };
}

arguments!();
arguments!(A 0);
arguments!(A 0, B 1);
arguments!(A 0, B 1, C 2);
arguments!(A 0, B 1, C 2, D 3);
arguments!(A 0, B 1, C 2, D 3, E 4);
arguments!(A 0, B 1, C 2, D 3, E 4, F 5);
arguments!(A 0, B 1, C 2, D 3, E 4, F 5, G 6);
arguments!(A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);

fn argument<T: Data>(given: &BTreeMap<String, &RawValue>, name: &str) -> Result<T, String> {
    match given.get(name) {
        Some(json) => serde_json::from_str(json.get())
            .map_err(|error| format!("its argument `{name}` does not fit: {error}")),
        // What is optional may be left out, as in a struct.
        None => T::deserialize(Value::Null).map_err(|_| format!("its argument `{name}` is missing")),
    }
}

fn argument_schema<T: Data>(generator: &mut SchemaGenerator) -> (Schema, bool) {
    let required = T::deserialize(Value::Null).is_err();
    (generator.subschema_for::<T>(), required)
}

fn object_schema(names: &[&str], schemas: Vec<(Schema, bool)>, mut generator: SchemaGenerator) -> Value {
    let mut properties = serde_json::Map::new();
    let mut required = Vec::new();
    for (name, (schema, is_required)) in names.iter().zip(schemas) {
        properties.insert((*name).to_owned(), schema.to_value());
        if is_required {
            required.push(*name);
        }
    }
    let mut schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": required,
    });
    let definitions = generator.take_definitions(true);
    if !definitions.is_empty() {
        schema["$defs"] = Value::Object(definitions);
    }
    schema
}

/// The schema of what `T` can be read from.
pub fn schema_in<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_deserialize().into_generator().into_root_schema_for::<T>().to_value()
}

/// The schema of what `T` is written as.
pub fn schema_out<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NAMES: &[&str] = &["id", "note"];
    type Args = (u64, Option<String>);

    #[test]
    fn arguments_cross_by_name_in_the_order_of_the_signature() {
        let json = (7, Some("fragile".to_owned())).to_json(NAMES).unwrap();

        assert_eq!(json, r#"{"id":7,"note":"fragile"}"#);
        assert_eq!(Args::from_json(NAMES, &json), Ok((7, Some("fragile".to_owned()))));
    }

    #[test]
    fn arguments_that_do_not_fit_are_named() {
        let error = |json| Args::from_json(NAMES, json).unwrap_err();

        assert_eq!(Args::from_json(NAMES, r#"{"id":7,"gone":1}"#), Ok((7, None)));
        assert_eq!(error(r#"{"note":"x"}"#), "its argument `id` is missing");
        assert_eq!(
            error(r#"{"id":"seven"}"#),
            "its argument `id` does not fit: invalid type: string \"seven\", expected u64 at line 1 column 7"
        );
        assert!(error("[]").starts_with("its arguments are not a JSON object"));
    }

    #[test]
    fn the_schema_of_arguments_is_an_object_with_their_names() {
        let schema = Args::schema(NAMES);

        assert_eq!(schema["required"], json!(["id"]));
        assert_eq!(schema["properties"]["id"]["type"], json!("integer"));
        assert_eq!(schema["properties"]["note"]["type"], json!(["string", "null"]));
    }
}
