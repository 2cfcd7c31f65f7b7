//! From a target to a connection: every address that its name stands for is checked, and the
//! connection goes to one of these, without asking again.

use std::{
    net::{IpAddr, SocketAddr},
    time::Duration,
};

use hyper::client::conn::http1;
use stepbox_domain::capability::Scheme;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::{Instant, timeout_at},
};
use wasmtime_wasi_http::io::TokioIo;

use super::{
    Egress, HEADERS_MAX, HEADERS_MAX_BYTES, address,
    pool::{Connection, Driver, Permits},
    target::{Host, Target},
    trouble::Trouble,
};
use crate::sandbox::output::{cut, printable};

/// Of the addresses of a name, so many are tried.
const TRIED_MAX: usize = 8;

impl Egress {
    /// A new connection to `target`, in the room that `permits` are.
    pub(super) async fn connect(
        &self,
        target: &Target,
        permits: Permits,
        by: Instant,
    ) -> Result<Connection, Trouble> {
        let begun = Instant::now();
        let timed_out = |what: &str| {
            Trouble::TimedOut(format!("{target}: {what} within {} ms", (by - begun).as_millis()))
        };
        let addresses = timeout_at(by, self.checked_addresses(target))
            .await
            .map_err(|_| timed_out("its name was not found out"))??;
        let stream = self.reach(target, &addresses, by).await?;
        let address = stream.peer_addr().map_err(|error| unreachable(target, &error))?.ip();
        // Small requests must not wait for the acknowledgement of those before. It is no matter if
        // the socket cannot.
        let _ = stream.set_nodelay(true);
        match target.scheme {
            Scheme::Http => shake_hands(stream, address, permits).await,
            Scheme::Https => {
                let stream = timeout_at(by, self.outside.tls.connect(target, stream))
                    .await
                    .map_err(|_| timed_out("it did not finish the TLS handshake"))??;
                shake_hands(stream, address, permits).await
            }
        }
    }

    /// All addresses of the target, each of which may be connected to.
    ///
    /// One that may not is enough to refuse: a name that stands for a public address and a private
    /// one is an attack or a mistake, and picking the public one would leave it to the order of the
    /// answers, and to which of them is reachable now, whether that shows.
    async fn checked_addresses(&self, target: &Target) -> Result<Vec<IpAddr>, Trouble> {
        let addresses = match &target.host {
            Host::Address(address) => vec![*address],
            Host::Name(name) => self
                .outside
                .resolver
                .resolve(name)
                .await
                .map_err(|error| unreachable_name(name, &error.to_string()))?,
        };
        if addresses.is_empty() {
            return Err(unreachable_name(&target.host.as_granted(), "it has no address"));
        }
        for address in &addresses {
            address::check(*address, &self.grants).map_err(|what| {
                let stands_for = match &target.host {
                    Host::Name(name) => format!("{name} stands for {what}"),
                    Host::Address(_) => format!("the address is {what}"),
                };
                Trouble::Denied(format!(
                    "{stands_for}; if requests may go there, {}",
                    self.grant_hint("addresses")
                ))
            })?;
        }
        Ok(addresses)
    }

    /// The first address that answers, with an equal part of the time for each.
    async fn reach(&self, target: &Target, addresses: &[IpAddr], by: Instant) -> Result<TcpStream, Trouble> {
        let tried = &addresses[..addresses.len().min(TRIED_MAX)];
        let mut trouble = Trouble::Unreachable(format!("{target}: it has no address"));
        for (address, left) in tried.iter().zip((1..=tried.len() as u32).rev()) {
            let time = by.saturating_duration_since(Instant::now()) / left;
            let connecting = TcpStream::connect(SocketAddr::new(*address, target.port));
            trouble = match tokio::time::timeout(time, connecting).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => unreachable(target, &error),
                Err(_) => Trouble::TimedOut(format!("{target}: no connection within {} ms", ms(time))),
            };
        }
        Err(trouble)
    }
}

fn ms(time: Duration) -> u128 {
    time.as_millis()
}

fn unreachable(target: &Target, error: &std::io::Error) -> Trouble {
    Trouble::Unreachable(format!("{target}: {}", printable(cut(&error.to_string(), 200))))
}

fn unreachable_name(name: &str, why: &str) -> Trouble {
    Trouble::Unreachable(format!("the name {name} was not found: {}", printable(cut(why, 200))))
}

async fn shake_hands<S>(stream: S, address: IpAddr, permits: Permits) -> Result<Connection, Trouble>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let mut builder = http1::Builder::new();
    // Bounds the head of an answer, and what of its body waits in the host.
    builder.max_buf_size(HEADERS_MAX_BYTES).max_headers(HEADERS_MAX);
    let (sender, connection) =
        builder.handshake(TokioIo::new(stream)).await.map_err(|error| Trouble::of_hyper(&error))?;
    let driver = Driver::start(async move {
        // What went wrong is told by the request that it went wrong for.
        let _ = connection.await;
    });
    Ok(Connection { sender, address, _driver: driver, _permits: permits })
}
