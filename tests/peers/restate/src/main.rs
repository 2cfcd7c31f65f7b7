//! The benchmark's load as a handler of Restate: so many steps that do nothing. Needs LISTEN.

use std::{env, error::Error};

use restate_sdk::prelude::*;

struct Bench;

#[service]
impl Bench {
    #[handler(name = "run")]
    async fn run(&self, context: Context<'_>, steps: u32) -> Result<u32, TerminalError> {
        let mut sum = 0;
        for number in 0..steps {
            sum += context.run(|| async move { Ok(number) }).name("work").await?;
        }
        Ok(sum)
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let listen = env::var("LISTEN")?.parse()?;
    HttpServer::new(Endpoint::builder().bind(Bench).build()).listen_and_serve(listen).await;
    Ok(())
}
