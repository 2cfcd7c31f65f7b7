use stepbox_guest::{StepError, step};

#[step(name = "")]
fn empty() -> Result<(), StepError> {
    Ok(())
}

#[step(name = "audit {package.name}")]
fn no_such_argument(crate_name: String) -> Result<(), StepError> {
    let _ = crate_name;
    Ok(())
}

#[step(name = "audit {package")]
fn no_partner(package: String) -> Result<(), StepError> {
    let _ = package;
    Ok(())
}

#[step(name = "audit {package.len()}")]
fn a_call(package: String) -> Result<(), StepError> {
    let _ = package;
    Ok(())
}

#[step(name = "audit {package.nmae}")]
fn no_such_field(package: Package) -> Result<(), StepError> {
    let _ = package;
    Ok(())
}

#[derive(serde::Serialize, serde::Deserialize, schemars::JsonSchema)]
struct Package {
    name: String,
}

fn main() {}
