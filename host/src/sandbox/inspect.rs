//! Is this upload a task module? Every no says why, and what to do.

use stepbox_domain::{
    Digest, Json, Manifest,
    manifest::{CONTRACT, ManifestError},
};
use wasmtime::{
    Engine,
    component::{Component, types::ComponentItem},
};

use super::{
    bindings::TaskPre,
    instance::Module,
    output::{cut, printable},
    runtime::Runtime,
};

/// What was found out about a component that is a task module.
#[derive(Clone, Debug)]
pub struct Inspected {
    pub digest: Digest,
    pub size_bytes: usize,
    /// 0 where the machine code was there already.
    pub compiled_in_ms: u64,
    /// As the module gave it.
    pub manifest_text: Json,
    pub manifest: Manifest,
    pub imports: Vec<InterfaceItem>,
    pub exports: Vec<InterfaceItem>,
}

/// A line of what a component imports or exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InterfaceItem {
    /// `wasi:io/streams@0.2.6`, `run`.
    pub name: String,
    /// Of an interface: what of it is used.
    pub functions: Vec<String>,
}

/// Why an upload is no task module.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Rejected {
    #[error("the component has {bytes} bytes; at most {max_bytes} are allowed")]
    TooLarge { bytes: usize, max_bytes: usize },
    #[error("this is not a WebAssembly component: {found}")]
    NotAComponent { found: NotAComponent },
    #[error("the component does not compile: {reason}")]
    DoesNotCompile { reason: String },
    #[error("the component takes too much to compile: {limit}")]
    CompileLimit { limit: String },
    #[error("the component imports `{name}`: {why}")]
    ForbiddenImport { name: String, why: String },
    #[error(
        "the component does not export `{name}`; a task module exports `describe`, `run`, `run-step` and \
         `on-failure` (world `task` of wit/task.wit)"
    )]
    MissingExport { name: &'static str },
    #[error("the component does not fit the world `task` of wit/task.wit: {reason}")]
    WrongType { reason: String },
    #[error("the component does not describe itself: {reason}")]
    DescribeFailed { reason: String, backtrace: Option<String> },
    #[error(transparent)]
    BadManifest(#[from] ManifestError),
    /// Found by who knows schemas, which is not the sandbox.
    #[error("`task.payload` of its description is not a usable JSON Schema: {reason}")]
    BadSchema { reason: String },
    /// Not the upload's fault: to be tried again.
    #[error("the component could not be inspected now: {reason}")]
    Unavailable { reason: String },
}

/// What somebody uploaded instead of a component.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAComponent {
    #[error("it is empty")]
    Empty,
    #[error(
        "it is a core module; build it for the target wasm32-wasip2, or make a component of it with \
         `wasm-tools component new`"
    )]
    CoreModule,
    #[error("it is WebAssembly text; make a component of it with `wasm-tools parse`")]
    Text,
    #[error("it is machine code of wasmtime's; upload the component that it was made of")]
    MachineCode,
    #[error("it does not begin with the bytes of WebAssembly (00 61 73 6d)")]
    Garbage,
}

/// Looks at the first bytes, so that the usual mix-ups get a sentence of their own.
pub(super) fn looks_like_a_component(bytes: &[u8]) -> Result<(), Rejected> {
    let found = match bytes {
        [0, b'a', b's', b'm', 0x0d, 0, 1, 0, ..] => return Ok(()),
        [] => NotAComponent::Empty,
        [0, b'a', b's', b'm', 1, 0, 0, 0, ..] => NotAComponent::CoreModule,
        _ if Engine::detect_precompiled(bytes).is_some() => NotAComponent::MachineCode,
        _ if bytes.trim_ascii_start().starts_with(b"(") => NotAComponent::Text,
        _ => NotAComponent::Garbage,
    };
    Err(Rejected::NotAComponent { found })
}

/// Links the component with what the host offers; nothing of it runs.
pub(super) fn link(runtime: &std::sync::Arc<Runtime>, component: &Component) -> Result<Module, Rejected> {
    for name in imports(&runtime.engine, component).iter().map(|item| &item.name) {
        if let Err(why) = offered(name) {
            return Err(Rejected::ForbiddenImport { name: printable(cut(name, 300)), why });
        }
    }
    for name in ["describe", "run", "run-step", "on-failure"] {
        if component.component_type().get_export(&runtime.engine, name).is_none() {
            return Err(Rejected::MissingExport { name });
        }
    }
    let wrong_type =
        |error: wasmtime::Error| Rejected::WrongType { reason: printable(cut(&format!("{error:#}"), 2_000)) };
    let link = |linker: &wasmtime::component::Linker<_>| TaskPre::new(linker.instantiate_pre(component)?);
    Ok(Module {
        runtime: runtime.clone(),
        handler: link(&runtime.handler_linker).map_err(wrong_type)?,
        step: link(&runtime.step_linker).map_err(wrong_type)?,
    })
}

/// The packages of WASI 0.2 that guests are linked with. Sockets and files are there because
/// toolchains import them whether or not a guest uses them; every use of them is denied.
const WASI_OFFERED: [&str; 7] =
    ["wasi:cli", "wasi:clocks", "wasi:filesystem", "wasi:http", "wasi:io", "wasi:random", "wasi:sockets"];

/// Whether the host offers the interface `name`; if not, why.
fn offered(name: &str) -> Result<(), String> {
    let (path, version) = name.split_once('@').unwrap_or((name, ""));
    let package = path.split_once('/').map_or(path, |(package, _)| package);
    let ours = format!("{}.{}.", CONTRACT.major, CONTRACT.minor);
    match package {
        "stepbox:task" if version.starts_with(&ours) => Ok(()),
        "stepbox:task" => Err(format!("this host speaks version {CONTRACT} of the guest contract")),
        _ if package.starts_with("wasi:") && !version.is_empty() && !version.starts_with("0.2.") => {
            Err("this host offers WASI 0.2".to_owned())
        }
        _ if WASI_OFFERED.contains(&package) => Ok(()),
        _ => Err(format!(
            "this host offers `stepbox:task/durable` and, of WASI 0.2, {}",
            WASI_OFFERED.map(|package| format!("`{package}`")).join(", ")
        )),
    }
}

pub(super) fn imports(engine: &Engine, component: &Component) -> Vec<InterfaceItem> {
    let ty = component.component_type();
    ty.imports(engine).map(|(name, item)| interface_item(engine, name, &item.ty)).collect()
}

pub(super) fn exports(engine: &Engine, component: &Component) -> Vec<InterfaceItem> {
    let ty = component.component_type();
    ty.exports(engine).map(|(name, item)| interface_item(engine, name, &item.ty)).collect()
}

fn interface_item(engine: &Engine, name: &str, item: &ComponentItem) -> InterfaceItem {
    let functions = match item {
        ComponentItem::ComponentInstance(interface) => interface
            .exports(engine)
            .filter(|(_, item)| matches!(item.ty, ComponentItem::ComponentFunc(_)))
            .map(|(name, _)| name.to_owned())
            .collect(),
        _ => Vec::new(),
    };
    InterfaceItem { name: name.to_owned(), functions }
}
