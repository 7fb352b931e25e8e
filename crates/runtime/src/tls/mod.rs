//! Certificates and keys: loading, self-signing, reloading while serving.

mod authorities;
mod files;
pub mod pkcs8;
mod sni;
mod suites;
#[cfg(test)]
mod tests;
mod unverified;

use std::{
    net::IpAddr,
    path::{Path, PathBuf},
    sync::Arc,
};

use arc_swap::ArcSwap;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose, SanType};
use rustls::{
    ServerConfig,
    crypto::CryptoProvider,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::{
        ClientHello, ResolvesServerCert,
        danger::{ClientCertVerified, ClientCertVerifier},
    },
    sign::CertifiedKey,
};

pub use authorities::{Authorities, ClientIdentity};
pub use files::{WatchedFile, watch_bundle, watch_pair};
pub use sni::{CertificateSet, SniCertificate};
pub use suites::{KnownSuite, curve_group, known_suites, min_version, provider_for};
pub use unverified::unverified_client_config;

/// A certificate, key or CA bundle that is not usable.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A file cannot be read or written.
    #[error("{path}: {source}")]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// The content is not what it should be.
    #[error("{what}: {reason}")]
    Content {
        /// What was being read.
        what: String,
        /// Why it does not do.
        reason: String,
    },
}

fn content(what: impl Into<String>, reason: impl ToString) -> TlsError {
    TlsError::Content { what: what.into(), reason: reason.to_string() }
}

/// Reads a file.
pub fn read(path: &Path) -> Result<Vec<u8>, TlsError> {
    std::fs::read(path).map_err(|source| TlsError::File { path: path.into(), source })
}

/// The certificates of a PEM text; at least one.
pub fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match all {
        Ok(list) if !list.is_empty() => Ok(list),
        Ok(_) => Err(content("certificate", "no PEM certificate found")),
        Err(error) => Err(content("certificate", error)),
    }
}

/// The private key of a PEM text.
pub fn private_key(pem: &[u8]) -> Result<PrivateKeyDer<'static>, TlsError> {
    PrivateKeyDer::from_pem_slice(pem).map_err(|e| content("private key", e))
}

/// The one TLS provider of all components.
pub fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

/// A serving certificate for `names` and `addresses`, valid one year, and the authority that signed it, made for it
/// alone: chain and key as PEM.
pub fn self_signed(common_name: &str, names: &[String], addresses: &[IpAddr]) -> Result<(String, String), TlsError> {
    let fail = |e: rcgen::Error| content("self-signed certificate", e);
    let now = time::OffsetDateTime::now_utc();
    let params = |names: Vec<String>, common_name: String| -> Result<CertificateParams, rcgen::Error> {
        let mut params = CertificateParams::new(names)?;
        params.distinguished_name.push(DnType::CommonName, common_name);
        params.not_before = now - time::Duration::hours(1);
        params.not_after = now + time::Duration::days(365);
        Ok(params)
    };
    let stamp = now.unix_timestamp();
    let mut authority = params(Vec::new(), format!("{common_name}-ca@{stamp}")).map_err(fail)?;
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    authority.key_usages =
        vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment, KeyUsagePurpose::KeyCertSign];
    let authority_key = KeyPair::generate().map_err(fail)?;
    let authority = CertifiedIssuer::self_signed(authority, authority_key).map_err(fail)?;

    let mut leaf = params(names.to_vec(), format!("{common_name}@{stamp}")).map_err(fail)?;
    leaf.subject_alt_names.extend(addresses.iter().map(|a| SanType::IpAddress(*a)));
    leaf.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    leaf.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ServerAuth];
    let key = KeyPair::generate().map_err(fail)?;
    let certificate = leaf.signed_by(&key, &authority).map_err(fail)?;
    Ok((format!("{}{}", certificate.pem(), authority.pem()), key.serialize_pem()))
}

/// Writes a file that only its owner can read.
pub fn write_private(path: &Path, bytes: &[u8]) -> Result<(), TlsError> {
    use std::{io::Write, os::unix::fs::OpenOptionsExt};
    let fail = |source| TlsError::File { path: path.into(), source };
    if let Some(parent) = path.parent() {
        std::fs::create_dir_all(parent).map_err(fail)?;
    }
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    options.open(path).and_then(|mut file| file.write_all(bytes)).map_err(fail)
}

/// A serving certificate that can be replaced at run time.
#[derive(Debug)]
pub struct ServingCertificate(ArcSwap<CertifiedKey>);

impl ServingCertificate {
    /// From PEM texts.
    pub fn new(certificate: &[u8], key: &[u8]) -> Result<Self, TlsError> {
        Ok(Self(ArcSwap::from_pointee(Self::load(certificate, key)?)))
    }

    pub(crate) fn load(certificate: &[u8], key: &[u8]) -> Result<CertifiedKey, TlsError> {
        let chain = certificates(certificate)?;
        CertifiedKey::from_der(chain, private_key(key)?, &provider()).map_err(|e| content("serving certificate", e))
    }

    /// What is served now.
    pub(crate) fn current(&self) -> Arc<CertifiedKey> {
        self.0.load_full()
    }

    /// Serves another certificate from now on.
    pub fn replace(&self, certificate: &[u8], key: &[u8]) -> Result<(), TlsError> {
        self.0.store(Arc::new(Self::load(certificate, key)?));
        Ok(())
    }
}

impl ResolvesServerCert for ServingCertificate {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current())
    }
}

/// Asks for a client certificate, takes any that the client proves to hold the key of, and leaves the question
/// whether its issuer is trusted to the authenticators (there may be several, with different bundles).
#[derive(Debug)]
struct AskForCertificate(Arc<CryptoProvider>);

impl ClientCertVerifier for AskForCertificate {
    fn root_hint_subjects(&self) -> &[rustls::DistinguishedName] {
        &[]
    }

    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: rustls::pki_types::UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls12_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        rustls::crypto::verify_tls13_signature(message, cert, dss, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

/// What a server offers.
#[derive(Clone, Debug, Default)]
pub struct ServerOptions {
    /// IANA names of the TLS 1.2 suites; empty for the strong ones.
    pub cipher_suites: Vec<String>,
    /// `VersionTLS12`, `VersionTLS13`, …; empty for TLS 1.2.
    pub min_version: String,
    /// Numbers of key exchange groups, most preferred first; empty for the default.
    pub curves: Vec<u16>,
    /// Whether only HTTP/1.1 is offered.
    pub no_http2: bool,
    /// Whether clients are not asked for a certificate.
    pub no_client_certificates: bool,
}

/// TLS 1.2 and 1.3 with the strong suites, HTTP/2 and HTTP/1.1; client certificates are asked for.
pub fn server_config(certificate: Arc<ServingCertificate>) -> Result<Arc<ServerConfig>, TlsError> {
    server_config_with(&ServerOptions::default(), certificate)
}

/// A configuration with other certificates or another offer.
pub fn server_config_with(
    options: &ServerOptions,
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Arc<ServerConfig>, TlsError> {
    let provider = Arc::new(provider_for(&options.cipher_suites, &options.curves)?);
    let versions: &[&rustls::SupportedProtocolVersion] = match min_version(&options.min_version)? {
        rustls::ProtocolVersion::TLSv1_3 => &[&rustls::version::TLS13],
        // A list of suites that has none for TLS 1.2 leaves TLS 1.3.
        _ if !provider.cipher_suites.iter().any(|s| s.version() == &rustls::version::TLS12) => {
            &[&rustls::version::TLS13]
        }
        _ => &[&rustls::version::TLS13, &rustls::version::TLS12],
    };
    let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
        .with_protocol_versions(versions)
        .map_err(|e| content("TLS", e))?;
    let builder = match options.no_client_certificates {
        true => builder.with_no_client_auth(),
        false => builder.with_client_cert_verifier(Arc::new(AskForCertificate(provider))),
    };
    let mut config = builder.with_cert_resolver(certificates);
    config.alpn_protocols =
        if options.no_http2 { vec![b"http/1.1".to_vec()] } else { vec![b"h2".to_vec(), b"http/1.1".to_vec()] };
    Ok(Arc::new(config))
}

/// A client configuration that trusts `roots` (PEM) and shows a certificate if one is given.
pub fn client_config(roots: &[u8], identity: Option<(&[u8], &[u8])>) -> Result<rustls::ClientConfig, TlsError> {
    let mut store = rustls::RootCertStore::empty();
    for certificate in certificates(roots)? {
        store.add(certificate).map_err(|e| content("CA bundle", e))?;
    }
    let builder = rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .map_err(|e| content("TLS", e))?
        .with_root_certificates(store);
    with_identity(builder, identity)
}

/// Ends a client configuration: with a certificate and key (PEM), or without.
fn with_identity(
    builder: rustls::ConfigBuilder<rustls::ClientConfig, rustls::client::WantsClientCert>,
    identity: Option<(&[u8], &[u8])>,
) -> Result<rustls::ClientConfig, TlsError> {
    match identity {
        None => Ok(builder.with_no_client_auth()),
        Some((certificate, key)) => builder
            .with_client_auth_cert(certificates(certificate)?, private_key(key)?)
            .map_err(|e| content("client certificate", e)),
    }
}
