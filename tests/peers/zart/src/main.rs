//! The benchmark's load as a native handler of Zart: so many steps that do nothing.
//!
//! Needs DATABASE_URL and LISTEN; POLL_MS (how often the worker looks) and AT_ONCE (how much it
//! takes then, and runs at a time) are Zart's own defaults where they are left out.

use std::{borrow::Cow, env, error::Error, fmt, str::FromStr, time::Duration};

use serde::{Deserialize, Serialize};
use sqlx::postgres::PgPoolOptions;
use zart::{
    DurableExecution, DurableScheduler, PgBackend, TaskError, WorkerBuilder, WorkerConfig, ZartStep,
    into_durable_api,
};
use zart_api::ApiServer;

#[derive(Serialize, Deserialize)]
struct Load {
    steps: u32,
}

struct Work(u32);

#[derive(Debug, Serialize, Deserialize)]
struct NeverFails;

impl fmt::Display for NeverFails {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("it never fails")
    }
}

impl Error for NeverFails {}

#[async_trait::async_trait]
impl ZartStep for Work {
    type Output = u32;
    type Error = NeverFails;

    fn step_name(&self) -> Cow<'static, str> {
        format!("work-{}", self.0).into()
    }

    async fn run(&self) -> Result<u32, NeverFails> {
        Ok(self.0)
    }
}

struct Bench;

#[async_trait::async_trait]
impl DurableExecution for Bench {
    type Data = Load;
    type Output = u32;

    async fn run(&self, load: Load) -> Result<u32, TaskError> {
        let mut sum = 0;
        for number in 0..load.steps {
            sum += zart::require(Work(number)).await?;
        }
        Ok(sum)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = env::var("LISTEN")?;
    let pool = PgPoolOptions::new().max_connections(32).connect(&env::var("DATABASE_URL")?).await?;
    let backend = PgBackend::new(pool);
    backend.run_migrations().await?;

    let mut config = WorkerConfig::default();
    if let Some(ms) = number("POLL_MS")? {
        config.poll_interval = Duration::from_millis(ms);
    }
    if let Some(at_once) = number("AT_ONCE")? {
        config.max_tasks_per_poll = at_once;
        config.max_concurrent_tasks = at_once;
    }
    let worker =
        WorkerBuilder::from_backend(&backend).register_durable_task("bench", Bench).config(config).build();
    tokio::spawn(async move { worker.run().await });
    let durable = into_durable_api(DurableScheduler::from_backend(&backend));
    ApiServer::new(listen, durable).serve().await?;
    Ok(())
}

fn number<T: FromStr>(name: &str) -> Result<Option<T>, T::Err> {
    env::var(name).ok().map(|text| text.parse()).transpose()
}
