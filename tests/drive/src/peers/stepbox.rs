//! Ourselves, with the same adapter as everybody.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use serde_json::json;

use super::{Adapter, Answer, Peer, Running};
use crate::host::{Client, Host};

pub struct Stepbox {
    pub binary: PathBuf,
    /// The component of `bench-guest`.
    pub component: Vec<u8>,
}

/// The host, and a client of it: it ends with its adapter.
struct Served {
    _host: Host,
    client: Client,
}

impl Peer for Stepbox {
    fn name(&self) -> String {
        "stepbox (sandboxed, SQLite)".to_owned()
    }

    fn set_up(&self) -> Answer<'_, ()> {
        Box::pin(async { Ok(()) })
    }

    fn start<'a>(&'a self, data: &'a Path) -> Answer<'a, Running> {
        Box::pin(async move {
            let host = Host::start(&self.binary, data, "warn").await?;
            let client = Client::new(&host)?;
            client.upload("bench", self.component.clone()).await?;
            Ok(Running {
                adapter: Arc::new(Served { _host: host, client }),
                durability: "SQLite with synchronous=FULL".to_owned(),
                _processes: Vec::new(),
            })
        })
    }
}

impl Adapter for Served {
    fn execute<'a>(&'a self, id: &'a str, steps: u32) -> Answer<'a, ()> {
        Box::pin(async move {
            self.client.run(id, "bench", &json!({ "steps": steps })).await?;
            Ok(())
        })
    }
}
