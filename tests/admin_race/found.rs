//! What the host tells when the dust has settled.

use crate::harness::{client::encoded, client::execution_path, *};

/// An execution as the host tells of it.
pub struct Told {
    pub execution: Value,
    /// Oldest first.
    pub runs: Vec<Value>,
    /// The steps of each run.
    pub steps: Vec<Value>,
}

pub async fn told(client: &Client, id: &str) -> Told {
    let path = format!("/admin/v1/executions/{}", encoded(id));
    let runs = client.get(&format!("{path}/runs")).await.expect(200);
    let runs = runs.as_array().expect("an array of runs").clone();
    let mut steps = Vec::new();
    for run in &runs {
        let run = encoded(run["runId"].as_str().expect("an id"));
        let detail = client.get(&format!("{path}/detail?runId={run}")).await.expect(200);
        steps.push(detail["steps"].clone());
    }
    Told { execution: client.get(&execution_path(id)).await.expect(200), runs, steps }
}

/// The whole audit trail, oldest entry first.
pub async fn audit(client: &Client) -> Vec<Value> {
    const PAGE: usize = 100;
    let mut all = Vec::new();
    loop {
        let path = format!("/admin/v1/audit?limit={PAGE}&offset={}", all.len());
        let page = client.get(&path).await.expect(200);
        let page = page.as_array().expect("an array of entries").clone();
        let last = page.len() < PAGE;
        all.extend(page);
        if last {
            all.reverse();
            return all;
        }
    }
}
