//! What a module says of itself, checked: `docs/manifest.md`.
//!
//! Read by hand from a JSON tree rather than derived, so that every refusal can name the field
//! (as a JSON pointer) and say what to do about it. Nothing here is trusted: the text comes from
//! whoever uploads.

mod wants;

use std::{collections::HashSet, fmt};

use serde_json::{Map, Value};

use crate::{
    StepName,
    capability::Wants,
    retry::RetryPolicy,
    step::{StepOptions, TimeoutScope},
};

/// The version of the guest contract that this host speaks: the package line of `wit/task.wit`.
pub const CONTRACT: ContractVersion = ContractVersion { major: 0, minor: 1, patch: 0 };

/// A manifest is read at every upload and kept for ever; schemas of some hundred steps fit well.
pub const MANIFEST_MAX_BYTES: usize = 1024 * 1024;
pub const STEPS_MAX: usize = 1_000;
/// For the texts that are meant for people.
pub const DESCRIPTION_MAX_CHARS: usize = 10_000;

/// What a module says of itself. Fields that this host does not know are not in here; the text
/// that is kept beside has them.
#[derive(Clone, Debug, PartialEq)]
pub struct Manifest {
    /// The version of the contract that the module was made for.
    pub contract: ContractVersion,
    /// Name and version of the SDK.
    pub sdk: Option<String>,
    pub description: Option<String>,
    pub task: TaskManifest,
    pub steps: Vec<StepManifest>,
    /// What it wants to reach; nothing is granted by that.
    pub wants: Wants,
}

#[derive(Clone, Debug, Default, PartialEq)]
pub struct TaskManifest {
    /// The execution's deadline, from its start.
    pub timeout_ms: Option<u64>,
    /// JSON Schema that a payload must satisfy.
    pub payload: Option<Value>,
    /// JSON Schema of the result, for people and tools.
    pub result: Option<Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct StepManifest {
    /// What `run-step` dispatches on.
    pub function: String,
    pub description: Option<String>,
    /// As the SDK will pass them, for people and tools.
    pub options: StepOptions,
    pub input: Option<Value>,
    pub output: Option<Value>,
}

/// The version of `wit/task.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContractVersion {
    pub major: u32,
    pub minor: u32,
    pub patch: u32,
}

impl ContractVersion {
    fn parse(text: &str) -> Option<Self> {
        let mut parts = text.split('.').map(|part| {
            let plain = !part.is_empty() && part.len() <= 9 && part.bytes().all(|b| b.is_ascii_digit());
            plain.then(|| part.parse().ok()).flatten()
        });
        let version = ContractVersion { major: parts.next()??, minor: parts.next()??, patch: parts.next()?? };
        parts.next().is_none().then_some(version)
    }

    /// Before 1.0 the minor number is the one that breaks.
    fn speaks(self, other: ContractVersion) -> bool {
        (self.major, self.minor) == (other.major, other.minor)
    }
}

impl fmt::Display for ContractVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.major, self.minor, self.patch)
    }
}

/// Why a manifest is refused. `field` is a JSON pointer (`/steps/0/function`).
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    #[error("the manifest has {bytes} bytes; at most {bytes_max} are allowed")]
    TooLarge { bytes: usize, bytes_max: usize },
    #[error("the manifest is not JSON: {0}")]
    NotJson(String),
    #[error("the manifest must be a JSON object, this is {found}")]
    NotAnObject { found: &'static str },
    #[error("`{field}` is missing: it must be {expected}")]
    Missing { field: String, expected: &'static str },
    #[error("`{field}` must be {expected}, this is {found}")]
    WrongShape { field: String, expected: &'static str, found: &'static str },
    #[error("`{field}`: {reason}")]
    BadValue { field: String, reason: String },
    #[error(
        "`/stepbox`: the module was made for version {module} of the guest contract and this host \
         speaks {host}; build it with an SDK for {}.{}.x", host.major, host.minor
    )]
    OtherContract { module: ContractVersion, host: ContractVersion },
    #[error("`{field}`: {what} is not supported by this host yet; leave the field out")]
    NotSupported { field: String, what: &'static str },
}

impl Manifest {
    /// Reads what `describe` returned.
    pub fn parse(text: &str) -> Result<Manifest, ManifestError> {
        if text.len() > MANIFEST_MAX_BYTES {
            return Err(ManifestError::TooLarge { bytes: text.len(), bytes_max: MANIFEST_MAX_BYTES });
        }
        let value = json(text)?;
        let root = Object::root(&value)?;
        let contract = contract(&root)?;
        refuse_what_is_not_offered(&root)?;
        Ok(Manifest {
            contract,
            sdk: root.text("sdk")?,
            description: root.text("description")?,
            task: match root.object("task")? {
                Some(task) => task_manifest(&task)?,
                None => TaskManifest::default(),
            },
            steps: steps(&root)?,
            wants: wants::wants(&root)?,
        })
    }
}

impl Wants {
    /// What a manifest that was accepted once says of them, whatever contract it was made for.
    pub fn of_manifest(text: &str) -> Result<Wants, ManifestError> {
        wants::wants(&Object::root(&json(text)?)?)
    }
}

fn json(text: &str) -> Result<Value, ManifestError> {
    serde_json::from_str(text).map_err(|error| ManifestError::NotJson(error.to_string()))
}

fn contract(root: &Object<'_>) -> Result<ContractVersion, ManifestError> {
    const EXPECTED: &str = "the version of the guest contract, as a string like \"0.1.0\"";
    let field = root.pointer_to("stepbox");
    let module = match root.get("stepbox") {
        None => return Err(ManifestError::Missing { field, expected: EXPECTED }),
        Some(Value::String(text)) => ContractVersion::parse(text).ok_or_else(|| ManifestError::BadValue {
            field,
            reason: format!("{:?} is not {EXPECTED}", shortened(text)),
        })?,
        Some(other) => return Err(wrong_shape(field, EXPECTED, other)),
    };
    if !CONTRACT.speaks(module) {
        return Err(ManifestError::OtherContract { module, host: CONTRACT });
    }
    Ok(module)
}

fn refuse_what_is_not_offered(root: &Object<'_>) -> Result<(), ManifestError> {
    let not_supported =
        |name: &str, what| Err(ManifestError::NotSupported { field: root.pointer_to(name), what });
    if root.bool("onFailure")? == Some(true) {
        return not_supported("onFailure", "compensation");
    }
    if root.array("schedules")?.is_some_and(|wanted| !wanted.is_empty()) {
        return not_supported("schedules", "starting a task on a schedule");
    }
    Ok(())
}

fn task_manifest(task: &Object<'_>) -> Result<TaskManifest, ManifestError> {
    Ok(TaskManifest {
        timeout_ms: task.duration_ms("timeoutMs")?,
        payload: task.schema("payload")?,
        result: task.schema("result")?,
    })
}

fn steps(root: &Object<'_>) -> Result<Vec<StepManifest>, ManifestError> {
    let Some(listed) = root.array("steps")? else { return Ok(Vec::new()) };
    let pointer = root.pointer_to("steps");
    if listed.len() > STEPS_MAX {
        let reason = format!("{} steps are listed; at most {STEPS_MAX} are allowed", listed.len());
        return Err(ManifestError::BadValue { field: pointer, reason });
    }
    let mut seen = HashSet::new();
    listed
        .iter()
        .enumerate()
        .map(|(index, value)| {
            let field = format!("{pointer}/{index}");
            let Value::Object(fields) = value else {
                return Err(wrong_shape(field, "an object", value));
            };
            let step = step_manifest(&Object { fields, pointer: field.clone() })?;
            if !seen.insert(step.function.clone()) {
                let reason = format!("\"{}\" is in the list twice", step.function);
                return Err(ManifestError::BadValue { field: format!("{field}/function"), reason });
            }
            Ok(step)
        })
        .collect()
}

fn step_manifest(step: &Object<'_>) -> Result<StepManifest, ManifestError> {
    let field = step.pointer_to("function");
    let expected = "the name that run-step dispatches on, as a string";
    let Some(function) = step.text("function")? else {
        return Err(ManifestError::Missing { field, expected });
    };
    // A step is called by its function's name where nothing else is said, so one rule fits both.
    StepName::parse(&function)
        .map_err(|error| ManifestError::BadValue { field, reason: error.to_string() })?;
    Ok(StepManifest {
        function,
        description: step.text("description")?,
        options: StepOptions {
            retry: match step.object("retry")? {
                Some(retry) => retry_policy(&retry)?,
                None => RetryPolicy::NONE,
            },
            timeout_ms: step.duration_ms("timeoutMs")?,
            timeout_scope: timeout_scope(step)?,
        },
        input: step.schema("input")?,
        output: step.schema("output")?,
    })
}

fn retry_policy(retry: &Object<'_>) -> Result<RetryPolicy, ManifestError> {
    let policy = RetryPolicy {
        attempts_max: retry.u32("attemptsMax")?,
        delay_first_ms: retry.u64("delayFirstMs")?,
        growth_percent: retry.u32("growthPercent")?,
        delay_max_ms: retry.u64("delayMaxMs")?,
        jitter: match retry.bool("jitter")? {
            Some(jitter) => jitter,
            None => {
                let field = retry.pointer_to("jitter");
                return Err(ManifestError::Missing { field, expected: "true or false" });
            }
        },
    };
    policy.check().map_err(|error| ManifestError::BadValue {
        field: retry.pointer.clone(),
        reason: error.to_string(),
    })?;
    Ok(policy)
}

fn timeout_scope(step: &Object<'_>) -> Result<TimeoutScope, ManifestError> {
    let field = step.pointer_to("timeoutScope");
    match step.text("timeoutScope")?.as_deref() {
        None | Some("all-attempts") => Ok(TimeoutScope::AllAttempts),
        Some("per-attempt") => Ok(TimeoutScope::PerAttempt),
        Some(other) => {
            let reason = format!("{:?} is neither \"all-attempts\" nor \"per-attempt\"", shortened(other));
            Err(ManifestError::BadValue { field, reason })
        }
    }
}

/// An object of the manifest, and where it stands. A field that is `null` counts as left out.
struct Object<'a> {
    fields: &'a Map<String, Value>,
    /// JSON pointer to this object; empty for the manifest itself.
    pointer: String,
}

impl<'a> Object<'a> {
    fn root(manifest: &'a Value) -> Result<Self, ManifestError> {
        match manifest {
            Value::Object(fields) => Ok(Object { fields, pointer: String::new() }),
            other => Err(ManifestError::NotAnObject { found: name_of(other) }),
        }
    }

    fn pointer_to(&self, name: &str) -> String {
        format!("{}/{name}", self.pointer)
    }

    fn get(&self, name: &str) -> Option<&'a Value> {
        self.fields.get(name).filter(|value| !value.is_null())
    }

    /// A text for people or a name: bounded, since it is shown.
    fn text(&self, name: &str) -> Result<Option<String>, ManifestError> {
        let field = || self.pointer_to(name);
        match self.get(name) {
            None => Ok(None),
            Some(Value::String(text)) => {
                let chars = text.chars().count();
                if chars > DESCRIPTION_MAX_CHARS {
                    let reason = format!(
                        "{chars} characters are too many; at most {DESCRIPTION_MAX_CHARS} are allowed"
                    );
                    return Err(ManifestError::BadValue { field: field(), reason });
                }
                Ok(Some(text.clone()))
            }
            Some(other) => Err(wrong_shape(field(), "a string", other)),
        }
    }

    fn bool(&self, name: &str) -> Result<Option<bool>, ManifestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Bool(value)) => Ok(Some(*value)),
            Some(other) => Err(wrong_shape(self.pointer_to(name), "true or false", other)),
        }
    }

    fn object(&self, name: &str) -> Result<Option<Object<'a>>, ManifestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Object(fields)) => Ok(Some(Object { fields, pointer: self.pointer_to(name) })),
            Some(other) => Err(wrong_shape(self.pointer_to(name), "an object", other)),
        }
    }

    fn array(&self, name: &str) -> Result<Option<&'a Vec<Value>>, ManifestError> {
        match self.get(name) {
            None => Ok(None),
            Some(Value::Array(items)) => Ok(Some(items)),
            Some(other) => Err(wrong_shape(self.pointer_to(name), "an array", other)),
        }
    }

    /// A JSON Schema is an object, or `true` or `false`. That it is a valid one is for those to
    /// check who can use it.
    fn schema(&self, name: &str) -> Result<Option<Value>, ManifestError> {
        match self.get(name) {
            None => Ok(None),
            Some(schema @ (Value::Object(_) | Value::Bool(_))) => Ok(Some(schema.clone())),
            Some(other) => Err(wrong_shape(self.pointer_to(name), "a JSON Schema (an object)", other)),
        }
    }

    fn optional_u64(&self, name: &str) -> Result<Option<u64>, ManifestError> {
        let expected = "a whole number from 0 to 2^64-1";
        match self.get(name) {
            None => Ok(None),
            Some(value) => match value.as_u64() {
                Some(number) => Ok(Some(number)),
                None => Err(wrong_shape(self.pointer_to(name), expected, value)),
            },
        }
    }

    fn duration_ms(&self, name: &str) -> Result<Option<u64>, ManifestError> {
        match self.optional_u64(name)? {
            Some(0) => Err(ManifestError::BadValue {
                field: self.pointer_to(name),
                reason: "a timeout of 0 ms would be over before anything starts; leave it out for none"
                    .to_owned(),
            }),
            other => Ok(other),
        }
    }

    fn u64(&self, name: &str) -> Result<u64, ManifestError> {
        self.optional_u64(name)?.ok_or_else(|| ManifestError::Missing {
            field: self.pointer_to(name),
            expected: "a whole number",
        })
    }

    fn u32(&self, name: &str) -> Result<u32, ManifestError> {
        let number = self.u64(name)?;
        u32::try_from(number).map_err(|_| ManifestError::BadValue {
            field: self.pointer_to(name),
            reason: format!("{number} is too large; at most {} is allowed", u32::MAX),
        })
    }
}

fn wrong_shape(field: String, expected: &'static str, found: &Value) -> ManifestError {
    ManifestError::WrongShape { field, expected, found: name_of(found) }
}

fn name_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(number) if number.is_f64() => "a number with a fraction or an exponent",
        Value::Number(number) if number.is_i64() && !number.is_u64() => "a negative number",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
}

fn shortened(text: &str) -> String {
    text.chars().take(40).collect()
}

#[cfg(test)]
mod tests;
