//! From names to addresses.

use std::{
    fmt, io,
    net::{IpAddr, ToSocketAddrs as _},
    sync::Arc,
};

use async_trait::async_trait;
use tokio::sync::Semaphore;

/// Knows the addresses of hosts. Asked once for each connection that is made.
#[async_trait]
pub trait Resolver: fmt::Debug + Send + Sync {
    /// All addresses that `host` stands for, in the order in which they are to be tried.
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>>;
}

/// Asks the operating system.
#[derive(Debug)]
pub struct SystemResolver {
    at_once: Arc<Semaphore>,
}

/// A lookup blocks a thread until the name server answers, which may take half a minute, and
/// nothing can call it back: so many may be under way, or guests would take all threads of the
/// runtime that may block.
const LOOKUPS_MAX: usize = 32;

impl Default for SystemResolver {
    fn default() -> Self {
        SystemResolver { at_once: Arc::new(Semaphore::new(LOOKUPS_MAX)) }
    }
}

#[async_trait]
impl Resolver for SystemResolver {
    async fn resolve(&self, host: &str) -> io::Result<Vec<IpAddr>> {
        let place = self.at_once.clone().acquire_owned().await.map_err(io::Error::other)?;
        let host = host.to_owned();
        let lookup = tokio::task::spawn_blocking(move || {
            // Kept until the thread is free again, also when nobody waits for the answer any more.
            let _place = place;
            let mut addresses: Vec<IpAddr> = Vec::new();
            for address in (host.as_str(), 0).to_socket_addrs()? {
                if !addresses.contains(&address.ip()) {
                    addresses.push(address.ip());
                }
            }
            Ok(addresses)
        });
        lookup.await.map_err(io::Error::other)?
    }
}
