//! What can cross between the host and a guest: JSON with a schema.
//!
//! Each trait is had by deriving serde's and schemars' traits, and none names those as its
//! supertraits: so a type that lacks one is told with one message, which says what to derive.

use std::collections::BTreeMap;

use schemars::generate::{SchemaGenerator, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde::ser::{SerializeMap, Serializer};
use serde_json::value::RawValue;
use serde_json::{Result as JsonResult, Value, json};

/// What a step takes and gives: written on one side, read on the other.
///
/// Nobody implements this by hand: derive `serde::Serialize`, `serde::Deserialize` and
/// `schemars::JsonSchema`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot cross between a handler and its steps",
    label = "needs `Serialize`, `Deserialize` and `JsonSchema`, and must own its data",
    note = "add `#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]` to `{Self}`"
)]
pub trait Data: Sized {
    #[doc(hidden)]
    fn write(&self) -> JsonResult<Box<RawValue>>;
    #[doc(hidden)]
    fn read(json: &str) -> JsonResult<Self>;
    /// Of what `read` takes, among the definitions of `generator`.
    #[doc(hidden)]
    fn schema_among(generator: &mut SchemaGenerator) -> Schema;
    /// Of what `write` gives.
    #[doc(hidden)]
    fn schema() -> Value;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + JsonSchema> Data for T {
    fn write(&self) -> JsonResult<Box<RawValue>> {
        serde_json::value::to_raw_value(self)
    }

    fn read(json: &str) -> JsonResult<Self> {
        serde_json::from_str(json)
    }

    fn schema_among(generator: &mut SchemaGenerator) -> Schema {
        generator.subschema_for::<T>()
    }

    fn schema() -> Value {
        schema_of_output::<T>()
    }
}

/// What a task takes: read, never written, by the guest.
///
/// Nobody implements this by hand: derive `serde::Deserialize` and `schemars::JsonSchema`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the payload of a task",
    label = "needs `Deserialize` and `JsonSchema`, and must own its data",
    note = "add `#[derive(serde::Deserialize, schemars::JsonSchema)]` to `{Self}`"
)]
pub trait Payload: Sized {
    #[doc(hidden)]
    fn read(json: &str) -> JsonResult<Self>;
    #[doc(hidden)]
    fn schema() -> Value;
}

#[diagnostic::do_not_recommend]
impl<T: DeserializeOwned + JsonSchema> Payload for T {
    fn read(json: &str) -> JsonResult<Self> {
        serde_json::from_str(json)
    }

    fn schema() -> Value {
        let generator = SchemaSettings::draft2020_12().for_deserialize().into_generator();
        generator.into_root_schema_for::<T>().to_value()
    }
}

/// What a task gives: written, never read, by the guest.
///
/// Nobody implements this by hand: derive `serde::Serialize` and `schemars::JsonSchema`.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the result of a task",
    label = "needs `Serialize` and `JsonSchema`",
    note = "add `#[derive(serde::Serialize, schemars::JsonSchema)]` to `{Self}`"
)]
pub trait Output {
    #[doc(hidden)]
    fn write(&self) -> JsonResult<String>;
    #[doc(hidden)]
    fn schema() -> Value;
}

#[diagnostic::do_not_recommend]
impl<T: Serialize + JsonSchema> Output for T {
    fn write(&self) -> JsonResult<String> {
        serde_json::to_string(self)
    }

    fn schema() -> Value {
        schema_of_output::<T>()
    }
}

fn schema_of_output<T: JsonSchema>() -> Value {
    SchemaSettings::draft2020_12().for_serialize().into_generator().into_root_schema_for::<T>().to_value()
}

/// The arguments of a step: on the wire a JSON object with their names. Implemented for tuples.
pub trait Arguments: Sized {
    fn to_json(&self, names: &[&str]) -> JsonResult<String>;
    /// A message for people when `json` does not fit.
    fn from_json(names: &[&str], json: &str) -> Result<Self, String>;
    fn schema(names: &[&str]) -> Value;
}

macro_rules! arguments {
    ($($T:ident $index:tt),*) => {
        impl<$($T: Data),*> Arguments for ($($T,)*) {
            fn to_json(&self, names: &[&str]) -> JsonResult<String> {
                let mut json = Vec::new();
                let mut serializer = serde_json::Serializer::new(&mut json);
                #[allow(unused_mut)]
                let mut map = serializer.serialize_map(Some(names.len()))?;
                $(map.serialize_entry(names[$index], &self.$index.write()?)?;)*
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
        Some(json) => {
            T::read(json.get()).map_err(|error| format!("its argument `{name}` does not fit: {error}"))
        }
        // What is optional may be left out, as in a struct.
        None => T::read("null").map_err(|_| format!("its argument `{name}` is missing")),
    }
}

/// With whether it is required.
fn argument_schema<T: Data>(generator: &mut SchemaGenerator) -> (Schema, bool) {
    (T::schema_among(generator), T::read("null").is_err())
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
        let schema = <Args as Arguments>::schema(NAMES);

        assert_eq!(schema["required"], json!(["id"]));
        assert_eq!(schema["properties"]["id"]["type"], json!("integer"));
        assert_eq!(schema["properties"]["note"]["type"], json!(["string", "null"]));
    }
}
