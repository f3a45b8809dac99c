//! TLS for what this program asks of other servers over HTTP: with ring, as the ClickHouse client has it, and the
//! system's certificates.

use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};

#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    #[error("the system has no root certificates to check the server with")]
    NoRoots,
    #[error("TLS cannot be set up")]
    Tls(#[from] rustls::Error),
}

/// Settings of the client's side. Without `encrypted` the system's certificates are not read: nothing will be checked
/// with them.
pub(crate) fn client_config(encrypted: bool) -> Result<ClientConfig, TlsError> {
    let mut roots = RootCertStore::empty();
    if encrypted {
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(TlsError::NoRoots);
        }
    }
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}
