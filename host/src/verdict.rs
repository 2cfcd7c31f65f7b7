//! What `stepbox inspect` says of a component: the verdict of an upload, without a host.

use std::{io::Write as _, path::Path, process::ExitCode, sync::Arc};

use anyhow::Context as _;
use stepbox_domain::capability::{HostPattern, Wants};
use uuid::Uuid;

use crate::{
    api::{ApiError, wire},
    engine::EngineError,
    sandbox::{Compiler, Inspected, InterfaceItem, NoSecrets, PoolSizes, Rejected, Sandbox, SandboxConfig},
};

/// Prints the verdict on `file`. The exit code is 1 for a component that is refused.
pub async fn print(file: &Path, json: bool) -> anyhow::Result<ExitCode> {
    let component = std::fs::read(file).with_context(|| format!("{} cannot be read", file.display()))?;
    let mut stdout = std::io::stdout();
    let code = match inspect(&component).await? {
        Ok(inspected) => {
            match json {
                true => {
                    writeln!(stdout, "{}", serde_json::to_string_pretty(&wire::Inspection::from(inspected))?)?
                }
                false => stdout.write_all(summary(&inspected).as_bytes())?,
            }
            ExitCode::SUCCESS
        }
        Err(rejected) => {
            let refusal = ApiError::from(EngineError::Rejected(rejected));
            match json {
                true => {
                    writeln!(stdout, "{}", serde_json::to_string_pretty(&wire::Refusal::from(&refusal))?)?
                }
                false => writeln!(stdout, "{}", refusal.message)?,
            }
            ExitCode::from(1)
        }
    };
    Ok(code)
}

/// The sandbox's own word, from a sandbox that keeps nothing.
async fn inspect(component: &[u8]) -> anyhow::Result<Result<Inspected, Rejected>> {
    let scratch = std::env::temp_dir().join(format!("stepbox-inspect-{}", Uuid::new_v4()));
    let exe = std::env::current_exe().context("the path of this program cannot be found out")?;
    let mut config = SandboxConfig::new(&scratch, Compiler::Child { exe });
    config.pool = PoolSizes { handlers_max: 2, steps_max: 2, ..config.pool };
    let verdict = match Sandbox::new(config, Arc::new(NoSecrets)) {
        Ok(sandbox) => Ok(sandbox.inspect(component).await),
        Err(error) => Err(error),
    };
    // What stays behind in the folder for temporary files does no harm.
    let _ = std::fs::remove_dir_all(&scratch);
    verdict
}

fn summary(inspected: &Inspected) -> String {
    let Inspected { digest, size_bytes, compiled_in_ms, manifest, imports, exports, .. } = inspected;
    let or_dash = |text: &Option<String>| text.clone().unwrap_or_else(|| "–".to_owned());
    let timeout = manifest.task.timeout_ms.map_or("none".to_owned(), |ms| format!("{ms} ms"));
    let mut text = format!(
        "accepted\n\
         digest       {digest}\n\
         size         {size_bytes} bytes\n\
         compiled in  {compiled_in_ms} ms\n\
         contract     {}\n\
         sdk          {}\n\
         description  {}\n\
         timeout      {timeout}\n\
         payload      {}\n",
        manifest.contract,
        or_dash(&manifest.sdk),
        or_dash(&manifest.description),
        match manifest.task.payload {
            Some(_) => "checked by a schema",
            None => "anything",
        },
    );
    for step in &manifest.steps {
        let attempts = step.options.retry.attempts_max;
        text += &format!("step         {} (attempts: {attempts})\n", step.function);
    }
    let Wants { http, secrets, env } = &manifest.wants;
    text.extend(http.iter().map(|rule| format!("wants        {rule}\n")));
    for want in secrets {
        let hosts: Vec<&str> = want.hosts.iter().map(HostPattern::as_str).collect();
        text += &format!("wants        secret {} for {}\n", want.name, hosts.join(", "));
    }
    text.extend(env.iter().map(|name| format!("wants        env {name}\n")));
    let mut list = |what: &str, items: &[InterfaceItem]| {
        for item in items {
            text += &format!("{what:<12} {}", item.name);
            if !item.functions.is_empty() {
                text += &format!(" ({})", item.functions.join(", "));
            }
            text.push('\n');
        }
    };
    list("imports", imports);
    list("exports", exports);
    text
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};
    use stepbox_domain::{Digest, Json, Manifest};

    use super::*;

    fn inspected(capabilities: Value) -> Inspected {
        let manifest = json!({ "stepbox": "0.1.0", "capabilities": capabilities });
        Inspected {
            digest: Digest::of(b"component"),
            size_bytes: 9,
            compiled_in_ms: 7,
            manifest: Manifest::parse(&manifest.to_string()).unwrap(),
            manifest_text: Json::from(manifest),
            imports: Vec::new(),
            exports: Vec::new(),
        }
    }

    #[test]
    fn what_is_wanted_is_said_line_by_line_and_as_json() {
        let inspected = inspected(json!({
            "http": [{ "host": "api.a.com", "methods": ["GET"] }, { "scheme": "http", "host": "*.b.com", "port": 81 }],
            "secrets": [{ "name": "KEY", "hosts": ["api.a.com", "c.com"] }],
            "env": ["REGION"],
        }));
        let summary = summary(&inspected);
        let wants: Vec<&str> =
            summary.lines().filter_map(|line| line.strip_prefix("wants        ")).collect();
        let expected =
            ["GET https://api.a.com", "http://*.b.com:81", "secret KEY for api.a.com, c.com", "env REGION"];
        assert_eq!(wants, expected);
        let json = serde_json::to_value(wire::Inspection::from(inspected)).unwrap();
        assert_eq!(
            json["wanted"]["http"][0],
            json!({ "scheme": "https", "host": "api.a.com", "port": 443, "methods": ["GET"] })
        );
        assert_eq!(json["wanted"]["env"], json!(["REGION"]));
    }

    #[test]
    fn one_that_wants_nothing_says_nothing_of_it() {
        assert!(!summary(&inspected(json!({}))).contains("wants"));
    }
}
