//! The main job, end to end, on a real host: upload, start, kill -9 in the middle, start again.
//!
//! Everything that it says it has looked at; it ends with an error at the first thing that is not so.

use std::{collections::BTreeMap, path::PathBuf, time::Duration};

use anyhow::{Context as _, ensure};
use clap::Parser;
use serde_json::{Value, json};

use stepbox_drive::host::{Client, Host};

#[derive(Parser)]
struct Args {
    #[arg(long)]
    stepbox: PathBuf,
    /// Where the components of the examples are.
    #[arg(long)]
    guests: PathBuf,
    /// A real Cargo.lock.
    #[arg(long, default_value = "Cargo.lock")]
    lockfile: PathBuf,
}

/// The host tells when an attempt of a step begins, and when its outcome is on disk.
const LOG: &str = "warn,steps=debug";

const REPORT: &str = "report-of-our-own-lockfile";
const ORDER: &str = "order-1001";

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let data = tempfile::tempdir()?;
    let lockfile = std::fs::read_to_string(&args.lockfile)
        .with_context(|| format!("reading {}", args.lockfile.display()))?;
    let packages = lockfile.lines().filter(|line| line.trim() == "[[package]]").count();

    say("1. Start a host, with a data directory of its own");
    let host = Host::start(&args.stepbox, data.path(), LOG).await?;
    println!("   {}", host.url);

    say("2. Upload two task modules");
    let client = Client::new(&host)?;
    for (task, file) in [("lockfile-report", "lockfile_report"), ("order-fulfilment", "order_fulfilment")] {
        let path = args.guests.join(format!("{file}.wasm"));
        let component = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let size_kb = component.len() / 1_000;
        let answer = client.upload(task, component).await?;
        println!(
            "   {task}: version {}, {size_kb} kB, compiled in {} ms",
            answer["version"], answer["compiledInMs"]
        );
    }

    say(&format!(
        "3. Start them: a report on a Cargo.lock of {packages} packages, one step each; and an order"
    ));
    client.start(REPORT, "lockfile-report", &json!({ "lockfile": lockfile, "stepDelayMs": 10 })).await?;
    let order = json!({
        "orderId": "o-1001",
        "items": [{ "sku": "tea", "quantity": 2, "unitCents": 450 }],
        "card": { "number": "4242424242424242" },
        "email": "ada@example.com",
        "simulation": { "settleMs": 1500, "chargeFailures": 2, "stepDelayMs": 300 },
    });
    client.start(ORDER, "order-fulfilment", &order).await?;

    say("4. Wait until half of the report is done");
    while completed(&host, REPORT).len() < packages / 2 {
        ensure!(client.execution(REPORT).await?["status"] == "running", "the report ended too soon");
        tokio::time::sleep(Duration::from_millis(500)).await;
        show(&host, &client).await?;
    }

    say("5. kill -9");
    // What is logged as completed is on disk; what is not may be lost.
    let before: Vec<(&str, BTreeMap<String, u64>)> =
        [REPORT, ORDER].into_iter().map(|id| (id, completed(&host, id))).collect();
    let (binary, data_dir) = host.kill_9().await?;
    for (id, steps) in &before {
        println!("   {id}: {} steps are recorded", steps.len());
    }

    say("6. Start the host again, on the same data");
    let host = Host::start(&binary, &data_dir, LOG).await?;
    let client = Client::new(&host)?;
    println!("   {}", host.url);
    client.event(ORDER, "shipment", &json!({ "carrier": "Red Van", "trackingNumber": "RV-77" })).await?;
    println!("   the carrier says that it has the parcel of {ORDER}");
    let report = client.result(REPORT).await?;
    let confirmation = client.result(ORDER).await?;
    show(&host, &client).await?;

    say("7. Both are complete. Was any step run again that had completed before the kill?");
    for (id, steps) in &before {
        let begun = begun(&host, id);
        let repeated: Vec<&String> = begun.iter().filter(|step| steps.contains_key(*step)).collect();
        ensure!(repeated.is_empty(), "{id}: these steps had completed and were run again: {repeated:?}");
        println!(
            "   {id}: no. {} steps before the kill, {} attempts after it, none of the same",
            steps.len(),
            begun.len()
        );
    }

    say("8. The results");
    println!("{}", serde_json::to_string_pretty(&summary(&report))?);
    println!("{}", serde_json::to_string_pretty(&confirmation)?);
    host.kill_9().await?;
    Ok(())
}

fn say(what: &str) {
    println!("\n{what}");
}

async fn show(host: &Host, client: &Client) -> anyhow::Result<()> {
    for id in [REPORT, ORDER] {
        let execution = client.execution(id).await?;
        println!(
            "   {id}: {}, {} steps completed by this process, {}",
            execution["status"].as_str().unwrap_or("?"),
            completed(host, id).len(),
            match &execution["waitingFor"] {
                Value::Null => "not waiting".to_owned(),
                wait => format!("waiting for {wait}"),
            }
        );
    }
    Ok(())
}

/// The steps of the execution that this process has recorded as completed, with the attempt.
fn completed(host: &Host, execution: &str) -> BTreeMap<String, u64> {
    let run = format!("{execution}:run:0");
    let lines = host.log(|line| {
        let matches = line["target"] == "steps"
            && line["fields"]["message"] == "completed"
            && line["fields"]["run"] == run.as_str();
        matches.then(|| {
            Some((line["fields"]["step"].as_str()?.to_owned(), line["fields"]["attempt"].as_u64()?))
        })?
    });
    lines.into_iter().collect()
}

/// The steps of the execution of which this process has begun an attempt.
fn begun(host: &Host, execution: &str) -> Vec<String> {
    let run = format!("{execution}:run:0");
    host.log(|line| {
        let matches = line["target"] == "steps"
            && line["fields"]["message"] == "begins"
            && line["fields"]["run"] == run.as_str();
        matches.then(|| line["fields"]["step"].as_str().map(str::to_owned))?
    })
}

/// The report without its long lists.
fn summary(report: &Value) -> Value {
    match report {
        Value::Object(fields) => fields
            .iter()
            .map(|(name, value)| match value {
                Value::Array(items) if items.len() > 5 => {
                    (name.clone(), json!(format!("{} entries", items.len())))
                }
                other => (name.clone(), other.clone()),
            })
            .collect(),
        other => other.clone(),
    }
}
