//! TLS: servers show who they are, or nothing is sent to them.

use std::io::Write as _;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, date_time_ymd};
use rustls::{
    ServerConfig,
    pki_types::{CertificateDer, PrivateKeyDer},
};
use tokio_rustls::TlsAcceptor;
use web::Wire;

use super::*;

/// An authority of our own.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of tests");
        Authority(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn file(&self) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(self.0.pem().as_bytes()).unwrap();
        file
    }

    /// A server for `name`, whose certificate is changed before it is signed.
    async fn server(&self, name: &str, change: impl FnOnce(&mut CertificateParams)) -> Web {
        let mut params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        tls_server(certificate.der().clone(), &key).await
    }
}

async fn tls_server(certificate: CertificateDer<'static>, key: &KeyPair) -> Web {
    let key = PrivateKeyDer::try_from(key.serialize_der()).unwrap();
    let config = ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key)
        .unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    Web::over(
        "127.0.0.1:0",
        move |stream| {
            let acceptor = acceptor.clone();
            Box::pin(async move {
                let stream = acceptor.accept(stream).await.ok()?;
                Some(Box::new(stream) as Box<dyn Wire>)
            })
        },
        |mut wire, heard| {
            Box::pin(async move {
                use tokio::io::AsyncWriteExt as _;
                while let Some(request) = web::read(&mut wire).await {
                    heard.lock().unwrap().push(request);
                    if wire.write_all(&ok("in private")).await.is_err() || wire.flush().await.is_err() {
                        break;
                    }
                }
            })
        },
    )
    .await
}

/// May reach `bank.example` at `web`, and believes `authority`.
fn believing(authority: Option<&Authority>, web: &Web) -> (Bed, String) {
    let port = web.address.port();
    let names = Names::new(&[("bank.example", &[&["127.0.0.1"]])]);
    let rule = json!({ "host": "*", "port": port });
    let mut setup = granted(json!({ "http": [rule], "addresses": ["127.0.0.1"] })).names(&names);
    let file = authority.map(Authority::file);
    setup.config.ca_file = file.as_ref().map(|file| file.path().to_owned());
    (setup.bed(), format!("https://bank.example:{port}/"))
}

#[tokio::test]
async fn a_server_with_a_good_certificate_is_believed() {
    let authority = Authority::new();
    let web = authority.server("bank.example", |_| {}).await;
    let (bed, url) = believing(Some(&authority), &web);
    for _ in 0..3 {
        assert_eq!(bed.get(&url).await, Ok((200, "in private".to_owned())));
    }
    assert_eq!(web.counts().made, 1);
    assert_eq!(web.heard()[0].header("host"), Some(&url["https://".len()..url.len() - 1]));

    // By its address too, if that is what the certificate is for.
    let web = authority.server("127.0.0.1", |_| {}).await;
    let (bed, _) = believing(Some(&authority), &web);
    assert_eq!(bed.get(&format!("https://{}/", web.address)).await.unwrap().0, 200);
}

#[tokio::test]
async fn a_server_that_cannot_show_who_it_is_hears_nothing() {
    let (authority, stranger) = (Authority::new(), Authority::new());
    let key = KeyPair::generate().unwrap();
    let own = CertificateParams::new(vec!["bank.example".to_owned()]).unwrap().self_signed(&key).unwrap();
    let servers = [
        authority.server("other.example", |_| {}).await,
        authority.server("bank.example", |params| params.not_after = date_time_ymd(2020, 1, 1)).await,
        authority.server("bank.example", |params| params.not_before = date_time_ymd(4000, 1, 1)).await,
        stranger.server("bank.example", |_| {}).await,
        tls_server(own.der().clone(), &key).await,
    ];
    for web in servers {
        let (bed, url) = believing(Some(&authority), &web);
        let told = bed.get(&url).await;
        assert_begins(&told, &format!("tls: {}: invalid peer certificate: ", &url[..url.len() - 1]));
        assert!(web.heard().is_empty());
    }
    // Without the file nobody believes our authority.
    let web = authority.server("bank.example", |_| {}).await;
    let (bed, url) = believing(None, &web);
    assert_begins(&bed.get(&url).await, "tls: ");
}

#[tokio::test]
async fn a_server_without_tls_is_told_apart() {
    let web = Web::start(|_| ok("")).await;
    let (bed, url) = believing(None, &web);
    assert!(bed.get(&url).await.is_err());
    assert!(web.heard().is_empty());
}

#[test]
fn a_file_of_authorities_that_is_none_is_told_at_the_start() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(b"no certificate").unwrap();
    for path in [file.path().to_owned(), "/nowhere/ca.pem".into()] {
        let config = EgressConfig { ca_file: Some(path.clone()), ..EgressConfig::default() };
        let error = format!("{:#}", Outside::new(&config, Arc::new(NoSecrets)).err().unwrap());
        assert!(error.contains(path.to_str().unwrap()) && error.contains("cannot be used"), "{error}");
    }
}
