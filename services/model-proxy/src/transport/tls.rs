//! Whom a connection trusts, and which HTTP it offers.
//!
//! Invariants:
//! - Certificates are checked against the system's own store (or
//!   `SSL_CERT_FILE`) and the configured file, and never not at all.
//! - All connections share one memory of sessions, so that a second one to the
//!   same host is cheaper than the first.

use super::SetUp;
use rustls::{
    ClientConfig,
    crypto::{CryptoProvider, ring},
    pki_types::{CertificateDer, pem::PemObject as _},
};
use rustls_platform_verifier::Verifier;
use std::{path::Path, sync::Arc};

/// For providers, HTTP/2 before HTTP/1.1; and for proxies, which take `CONNECT`
/// in HTTP/1.1 alone.
pub(super) fn configs(ca_file: Option<&Path>) -> Result<(ClientConfig, ClientConfig), SetUp> {
    let crypto: Arc<CryptoProvider> = ring::default_provider().into();
    let extra = ca_file.map_or_else(|| Ok(Vec::new()), certificates)?;
    let verifier = Verifier::new_with_extra_roots(extra, Arc::clone(&crypto));
    let verifier = verifier.map_err(|error| SetUp::Certificates(error.to_string()))?;
    let config = ClientConfig::builder_with_provider(crypto)
        .with_safe_default_protocol_versions()
        .map_err(|error| SetUp::Certificates(error.to_string()))?;
    // Not dangerous: it is the platform's verifier that is put in.
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    let proxy = config.with_no_client_auth();
    let mut provider = proxy.clone();
    provider.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    Ok((provider, proxy))
}

fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, SetUp> {
    let told =
        |error: &dyn std::fmt::Display| SetUp::Certificates(format!("{}: {error}", file.display()));
    let found = CertificateDer::pem_file_iter(file).map_err(|error| told(&error))?;
    let found: Result<Vec<_>, _> = found.collect();
    let found = found.map_err(|error| told(&error))?;
    if found.is_empty() { Err(told(&"holds no certificate")) } else { Ok(found) }
}
