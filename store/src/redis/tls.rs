//! TLS for connections to Redis: rustls with ring, said here and not taken from the process, files read for each connection.
//!
//! redis-rs could do it too, but builds its client once (certificates could not be changed while it runs) and panics or refuses where a process
//! has chosen no provider, or has two.

use super::{
    error::{Error, ErrorKind, Result},
    settings::TlsSettings,
};
use std::{
    io,
    path::Path,
    sync::{Arc, OnceLock},
};
use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        self, CertificateError, ClientConfig, RootCertStore,
        crypto::ring,
        pki_types::{CertificateDer, PrivateKeyDer, ServerName, pem::PemObject},
    },
};

/// Speaks TLS over `socket`. The files of `tls` are read now.
pub(super) async fn secure(
    socket: TcpStream,
    host: &str,
    tls: &TlsSettings,
    server: &Arc<str>,
) -> Result<TlsStream<TcpStream>> {
    let wrong = |what: String| Error::new(ErrorKind::Tls, server, what);
    let (tls, to) = (tls.clone(), Arc::clone(server));
    let config = tokio::task::spawn_blocking(move || config(&tls, &to))
        .await
        .map_err(|error| wrong(format!("TLS could not be set up: {error}")))??;
    let name = ServerName::try_from(host.to_owned())
        .map_err(|_| wrong(format!("{host:?} is no name that a certificate can have")))?;
    let connected = TlsConnector::from(Arc::new(config)).connect(name, socket).await;
    connected.map_err(|error| failed(server, &error))
}

/// Whether the server at the other end of `socket` speaks TLS. Asked when it ended a plain connection without a word, as Redis does there.
pub(super) async fn is_spoken(socket: TcpStream, host: &str, server: &Arc<str>) -> bool {
    let nobody = RootCertStore::empty();
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map(|builder| builder.with_root_certificates(nobody).with_no_client_auth());
    let (Ok(config), Ok(name)) = (config, ServerName::try_from(host.to_owned())) else { return false };
    match TlsConnector::from(Arc::new(config)).connect(name, socket).await {
        Ok(_) => true,
        Err(error) => failed(server, &error).what().contains("certificate"),
    }
}

/// What a failure of the socket says, where TLS is the cause.
pub(super) fn failed(server: &Arc<str>, error: &io::Error) -> Error {
    use rustls::Error as Tls;
    let cause = error.get_ref().and_then(|inner| inner.downcast_ref::<Tls>());
    let what = match cause {
        Some(other) if other.to_string().starts_with("received corrupt") => {
            "the server does not speak TLS on this port".to_owned()
        }
        Some(Tls::InvalidCertificate(why)) => {
            format!("the server's certificate is not accepted: {}", said(why))
        }
        Some(Tls::AlertReceived(alert)) => format!("the server refused TLS or our certificate: {alert:?}"),
        Some(other) => format!("TLS failed: {other}"),
        None if error.kind() == io::ErrorKind::UnexpectedEof => {
            "the server ended the connection instead of answering in TLS; it may not speak TLS on this port"
                .to_owned()
        }
        None => return Error::new(ErrorKind::Unavailable, server, format!("the connection failed: {error}")),
    };
    Error::new(ErrorKind::Tls, server, what)
}

/// Why a certificate is not accepted.
fn said(why: &CertificateError) -> String {
    use CertificateError as Why;
    match why {
        // The latter: somebody of the same name has.
        Why::UnknownIssuer | Why::BadSignature => {
            "nobody who is trusted has signed it; name who did by `ca` (?ca=FILE in the URL)".to_owned()
        }
        Why::Expired | Why::ExpiredContext { .. } => "it has expired".to_owned(),
        Why::NotValidYet | Why::NotValidYetContext { .. } => {
            "it is not valid yet, by this machine's clock".to_owned()
        }
        Why::NotValidForName | Why::NotValidForNameContext { .. } => {
            "it is for other hosts than the one in the URL".to_owned()
        }
        Why::Other(other) if other.to_string().contains("CaUsedAsEndEntity") => {
            "it is that of an authority (CA:TRUE), and not of a server".to_owned()
        }
        other => other.to_string(),
    }
}

fn config(tls: &TlsSettings, server: &Arc<str>) -> Result<ClientConfig> {
    let wrong = |what: String| Error::new(ErrorKind::Tls, server, what);
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| wrong(format!("TLS could not be set up: {error}")))?
        .with_root_certificates(roots(tls, server)?);
    let (Some(cert), Some(key)) = (&tls.cert, &tls.key) else { return Ok(builder.with_no_client_auth()) };
    let chain = certificates(cert, server)?;
    let secret = PrivateKeyDer::from_pem_file(key)
        .map_err(|error| wrong(format!("the key in {} cannot be read: {error}", key.display())))?;
    builder
        .with_client_auth_cert(chain, secret)
        .map_err(|error| wrong(format!("{} and {} do not fit: {error}", cert.display(), key.display())))
}

fn roots(tls: &TlsSettings, server: &Arc<str>) -> Result<Arc<RootCertStore>> {
    static SYSTEM: OnceLock<Arc<RootCertStore>> = OnceLock::new();
    let mut roots = RootCertStore::empty();
    let Some(file) = &tls.ca else {
        return Ok(Arc::clone(SYSTEM.get_or_init(|| {
            roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
            Arc::new(roots)
        })));
    };
    for certificate in certificates(file, server)? {
        roots.add(certificate).map_err(|error| {
            Error::new(ErrorKind::Tls, server, format!("{} holds no CA: {error}", file.display()))
        })?;
    }
    Ok(Arc::new(roots))
}

fn certificates(file: &Path, server: &Arc<str>) -> Result<Vec<CertificateDer<'static>>> {
    let read =
        CertificateDer::pem_file_iter(file).and_then(Iterator::collect::<std::result::Result<Vec<_>, _>>);
    let wrong = |why: String| Err(Error::new(ErrorKind::Tls, server, format!("{}: {why}", file.display())));
    match read {
        Ok(none) if none.is_empty() => wrong("there is no certificate in it".to_owned()),
        Ok(certificates) => Ok(certificates),
        Err(error) => wrong(format!("the certificates cannot be read: {error}")),
    }
}
