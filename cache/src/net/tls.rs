//! TLS: certificates from files, and whether clients must have one too.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls_pki_types::pem::PemObject as _;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::BindError;

/// Whether clients show a certificate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClientCertificate {
    /// They must, if there is an authority to check it with.
    #[default]
    Required,
    /// They may; if they do, it must be good.
    Optional,
    /// They are not asked for one.
    NotAsked,
}

/// Where the parts of TLS are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsOptions {
    /// Our certificate and those that lead to its authority, as PEM.
    pub certificates: PathBuf,
    /// The key of our certificate, as PEM.
    pub key: PathBuf,
    /// The authorities of clients' certificates, as PEM.
    pub client_authorities: Option<PathBuf>,
    /// Whether clients show a certificate.
    pub client_certificate: ClientCertificate,
}

/// Reads what `options` name.
pub(super) fn acceptor(options: &TlsOptions) -> Result<TlsAcceptor, BindError> {
    let provider = Arc::new(ring::default_provider());
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()
        .map_err(|error| BindError::tls(&options.certificates, error))?;
    let authorities = match options.client_certificate {
        ClientCertificate::NotAsked => None,
        ClientCertificate::Required | ClientCertificate::Optional => {
            options.client_authorities.as_deref()
        }
    };
    let builder = match authorities {
        None => builder.with_no_client_auth(),
        Some(path) => {
            let mut roots = RootCertStore::empty();
            for certificate in certificates(path)? {
                roots.add(certificate).map_err(|error| BindError::tls(path, error))?;
            }
            let mut verifier = WebPkiClientVerifier::builder_with_provider(roots.into(), provider);
            if options.client_certificate == ClientCertificate::Optional {
                verifier = verifier.allow_unauthenticated();
            }
            let verifier = verifier.build().map_err(|error| BindError::tls(path, error))?;
            builder.with_client_cert_verifier(verifier)
        }
    };
    let key = PrivateKeyDer::from_pem_file(&options.key)
        .map_err(|error| BindError::tls(&options.key, error))?;
    let config = builder
        .with_single_cert(certificates(&options.certificates)?, key)
        .map_err(|error| BindError::tls(&options.certificates, error))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>, BindError> {
    let failed = |error| BindError::tls(path, error);
    CertificateDer::pem_file_iter(path).map_err(failed)?.collect::<Result<_, _>>().map_err(failed)
}
