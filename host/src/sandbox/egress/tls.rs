//! Whom servers are believed by.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use rustls::{
    ClientConfig, RootCertStore,
    pki_types::{CertificateDer, ServerName, pem::PemObject as _},
};
use tokio::net::TcpStream;
use tokio_rustls::{TlsConnector, client::TlsStream};

use super::{
    target::{Host, Target},
    trouble::Trouble,
};
use crate::sandbox::output::{cut, printable};

/// TLS as a client. There is no way to switch the check of certificates off.
pub(super) struct Tls(TlsConnector);

impl Tls {
    /// With Mozilla's authorities, and those in `ca_file`.
    pub(super) fn new(ca_file: Option<&Path>) -> anyhow::Result<Self> {
        let mut roots = RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
        if let Some(file) = ca_file {
            let unusable =
                || format!("the file of certificates for requests, {}, cannot be used", file.display());
            let mut found = 0;
            for certificate in CertificateDer::pem_file_iter(file).with_context(unusable)? {
                roots.add(certificate.with_context(unusable)?).with_context(unusable)?;
                found += 1;
            }
            anyhow::ensure!(found > 0, "{}: there is no certificate in it (PEM)", unusable());
        }
        // Named, since which one is the default depends on what else is linked in.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Tls(TlsConnector::from(Arc::new(config))))
    }

    /// TLS over `stream`, to a server that has shown to be `target`.
    pub(super) async fn connect(
        &self,
        target: &Target,
        stream: TcpStream,
    ) -> Result<TlsStream<TcpStream>, Trouble> {
        let name = match &target.host {
            Host::Name(name) => ServerName::try_from(name.clone())
                .map_err(|_| Trouble::Tls(format!("{name} is no name that a certificate could be for")))?,
            Host::Address(address) => ServerName::from(*address),
        };
        self.0.connect(name, stream).await.map_err(|error| {
            let text = printable(cut(&error.to_string(), 300));
            let spoken = error.get_ref().is_some_and(|inner| inner.is::<rustls::Error>());
            match spoken {
                true => Trouble::Tls(format!("{target}: {text}")),
                false => Trouble::Unreachable(format!("{target}: in the TLS handshake: {text}")),
            }
        })
    }
}
