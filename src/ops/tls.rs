//! TLS from PEM files: the server's certificate, and whose certificates clients must show.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{VerifierBuilderError, WebPkiClientVerifier};
use rustls::{RootCertStore, ServerConfig};
use tokio_rustls::TlsAcceptor;

use crate::config::TlsSettings;

/// Why there can be no TLS.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("cannot read {} ({setting})", .path.display())]
    Read { path: PathBuf, setting: &'static str, source: pem::Error },
    #[error("{} holds no certificate ({setting})", .path.display())]
    Empty { path: PathBuf, setting: &'static str },
    #[error("certificate and key do not make a server (api.tls)")]
    Unusable(#[from] rustls::Error),
    #[error("client certificates cannot be checked (api.tls.client_ca)")]
    ClientCa(#[from] VerifierBuilderError),
}

/// Reads the files, once; a new certificate needs a restart.
pub(super) fn acceptor(settings: &TlsSettings) -> Result<TlsAcceptor, TlsError> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let chain = certificates(&settings.certificate, "api.tls.certificate")?;
    let key = PrivateKeyDer::from_pem_file(&settings.key).map_err(|source| TlsError::Read {
        path: settings.key.clone(),
        setting: "api.tls.key",
        source,
    })?;
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider)).with_safe_default_protocol_versions()?;
    let builder = match &settings.client_ca {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path, "api.tls.client_ca")? {
                roots.add(certificate)?;
            }
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build()?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let mut server = builder.with_single_cert(chain, key)?;
    server.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(TlsAcceptor::from(Arc::new(server)))
}

fn certificates(path: &Path, setting: &'static str) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let unreadable = |source| TlsError::Read { path: path.to_owned(), setting, source };
    let found = CertificateDer::pem_file_iter(path).map_err(unreadable)?;
    let found = found.collect::<Result<Vec<_>, _>>().map_err(unreadable)?;
    match found.is_empty() {
        true => Err(TlsError::Empty { path: path.to_owned(), setting }),
        false => Ok(found),
    }
}
